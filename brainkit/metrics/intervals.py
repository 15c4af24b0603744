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

    Vertices are not independent (neighbours share noise), so an interval over vertices is too narrow; it is about
    these vertices, not about new subjects.

    Parameters
    ----------
    values : array of shape (n,)
        NaN is ignored.
    statistic : callable
        From an array of shape (n,) to a number.
    level : float
        Share of the resampled statistics inside the interval, in (0, 1).
    seed : int
        The same seed gives the same interval.
    samples : int
        Number of bootstrap samples.

    Returns
    -------
    (low, high) : floats
        Both NaN if there are no values.

    Raises
    ------
    UsageError
        If `level` is outside (0, 1) or `samples` is less than 1.
    """
    if not 0 < level < 1:
        raise UsageError(f"level must be in (0, 1), got {level!r}")
    if samples < 1:
        raise UsageError(f"samples must be at least 1, got {samples!r}")
    known = np.asarray(values, np.float64).ravel()
    known = known[~np.isnan(known)]
    if not known.size:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    resampled = [float(statistic(known[rng.integers(0, known.size, known.size)])) for _ in range(samples)]
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
