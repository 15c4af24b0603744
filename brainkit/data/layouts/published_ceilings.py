"""Noise ceilings that data sets publish, as signal-to-noise ratios to compare with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from brainkit.errors import DataError

_HIGHEST = 1.0 - 1e-6  # of a ceiling as a fraction: at 1 the ratio would be infinite
_ROUNDING = 0.01  # percent


def ncsnr_of_ceiling(ceiling: npt.NDArray[np.float64], trials: int = 1) -> npt.NDArray[np.float64]:
    """The ratio of signal to noise whose ceiling, for averages of n trials, this is: its square is ``c / (1 - c) / n``.

    Parameters
    ----------
    ceiling : array of shape (V,)
        Fractions of r squared; NaN stays NaN.
    trials : int
        n.
    """
    share = np.clip(ceiling, 0.0, _HIGHEST)
    return np.asarray(np.sqrt(share / (1.0 - share) / trials))


def ncsnr_of_percent(ceiling: npt.NDArray[np.float64], where: str) -> npt.NDArray[np.float64]:
    """The ratio of signal to noise from the ceiling of single trials in percent.

    Raises
    ------
    DataError
        If the numbers are not percent; `where` names the file and the table's column.
    """
    known = ceiling[np.isfinite(ceiling)]
    if len(known) and (known.min() < -1e-6 or known.max() > 100.0 + _ROUNDING or known.max() <= 1.0):
        raise DataError(f"{where}: expected percent, 0 to 100, found {known.min():g} to {known.max():g}")
    return ncsnr_of_ceiling(ceiling / 100.0)
