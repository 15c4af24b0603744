"""Confidence intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.errors import UsageError


def bootstrap_interval(
    values: npt.ArrayLike,
    statistic: Callable[[Any], Any] = np.median,
    level: float = 0.95,
    seed: int = 0,
    samples: int = 1000,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic.

    Vertices are not independent (neighbours share noise), so over vertices the interval is too narrow; it speaks of
    these vertices, not of new subjects.

    Parameters
    ----------
    values : array of shape (n,)
        NaN are left out.
    statistic : callable
        From an array of shape (n,) to a number.
    level : float
        Share of the resampled statistics inside the interval, in (0, 1).
    seed : int
        The same seed gives the same interval.
    samples : int
        How many times to resample.

    Returns
    -------
    (low, high) : floats
        NaN, NaN if there are no values.

    Raises
    ------
    UsageError
        If `level` lies outside (0, 1) or `samples` is less than 1.
    """
    if not 0 < level < 1:
        raise UsageError(f"level must lie in (0, 1), got {level!r}")
    if samples < 1:
        raise UsageError(f"samples must be at least 1, got {samples!r}")
    kept = np.asarray(values, np.float64).ravel()
    kept = kept[~np.isnan(kept)]
    if not kept.size:
        return float("nan"), float("nan")
    random = np.random.default_rng(seed)
    drawn = [float(statistic(kept[random.integers(0, kept.size, kept.size)])) for _ in range(samples)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
