"""Two sets of measurements compared, column by column: effect size, Welch's t, p and q, in NumPy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from brainkit.errors import UsageError

_MOST_STEPS = 20_000
_ENOUGH = 1e-15


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
        Cohen's d times Hedges' correction: without its bias in small samples.
    t, df : array of shape (k,)
        Welch's t and its degrees of freedom: variances may differ.
    p : array of shape (k,)
        Two-sided.
    q : array of shape (k,)
        After Benjamini and Hochberg, over the columns that have a p.

    A column that does not vary within either set has a difference, and NaN for the rest.
    """

    difference: np.ndarray
    cohens_d: np.ndarray
    hedges_g: np.ndarray
    t: np.ndarray
    df: np.ndarray
    p: np.ndarray
    q: np.ndarray


def compare(
    mean_a: np.ndarray, variance_a: np.ndarray, n_a: int, mean_b: np.ndarray, variance_b: np.ndarray, n_b: int
) -> Comparison:
    """Compare two independent sets.

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
    if min(n_a, n_b) < 2:
        raise UsageError(f"each of the two sets must have at least 2 members, got {n_a} and {n_b}")
    difference = mean_a - mean_b
    share_a, share_b = variance_a / n_a, variance_b / n_b
    pooled = np.sqrt(((n_a - 1) * variance_a + (n_b - 1) * variance_b) / (n_a + n_b - 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        varies = share_a + share_b > 0
        d = np.where(varies, difference / pooled, np.nan)
        t = np.where(varies, difference / np.sqrt(share_a + share_b), np.nan)
        # As shares of their sum, whose squares neither overflow nor vanish.
        part_a, part_b = share_a / (share_a + share_b), share_b / (share_a + share_b)
        df = 1 / (np.square(part_a) / (n_a - 1) + np.square(part_b) / (n_b - 1))
    p = two_sided_p(t, df)
    return Comparison(difference, d, d * hedges_correction(n_a + n_b - 2), t, df, p, false_discovery_rate(p))


def two_sided_p(t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """P(|T| >= |t|) for Student's T of `df` degrees of freedom: I_x(df/2, 1/2) at x = df / (df + t^2).

    Parameters
    ----------
    t, df : array of shape (k,)
        NaN gives NaN.

    Returns
    -------
    array of shape (k,), float64
        Right to about ten digits, however small.
    """
    t, df = np.broadcast_arrays(np.asarray(t, np.float64), np.asarray(df, np.float64))
    p = np.full(t.shape, np.nan)
    known = np.isfinite(t) & np.isfinite(df) & (df > 0)
    half, square = df[known] / 2, np.square(t[known])
    x, rest = df[known] / (df[known] + square), square / (df[known] + square)
    # The continued fraction converges fast below the mean of the beta distribution; above, its mirror image does.
    low = x < (half + 1) / (half + 2.5)
    found = np.empty(len(half))
    found[low] = _incomplete_beta(half[low], np.full(int(low.sum()), 0.5), x[low], rest[low])
    found[~low] = 1 - _incomplete_beta(np.full(int((~low).sum()), 0.5), half[~low], rest[~low], x[~low])
    p[known] = found
    return p


def false_discovery_rate(p: np.ndarray) -> np.ndarray:
    """The q-value of each test after Benjamini and Hochberg (1995); NaN where p is NaN, which is no test.

    Parameters
    ----------
    p : array of shape (k,)

    Returns
    -------
    array of shape (k,), float64
        The smallest false discovery rate at which the test would count.
    """
    q = np.full(len(p), np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    raised = p[order] * (len(order) / np.arange(1, len(order) + 1))
    q[order] = np.minimum(np.minimum.accumulate(raised[::-1])[::-1], 1.0)
    return q


def hedges_correction(df: int) -> float:
    """The factor that frees Cohen's d of its bias in small samples (Hedges 1981), for the pooled `df`."""
    return math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2) if df > 1 else math.nan


def _incomplete_beta(a: np.ndarray, b: np.ndarray, x: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """The regularised incomplete beta function, where one of a and b is 1/2 and x is small enough; rest = 1 - x.

    By the continued fraction DLMF 8.17.22, evaluated from the front after Lentz (1976).
    """
    with np.errstate(divide="ignore"):
        log_x, log_rest = (np.where(low < 0.5, np.log(low), np.log1p(-high)) for low, high in ((x, rest), (rest, x)))
        front = np.exp(a * log_x + b * log_rest - _log_beta_half(np.maximum(a, b))) / a
    tiny = 1e-300
    c = np.ones_like(x)
    d = _away_from_zero(1 - (a + b) * x / (a + 1), tiny) ** -1.0
    fraction = d.copy()
    for m in range(1, _MOST_STEPS):
        for coefficient in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away_from_zero(1 + coefficient * d, tiny)
            c = _away_from_zero(1 + coefficient / c, tiny)
            step = c * d
            fraction *= step
        if not len(step) or np.abs(step - 1).max() < _ENOUGH:
            break
    return np.where(x == 0, 0.0, front * fraction)


def _log_beta_half(a: np.ndarray) -> np.ndarray:
    """log B(a, 1/2): half of log pi, and the difference of two log-gammas, which cancels where a is large."""
    small = a < 100
    difference = np.empty_like(a)  # log gamma(a + 1/2) - log gamma(a)
    difference[small] = [math.lgamma(value + 0.5) - math.lgamma(value) for value in a[small].tolist()]
    large = a[~small]
    difference[~small] = 0.5 * np.log(large) - 1 / (8 * large) + 1 / (192 * large**3) - 1 / (640 * large**5)
    return 0.5 * math.log(math.pi) - difference


def _away_from_zero(value: np.ndarray, tiny: float) -> np.ndarray:
    return np.where(np.abs(value) < tiny, tiny, value)
