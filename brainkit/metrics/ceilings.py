"""Noise ceilings: how much of a vertex's response any model could predict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from brainkit.errors import UsageError


def noise_ceiling_from_ncsnr(ncsnr: npt.ArrayLike, counts: Sequence[int]) -> npt.NDArray[np.float64]:
    """Noise ceiling of averaged responses, from the noise-ceiling signal-to-noise ratio (ncsnr) of NSD.

    Parameters
    ----------
    ncsnr : array of shape (V,)
        S.d. of the signal over the s.d. of the noise of a single trial, >= 0.
    counts : (A, B, C)
        Number of images with 3, 2 and 1 trials, over which responses are averaged.

    Returns
    -------
    array of shape (V,), in [0, 1]
        A ceiling on r squared: ``ncsnr^2 / (ncsnr^2 + (A/3 + B/2 + C) / (A + B + C))``; NaN stays NaN.

    Raises
    ------
    UsageError
        If an ncsnr is negative, or the counts are not three numbers >= 0 with a positive sum.

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
        # In this form 0 gives 0 and infinity gives 1.
        return np.asarray(1.0 / (1.0 + noise / ratio**2))


def noise_ceiling_from_repetitions(responses: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Noise ceiling of responses averaged over repetitions, from the single repetitions.

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
        If the shape is different.
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


def _three_counts(counts: Sequence[int]) -> tuple[float, float, float]:
    try:
        three, two, one = (float(count) for count in counts)
    except (TypeError, ValueError):
        raise UsageError(f"counts must be three numbers (images with 3, 2, 1 trials), got {counts!r}") from None
    if min(three, two, one) < 0 or not 0 < three + two + one < float("inf"):
        raise UsageError(f"counts must be >= 0 and not all zero, got {counts!r}")
    return three, two, one
