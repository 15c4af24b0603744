"""Noise ceilings of r squared on disk: as fractions or in percent, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainkit.data.responses import open_array
from brainkit.errors import DataError
from brainkit.metrics.ceilings import NoiseCeiling

_ROUNDING = 1.01  # a fraction a little above 1, or a percentage a little above 100, is that
# Of maps in percent, the best hundredth of the vertices reach more; ratios of signal to noise (ncsnr) stay below.
_BEST, _LEAST_PERCENT = 0.99, 10.0


def noise_ceiling_from_file(path: str | os.PathLike[str], vertices: int | None = None) -> NoiseCeiling:
    """Noise ceilings of r squared from one ``.npy`` file, as fractions or in percent, which its values tell.

    Values up to 1 are fractions. Values up to 100 are percent, if the best hundredth of the vertices reach 10. Anything
    else is neither, such as NSD's ncsnr. NaN: the vertex has no ceiling.

    Parameters
    ----------
    path : path
        Of an array of shape (V,).
    vertices : int, optional
        V, if the file must have so many.

    Returns
    -------
    NoiseCeiling
        ``values`` are float32 fractions, ``units`` says what the file had, ``counts["without"]`` counts NaN.

    Raises
    ------
    DataError
        If the shape, dtype or a value is wrong.
    """
    path = Path(path)
    expected = "noise ceilings" if vertices is None else f"noise ceilings of {vertices} vertices"
    return read_noise_ceiling([(path, open_array(path, expected).size if vertices is None else vertices)])


def read_noise_ceiling(parts: Sequence[tuple[Path, int]]) -> NoiseCeiling:
    """Read noise ceilings from one file, or one per hemisphere, which together determine the unit.

    Units are told apart as in `noise_ceiling_from_file`.

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
    if _largest(whole) <= _ROUNDING:
        return NoiseCeiling.of(np.clip(whole, 0.0, 1.0).astype(np.float32), "file", "fractions")
    if np.quantile(whole[whole > 0], _BEST) < _LEAST_PERCENT:
        path, found = max(zip((path for path, _ in parts), values, strict=True), key=lambda pair: _largest(pair[1]))
        raise DataError(
            f"{path}: expected noise ceilings of r squared, as fractions (up to 1) or in percent (up to 100, the best "
            f"above {_LEAST_PERCENT:g}), found {np.nanmin(found):g} to {_largest(found):g}; clip fractions at 1; "
            "divide low percentages by 100; of NSD's ncsnr s, for averages of n trials, the ceiling is "
            "s**2 / (s**2 + 1/n), with 1/3 for three trials (brainkit.metrics.noise_ceiling_from_ncsnr)"
        )
    return NoiseCeiling.of(np.clip(whole / 100.0, 0.0, 1.0).astype(np.float32), "file", "percent")


def _read(path: Path, count: int) -> npt.NDArray[np.float64]:
    array = open_array(path, f"noise ceilings of {count} vertices")
    if array.size != count or max(array.shape, default=0) != count:
        raise DataError(f"{path}: expected noise ceilings of {count} vertices, found shape {array.shape}")
    if array.dtype.kind not in "fiu":
        raise DataError(f"{path}: expected numbers, found {array.dtype}")
    values = np.asarray(array, np.float64).ravel()
    if (values < -1e-6).any() or (values > 100 * _ROUNDING).any():
        raise DataError(
            f"{path}: expected noise ceilings from 0 to 1, or 0 to 100 percent, "
            f"found {np.nanmin(values):g} to {_largest(values):g}; clip estimates outside, such as negative ones"
        )
    return values


def _largest(values: npt.NDArray[np.float64]) -> float:
    return float(values[~np.isnan(values)].max(initial=0.0))
