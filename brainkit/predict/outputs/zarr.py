"""Rows as a Zarr array, for results that are larger than a disk or read in parts."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from brainkit.errors import DataError, require

CHUNK_BYTES = 8 << 20
CHUNK_ROWS = 1024  # at most: what is lost when it is interrupted
_GROWTH = 1.5  # so that the array's metadata are written a few times, not once a chunk


class ZarrRows:
    """A Zarr (format 3) array (n, columns) of float32, chunked by rows, its attributes saying what it holds.

    Only whole chunks are written before the end, each once: what is on the disk never changes.

    Parameters
    ----------
    store : path-like or str
        A folder, or an address that fsspec understands.
    columns : int
    attributes : mapping
        Plain values: units, space, vertex ids.
    resume_rows : int
        The array is there, unfinished, and keeps so many rows.
    chunk_rows : int, optional
        Rows of a chunk; by default about 8 MB, and at most 1,024.

    Raises
    ------
    MissingDependency
        If zarr is not installed.
    DataError
        If the array to go on with is not of this kind.
    """

    def __init__(
        self,
        store: str | os.PathLike[str],
        columns: int,
        attributes: Mapping[str, Any],
        resume_rows: int = 0,
        *,
        chunk_rows: int | None = None,
    ) -> None:
        zarr = require("zarr", extra="zarr", purpose="writing .zarr")
        rows = chunk_rows or max(1, min(CHUNK_ROWS, CHUNK_BYTES // (4 * max(1, columns))))
        if resume_rows:
            self._array = zarr.open_array(os.fspath(store), mode="r+")
            shape, rows = self._array.shape, self._array.chunks[0]
            if len(shape) != 2 or shape[1] != columns or shape[0] < resume_rows:
                raise DataError(f"{store}: expected {resume_rows} rows of {columns} to go on from, found {shape}")
        else:
            self._array = zarr.create_array(
                os.fspath(store),
                shape=(0, columns),
                chunks=(rows, max(1, columns)),
                dtype="float32",
                fill_value=float("nan"),
                dimension_names=("image", "vertex"),
                attributes=dict(attributes),
                overwrite=True,
            )
        self._buffer = np.empty((rows, columns), np.float32)
        self._written = resume_rows - resume_rows % rows
        self._held = resume_rows - self._written
        self._buffer[: self._held] = self._array[self._written : resume_rows]

    def append(self, rows: np.ndarray, names: Sequence[str] = ()) -> None:
        """Take rows (b, columns); a chunk is written when it is full."""
        while len(rows):
            taken = min(len(rows), len(self._buffer) - self._held)
            self._buffer[self._held : self._held + taken] = rows[:taken]
            self._held += taken
            rows = rows[taken:]
            if self._held == len(self._buffer):
                self._write()

    def checkpoint(self) -> int:
        """How many rows are on the disk: those of whole chunks."""
        return self._written

    def finish(self, names: Collection[str] = ()) -> None:
        """Write the last chunk, and cut the array to its rows."""
        if self._held:
            self._write()
        self._array.resize((self._written, self._array.shape[1]))

    def close(self) -> None:
        """Nothing is open between writes."""

    def _write(self) -> None:
        end = self._written + self._held
        if end > self._array.shape[0]:
            self._array.resize((max(end, int(end * _GROWTH)), self._array.shape[1]))
        self._array[self._written : end] = self._buffer[: self._held]
        self._written, self._held = end, 0
