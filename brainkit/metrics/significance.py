"""Two sets of measurements compared, column by column: effect size, Welch's t, p and false discovery rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from brainkit.errors import UsageError


@dataclass(frozen=True, eq=False)
class Comparison:
    """Set a against set b, for each of k columns; float64.

    Attributes
    ----------
    difference : array of shape (k,)
        Mean of a minus mean of b.
    cohens_d : array of shape (k,)
        The difference in units of the pooled s.d.
    hedges_g : array of shape (k,)
        Cohen's d times Hedges' correction, which removes its bias in small samples.
    t, df : array of shape (k,)
        Welch's t and its degrees of freedom: the variances may differ.
    p : array of shape (k,)
        Two-sided.
    q : array of shape (k,)
        False discovery rate after Benjamini and Hochberg, over the columns that have a p.

    A column that does not vary within either set has a difference, and NaN for the rest.
    """

    difference: np.ndarray
    cohens_d: np.ndarray
    hedges_g: np.ndarray
    t: np.ndarray
    df: np.ndarray
    p: np.ndarray
    q: np.ndarray

    def __repr__(self) -> str:
        return f"Comparison({', '.join(field.name for field in fields(self))} of {len(self.q):,} columns)"


def compare(
    mean_a: np.ndarray, variance_a: np.ndarray, n_a: int, mean_b: np.ndarray, variance_b: np.ndarray, n_b: int
) -> Comparison:
    """Compare two independent sets, given by their means and variances.

    Parameters
    ----------
    mean_a, mean_b : array of shape (k,)
    variance_a, variance_b : array of shape (k,)
        Unbiased (n - 1).
    n_a, n_b : int
        At least 2.

    Raises
    ------
    UsageError
        If a set has fewer than two members.
    """
    from scipy.stats import ttest_ind_from_stats

    if min(n_a, n_b) < 2:
        raise UsageError(f"each of the two sets must have at least 2 members, got {n_a} and {n_b}")
    difference = mean_a - mean_b
    with np.errstate(divide="ignore", invalid="ignore"):
        pooled = np.sqrt(((n_a - 1) * variance_a + (n_b - 1) * variance_b) / (n_a + n_b - 2))
        pooled = np.where(pooled > 0, pooled, np.nan)
        # In units of the pooled s.d., so that the squares neither overflow nor vanish.
        d, sd_a, sd_b = difference / pooled, np.sqrt(variance_a) / pooled, np.sqrt(variance_b) / pooled
        t, p = ttest_ind_from_stats(d, sd_a, n_a, np.zeros_like(d), sd_b, n_b, equal_var=False)
        share_a, share_b = sd_a**2 / n_a, sd_b**2 / n_b
        df = (share_a + share_b) ** 2 / (share_a**2 / (n_a - 1) + share_b**2 / (n_b - 1))
    p = np.where(np.isfinite(t), p, np.nan)
    return Comparison(difference, d, d * hedges_correction(n_a + n_b - 2), t, df, p, false_discovery_rate(p))


def false_discovery_rate(p: np.ndarray) -> np.ndarray:
    """The q-value of each test after Benjamini and Hochberg (1995).

    Parameters
    ----------
    p : array of shape (k,)
        NaN where there is no test.

    Returns
    -------
    array of shape (k,), float64
        The smallest false discovery rate at which the test is significant; NaN where p is NaN.
    """
    from scipy.stats import false_discovery_control

    q = np.full(len(p), np.nan)
    tested = np.isfinite(p)
    q[tested] = false_discovery_control(p[tested])
    return q


def positive_correlation_q(r: np.ndarray, n: int) -> np.ndarray:
    """The false discovery rate of each correlation being above 0: a one-sided t-test over n independent pairs.

    Parameters
    ----------
    r : array of shape (k,)
        NaN where there is none.
    n : int
        At least 3.

    Returns
    -------
    array of shape (k,), float64
        NaN where r is.
    """
    from scipy.stats import t

    r = np.asarray(r, np.float64)
    with np.errstate(divide="ignore"):
        return false_discovery_rate(t.sf(r * np.sqrt((n - 2) / np.maximum(1 - r * r, 0.0)), n - 2))


def describe_passing(q: np.ndarray, threshold: float) -> str:
    """How many vertices have a q below a threshold, in words: ``12 of 200 vertices pass q < 0.05``."""
    tested = np.isfinite(q)
    count, passing = int(tested.sum()), int((q[tested] < threshold).sum())
    if not count:
        return "no vertex can be tested"
    if not passing:
        return f"no vertex passes q < {threshold:g}"
    if passing == count:
        return f"{'the only vertex passes' if count == 1 else f'all {count:,} vertices pass'} q < {threshold:g}"
    return f"{passing:,} of {count:,} vertices {'passes' if passing == 1 else 'pass'} q < {threshold:g}"


def hedges_correction(df: int) -> float:
    """The factor that removes the bias of Cohen's d in small samples (Hedges 1981), for the pooled `df`."""
    return math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2) if df > 1 else math.nan
