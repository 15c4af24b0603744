"""Whether an independent method finds the same depth: layer selection beside the layer shares of banded ridge.

FactorTopy learns which layers a vertex reads. Banded ridge regression on the same tokens says it in another way: its
prediction is a sum of parts, one from each layer, and each part has a share in the variance that the whole explains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainkit.errors import UsageError
from brainkit.metrics.resampling import LEAST_GROUPS, group_codes
from brainkit.metrics.spin import Sphere, smoothed_p, spin, spun_values

FEWEST = 10  # vertices of a group that has a correlation
_BLOCK = 1024  # vertices of a block
_HALVINGS = 100


@dataclass(frozen=True, eq=False)
class DepthAgreement:
    """Depth by two methods, relative: 0 is the first layer, 1 the last.

    Attributes
    ----------
    depth : array of shape (V,)
        By FactorTopy: the mean layer under its layer weights.
    other : array of shape (V,)
        By banded ridge: the mean layer under its layers' shares; NaN where no layer has one.
    shares : array of shape (V, L)
        Of the variance of the test responses (product measure): their sum is R2, some may be negative.
    used : array of shape (V,), bool
        The vertices compared: those at which banded ridge explains any variance of the test images.
    groups : dict
        Group of vertices -> ``r`` (Pearson, over the vertices used), ``low``, ``high`` (its interval over stimuli),
        ``reliability`` (of `other`, over halves of the test stimuli, Spearman-Brown) and ``n`` (vertices used). NaN
        where there are fewer than 10 vertices; no interval with fewer than 10 stimuli.
    p : float
        Of the correlation over all vertices used: the spin test, two-sided; NaN without it.
    no_spin : str or None
        Why there is no spin test.
    """

    depth: np.ndarray
    other: np.ndarray
    shares: np.ndarray
    used: np.ndarray
    groups: dict[str, dict[str, float]]
    p: float
    no_spin: str | None


def depth_agreement(
    depth: np.ndarray,
    layer_predictions: np.ndarray,
    responses: np.ndarray,
    *,
    groups: Iterable[Any] | None = None,
    rois: Mapping[str, np.ndarray] | None = None,
    sphere: Sphere | None = None,
    rotations: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> DepthAgreement:
    """Correlate depth with the depth of a regression's layer shares, over vertices.

    The share of layer l in R2 is the product measure, sum_i (2 y_i f_il - f_il f_i) / sum_i y_i^2 over the test images
    i, with f_i = sum_l f_il. The depth is sum_l l s_l / sum_l s_l over the layers with a positive share s_l.

    Shares are noisy with few test images, which lowers the correlation; it cannot be expected to exceed the square root
    of the reliability. The interval says where the correlation of other test sets of this size lies: Fisher's z varies
    between random halves of the stimuli, drawn without replacement, about as much as between whole test sets. A
    bootstrap would not do, since it repeats stimuli, and so lowers the correlation further. That other training images
    would give other models is not in it.

    Parameters
    ----------
    depth : array of shape (V,)
        Relative, in [0, 1].
    layer_predictions : array of shape (L, n, V)
        The parts of the predictions that come from each layer, L >= 2, without the mean response; may be a memory map.
    responses : array of shape (n, V)
        Without the mean response.
    groups : n labels, optional
        The stimulus of each image.
    rois : mapping of str to positions, optional
        Groups of vertices; "all" is always there.
    sphere : Sphere, optional
        Where the vertices lie, for the spin test: smooth maps correlate by chance, so FactorTopy's map is rotated.
    rotations : int
    level : float
        Of the interval.
    seed : int
        Of the halves and rotations.

    Raises
    ------
    UsageError
        If there is one layer only.

    References
    ----------
    Product measure: Hoffman (1960), Psychological Bulletin 57; Dupre la Tour et al. (2022), NeuroImage 264, as
    ``himalaya.scoring.r2_score_split``. Variance partitioning over layers: Lin et al. (2024), NeuroImage 298. Half
    samples: Shao & Wu (1989), A general theory for jackknife variance estimation, Annals of Statistics 17.
    """
    layers, n, vertices = layer_predictions.shape
    if layers < 2:
        raise UsageError("layer_predictions: expected at least 2 layers, got 1: there is no depth to compare")
    codes = group_codes(groups, n)
    weights = np.concatenate([np.ones((1, n), np.float32), _halves(codes, seed)])
    shares, depths = np.empty((vertices, layers)), np.empty((len(weights), vertices))
    for start in range(0, vertices, _BLOCK):
        block = slice(start, start + _BLOCK)
        parts = _contributions(layer_predictions[:, :, block], responses[:, block])
        total = np.square(responses[:, block].astype(np.float64)).sum(0)
        summed = np.stack([weights @ part for part in parts])
        shares[block] = (summed[:, 0] / np.where(total > 0, total, np.nan)).T
        depths[:, block] = _mean_depth(summed)
    other = depths[0]
    # A part of the images in which no layer has a share says nothing new.
    depths = np.where(np.isnan(depths), other, depths)
    used = (shares.sum(1) > 0) & np.isfinite(other + depth)

    found = {}
    for name, members in {"all": np.arange(vertices), **(rois or {})}.items():
        chosen = np.asarray(members)[used[members]]
        r = _correlations(depths[:, chosen], depth[chosen])
        low, high = _interval(r[0], r[1:], int(codes.max()) + 1, level)
        reliability = _reliability(depths[1:, chosen])
        found[name] = {"r": float(r[0]), "low": low, "high": high, "reliability": reliability, "n": len(chosen)}
    p, no_spin = _spin_test(found["all"]["r"], depth, other, used, sphere, rotations, seed)
    return DepthAgreement(np.asarray(depth), other, shares, used, found, p, no_spin)


def _contributions(parts: np.ndarray, responses: np.ndarray) -> np.ndarray:
    """What each image adds to each layer's share, before division: (L, n, V)."""
    parts, y = np.asarray(parts, np.float32), np.asarray(responses, np.float32)
    return np.asarray(parts * (2 * y - parts.sum(0)))


def _mean_depth(shares: np.ndarray) -> np.ndarray:
    """The mean depth (k, V) of shares (L, k, V), by their positive ones; NaN if there are none."""
    positive = np.maximum(shares, 0).astype(np.float64)
    total = positive.sum(0)
    weighted = np.einsum("lkv,l->kv", positive, np.arange(len(shares)) / (len(shares) - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, weighted / total, np.nan)


def _halves(codes: np.ndarray, seed: int) -> np.ndarray:
    """Weights of random halves of the stimuli and of the other halves, in turn: (2 * halvings, n)."""
    draw, count = np.random.default_rng((seed, 6)), int(codes.max()) + 1
    first = np.stack([draw.permutation(count) < count // 2 for _ in range(_HALVINGS)])[:, codes]
    return np.stack([first, ~first], 1).reshape(-1, len(codes)).astype(np.float32)


def _correlations(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Pearson correlation of each row with values; NaN for fewer than `FEWEST` or equal ones."""
    if len(values) < FEWEST:
        return np.full(len(rows), np.nan)
    a, b = rows - rows.mean(1, keepdims=True), values - values.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((a * b).sum(1) / np.sqrt(np.square(a).sum(1) * np.square(b).sum(axis=-1)))


def _spin_test(
    r: float,
    depth: np.ndarray,
    other: np.ndarray,
    used: np.ndarray,
    sphere: Sphere | None,
    rotations: int,
    seed: int,
) -> tuple[float, str | None]:
    """p of a correlation when FactorTopy's map is rotated over the sphere, or why there is none."""
    if sphere is None or not np.isfinite(r):
        return float("nan"), "the vertices do not lie on a sphere" if sphere is None else "there is no correlation"
    try:
        rotated = spun_values(depth, spin(sphere, np.flatnonzero(used), rotations, seed))
    except UsageError as error:
        return float("nan"), str(error)
    null = []
    for values in rotated:
        known = ~np.isnan(values)
        null.append(_correlations(values[None, known], other[used][known])[0])
    return smoothed_p(r, np.array(null)), None


def _interval(r: float, of_halves: np.ndarray, stimuli: int, level: float) -> tuple[float, float]:
    from scipy.special import stdtrit

    if stimuli < LEAST_GROUPS or not np.isfinite(r):
        return float("nan"), float("nan")
    z = np.arctanh(np.clip([r, *of_halves], -1 + 1e-12, 1 - 1e-12))
    ends = np.array([-1, 1]) * stdtrit(stimuli - 1, (1 + level) / 2) * z[1:].std()
    low, high = np.tanh(z[0] + ends)
    return float(low), float(high)


def _reliability(halves: np.ndarray) -> float:
    """Of depths (2 * halvings, V): the mean correlation of two halves, corrected for their length."""
    pairs = [_correlations(first[None], second)[0] for first, second in zip(halves[::2], halves[1::2], strict=True)]
    r = float(np.mean(pairs))
    return 2 * r / (1 + r) if r > -1 else float("nan")
