"""How sure a map is: standard errors from repeated trainings, and reliability over halves of the stimuli."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from brainkit.errors import UsageError
from brainkit.metrics.ceilings import spearman_brown

MAX_SE = 0.1  # of a selector's range: vertices with a larger standard error are not reliable
LOCATION_RANGE = 2.0  # a location is in [-1, 1]

HALVES, SEEDS = "halves", "seeds"
BASES = {
    HALVES: "runs on halves of the training stimuli, each with a seed of its own",
    SEEDS: "runs on the same images with other seeds: what other images would change is not in it",
}


@dataclass(frozen=True, eq=False)
class MapUncertainty:
    """Standard errors of what each vertex selects.

    Attributes
    ----------
    depth_se : array of shape (V,)
        Of the expected depth, which is 0 at the first layer and 1 at the last.
    location_se : array of shape (V, 2)
        Of x and y, which are in [-1, 1].
    scale_se : array of shape (V,)
        Of the scale, which is in [0, 1].
    basis : {"halves", "seeds"}
        What the runs differed in: `BASES` says what that means.
    runs : int
        How many runs it is from.
    max_se : float
        Vertices are reliable up to this standard error, as a share of the selector's range.
    """

    depth_se: np.ndarray
    location_se: np.ndarray
    scale_se: np.ndarray
    basis: str
    runs: int
    max_se: float = MAX_SE

    def __repr__(self) -> str:
        return f"MapUncertainty({len(self.depth_se):,} vertices, {self.runs} {self.basis})"

    @property
    def shares(self) -> dict[str, np.ndarray]:
        """Standard errors (V,) as shares of the range: ``depth``, ``location`` (both coordinates), ``scale``."""
        return {
            "depth": self.depth_se,
            "location": np.hypot(self.location_se[:, 0], self.location_se[:, 1]) / LOCATION_RANGE,
            "scale": self.scale_se,
        }

    def select(self, positions: npt.NDArray[np.int64]) -> MapUncertainty:
        """Those of some vertices."""
        depth, location, scale = (each[positions] for each in (self.depth_se, self.location_se, self.scale_se))
        return replace(self, depth_se=depth, location_se=location, scale_se=scale)


def se_from_halves(first: npt.ArrayLike, second: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Standard error of an estimate from all data, from estimates on complementary halves.

    The halves of a draw share no data, so half of their squared difference is an unbiased estimate of the variance of
    an estimate from half of the data. Variances fall with the amount of data, so all data have half of that variance:
    the half-sample method (McCarthy 1969, Review of the International Statistical Institute 37). It is the variance
    over samples of data and over seeds; a bias that all runs share is not in it.

    Parameters
    ----------
    first, second : array of shape (J, ...)
        Estimates on the first and on the second half of each of J draws.

    Returns
    -------
    array of shape (...)
        ``sqrt(mean_j (first_j - second_j)^2) / 2``.
    """
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    if not len(difference):
        raise UsageError("first and second must have at least one draw, got none")
    return np.asarray(np.sqrt(np.mean(difference**2, axis=0)) / 2)


def se_from_repeats(estimates: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Standard error of one estimate, from independent repetitions: their standard deviation (n - 1).

    Parameters
    ----------
    estimates : array of shape (K, ...)
        K >= 2.

    Returns
    -------
    array of shape (...)
    """
    values = np.asarray(estimates, np.float64)
    if len(values) < 2:
        raise UsageError(f"estimates must be at least 2, got {len(values)}")
    return np.asarray(values.std(axis=0, ddof=1))


def map_reliability(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """How well a map from all data would repeat, from maps on complementary halves (Spearman-Brown).

    Parameters
    ----------
    first, second : array of shape (V,) or (V, d)
        Maps on two halves; of d columns, each is centred, and the correlation is over all of them together.

    Returns
    -------
    float
        ``2 r / (1 + r)`` with r the correlation over vertices; NaN if a map is constant.
    """
    a, b = (np.asarray(values, np.float64) for values in (first, second))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norm = np.sqrt((a**2).sum() * (b**2).sum())
    return float(spearman_brown((a * b).sum() / norm)) if norm > 0 else float("nan")
