"""What correlations mean against the noise ceiling: the official score, the share of explainable variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brainkit.errors import UsageError

LEAST_CEILING = 0.05  # below it, the share of explainable variance is mostly noise
RELIABLE_CEILING = 0.3  # above it, a single vertex says something: what it reads, how well it is predicted


@dataclass(frozen=True)
class OfficialScore:
    """The score of the Algonauts 2023 challenge, in percent of the noise ceiling, over `n` vertices."""

    mean: float
    median: float
    n: int


def official_score(r: npt.ArrayLike, noise_ceiling: npt.ArrayLike) -> OfficialScore:
    """Noise-normalised accuracy as defined by the Algonauts 2023 challenge.

    Per vertex ``min(100 * max(r, 0)^2 / noise_ceiling, 100)``; mean (official) and median (often quoted) over all
    vertices with a ceiling above 0. A vertex whose r is NaN (a constant prediction) explains nothing and counts as 0.

    Parameters
    ----------
    r : array of shape (V,)
        Correlation on test images, in [-1, 1].
    noise_ceiling : array of shape (V,)
        Ceiling on r squared, as a fraction in [0, 1]; vertices with NaN are ignored.

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
            f"noise_ceiling must be a fraction in [0, 1], got {np.nanmax(ceiling):g}; divide percent by 100, and make "
            "a ceiling of ncsnr with brainkit.metrics.noise_ceiling_from_ncsnr"
        )
    valid = ceiling > 0
    n = int(valid.sum())
    if not n:
        return OfficialScore(float("nan"), float("nan"), 0)
    explained = np.maximum(np.nan_to_num(correlation[valid], nan=0.0), 0.0) ** 2
    score = np.minimum(100.0 * explained / ceiling[valid], 100.0)
    return OfficialScore(float(score.mean()), float(np.median(score)), n)


def explained_share(r: npt.ArrayLike, noise_ceiling: npt.ArrayLike) -> npt.NDArray[np.float64]:
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
        In [0, 1]; NaN where the ceiling is unknown or below `LEAST_CEILING`.
    """
    ceiling = np.asarray(noise_ceiling, np.float64)
    usable = np.nan_to_num(ceiling) >= LEAST_CEILING
    explained = np.maximum(np.nan_to_num(np.asarray(r, np.float64)), 0.0) ** 2
    return np.where(usable, np.minimum(explained / np.where(usable, ceiling, 1.0), 1.0), np.nan)
