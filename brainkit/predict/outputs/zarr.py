"""Rows as a Zarr array, for results that are read in parts or are larger than one disk."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.errors import DataError, require
from brainkit.predict.outputs.rows import Layout, RowWriter

CHUNK_BYTES = 8 << 20
CHUNK_ROWS = 1024  # at most: an interruption loses the rows of an unfinished chunk
_GROWTH = 1.5  # so that the array's metadata are written a few times, not once per chunk


def open_zarr(path: Path, layout: Layout, resume_rows: int) -> RowWriter:
    """An array (n, columns) with the attributes ``units``, ``space``, ``note``, ``encoder_sha256`` and ``vertices``."""
    info = layout.info
    attributes = {
        "units": info.units,
        "space": layout.vertices.space,
        "note": info.note or "",
        "encoder_sha256": info.digest,
        "vertices": layout.ids.tolist(),
    }
    return ZarrRows(path, len(layout.vertices), attributes, resume_rows)


class ZarrRows:
    """A Zarr (format 3) array (n, columns) of float32, chunked by rows.

    Only whole chunks are written before the end, each once: what is on the disk never changes.

    Parameters
    ----------
    store : path-like or str
        A folder, or a URL that fsspec knows.
    columns : int
    attributes : mapping
        Plain values: units, space, vertex ids.
    resume_rows : int
        The array exists, unfinished, and keeps so many rows.
    chunk_rows : int, optional
        Rows of a chunk; by default about 8 MB, and at most 1,024.

    Raises
    ------
    MissingDependency
        If zarr is not installed.
    DataError
        If the array to resume has another shape.
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
                raise DataError(f"{store}: expected {resume_rows} rows of {columns} to resume from, found {shape}")
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
        self._buffered = resume_rows - self._written
        self._buffer[: self._buffered] = self._array[self._written : resume_rows]

    def append(self, rows: np.ndarray, names: Sequence[str] = ()) -> None:
        """Take rows (b, columns); a chunk is written when it is full."""
        while len(rows):
            count = min(len(rows), len(self._buffer) - self._buffered)
            self._buffer[self._buffered : self._buffered + count] = rows[:count]
            self._buffered += count
            rows = rows[count:]
            if self._buffered == len(self._buffer):
                self._write()

    def checkpoint(self) -> int:
        """The number of rows in whole chunks, which are on the disk."""
        return self._written

    def finish(self, names: Collection[str] = ()) -> None:
        """Write the last chunk, and cut the array to its rows."""
        if self._buffered:
            self._write()
        self._array.resize((self._written, self._array.shape[1]))

    def close(self) -> None:
        """Nothing is open between writes."""

    def _write(self) -> None:
        end = self._written + self._buffered
        if end > self._array.shape[0]:
            self._array.resize((max(end, int(end * _GROWTH)), self._array.shape[1]))
        self._array[self._written : end] = self._buffer[: self._buffered]
        self._written, self._buffered = end, 0
