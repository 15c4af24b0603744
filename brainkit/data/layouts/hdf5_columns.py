"""HDF5 arrays that are stored column by column, as MATLAB writes chunks of one voxel: read without HDF5's detours.

A chunk of a few hundred trials costs h5py more time to find than to read: tens of microseconds. The addresses of
chunks that are neither compressed nor checksummed are asked for once, and their bytes read directly.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.data.layouts.hdf5 import open_hdf5
from brainkit.errors import DataError
from brainkit.utils.system import cores

_PART = 1024  # columns that are read at a time, which fit the processor's cache
_GAP = 1 << 16  # bytes that are read in vain rather than reading twice


@dataclass(frozen=True, eq=False)
class ColumnArray:
    """An array (n, ...) of an HDF5 file, whose columns are numbered in the order of the axes after the first.

    Attributes
    ----------
    path : Path
    name : str
    shape : tuple of int
    dtype : dtype
        In the file, with its order of bytes.
    scale : float
        What the numbers in the file are divided by.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float

    def read(self, columns: npt.NDArray[np.int64], out: npt.NDArray[np.float32]) -> None:
        """Read some columns (k,), increasing, into `out` (n, k).

        Raises
        ------
        DataError
            If the file is damaged.
        """
        if self._runs is None:
            self._read_slowly(columns, out)
            out /= np.float32(self.scale)
            return

        def read(part: slice) -> None:
            np.divide(self._read_chunks(columns[part]), np.float32(self.scale), out=out[:, part])

        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(read, (slice(start, start + _PART) for start in range(0, len(columns), _PART))))

    @functools.cached_property
    def _runs(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
        """Columns at which runs of adjacent chunks start, and their first bytes; None if chunks are no whole columns.

        Chunks that nobody has written have no address.
        """
        size = self.shape[0] * self.dtype.itemsize
        addresses = np.full(int(np.prod(self.shape[1:])), -1, np.int64)
        with open_hdf5(self.path) as file:
            stored = file[self.name]
            plain = stored.chunks == (self.shape[0], *(1,) * (len(self.shape) - 1))
            filtered = stored.id.get_create_plist().get_nfilters() > 0
            if not plain or filtered or file.userblock_size or not hasattr(stored.id, "chunk_iter"):
                return None
            chunks: list[Any] = []
            stored.id.chunk_iter(chunks.append)
        if len(chunks) < len(addresses):
            return None
        places = np.array([chunk.chunk_offset for chunk in chunks], np.int64).T[1:]
        addresses[np.ravel_multi_index(tuple(places), self.shape[1:])] = [chunk.byte_offset for chunk in chunks]
        starts = np.flatnonzero(np.diff(addresses, prepend=-size) != size)
        return starts, addresses[starts]

    def _read_chunks(self, columns: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        assert self._runs is not None
        starts, addresses = self._runs
        run = np.searchsorted(starts, columns, side="right") - 1
        size = self.shape[0] * self.dtype.itemsize
        byte = addresses[run] + (columns - starts[run]) * size
        values = np.empty((self.shape[0], len(columns)), np.float32)
        order = np.argsort(byte, kind="stable")
        steps = np.diff(byte[order])
        with self.path.open("rb", buffering=0) as file:
            for part in np.split(order, np.flatnonzero((steps % size != 0) | (steps > size + _GAP)) + 1):
                first, last = int(byte[part[0]]), int(byte[part[-1]])
                rows = np.empty(((last - first) // size + 1, self.shape[0]), self.dtype)
                file.seek(first)
                if file.readinto(rows) != rows.nbytes:  # type: ignore[arg-type]
                    raise DataError(f"{self.path}: expected a whole HDF5 file, found its end; download it again")
                chosen = rows if len(rows) == len(part) else rows[(byte[part] - first) // size]
                adjacent = part[-1] - part[0] == len(part) - 1
                values[:, slice(part[0], part[-1] + 1) if adjacent else part] = chosen.T
        return values

    def _read_slowly(self, columns: npt.NDArray[np.int64], values: npt.NDArray[np.float32]) -> None:
        """Through h5py, one index of the second axis at a time, or all between two columns where there are no more."""
        with open_hdf5(self.path) as file:
            stored = file[self.name]
            if len(self.shape) == 2:
                first = int(columns[0]) if len(columns) else 0
                span = slice(first, int(columns[-1]) + 1) if len(columns) else slice(0, 0)
                values[:] = stored[:, span][:, columns - first]
                return
            width = int(np.prod(self.shape[2:]))
            for index in np.unique(columns // width).tolist():
                inside = np.flatnonzero(columns // width == index)
                values[:, inside] = stored[:, index].reshape(self.shape[0], width)[:, columns[inside] - index * width]


def open_columns(path: Path, name: str, dtype: np.dtype[Any], scale: float, what: str) -> ColumnArray:
    """Open an array of an HDF5 file; only its header is read.

    Parameters
    ----------
    path : Path
    name : str
        Of the array in the file.
    dtype : dtype
        That it must have, in either order of bytes.
    scale : float
        What the numbers are divided by.
    what : str
        What the numbers are, for messages.

    Raises
    ------
    DataError
        If the file is damaged, or has no such array.
    """
    with open_hdf5(path) as file:
        stored = file.get(name)
        shape, found = getattr(stored, "shape", ()), getattr(stored, "dtype", None)
    if len(shape) < 2 or found is None or found.newbyteorder("=") != dtype:
        described = f"{found} of shape {shape}" if found is not None else f"no array {name}"
        raise DataError(f"{path}: expected {name}, {dtype} ({what}) of (trials, ...), found {described}")
    return ColumnArray(path, name, tuple(shape), found, scale)
