"""Predictions against responses: scores per vertex and by region, with intervals and tests over stimuli."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.errors import UsageError
from brainkit.evaluation.evaluation import Evaluation, Official, Summary
from brainkit.evaluation.resampled import (
    ALL,
    centre_intervals,
    centres,
    known_columns,
    resample,
    summaries,
    vertex_intervals,
)
from brainkit.metrics.correlation import StreamingCorrelation
from brainkit.metrics.permutation import permutation_test, permuted_images
from brainkit.metrics.resampling import (
    LEAST_GROUPS,
    bootstrap_weights,
    group_codes,
    jackknife_weights,
    weighted_correlations,
    weighted_scores,
)
from brainkit.metrics.scores import LEAST_CEILING, explained_share, official_score
from brainkit.metrics.significance import false_discovery_rate
from brainkit.utils.text import one_line

_BATCH = 2**22  # values of a batch of images


def evaluate(
    predictions: npt.ArrayLike,
    responses: npt.ArrayLike,
    *,
    noise_ceiling: npt.ArrayLike | None = None,
    rois: Mapping[str, npt.ArrayLike] | None = None,
    groups: Iterable[Any] | None = None,
    bootstrap: int = 2000,
    permutations: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Compare predictions with responses to the same images.

    Parameters
    ----------
    predictions, responses : arrays of shape (n, V)
        n >= 2 images, V vertices. May be memory maps.
    noise_ceiling : array of shape (V,), optional
        The largest r^2 that the noise allows, as a fraction; NaN where unknown.
    rois : mapping of str to positions, optional
        Positions among the V vertices, or masks of shape (V,), of every group of vertices to summarise.
    groups : n labels, optional
        The stimulus of each image: images of one stimulus are resampled together. Default: each image is its own.
    bootstrap, permutations : int
        Numbers of draws; 0 leaves out the intervals or the test.
    level : float
        Of the intervals, in (0, 1).
    seed : int
        The same seed gives the same numbers.

    Returns
    -------
    Evaluation
        Its intervals are about other stimuli of the same kind, shown to this subject.

    Raises
    ------
    UsageError
        If values are not numbers, shapes do not fit, there are fewer than two images, or a ceiling is not a fraction.
    """
    p, y = _numbers(predictions, "predictions"), _numbers(responses, "responses")
    _check(p, y, level, bootstrap=bootstrap, permutations=permutations, seed=seed)
    n, vertices = p.shape
    ceiling = _checked_ceiling(noise_ceiling, vertices)
    members = _members(rois or {}, vertices)
    codes = group_codes(groups, n)

    streamed = StreamingCorrelation(vertices)
    batch = max(_BATCH // max(vertices, 1), 1)
    for start in range(0, n, batch):
        streamed.update(p[start : start + batch], y[start : start + batch])
    r, R2 = streamed.r, streamed.R2
    constant_prediction, constant_response = streamed.constant
    # A missing prediction is no prediction of 0.
    ceiling[~(streamed.responds & streamed.is_predicted)] = np.nan
    points = {"r": r, "R2": R2, "explained": explained_share(r, ceiling)}

    weights = jackknife_weights(codes)
    draws = bootstrap if codes.max() + 1 >= LEAST_GROUPS else 0
    if draws:
        weights = np.concatenate([bootstrap_weights(codes, draws, seed), weights])
    low, high, method, summaries = _intervals(p, y, weights, draws, level, points, ceiling, members)
    test = permutation_test(p, y, r, codes, permutations, seed)
    usable = np.nan_to_num(ceiling) >= LEAST_CEILING
    return Evaluation(
        r=r,
        R2=R2,
        explained=points["explained"],
        explained_raw=np.where(usable, np.nan_to_num(r).clip(min=0) ** 2 / np.where(usable, ceiling, 1), np.nan),
        r_low=low,
        r_high=high,
        p=test.p,
        q=false_discovery_rate(test.p),
        p_max=test.p_max,
        noise_ceiling=ceiling,
        groups=summaries,
        official=_official(r, ceiling),
        n_images=n,
        n_groups=int(codes.max()) + 1,
        n_permuted=permuted_images(codes),
        method=method,
        level=level,
        bootstrap=bootstrap,
        permutations=permutations,
        seed=seed,
        constant_predictions=int(constant_prediction.sum()),
        constant_responses=int(constant_response.sum()),
    )


def _numbers(values: npt.ArrayLike, name: str) -> Any:
    """The values as they are if they are real floating-point numbers, else as float64."""
    try:
        array = np.asanyarray(values)
        if array.dtype.kind not in "fiubO":
            raise UsageError(f"{name}: expected real numbers, found {array.dtype.name}")
        return array if array.dtype.kind == "f" else np.asarray(array, np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: expected an array of real numbers ({one_line(error)})") from None


def _check(p: Any, y: Any, level: float, **counts: int) -> None:
    if p.ndim != 2 or p.shape != y.shape:
        raise UsageError(f"predictions and responses: expected both (images, vertices), found {p.shape} and {y.shape}")
    if len(p) < 2:
        raise UsageError(f"predictions: expected at least 2 images, found {len(p)}; a correlation needs several")
    if not isinstance(level, Real) or not 0 < level < 1:
        raise UsageError(f"level: expected a number between 0 and 1, found {level!r}")
    for name, count in counts.items():
        if not isinstance(count, Integral) or count < 0:
            raise UsageError(f"{name}: expected a whole number, 0 or more, found {count}")


def _checked_ceiling(noise_ceiling: npt.ArrayLike | None, vertices: int) -> np.ndarray:
    given = np.full(vertices, np.nan) if noise_ceiling is None else _numbers(noise_ceiling, "noise_ceiling")
    ceiling = np.array(given, np.float64)  # a copy: it is changed
    if ceiling.shape != (vertices,):
        raise UsageError(f"noise_ceiling: expected one for each of the {vertices} vertices, found {ceiling.shape}")
    if (ceiling < 0).any() or (ceiling > 1 + 1e-6).any():
        found = f"{np.nanmin(ceiling):g} to {np.nanmax(ceiling):g}"
        remedy = "set negative ones to 0" if (ceiling < 0).any() else "divide percent by 100"
        raise UsageError(f"noise_ceiling: expected fractions in [0, 1], found {found}; {remedy}")
    return ceiling


def _members(rois: Mapping[str, npt.ArrayLike], vertices: int) -> dict[str, np.ndarray]:
    """Positions of each group's vertices, those of all vertices first."""
    if not isinstance(rois, Mapping):
        raise UsageError(f"rois: expected a mapping of names to vertex positions, found {type(rois).__name__}")
    members = {ALL: np.arange(vertices)}
    for name, given in rois.items():
        positions = np.asarray(given)
        if positions.dtype == bool and positions.shape == (vertices,):
            positions = np.flatnonzero(positions)
        if not positions.size:
            positions = np.empty(0, int)
        if positions.ndim != 1 or positions.dtype.kind not in "iu":
            raise UsageError(f"ROI {name}: expected vertex positions or a mask of {vertices}, found {positions.dtype}")
        if positions.size and not 0 <= positions.min() <= positions.max() < vertices:
            found = f"{positions.min()} to {positions.max()}"
            raise UsageError(f"ROI {name}: expected positions in 0 to {vertices - 1}, found {found}")
        if name == ALL:
            raise UsageError(f"ROI {name}: this name stands for all vertices; choose another")
        members[name] = np.unique(positions)
    return members


def _intervals(
    p: Any,
    y: Any,
    weights: np.ndarray,
    bootstrap: int,
    level: float,
    points: dict[str, np.ndarray],
    ceiling: np.ndarray,
    members: dict[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, str | None, dict[str, dict[str, Summary]]]:
    """Intervals of r per vertex, and summaries of every measure and group. `weights`: bootstrap, then jackknife."""
    columns = known_columns(members, points)
    estimates = np.array([centres(points[measure], chosen) for _, measure, chosen in columns])  # (columns, 2)
    draws = len(weights) if bootstrap else 0
    drawn, r = resample(lambda rows: weighted_scores(p, y, weights[rows]), draws, p.shape[1], ceiling, columns)

    def correlations(block: slice) -> np.ndarray:
        return weighted_correlations(p[:, block], y[:, block], weights) if r is None else r[:, block]

    low, high, method = vertex_intervals(correlations, points["r"], draws, bootstrap, level)
    ends = centre_intervals(drawn, estimates, columns, bootstrap, level)
    return low, high, method, summaries(columns, estimates, *ends)


def _official(r: np.ndarray, ceiling: np.ndarray) -> Official:
    score = official_score(r, ceiling)
    return {"mean": score.mean, "median": score.median, "n": score.n}
