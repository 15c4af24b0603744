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
from brainkit.metrics.resampling import bootstrap_weights, group_codes, interval, jackknife_weights

_BLOCK = 1024  # vertices of a block
FEWEST = 10  # vertices of a group that has a correlation


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
        Group of vertices -> ``r`` (Pearson, over the vertices used), ``low``, ``high`` (its interval over stimuli) and
        ``n`` (vertices used). NaN where there are fewer than 10.
    method : {"BCa", "percentile", None}
        Of the intervals.
    """

    depth: np.ndarray
    other: np.ndarray
    shares: np.ndarray
    used: np.ndarray
    groups: dict[str, dict[str, float]]
    method: str | None


def depth_agreement(
    depth: np.ndarray,
    layer_predictions: np.ndarray,
    responses: np.ndarray,
    *,
    groups: Iterable[Any] | None = None,
    rois: Mapping[str, np.ndarray] | None = None,
    bootstrap: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> DepthAgreement:
    """Correlate depth with the depth of a regression's layer shares, over vertices.

    The share of layer l in R2 is the product measure, sum_i (2 y_i f_il - f_il f_i) / sum_i y_i^2 over the test images
    i, with f_i = sum_l f_il. The depth is sum_l l s_l / sum_l s_l over the layers with a positive share s_l.

    The interval is over stimuli: for other test images, shares and correlation would be others. It does not cover that
    other training images would give other models.

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
    bootstrap : int
        Draws.
    level : float
    seed : int

    Raises
    ------
    UsageError
        If there is one layer only.

    References
    ----------
    Product measure: Hoffman (1960), Psychological Bulletin 57; Dupre la Tour et al. (2022), NeuroImage 264, as
    ``himalaya.scoring.r2_score_split``. Variance partitioning over layers: Lin et al. (2024), NeuroImage 298.
    """
    layers, n, vertices = layer_predictions.shape
    if layers < 2:
        raise UsageError("layer_predictions: expected at least 2 layers, got 1: there is no depth to compare")
    codes = group_codes(groups, n)
    weights = np.concatenate([bootstrap_weights(codes, bootstrap, seed), jackknife_weights(codes)])
    members = {"all": np.arange(vertices), **(rois or {})}
    within = np.zeros((vertices, len(members)), np.float32)
    for column, positions in enumerate(members.values()):
        within[positions, column] = 1

    shares, other, used = np.empty((vertices, layers)), np.empty(vertices), np.empty(vertices, bool)
    sums, exact = np.zeros((6, len(weights), len(members))), np.zeros((6, 1, len(members)))
    for start in range(0, vertices, _BLOCK):
        block = slice(start, start + _BLOCK)
        parts = _contributions(layer_predictions[:, :, block], responses[:, block])
        total = np.square(responses[:, block].astype(np.float64)).sum(0)
        shares[block] = (parts.sum(1, dtype=np.float64) / np.where(total > 0, total, np.nan)).T
        other[block] = _mean_depth(shares[block].T[:, None])[0]
        used[block] = (shares[block].sum(1) > 0) & np.isfinite(other[block] + depth[block])
        chosen = used[block]
        drawn = _mean_depth(np.stack([weights @ part[:, chosen] for part in parts]))
        # A draw in which no layer has a share says nothing new.
        drawn = np.where(np.isnan(drawn), other[block][chosen], drawn)
        _add(sums, drawn, depth[block][chosen], within[block][chosen])
        _add(exact, other[block][chosen][None], depth[block][chosen], within[block][chosen])

    estimate, drawn_r = _correlations(exact)[0], _correlations(sums)
    low, high, method = interval(drawn_r[:bootstrap], estimate, drawn_r[bootstrap:], level)
    found = {
        name: {"r": float(estimate[k]), "low": float(low[k]), "high": float(high[k]), "n": int(exact[0, 0, k])}
        for k, name in enumerate(members)
    }
    return DepthAgreement(np.asarray(depth), other, shares, used, found, method)


def relative_depth(layer_weights: np.ndarray) -> np.ndarray:
    """The mean layer (V,) under weights (V, L) with sum 1: 0 for the first layer, 1 for the last."""
    layers = layer_weights.shape[1]
    return np.asarray(layer_weights @ (np.arange(layers) / max(layers - 1, 1)))


def _contributions(parts: np.ndarray, responses: np.ndarray) -> np.ndarray:
    """What each image adds to each layer's share, before division: (L, n, V)."""
    parts, y = np.asarray(parts, np.float32), np.asarray(responses, np.float32)
    return np.asarray(parts * (2 * y - parts.sum(0)))


def _mean_depth(shares: np.ndarray) -> np.ndarray:
    """The mean depth (k, V) of shares (L, k, V), by their positive ones; NaN if there are none."""
    positive = np.maximum(shares, 0)
    total = positive.sum(0)
    weighted = np.einsum("lkv,l->kv", positive, np.arange(len(shares)) / (len(shares) - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, weighted / total, np.nan)


def _add(sums: np.ndarray, drawn: np.ndarray, depth: np.ndarray, within: np.ndarray) -> None:
    """Add vertices to the counts, sums, squares and products of each group."""
    sums[0] += within.sum(0)
    for k, values in enumerate((drawn, drawn**2, drawn * depth), 1):
        sums[k] += values @ within
    sums[4] += depth @ within
    sums[5] += depth**2 @ within


def _correlations(sums: np.ndarray) -> np.ndarray:
    """Pearson correlation for each draw and group; NaN for fewer than `FEWEST` vertices or equal depths."""
    n, x, xx, xy, y, yy = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        variances = (xx - x * x / n) * (yy - y * y / n)
        r = (xy - x * y / n) / np.sqrt(variances)
    return np.where((n >= FEWEST) & (variances > 1e-12 * n * n), r, np.nan)
