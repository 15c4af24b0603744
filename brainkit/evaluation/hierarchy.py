"""Does the network's depth follow the order of the cortex? Preferred depth against the order of areas.

The line is fitted over vertices, which are not independent. So its intervals come from runs of the same network on
other images and seeds, and its null from maps that are as smooth (`brainkit.metrics.spin`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainkit.cortex.rois import RoiTable
from brainkit.errors import UsageError
from brainkit.metrics.spin import Spins, smoothed_p, spun_values

ROI_ORDER = (
    ("V1", ("V1",)),
    ("V2", ("V2",)),
    ("V3", ("V3",)),
    ("V4", ("V4",)),
    ("higher", ("floc-bodies", "floc-faces", "floc-places", "floc-words", "FFA", "PPA", "EBA", "LOC", "OFA", "OPA")),
)
STREAM_ORDER = (
    ("early", ("early",)),
    ("mid", ("midventral", "midlateral", "midparietal")),
    ("high", ("ventral", "lateral", "parietal")),
)
_SAME_IMAGES = 0.9  # runs that share more of their training images than this say nothing about other images
_LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class AreaOrder:
    """Areas from early to late, no vertex in two of them.

    Attributes
    ----------
    names : tuple of str
    members : tuple of int arrays
        Positions of each area's vertices.
    """

    names: tuple[str, ...]
    members: tuple[np.ndarray, ...]

    @property
    def vertices(self) -> np.ndarray:
        """Positions of the vertices of all areas, (k,)."""
        return np.concatenate(self.members)

    @property
    def steps(self) -> np.ndarray:
        """The area of each of these vertices: 0 for the first, (k,) float64."""
        return np.repeat(np.arange(len(self.names), dtype=np.float64), [len(each) for each in self.members])


def order_areas(rois: RoiTable, order: str | None = None) -> AreaOrder | None:
    """Areas of a table from early to late.

    Parameters
    ----------
    rois : RoiTable
    order : str, optional
        ``"rois"``: V1 < V2 < V3 < V4 < higher (category-selective areas); ``"streams"``: early < mid (ventral, lateral,
        parietal) < high (the same). By default the first of the two of which the table has at least three areas. Else
        names with commas between, early first; ``+`` joins several to one area, ``-`` leaves one out:
        ``"V1,V2+V3,FFA"``.

    Returns
    -------
    AreaOrder or None
        None where no order was asked for and the table has none. A vertex in several areas counts for the first.

    Raises
    ------
    UsageError
        If an area is unknown or has no vertices, or fewer than two are named.
    """
    if order is None:
        known = (_known_areas(rois, areas) for areas in (ROI_ORDER, STREAM_ORDER))
        return next((found for found in known if found is not None and len(found.names) >= 3), None)
    if order in ("rois", "streams"):
        found = _known_areas(rois, ROI_ORDER if order == "rois" else STREAM_ORDER)
        if found is None or len(found.names) < 2:
            raise UsageError(f"order {order}: expected at least two of its areas, found the ROIs {_names(rois)}")
        return found
    names = rois.split_names(order)
    areas = [(name, rois.members(name)) for name in names]
    return _apart(areas, required=True)


def fit_line(steps: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least-squares lines of depth (..., k) on the order of the areas (k,), over the vertices that have a depth.

    Returns
    -------
    slope, intercept, r : arrays of shape (...)
        NaN with fewer than 3 vertices, or where all are of one area or of one depth.
    """
    known = np.isfinite(depth)
    count = known.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = np.where(known, steps, 0.0), np.where(known, depth, 0.0)
        mean_x, mean_y = x.sum(-1) / count, y.sum(-1) / count
        x, y = np.where(known, x - mean_x[..., None], 0), np.where(known, y - mean_y[..., None], 0)
        xx, yy, xy = (x * x).sum(-1), (y * y).sum(-1), (x * y).sum(-1)
        valid = (count > 2) & (xx > 0) & (yy > 1e-14 * count)
        slope, r = np.where(valid, xy / xx, np.nan), np.where(valid, xy / np.sqrt(xx * yy), np.nan)
    return slope, mean_y - slope * mean_x, r


def analyse_hierarchy(
    depth: np.ndarray,
    order: AreaOrder,
    *,
    spins: Spins | None = None,
    shared: np.ndarray | None = None,
    level: float = _LEVEL,
) -> dict[str, Any]:
    """Fit preferred depth against the order of the areas.

    Parameters
    ----------
    depth : array of shape (runs, V)
        Relative depth of each vertex in each run of one network, see
        :func:`brainkit.metrics.depth.relative_depth`; NaN where unknown.
    order : AreaOrder
    spins : Spins, optional
        Rotations of the vertices ``order.vertices``: the null.
    shared : array of shape (runs, runs), optional
        Which training images the runs share, see `shared_images`; without it there are no intervals.
    level : float
        Of the intervals.

    Returns
    -------
    dict
        ``vertices``, ``runs``, ``interval_over`` (``"images and seeds"``, ``"seeds"`` or None); ``slope`` (of relative
        depth per area), ``intercept``, ``r2``: ``value``, ``low``, ``high``, ``p``; ``areas`` -> name -> ``depth``
        (mean), ``low``, ``high``, ``vertices``, ``null_low``, ``null_high``; ``spin``: ``rotations``, ``overlap``,
        ``slope_low``, ``slope_high`` of the null, or None. None where a number does not exist.

        p is that of the correlation of depth and order, two-sided, over rotations; the intercept has none.
    """
    own = np.asarray(depth, np.float64)[:, order.vertices]
    slope, intercept, r = fit_line(order.steps, own)
    lines = {"slope": slope, "intercept": intercept, "r2": r**2}
    intervals = {name: run_interval(values, shared, level) for name, values in lines.items()}
    intervals["r2"] = tuple(np.clip(intervals["r2"], 0, 1))
    fits = {
        name: {"value": values.mean(), "low": intervals[name][0], "high": intervals[name][1], "p": np.nan}
        for name, values in lines.items()
    }
    bounds = np.cumsum([0, *(len(members) for members in order.members)])
    slices = [slice(*ends) for ends in itertools.pairwise(bounds)]
    by_area = np.stack([_mean(own[:, each]) for each in slices], axis=1)  # (runs, areas)
    null_areas, spun = np.full((2, len(slices)), np.nan), None
    if spins is not None:
        rotated = spun_values(np.asarray(depth, np.float64).mean(0), spins)
        null_slope, _, null_r = fit_line(order.steps, rotated)
        fits["slope"]["p"] = fits["r2"]["p"] = smoothed_p(float(fit_line(order.steps, own.mean(0))[2]), null_r)
        tails = [(1 - level) / 2, (1 + level) / 2]
        null_areas = _quantiles(np.stack([_mean(rotated[:, each]) for each in slices], axis=1), tails)
        low, high = _quantiles(null_slope[:, None], tails)[:, 0]
        spun = {"rotations": len(spins.sources), "overlap": spins.overlap, "slope_low": low, "slope_high": high}
    areas = {}
    for index, name in enumerate(order.names):
        low, high = run_interval(by_area[:, index], shared, level)
        null_low, null_high = null_areas[:, index]
        areas[name] = {"depth": by_area[:, index].mean(), "low": low, "high": high}
        areas[name] |= {"vertices": len(order.members[index]), "null_low": null_low, "null_high": null_high}
    found = {"vertices": len(order.steps), "runs": len(own), "interval_over": _interval_over(len(own), shared)}
    return _plain(found | fits | {"areas": areas, "spin": spun})


def run_interval(values: np.ndarray, shared: np.ndarray | None, level: float = _LEVEL) -> tuple[float, float]:
    """Interval of the mean of a statistic over runs of one network, from how much the runs differ.

    If each training image adds its part to the statistic, two runs correlate by the share ``o`` of images that they
    have in common. With the matrix O of these shares, 1 on its diagonal, and H, which subtracts the mean, a run's
    variance is estimated by ``(sum of squares about the mean) / trace(H O H)``, and the variance of the mean is that
    times ``sum(O) / K^2``. So the interval is for the images of all runs together, be they halves, random parts, or
    images of their own. What seeds add to the differences counts as if it came from images: too high, never too low.
    Runs on the same images tell about seeds alone (O = identity). The interval is Student's t, with Satterthwaite's
    degrees of freedom: a bootstrap over few runs would be too narrow, and the halves of one pool are two views of one
    difference.

    Parameters
    ----------
    values : array of shape (K,)
    shared : array of shape (K, K), or None
        From `shared_images`.
    level : float

    Returns
    -------
    (low, high) : floats
        NaN with fewer than 2 runs.

    References
    ----------
    Satterthwaite (1946), An approximate distribution of estimates of variance components.
    """
    from scipy.stats import t

    runs = len(values)
    if runs < 2 or shared is None:
        return float("nan"), float("nan")
    overlap = np.eye(runs) if _same_images(shared) else np.asarray(shared, np.float64)
    centre = np.eye(runs) - 1 / runs
    of_differences = centre @ overlap @ centre
    trace = np.trace(of_differences)
    variance = np.sum((values - np.mean(values)) ** 2) / trace * overlap.sum() / runs**2
    reach = t.ppf((1 + level) / 2, trace**2 / np.sum(of_differences**2)) * np.sqrt(variance)
    return float(np.mean(values) - reach), float(np.mean(values) + reach)


def shared_images(images: Sequence[np.ndarray]) -> np.ndarray:
    """The share of training images that any two runs have in common, (K, K): |both| / sqrt(|one| |other|).

    Parameters
    ----------
    images : sequence of K int arrays
        The rows that each run was trained on.
    """
    sets = [np.unique(each) for each in images]
    return np.array(
        [
            [len(np.intersect1d(a, b, assume_unique=True)) / np.sqrt(max(len(a), 1) * max(len(b), 1)) for b in sets]
            for a in sets
        ]
    )


def layers_by_roi(layer_weights: np.ndarray, rois: dict[str, np.ndarray]) -> np.ndarray:
    """Mean weight of each layer in each ROI: (V, L) -> (L, R); NaN for an ROI without vertices."""
    columns = [_mean(layer_weights[members].T) for members in rois.values()]
    return np.stack(columns, axis=1) if columns else np.empty((layer_weights.shape[1], 0))


def _known_areas(rois: RoiTable, order: Sequence[tuple[str, Sequence[str]]]) -> AreaOrder | None:
    areas = []
    for name, parts in order:
        known = [part for part in parts if rois.has(part)]
        areas.append((name, rois.union(known)))
    return _apart(areas, required=False)


def _apart(areas: Sequence[tuple[str, np.ndarray]], *, required: bool) -> AreaOrder | None:
    """Areas without the vertices of those before; empty ones are left out, or refused."""
    taken = np.empty(0, np.int64)
    kept: dict[str, np.ndarray] = {}
    for name, members in areas:
        own = np.setdiff1d(members, taken)
        if len(own):
            kept[name] = own
            taken = np.concatenate([taken, own])
        elif required:
            raise UsageError(f"order: area {name}: expected vertices that no area before it has, found none")
    if required and len(kept) < 2:
        raise UsageError(f"order: expected at least two areas, early first, found {len(kept)}; separate them by commas")
    return AreaOrder(tuple(kept), tuple(kept.values())) if kept else None


def _names(rois: RoiTable) -> str:
    return ", ".join(rois.names) or "(none)"


def _interval_over(runs: int, shared: np.ndarray | None) -> str | None:
    if runs < 2 or shared is None:
        return None
    return "seeds" if _same_images(shared) else "images and seeds"


def _same_images(shared: np.ndarray) -> bool:
    """Whether the runs have so many images in common that their differences say nothing about other images."""
    return bool(shared[~np.eye(len(shared), dtype=bool)].mean() > _SAME_IMAGES)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of the values that are known; NaN where none is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, values, 0).sum(-1) / known.sum(-1))


def _quantiles(values: np.ndarray, tails: Sequence[float]) -> np.ndarray:
    """Of each column, over the rows that are known: (2, columns)."""
    found = np.full((len(tails), values.shape[1]), np.nan)
    for column in range(values.shape[1]):
        known = values[np.isfinite(values[:, column]), column]
        if len(known):
            found[:, column] = np.quantile(known, tails)
    return found


def _plain(value: Any) -> Any:
    """Numbers as JSON holds them: None for NaN."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
