"""Bootstrap over groups of images: the images of one stimulus move together, and all vertices share every draw.

The draws are weights of images, so that every weighted correlation of all vertices is a matrix product.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from brainkit.errors import UsageError

LEAST_GROUPS = 10  # with fewer, there is no interval
LEAST_GROUPS_BCA = 30  # with fewer, an acceleration estimated from the groups is mostly noise
_JACKKNIFE_BLOCKS = 200
_COLUMNS = 1024  # vertices of a block
_MOST_Z0 = 0.5  # of BCa's bias correction; beyond it, the quantiles would lie among the outermost draws
# A resample whose variance is a smaller share of its second moment is constant, but for rounding in float32.
_CONSTANT = 1e-5


def group_codes(groups: Iterable[Any] | None, n: int) -> np.ndarray:
    """Number the groups of n images in the order in which they appear.

    Parameters
    ----------
    groups : n labels, or None
        Of the stimulus that each image shows; None: every image is a stimulus of its own.
    n : int

    Returns
    -------
    array of shape (n,), int64
        In 0 .. number of groups - 1.

    Raises
    ------
    UsageError
        If there are not n labels.
    """
    if groups is None:
        return np.arange(n)
    labels = np.asarray(groups if isinstance(groups, np.ndarray) else list(groups), dtype=object)
    if labels.shape != (n,):
        raise UsageError(f"groups: expected one label for each of the {n} images, found {labels.shape}")
    known: dict[Any, int] = {}
    return np.array([known.setdefault(label, len(known)) for label in labels.tolist()], np.int64)


def bootstrap_weights(codes: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """How often each image occurs in each bootstrap sample; groups are drawn with replacement.

    Parameters
    ----------
    codes : int array of shape (n,)
        From :func:`group_codes`.
    draws : int
    seed : int

    Returns
    -------
    array of shape (draws, n), float32
        Whole numbers; equal within a group.
    """
    count = int(codes.max()) + 1
    picks = np.random.default_rng(seed).integers(0, count, (draws, count))
    picks += np.arange(draws)[:, None] * count
    drawn = np.bincount(picks.ravel(), minlength=draws * count).reshape(draws, count)
    return drawn.astype(np.float32)[:, codes]


def jackknife_weights(codes: np.ndarray) -> np.ndarray:
    """Leave out one group of images at a time; of more than 200 groups, one of 200 near-equal blocks of groups.

    Returns
    -------
    array of shape (min(groups, 200), n), float32
        0 for the images that are left out, 1 for the others.
    """
    blocks = min(int(codes.max()) + 1, _JACKKNIFE_BLOCKS)
    return (codes % blocks != np.arange(blocks)[:, None]).astype(np.float32)


def weighted_correlations(predictions: Any, responses: Any, weights: np.ndarray) -> np.ndarray:
    """Pearson correlation per vertex, for every set of weights of the images.

    Parameters
    ----------
    predictions, responses : arrays of shape (n, V)
        May be memory maps: they are read in blocks of vertices.
    weights : array of shape (draws, n)
        Not negative.

    Returns
    -------
    array of shape (draws, V), float32
        Accurate to about 1e-6; NaN where prediction or response is constant or not finite, 0 where they are so in
        this sample alone.
    """
    return weighted_scores(predictions, responses, weights, with_R2=False)[0]


def weighted_scores(
    predictions: Any, responses: Any, weights: np.ndarray, *, with_R2: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Pearson correlation and R2 per vertex, for every set of weights; parameters as for `weighted_correlations`.

    Returns
    -------
    r, R2 : arrays of shape (draws, V), float32
        R2 has no rows if it is not wanted. It is relative to the mean response of all images: relative to that of a
        sample it would be too low by (1 - R2) / n, and its intervals beside the estimate.
    """
    vertices = predictions.shape[1]
    shares = (weights / weights.sum(axis=1, keepdims=True, dtype=np.float64)).astype(np.float32)
    r = np.empty((len(weights), vertices), np.float32)
    R2 = np.empty((len(weights) if with_R2 else 0, vertices), np.float32)
    for start in range(0, vertices, _COLUMNS):
        block = slice(start, start + _COLUMNS)
        p, mean_p, sd_p = standardised(predictions[:, block])
        y, mean_y, sd_y = standardised(responses[:, block])
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            r[:, block], pp, yy, py, mp, my = _moments(p, y, shares)
            if with_R2:
                slope, offset = ((sd_p / sd_y).astype(np.float32), ((mean_p - mean_y) / sd_y).astype(np.float32))
                sse = yy + slope * (slope * pp - 2 * py) + offset * (offset - 2 * my + 2 * slope * mp)
                part = 1 - sse / yy
                part[_is_constant(yy, my)] = 0
                part[:, sd_y == 0] = np.nan
                R2[:, block] = part
            r[:, block][:, (sd_p == 0) | (sd_y == 0)] = np.nan
    return r, R2


def interval(
    draws: np.ndarray,
    estimate: Any,
    jackknife: np.ndarray,
    level: float = 0.95,
    *,
    corrected: bool = True,
    biased: np.ndarray | None = None,
    groups: int | None = None,
) -> tuple[np.ndarray, np.ndarray, str | None]:
    """Confidence intervals of k statistics from their bootstrap draws.

    Parameters
    ----------
    draws : array of shape (draws, k)
        The statistics under :func:`bootstrap_weights`.
    estimate : array of shape (k,)
        The statistics of the data.
    jackknife : array of shape (groups, k)
        The statistics under :func:`jackknife_weights`.
    level : float
        In (0, 1).
    corrected : bool
        False for medians and means over vertices, which get percentile intervals. A median over vertices is not smooth
        in the images: it jumps from one vertex to the next, which BCa takes for a bias (its 95 % intervals cover 85 %).
    biased : bool array of shape (k,), optional
        Of `corrected=False`: statistics that are known to be biased, and the draws by as much again. Draws that are
        moved by twice their bias are right in the middle, but the bias is estimated from the same data, so that they
        cover too rarely; the interval goes to the outer ends of both.
    groups : int, optional
        How many groups the statistic hangs on, if these are fewer than the jackknife has rows: of a difference of two
        sets, those of the smaller one.

    Returns
    -------
    low, high : arrays of shape (k,), float64
        NaN with fewer than 10 groups, and where the estimate is NaN.
    method : {"BCa", "percentile", None}
        BCa from 30 groups on, if `corrected`.

    Notes
    -----
    The quantiles are widened as in Hesterberg (2015): by t instead of the normal distribution, and by
    sqrt(n / (n - 1)). Where nearly all draws lie on one side of the estimate, BCa needs quantiles beyond the draws;
    there the draws are moved by twice their bias instead, which is the same for normal draws.

    References
    ----------
    Efron (1987), Better bootstrap confidence intervals. Hesterberg (2015), What teachers should know about the
    bootstrap.
    """
    from scipy.special import ndtr, stdtrit

    rows, k = jackknife.shape
    groups = rows if groups is None else min(groups, rows)
    if groups < LEAST_GROUPS:
        return np.full(k, np.nan), np.full(k, np.nan), None
    point = np.asarray(estimate, np.float64)
    half_width = stdtrit(groups - 1, (1 + level) / 2) * np.sqrt(groups / (groups - 1))
    z = np.array([[-half_width], [half_width]])
    ordered = np.sort(draws.T, axis=1)  # a row per statistic
    method = "BCa" if corrected and groups >= LEAST_GROUPS_BCA else "percentile"
    shift = np.zeros(k)
    if method == "BCa":
        z, shift = _corrected(z, ordered, point, jackknife)
    low, high = (_quantiles(ordered, ndtr(np.broadcast_to(each, k))) - shift for each in z)
    if biased is not None:
        shift = np.where(biased, 2 * (_middle(ordered) - point), 0)
        low, high = np.minimum(low, low - shift), np.maximum(high, high - shift)
    unknown = np.isnan(point)
    low[unknown], high[unknown] = np.nan, np.nan
    return low, high, method


def _corrected(
    z: np.ndarray, ordered: np.ndarray, point: np.ndarray, jackknife: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The z values of BCa's quantiles (2, k), and what to subtract from the draws (k,)."""
    from scipy.special import ndtri

    below = (ordered < point[:, None]).mean(axis=1) + (ordered == point[:, None]).mean(axis=1) / 2
    z0 = ndtri(below)
    biased = ~(np.abs(z0) <= _MOST_Z0)
    shift = np.where(biased, 2 * (_middle(ordered) - point), 0)
    z0[biased] = 0
    influence = jackknife.mean(axis=0, dtype=np.float64) - jackknife
    cubes, squares = (influence**3).sum(axis=0), (influence**2).sum(axis=0)
    acceleration = cubes / (6 * np.where(squares > 0, squares, 1) ** 1.5)
    return z0 + (z0 + z) / (1 - acceleration * (z0 + z)), shift


def standardised(values: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns with mean 0 and s.d. 1 as float32, their means and s.d. (0: constant or not finite; the column is 0)."""
    block = np.asarray(values, np.float64)
    first = np.where(np.isfinite(block[0]), block[0], 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        block = block - first  # a constant column becomes exactly 0
        mean = block.mean(axis=0)
        block -= mean
        sd = np.sqrt(np.square(block).mean(axis=0))
    bad = ~np.isfinite(sd)
    block[:, bad], sd[bad] = 0, 0
    block /= np.where(sd > 0, sd, 1.0)
    return block.astype(np.float32), mean + first, sd


def _moments(p: np.ndarray, y: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, ...]:
    """Correlations, weighted means of squares and products, and weighted means: (draws, columns) each."""
    mp, my, pp, yy, py = shares @ p, shares @ y, shares @ (p * p), shares @ (y * y), shares @ (p * y)
    r = (py - mp * my) / np.sqrt((pp - mp * mp) * (yy - my * my))
    r[_is_constant(pp, mp) | _is_constant(yy, my)] = 0
    return np.clip(r, -1, 1, out=r), pp, yy, py, mp, my


def _is_constant(square: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return np.asarray(square - mean * mean <= _CONSTANT * square)


def _middle(ordered: np.ndarray) -> np.ndarray:
    """The median of each row."""
    return np.asarray((ordered[:, (ordered.shape[1] - 1) // 2] + ordered[:, ordered.shape[1] // 2]) / 2, np.float64)


def _quantiles(ordered: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """A quantile of each row (k, draws), interpolated: (k,), float64."""
    position = np.nan_to_num(shares) * (ordered.shape[1] - 1)
    before = np.floor(position).astype(int)
    after = np.minimum(before + 1, ordered.shape[1] - 1)
    rows, part = np.arange(len(ordered)), position - before
    return np.asarray(ordered[rows, before] * (1 - part) + ordered[rows, after] * part, np.float64)
