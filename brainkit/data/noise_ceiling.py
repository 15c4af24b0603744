"""Noise ceilings of r squared on disk: as fractions or in percent, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainkit.data.responses import open_array
from brainkit.errors import DataError

_ROUNDING = 1.01  # a fraction a little above 1, or a percentage a little above 100, is that
# Of maps in percent, the best hundredth of the vertices reach more; ratios of signal to noise (ncsnr) stay below.
_BEST, _LEAST_PERCENT = 0.99, 10.0


@dataclass(frozen=True, eq=False)
class NoiseCeiling:
    """Noise ceilings of all vertices.

    Attributes
    ----------
    values : array of shape (V,), float32, in [0, 1]
        Of r squared.
    unit : {"fractions", "percent"}
        Which the file was taken to have.
    """

    values: npt.NDArray[np.float32]
    unit: str


def read_noise_ceiling(parts: Sequence[tuple[Path, int]]) -> NoiseCeiling:
    """Read noise ceilings from one file, or one per hemisphere, which together determine the unit.

    Values up to 1 are fractions. Values up to 100 are percent, if the best hundredth of the vertices reach 10. Anything
    else is neither, such as NSD's ncsnr. NaN (no estimate) becomes 0, so that nothing counts as explainable.

    Parameters
    ----------
    parts : sequence of (path, number of vertices)

    Raises
    ------
    DataError
        If a shape, dtype or value is wrong.
    """
    values = [_read(path, count) for path, count in parts]
    whole = np.concatenate(values)
    if whole.max(initial=0.0) <= _ROUNDING:
        return NoiseCeiling(np.clip(whole, 0.0, 1.0).astype(np.float32), "fractions")
    if np.quantile(whole[whole > 0], _BEST) < _LEAST_PERCENT:
        path, found = max(
            zip((path for path, _ in parts), values, strict=True), key=lambda pair: pair[1].max(initial=0.0)
        )
        raise DataError(
            f"{path}: expected noise ceilings of r squared, as fractions (up to 1) or in percent (up to 100, the best "
            f"above {_LEAST_PERCENT:g}), found {found.min():g} to {found.max():g}; clip fractions at 1; divide low "
            "percentages by 100; of NSD's ncsnr s, for averages of n trials, the ceiling is s**2 / (s**2 + 1/n), with "
            "1/3 for three trials (brainkit.metrics.noise_ceiling_from_ncsnr)"
        )
    return NoiseCeiling(np.clip(whole / 100.0, 0.0, 1.0).astype(np.float32), "percent")


def _read(path: Path, count: int) -> npt.NDArray[np.float64]:
    array = open_array(path, f"noise ceilings of {count} vertices")
    if array.size != count or max(array.shape, default=0) != count:
        raise DataError(f"{path}: expected noise ceilings of {count} vertices, found shape {array.shape}")
    if array.dtype.kind not in "fiu":
        raise DataError(f"{path}: expected numbers, found {array.dtype}")
    values = np.nan_to_num(np.asarray(array, np.float64).ravel(), nan=0.0, posinf=np.inf, neginf=-np.inf)
    if values.size and (values.min() < -1e-6 or values.max() > 100 * _ROUNDING):
        raise DataError(
            f"{path}: expected noise ceilings from 0 to 1, or 0 to 100 percent, "
            f"found {values.min():g} to {values.max():g}; clip estimates outside, such as negative ones"
        )
    return values
