"""Accuracy, noise ceilings, the official score, intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.errors import UsageError

Floats = npt.NDArray[np.float64]


LEAST_CEILING = 0.05  # below it, a share of the explainable variance is a ratio of two noises


class StreamingScore:
    """Correlation and R2 per vertex over batches of any size, without storing them.

    Sums are float64, of values relative to the first row, and batches are merged by their means, so large offsets
    and the order of the batches do no harm. A NaN makes its own vertex NaN and no other.

    Parameters
    ----------
    n_vertices : int
        V.
    """

    def __init__(self, n_vertices: int) -> None:
        self.n = 0
        self._n_vertices = int(n_vertices)
        self._first: tuple[Floats, Floats] | None = None
        zero = np.zeros(self._n_vertices)
        self._mean_p, self._mean_y = zero.copy(), zero.copy()
        self._pp, self._yy, self._py, self._sse = zero.copy(), zero.copy(), zero.copy(), zero.copy()

    def update(self, prediction: npt.ArrayLike, response: npt.ArrayLike) -> None:
        """Add a batch.

        Parameters
        ----------
        prediction, response : arrays of shape (b, V)

        Raises
        ------
        UsageError
            If the shapes differ, or are not (b, V).
        """
        p, y = np.asarray(prediction, np.float64), np.asarray(response, np.float64)
        if p.shape != y.shape or p.ndim != 2 or p.shape[1] != self._n_vertices:
            raise UsageError(
                f"prediction and response must both have shape (b, {self._n_vertices}), got {p.shape} and {y.shape}"
            )
        if not len(p):
            return
        with np.errstate(invalid="ignore", over="ignore"):
            self._add(p, y)

    @property
    def r(self) -> Floats:
        """Pearson correlation, (V,), in [-1, 1]; NaN where prediction or response is constant."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            r = self._py / (np.sqrt(self._pp) * np.sqrt(self._yy))
        r[(self._pp == 0) | (self._yy == 0)] = np.nan
        return np.clip(r, -1.0, 1.0)

    @property
    def R2(self) -> Floats:
        """Share of variance predicted, (V,): 1 - SSE/SST; negative where the mean would predict better."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            value = 1.0 - self._sse / self._yy
        value[self._yy == 0] = np.nan
        return value

    def _add(self, p: Floats, y: Floats) -> None:
        self._sse += ((y - p) ** 2).sum(0)
        if self._first is None:
            self._first = p[0].copy(), y[0].copy()
        # Relative to a row of the data a constant column is exactly zero, so "constant" needs no tolerance.
        p, y = p - self._first[0], y - self._first[1]
        b, total = len(p), self.n + len(p)
        batch_p, batch_y = p.mean(0), y.mean(0)
        p -= batch_p
        y -= batch_y
        step_p, step_y = batch_p - self._mean_p, batch_y - self._mean_y
        weight = self.n * b / total
        self._pp += (p * p).sum(0) + weight * step_p * step_p
        self._yy += (y * y).sum(0) + weight * step_y * step_y
        self._py += (p * y).sum(0) + weight * step_p * step_y
        self._mean_p += step_p * (b / total)
        self._mean_y += step_y * (b / total)
        self.n = total


def noise_ceiling_from_ncsnr(ncsnr: npt.ArrayLike, counts: Sequence[int]) -> Floats:
    """Noise ceiling of averaged responses from the noise-ceiling signal-to-noise ratio of NSD.

    Parameters
    ----------
    ncsnr : array of shape (V,)
        Standard deviation of the signal over that of the noise of one trial, >= 0.
    counts : (A, B, C)
        How many images were seen, and averaged over, 3, 2 and 1 times.

    Returns
    -------
    array of shape (V,), in [0, 1]
        A ceiling on r squared: ``ncsnr^2 / (ncsnr^2 + (A/3 + B/2 + C) / (A + B + C))``; NaN stays NaN.

    Raises
    ------
    UsageError
        If a ratio is negative, or the counts are not three numbers >= 0 with a positive sum.

    References
    ----------
    Allen et al. (2022), A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence.
    """
    three, two, one = _three_counts(counts)
    ratio = np.asarray(ncsnr, np.float64)
    if np.any(ratio < 0):
        raise UsageError(f"ncsnr must not be negative, got {np.nanmin(ratio):g}")
    noise = (three / 3 + two / 2 + one) / (three + two + one)
    with np.errstate(divide="ignore"):
        # This form is right at both ends: 0 gives 0 and infinity gives 1.
        return np.asarray(1.0 / (1.0 + noise / ratio**2))


def noise_ceiling_from_repetitions(responses: npt.ArrayLike) -> Floats:
    """Noise ceiling of responses averaged over repetitions, from the repetitions themselves.

    Parameters
    ----------
    responses : array of shape (R, n, V)
        R >= 2 repetitions of n >= 2 images.

    Returns
    -------
    array of shape (V,), in [0, 1]
        A ceiling on r squared: ``q / (q + 1/R)`` with ``q = max(var_total - var_noise, 0) / var_noise``; var_noise is
        the mean over images of the unbiased variance over repetitions, var_total the variance over all trials.
        0 for a constant vertex.

    Raises
    ------
    UsageError
        If the shape is another.
    """
    trials = np.asarray(responses, np.float64)
    if trials.ndim != 3 or trials.shape[0] < 2 or trials.shape[1] < 2:
        raise UsageError(f"responses must have shape (repetitions >= 2, images >= 2, vertices), got {trials.shape}")
    repetitions, images, vertices = trials.shape
    # Relative to one trial, so that a large offset leaves a constant vertex at exactly zero variance.
    trials = trials - trials[:1, :1]
    noise = trials.var(axis=0, ddof=1).mean(axis=0)
    total = trials.reshape(repetitions * images, vertices).var(axis=0, ddof=1)
    signal = np.maximum(total - noise, 0.0)
    with np.errstate(invalid="ignore"):
        ceiling = signal / (signal + noise / repetitions)
    ceiling[(signal == 0) & (noise == 0)] = 0.0
    return np.asarray(ceiling)


@dataclass(frozen=True)
class OfficialScore:
    """The score of the Algonauts 2023 challenge, in percent of the noise ceiling, over `n` vertices."""

    mean: float
    median: float
    n: int


def official_score(r: npt.ArrayLike, noise_ceiling: npt.ArrayLike) -> OfficialScore:
    """Noise-normalised accuracy as the Algonauts 2023 challenge counts it.

    Per vertex ``min(100 * max(r, 0)^2 / noise_ceiling, 100)``; mean (official) and median (often quoted) over all
    vertices with a ceiling above 0. A vertex whose r is NaN (a constant prediction) explains nothing and counts as 0.

    Parameters
    ----------
    r : array of shape (V,)
        Correlation on test images, in [-1, 1].
    noise_ceiling : array of shape (V,)
        Ceiling on r squared, as a fraction in [0, 1]; vertices with NaN are left out.

    Returns
    -------
    OfficialScore
        In percent; NaN if no vertex has a ceiling above 0.

    Raises
    ------
    UsageError
        If the shapes differ, or the ceiling is not a fraction.
    """
    correlation, ceiling = np.asarray(r, np.float64), np.asarray(noise_ceiling, np.float64)
    if correlation.shape != ceiling.shape or correlation.ndim != 1:
        raise UsageError(f"r and noise_ceiling must both have shape (V,), got {correlation.shape} and {ceiling.shape}")
    if np.any(ceiling > 1 + 1e-6):
        raise UsageError(
            f"noise_ceiling must be a fraction in [0, 1], got {np.nanmax(ceiling):g}; divide percent by 100"
        )
    counted = ceiling > 0
    n = int(counted.sum())
    if not n:
        return OfficialScore(float("nan"), float("nan"), 0)
    explained = np.maximum(np.nan_to_num(correlation[counted], nan=0.0), 0.0) ** 2
    score = np.minimum(100.0 * explained / ceiling[counted], 100.0)
    return OfficialScore(float(score.mean()), float(np.median(score)), n)


def explained_share(r: npt.ArrayLike, noise_ceiling: npt.ArrayLike) -> Floats:
    """Share of each vertex's explainable variance that is predicted: max(r, 0)^2 / ceiling, at most 1.

    Parameters
    ----------
    r : array of shape (V,)
        Correlation of prediction and response; NaN counts as 0.
    noise_ceiling : array of shape (V,)
        Ceiling on r^2, in [0, 1].

    Returns
    -------
    array of shape (V,), float64
        In [0, 1]; NaN where the ceiling is not known or below `LEAST_CEILING`.
    """
    ceiling = np.asarray(noise_ceiling, np.float64)
    usable = np.nan_to_num(ceiling) >= LEAST_CEILING
    explained = np.maximum(np.nan_to_num(np.asarray(r, np.float64)), 0.0) ** 2
    return np.where(usable, np.minimum(explained / np.where(usable, ceiling, 1.0), 1.0), np.nan)


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


def _three_counts(counts: Sequence[int]) -> tuple[float, float, float]:
    try:
        three, two, one = (float(count) for count in counts)
    except (TypeError, ValueError):
        raise UsageError(f"counts must be three numbers (images seen 3, 2, 1 times), got {counts!r}") from None
    if min(three, two, one) < 0 or not 0 < three + two + one < float("inf"):
        raise UsageError(f"counts must not be negative and not all zero, got {counts!r}")
    return three, two, one
