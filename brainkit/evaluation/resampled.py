"""Scores in many draws of the images: their centres over groups of vertices, and intervals of these and of vertices.

Medians over vertices need all vertices of a draw, intervals of a vertex all of its draws. So draws are scored in steps
that fit into memory, and r of all draws is kept if it fits too; else blocks of vertices are scored again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from brainkit.evaluation.evaluation import Summary
from brainkit.metrics.paired import Scores
from brainkit.metrics.resampling import interval
from brainkit.metrics.scores import LEAST_CEILING
from brainkit.utils.system import cores

ALL = "all"  # the group of all vertices
MEASURES = ("r", "R2", "explained")
DRAWN = 2**27  # correlations that are held at once: 1 GB with as many R2
_ROWS = 2**21  # values of a batch of bootstrap draws
_THREADS = 8  # at most: each holds a batch of draws

Column = tuple[str, str, np.ndarray]
"""A group of vertices, a measure, and the positions of the group's vertices that have it."""


def known_columns(members: Mapping[str, np.ndarray], points: Mapping[str, np.ndarray]) -> list[Column]:
    """Every group and measure, with the vertices whose value (V,) is known."""
    finite = {measure: np.isfinite(values) for measure, values in points.items()}
    return [
        (name, measure, positions[finite[measure][positions]])
        for name, positions in members.items()
        for measure in points
    ]


def resample(
    score: Callable[[slice], Scores], draws: int, vertices: int, ceiling: np.ndarray, columns: Sequence[Column]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Score a model in many draws.

    Parameters
    ----------
    score : callable
        Gives r and R2 in some of the draws.
    draws, vertices : int
    ceiling : array of shape (V,)
    columns : sequence of Column

    Returns
    -------
    centres : array of shape (draws, columns, 2), float64
        Median and mean over the vertices of each column.
    r : array of shape (draws, V), float32, or None
        None if it does not fit into memory.
    """
    drawn = np.empty((draws, len(columns), 2))
    r = None
    for rows in steps(draws, vertices, DRAWN):
        r = None  # before the next draws take as much memory
        r, R2 = score(rows)
        drawn[rows] = drawn_centres(r, R2, ceiling, columns)
        del R2
    return drawn, r if r is not None and len(r) == draws else None


def steps(draws: int, vertices: int, held: int) -> list[slice]:
    """The draws in steps of at most `held` values."""
    step = max(held // max(vertices, 1), 1)
    return [slice(start, min(start + step, draws)) for start in range(0, draws, step)]


def drawn_centres(r: np.ndarray, R2: np.ndarray, ceiling: np.ndarray, columns: Sequence[Column]) -> np.ndarray:
    """Median and mean over vertices in each of many draws.

    Parameters
    ----------
    r, R2 : arrays of shape (draws, V)
    ceiling : array of shape (V,)
    columns : sequence of Column
        What to summarise.

    Returns
    -------
    array of shape (draws, columns, 2), float64
    """
    drawn = np.empty((len(r), len(columns), 2))
    usable = np.where(np.nan_to_num(ceiling) >= LEAST_CEILING, ceiling, np.nan).astype(np.float32)
    rows = max(_ROWS // max(r.shape[1], 1), 1)

    def fill(start: int) -> None:
        chunk = slice(start, start + rows)
        # As `brainkit.metrics.scores.explained_share`, in float32.
        explained = np.minimum(np.nan_to_num(r[chunk]).clip(min=0) ** 2 / usable, 1)
        values = {"r": r[chunk], "R2": R2[chunk], "explained": explained}
        for k, (_, measure, chosen) in enumerate(columns):
            drawn[chunk, k] = centres(values[measure], chosen)

    with ThreadPoolExecutor(min(cores(), _THREADS)) as pool:
        list(pool.map(fill, range(0, len(r), rows)))
    return drawn


def centres(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Median and mean over some vertices, the last axis: (..., 2); NaN over none, or if one of them is NaN."""
    if not len(chosen):
        return np.full((*values.shape[:-1], 2), np.nan)
    part = np.partition(values[..., chosen], len(chosen) // 2, axis=-1)  # np.median partitions thrice
    upper, below = part[..., len(chosen) // 2], part[..., : len(chosen) // 2]
    median = upper if len(chosen) % 2 else (upper + below.max(axis=-1)) / 2
    mean = part.mean(axis=-1, dtype=np.float64)
    return np.stack([np.where(np.isnan(mean), np.nan, median), mean], axis=-1)


def vertex_intervals(
    drawn: Callable[[slice], np.ndarray], estimate: np.ndarray, draws: int, bootstrap: int, level: float
) -> tuple[np.ndarray, np.ndarray, str | None]:
    """Intervals of a statistic of each vertex.

    Parameters
    ----------
    drawn : callable
        Gives the statistic of a block of vertices in all draws, (draws, k): first the bootstrap, then the jackknife.
    estimate : array of shape (V,)
    draws, bootstrap : int
        How many draws there are, and how many of them are bootstrap samples; 0: no intervals.
    level : float

    Returns
    -------
    low, high : arrays of shape (V,)
    method : {"BCa", "percentile", None}
    """
    low, high = np.full((2, len(estimate)), np.nan)
    method = None
    if bootstrap:
        width = max(_ROWS // draws, 1)
        for start in range(0, len(estimate), width):
            block = slice(start, start + width)
            values = drawn(block)
            low[block], high[block], method = interval(values[:bootstrap], estimate[block], values[bootstrap:], level)
    return low, high, method


def centre_intervals(
    drawn: np.ndarray, estimates: np.ndarray, columns: Sequence[Column], bootstrap: int, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of centres over vertices: low and high, of the shape of the estimates; NaN without bootstrap.

    Parameters
    ----------
    drawn : array of shape (draws, columns, 2)
        First the bootstrap, then the jackknife.
    estimates : array of shape (columns, 2)
    columns : sequence of Column
    bootstrap : int
        How many of the draws are bootstrap samples.
    level : float
    """
    if not bootstrap:
        return np.full(estimates.shape, np.nan), np.full(estimates.shape, np.nan)
    flat = drawn.reshape(len(drawn), -1)
    low, high, _ = interval(
        flat[:bootstrap],
        estimates.ravel(),
        flat[bootstrap:],
        level,
        corrected=False,
        biased=biased_centres(columns).ravel(),
    )
    return low.reshape(estimates.shape), high.reshape(estimates.shape)


def biased_centres(columns: Sequence[Column]) -> np.ndarray:
    """Which medians and means are biased, (columns, 2): the mean explained share.

    Squaring r raises it where r is near 0, and cutting shares at 1 lowers it near the ceiling.
    """
    return np.array([(False, measure == "explained") for _, measure, _ in columns])


def summaries(
    columns: Sequence[Column], estimates: np.ndarray, low: np.ndarray, high: np.ndarray
) -> dict[str, dict[str, Summary]]:
    """Group -> measure -> median and mean with their intervals, and how many vertices they are over.

    Parameters
    ----------
    columns : sequence of Column
    estimates, low, high : arrays of shape (columns, 2)
        Of median and mean.
    """
    found: dict[str, dict[str, Summary]] = {}
    for k, (name, measure, chosen) in enumerate(columns):
        found.setdefault(name, {})[measure] = {
            "median": float(estimates[k, 0]),
            "low": float(low[k, 0]),
            "high": float(high[k, 0]),
            "mean": float(estimates[k, 1]),
            "mean_low": float(low[k, 1]),
            "mean_high": float(high[k, 1]),
            "n": len(chosen),
        }
    return found
