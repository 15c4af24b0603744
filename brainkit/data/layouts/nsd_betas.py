"""Single-trial responses as the Natural Scenes Dataset stores them: ``.mgh``, ``.hdf5`` and ``.nii.gz``."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainkit.data.layouts.hdf5_columns import open_columns
from brainkit.data.layouts.nifti import open_nifti, read_volume
from brainkit.errors import DataError

SCALE = 300.0  # of percent signal change in int16
_MGH_HEADER, _MGH_FLOAT = 284, 3
# Typical s.d. over trials of percent signal change: wrong by a factor of 300, it is far outside.
_LEAST, _MOST = 0.05, 100.0
_CHECKED = 256  # columns whose s.d. is looked at
_ENOUGH = 8  # columns that must vary before anything is said

Integers = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Betas:
    """A file with the responses of all trials of a session, in percent signal change.

    Attributes
    ----------
    path : Path
    shape : tuple of int
        Of a trial: (vertices,) or (X, Y, Z).
    n_trials : int
    get : callable
        ``get(positions, out)`` reads the positions (k,), increasing, of each trial into `out` (n_trials, k). The first
        axis of a volume is the fastest.
    by_column : bool
        Whether the file is laid out column by column.
    axes : array of shape (3, 3), or None
        Of a volume whose file says it, the directions and sizes of its axes in mm: its affine without the origin.
    """

    path: Path
    shape: tuple[int, ...]
    n_trials: int
    get: Callable[[Integers, Values], None]
    by_column: bool
    axes: npt.NDArray[np.float64] | None = None

    def read(self, positions: Integers, out: Values) -> None:
        """Read the responses at some positions (k,), increasing, into `out` (n_trials, k).

        Raises
        ------
        DataError
            If the file is damaged, or its numbers cannot be percent signal change.
        """
        if len(positions):
            self.get(positions, out)
            self._check_range(out)

    def _check_range(self, values: Values) -> None:
        measured = np.flatnonzero(np.isfinite(values[0]) & (values[0] != 0))
        some = values[:, measured[:: max(1, len(measured) // _CHECKED)]]
        with np.errstate(invalid="ignore", over="ignore"):
            spread = some.std(axis=0, dtype=np.float64)
        spread = spread[(spread > 0) & ~np.isnan(spread)]
        if len(spread) < _ENOUGH or _LEAST <= (typical := float(np.median(spread))) <= _MOST:
            return
        mistakes = {
            (".mgh", True): "they were divided by 300, but .mgh files are in percent already",
            (".mgh", False): "they were not divided by 300",
            ("", True): "the whole numbers are not percent x 300",
            ("", False): "the whole numbers are not percent x 300",
        }
        mistake = mistakes[self.path.suffix if self.path.suffix == ".mgh" else "", typical < _LEAST]
        raise DataError(
            f"{self.path}: expected percent signal change with a typical s.d. of {_LEAST:g} to {_MOST:g} over trials, "
            f"found {typical:.2g}; it seems that {mistake}: take the file as it was released"
        )


def open_betas(path: Path) -> Betas:
    """Open a session's file; only its header is read.

    Raises
    ------
    DataError
        If it is damaged, truncated or of another kind.
    """
    if path.suffix == ".mgh":
        return _open_mgh(path)
    if path.suffix in (".hdf5", ".h5"):
        columns = open_columns(path, "betas", np.dtype(np.int16), SCALE, "percent signal change x 300")
        return Betas(path, tuple(reversed(columns.shape[1:])), columns.shape[0], columns.read, by_column=True)
    return _open_nifti(path)


def _open_mgh(path: Path) -> Betas:
    with path.open("rb") as file:
        header = file.read(_MGH_HEADER)
    version, vertices, rows, slices, trials, kind = struct.unpack(">6i", header.ljust(24, b"\0")[:24])
    if len(header) < _MGH_HEADER or version != 1 or min(vertices, trials) < 1:
        raise DataError(f"{path}: expected an .mgh file, found something else")
    if kind != _MGH_FLOAT or (rows, slices) != (1, 1):
        raise DataError(
            f"{path}: expected float32 of (vertices, 1, 1, trials), found type {kind} of "
            f"({vertices}, {rows}, {slices}, {trials})"
        )
    whole = _MGH_HEADER + 4 * vertices * trials
    if (size := path.stat().st_size) < whole:
        raise DataError(f"{path}: expected {whole:,} bytes, found {size:,}: the file is truncated; download it again")

    def get(positions: Integers, out: Values) -> None:
        first, span = int(positions[0]), int(positions[-1] - positions[0]) + 1
        row, inside = np.empty(span, ">f4"), slice(None) if span == len(positions) else positions - first
        with path.open("rb", buffering=0) as file:
            for trial in range(trials):
                file.seek(_MGH_HEADER + 4 * (trial * vertices + first))
                if file.readinto(row) != row.nbytes:  # type: ignore[arg-type]
                    raise DataError(f"{path}: expected {trials} trials, found the file's end in trial {trial + 1}")
                out[trial] = row[inside]

    return Betas(path, (vertices,), trials, get, by_column=False)


def _open_nifti(path: Path) -> Betas:
    image = open_nifti(path)
    if len(image.shape) != 4 or image.get_data_dtype() != np.int16:
        raise DataError(
            f"{path}: expected int16 (percent signal change x 300) of (X, Y, Z, trials), found "
            f"{image.get_data_dtype()} of shape {image.shape}"
        )
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    if (slope, intercept) != (1.0, 0.0):
        raise DataError(
            f"{path}: expected whole numbers without a scale in the header, found the scale {slope:g} and the offset "
            f"{intercept:g}; take the file as it was released"
        )

    def get(positions: Integers, out: Values) -> None:
        volumes = open_nifti(path)
        for trial in range(len(out)):
            out[trial] = read_volume(path, volumes, trial).ravel(order="F")[positions]
        out /= np.float32(SCALE)

    axes = np.asarray(image.affine[:3, :3], np.float64)
    return Betas(path, tuple(image.shape[:3]), image.shape[3], get, by_column=False, axes=axes)
