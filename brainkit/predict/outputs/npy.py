"""Rows as ``.npy``: one file, or one a hemisphere as the Algonauts challenge takes them."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from brainkit.errors import DataError
from brainkit.predict.resume import write_all

HEADER_BYTES = 128  # bytes: room for any number of rows, and the alignment the format asks for


class NpyRows:
    """A ``.npy`` file of float32 rows, whose number is known only at the end.

    Parameters
    ----------
    path : Path
    columns : int
    resume_rows : int
        The file is there and keeps so many rows; what follows them is cut off.
    offset : int
        Bytes before the array: those of a container that the file is to become.

    Raises
    ------
    DataError
        If the file holds fewer rows than it is to keep.
    """

    def __init__(self, path: Path, columns: int, resume_rows: int = 0, *, offset: int = 0) -> None:
        self.path, self.columns, self.rows, self.offset = path, columns, resume_rows, offset
        # Unbuffered: a disk that is full must say so at once, and not again when the file is closed.
        self._stream = path.open("r+b" if resume_rows else "w+b", buffering=0)
        if not resume_rows:
            write_all(self._stream, bytes(offset) + self._header())
            return
        end = offset + HEADER_BYTES + resume_rows * columns * 4
        if self._stream.seek(0, os.SEEK_END) < end:
            self._stream.close()
            raise DataError(f"{path}: expected {resume_rows} rows to go on from, found a shorter file")
        self._stream.truncate(end)
        self._stream.seek(end)

    def append(self, rows: np.ndarray, names: Sequence[str] = ()) -> None:
        """Write rows (b, columns) float32; their names are not kept."""
        write_all(self._stream, np.ascontiguousarray(rows, "<f4").data)
        self.rows += len(rows)

    def checkpoint(self) -> int:
        """Bring all rows to the disk; how many there are."""
        os.fsync(self._stream.fileno())
        return self.rows

    def finish(self, names: Collection[str] = ()) -> None:
        """Write the header that says how many rows there are."""
        self._stream.seek(self.offset)
        write_all(self._stream, self._header())
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        self._stream.close()

    def _header(self) -> bytes:
        start = b"\x93NUMPY\x01\x00"
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({self.rows}, {self.columns}), }}".encode()
        length = HEADER_BYTES - len(start) - 2
        return start + length.to_bytes(2, "little") + text.ljust(length - 1) + b"\n"


class HemisphereRows:
    """Two ``.npy`` files: the columns of the left hemisphere, then those of the right."""

    def __init__(self, paths: Sequence[Path], widths: Sequence[int], resume_rows: int = 0) -> None:
        self._edges = np.cumsum([0, *widths])
        self._parts: list[NpyRows] = []
        try:
            for path, width in zip(paths, widths, strict=True):
                self._parts.append(NpyRows(path, width, resume_rows))
        except BaseException:
            self.close()
            raise

    def append(self, rows: np.ndarray, names: Sequence[str] = ()) -> None:
        for part, low, high in zip(self._parts, self._edges, self._edges[1:], strict=False):
            part.append(rows[:, low:high])

    def checkpoint(self) -> int:
        return min(part.checkpoint() for part in self._parts)

    def finish(self, names: Collection[str] = ()) -> None:
        for part in self._parts:
            part.finish()

    def close(self) -> None:
        for part in self._parts:
            part.close()
