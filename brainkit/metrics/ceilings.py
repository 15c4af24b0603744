"""Noise ceilings: how much of a vertex's responses any model could predict. All are ceilings on r squared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

from brainkit.errors import UsageError
from brainkit.metrics.variance_components import TrialFormula, TrialVariances, trial_variances

Counts = Mapping[int, int] | Sequence[int] | int


@dataclass(frozen=True, eq=False, repr=False)
class NoiseCeiling(NDArrayOperatorsMixin):
    """Noise ceilings of V vertices, and how they were found. NumPy takes it as the array `values`.

    Attributes
    ----------
    values : array of shape (V,), float32 or float64, in [0, 1]
        Largest r squared that any model can reach, always as fractions. NaN: there is no ceiling (nothing varies, or a
        value is missing). 0: there is one, and it is 0, because no signal was found in the noise.
    formula : str
        What it was computed with, for example ``anova, one-way``.
    units : {"fractions", "percent"}
        Which the source stated; `values` are fractions either way.
    counts : dict
        ``vertices``; ``without`` (NaN); ``no_signal`` (0); and where known ``images``, ``trials``, ``negative``
        (vertices whose signal variance, or correlation of halves, was estimated below 0 and set to 0).
    """

    values: npt.NDArray[Any]
    formula: str
    units: str
    counts: dict[str, int]

    @classmethod
    def of(cls, values: npt.NDArray[Any], formula: str, units: str = "fractions", **counts: int) -> NoiseCeiling:
        """Count the vertices without a ceiling and without a signal, beside what else is counted."""
        without, no_signal = int(np.isnan(values).sum()), int((values == 0).sum())
        return cls(
            values, formula, units, {"vertices": values.size, "without": without, "no_signal": no_signal, **counts}
        )

    def __repr__(self) -> str:
        known = self.values[~np.isnan(self.values)]
        median = f"median {np.median(known):.3f}" if len(known) else "none known"
        counts = ", ".join(f"{name}: {count:,}" for name, count in self.counts.items())
        return f"NoiseCeiling({self.formula}; {median}; {counts})"

    def to_dict(self) -> dict[str, Any]:
        """``formula``, ``units`` and ``counts``: what a report says of a noise ceiling."""
        return {"formula": self.formula, "units": self.units, "counts": dict(self.counts)}

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.values, dtype, copy=True) if copy else np.asarray(self.values, dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        plain = (each.values if isinstance(each, NoiseCeiling) else each for each in inputs)
        return getattr(ufunc, method)(*plain, **options)


def noise_ceiling_from_ncsnr(ncsnr: npt.ArrayLike, counts: Counts) -> NoiseCeiling:
    """Noise ceiling of averaged responses, from the noise-ceiling signal-to-noise ratio (ncsnr) of NSD.

    ``ncsnr^2 / (ncsnr^2 + mean(1/n))``, with n the trials that the response to an image is the mean of, and the mean
    over images. NSD and THINGS publish it with n the same for all images.

    Parameters
    ----------
    ncsnr : array of shape (V,)
        S.d. of the signal over the s.d. of the noise of a single trial, >= 0. NaN: no ceiling.
    counts : int, mapping or (A, B, C)
        An int: trials of every image. A mapping: number of trials -> number of images that have so many. Three
        numbers: images with 3, 2 and 1 trials, as in NSD.

    Raises
    ------
    UsageError
        If an ncsnr is negative, or the counts are none of these, or not positive.

    References
    ----------
    Allen et al. (2022), A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence.
    """
    trials, images = _trials_and_images(counts)
    ratio = np.asarray(ncsnr, np.float64)
    if np.any(ratio < 0):
        raise UsageError(f"ncsnr must not be negative, got {np.nanmin(ratio):g}")
    with np.errstate(divide="ignore"):
        # In this form 0 gives 0 and infinity gives 1.
        values = np.asarray(1.0 / (1.0 + (images / trials).sum() / images.sum() / ratio**2))
    formula = "ncsnr^2 / (ncsnr^2 + mean(1/n))"
    if isinstance(counts, Integral):
        return NoiseCeiling.of(values, formula)
    return NoiseCeiling.of(values, formula, images=int(images.sum()), trials=int((images * trials).sum()))


def noise_ceiling_from_repetitions(responses: npt.ArrayLike) -> NoiseCeiling:
    """Noise ceiling of responses averaged over repetitions, from the single repetitions of every image.

    ``q / (q + 1/R)`` with ``q = max(var_total - var_noise, 0) / var_noise``; var_noise is the mean over images of the
    unbiased variance over repetitions, var_total the unbiased variance over all trials: the formula ``nsd-synthetic``
    of `noise_ceiling_from_trials`, which also takes images with unequal repetitions.

    Parameters
    ----------
    responses : array of shape (R, n, V)
        R >= 2 repetitions of n >= 2 images. NaN: no ceiling at that vertex.

    Raises
    ------
    UsageError
        If the shape is different.
    """
    trials = _repetitions(responses)
    repetitions, images, vertices = trials.shape
    # Relative to one trial, so that a large offset leaves a constant vertex at exactly zero variance.
    trials = trials - trials[:1, :1]
    noise = trials.var(axis=0, ddof=1).mean(axis=0)
    total = trials.reshape(repetitions * images, vertices).var(axis=0, ddof=1)
    found = TrialVariances(total - noise, noise)
    return _from_variances(found, 1 / repetitions, "nsd-synthetic", images=images, trials=repetitions * images)


def noise_ceiling_from_trials(
    responses: npt.ArrayLike,
    images: npt.ArrayLike,
    *,
    sessions: npt.ArrayLike | None = None,
    formula: TrialFormula = "anova",
    counts: Counts | None = None,
) -> NoiseCeiling:
    """Noise ceiling of responses averaged over trials, from single trials; images may have unequal repetitions.

    ``signal / (signal + noise * mean(1/n))``, with the variances of signal and noise by one of these formulas:

    - ``anova``: unbiased also with unequal repetitions. One-way without `sessions`: noise is the variance within
      images, pooled over their degrees of freedom; signal comes from the sum of squares between images. Two-way with
      `sessions`: the mean response of each session is a second factor, whose variance is neither signal nor noise
      (Henderson's method III).
    - ``nsd``: z-scored within each session; noise is the mean over images of the variance within; signal 1 - noise.
    - ``bmd``: as ``nsd``, with the variance of all trials (n in the denominator) instead of 1; also that of MOSAIC.
    - ``nsd-synthetic``: noise pooled over degrees of freedom, the unbiased variance of all trials.

    The last two z-score within sessions if `sessions` are given.

    Parameters
    ----------
    responses : array of shape (N, V)
        One row a trial; leave out trials that are missing. NaN: no ceiling at that vertex.
    images : array of shape (N,)
        Which image each trial showed: labels of any kind. At least two images, and one with two trials.
    sessions : array of shape (N,), optional
        Which session each trial belongs to.
    formula : str
        One of those above.
    counts : optional
        Trials per image of the averages that the ceiling is for, as in `noise_ceiling_from_ncsnr`; those of `images`
        unless given.

    Raises
    ------
    UsageError
        If shapes do not fit, no image is repeated, or the formula is unknown.

    References
    ----------
    Searle (1971), Linear models, chapter 10 (Henderson's method III). Allen et al. (2022), NSD. Lahner et al. (2024),
    BOLD Moments Dataset.
    """
    if formula not in get_args(TrialFormula):
        raise UsageError(f"formula must be one of {', '.join(get_args(TrialFormula))}, got {formula!r}")
    rows, codes = np.asarray(responses, np.float64), _codes(images)
    blocks = np.zeros_like(codes) if sessions is None else _codes(sessions)
    if rows.ndim != 2 or not len(rows) == len(codes) == len(blocks):
        raise UsageError(
            "responses (trials, vertices), images (trials,) and sessions (trials,) must have the same trials, got "
            f"{rows.shape}, {codes.shape} and {blocks.shape}"
        )
    repeats = np.bincount(codes)
    if len(repeats) < 2 or repeats.max() < 2:
        raise UsageError(
            f"a noise ceiling needs two images and an image with two trials, found {len(repeats)} images with at most "
            f"{repeats.max(initial=0)} trials each"
        )
    averaged, weights = (repeats, np.ones(len(repeats))) if counts is None else _trials_and_images(counts)
    found = trial_variances(rows, codes, blocks, formula)
    name = formula if formula != "anova" else f"anova, {'one' if blocks.max() == 0 else 'two'}-way"
    return _from_variances(
        found, float((weights / averaged).sum() / weights.sum()), name, images=len(repeats), trials=len(rows)
    )


def noise_ceiling_from_split_halves(responses: npt.ArrayLike, *, splits: int = 100, seed: int = 0) -> NoiseCeiling:
    """Noise ceiling of responses averaged over repetitions, from random halves of them, with Spearman-Brown.

    The repetitions of every image are dealt into two halves at random; the correlation over images of the means of the
    two halves is corrected to all R repetitions; the median over `splits` is the ceiling. With an odd R one repetition
    is left out of each split. Its square root is a ceiling on r. Brain-Score divides r, not r squared, by this number.

    Parameters
    ----------
    responses : array of shape (R, n, V)
        R >= 2 repetitions of n >= 2 images. NaN: no ceiling at that vertex.
    splits : int
        At least 1.
    seed : int
        Of the splits.

    Raises
    ------
    UsageError
        If the shape is different.

    References
    ----------
    Spearman (1910), Brown (1910). Schrimpf et al. (2018), Brain-Score.
    """
    trials = _repetitions(responses)
    repetitions, images, _ = trials.shape
    half = repetitions // 2
    if splits < 1:
        raise UsageError(f"splits must be at least 1, got {splits}")
    trials = trials - trials[:1, :1]
    rng = np.random.default_rng(seed)
    corrected = []
    for _ in range(splits):
        order = rng.permuted(np.tile(np.arange(repetitions)[:, None], images), axis=0)[:, :, None]
        halves = (np.take_along_axis(trials, part, 0).mean(0) for part in (order[:half], order[half : 2 * half]))
        corrected.append(spearman_brown(_correlation(*halves), repetitions / half))
    found = np.median(corrected, axis=0)
    name = f"split halves, Spearman-Brown, median of {splits}"
    negative = int((found < 0).sum())
    values = np.clip(found, 0.0, 1.0)
    return NoiseCeiling.of(values, name, images=images, trials=repetitions * images, negative=negative)


def spearman_brown(r: npt.ArrayLike, factor: float = 2.0) -> npt.NDArray[np.float64]:
    """Reliability of `factor` times as much data: ``factor * r / (1 + (factor - 1) * r)``.

    Parameters
    ----------
    r : array
        Correlation of two halves (or of two of `factor` parts), in [-1, 1].
    factor : float
        2 for halves.

    Returns
    -------
    array
        Of r's shape: a ceiling on r squared between the whole and a prediction; its square root is one on r. The
        formula has no meaning for r below 0, which stays as it is.
    """
    value = np.asarray(r, np.float64)
    positive = np.maximum(value, 0.0)
    return np.asarray(np.where(value < 0, value, factor * positive / (1.0 + (factor - 1.0) * positive)))


def _from_variances(found: TrialVariances, share: float, formula: str, *, images: int, trials: int) -> NoiseCeiling:
    signal = np.maximum(found.signal, 0.0)
    with np.errstate(invalid="ignore"):
        values = signal / (signal + found.noise * share)  # 0 / 0, a constant vertex: no ceiling
    negative = int((found.signal < 0).sum())
    return NoiseCeiling.of(np.asarray(values), formula, images=images, trials=trials, negative=negative)


def _repetitions(responses: npt.ArrayLike) -> npt.NDArray[np.float64]:
    trials = np.asarray(responses, np.float64)
    if trials.ndim != 3 or trials.shape[0] < 2 or trials.shape[1] < 2:
        raise UsageError(f"responses must have shape (repetitions >= 2, images >= 2, vertices), got {trials.shape}")
    return trials


def _codes(labels: npt.ArrayLike) -> npt.NDArray[np.intp]:
    return np.unique(np.asarray(labels), return_inverse=True)[1].ravel()


def _correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    a, b = a - a.mean(0), b - b.mean(0)
    with np.errstate(invalid="ignore"):
        return np.asarray((a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0)))


def _trials_and_images(counts: Counts) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Numbers of trials, and of images that have so many."""
    expected = "counts must be trials per image, {trials: images}, or three numbers (images with 3, 2, 1 trials)"
    try:
        if isinstance(counts, Mapping):
            pairs = [(float(trials), float(images)) for trials, images in counts.items()]
        elif isinstance(counts, Integral):
            pairs = [(float(counts), 1.0)]
        else:
            three, two, one = (float(images) for images in counts)  # type: ignore[union-attr]
            pairs = [(3.0, three), (2.0, two), (1.0, one)]
    except (TypeError, ValueError):
        raise UsageError(f"{expected}, got {counts!r}") from None
    trials, images = np.array(pairs).reshape(-1, 2).T
    usable = (trials >= 1).all() and (images >= 0).all() and np.isfinite(trials).all()
    if not usable or not 0 < images.sum() < np.inf:
        raise UsageError(f"counts must be >= 0 and not all zero, and trials at least 1, got {counts!r}")
    return trials, images
