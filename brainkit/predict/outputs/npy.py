"""Rows as ``.npy``: one file, or one per hemisphere as the Algonauts challenge takes them."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from brainkit.errors import DataError
from brainkit.predict.outputs.rows import Layout, RowWriter
from brainkit.utils.files import write_all

HEADER_BYTES = 128  # room for any number of rows, and the alignment that the format asks for


def open_npy(path: Path, layout: Layout, resume_rows: int) -> RowWriter:
    """One ``.npy`` file, or one per hemisphere."""
    if not layout.by_hemisphere:
        return NpyRows(path, len(layout.vertices), resume_rows)
    widths = [part.columns.stop - part.columns.start for part in layout.parts]
    return HemisphereRows([part.path(path) for part in layout.parts], widths, resume_rows)


class NpyRows:
    """A ``.npy`` file of float32 rows, whose number is known only at the end.

    Parameters
    ----------
    path : Path
    columns : int
    resume_rows : int
        The file exists and keeps so many rows; what follows them is cut off.

    Raises
    ------
    DataError
        If the file holds fewer rows than it is to keep.
    """

    def __init__(self, path: Path, columns: int, resume_rows: int = 0) -> None:
        self.path, self.columns, self.rows = path, columns, resume_rows
        if resume_rows and not path.is_file():
            raise DataError(f"{path}: expected {resume_rows} rows to resume from, found no file")
        # Unbuffered: a full disk must be an error at once, and not again when the file is closed.
        self._stream = path.open("r+b" if resume_rows else "w+b", buffering=0)
        if not resume_rows:
            write_all(self._stream, self._header())
            return
        end = HEADER_BYTES + resume_rows * columns * 4
        if self._stream.seek(0, os.SEEK_END) < end:
            self._stream.close()
            raise DataError(f"{path}: expected {resume_rows} rows to resume from, found a shorter file")
        self._stream.truncate(end)
        self._stream.seek(end)

    def append(self, rows: np.ndarray, names: Sequence[str] = ()) -> None:
        write_all(self._stream, np.ascontiguousarray(rows, "<f4").data)
        self.rows += len(rows)

    def checkpoint(self) -> int:
        os.fsync(self._stream.fileno())
        return self.rows

    def finish(self, names: Collection[str] = ()) -> None:
        """Write the header again, now with the number of rows."""
        self._stream.seek(0)
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
        self._files: list[NpyRows] = []
        try:
            for path, width in zip(paths, widths, strict=True):
                self._files.append(NpyRows(path, width, resume_rows))
        except BaseException:
            self.close()
            raise

    def append(self, rows: np.ndarray, names: Sequence[str] = ()) -> None:
        for file, low, high in zip(self._files, self._edges, self._edges[1:], strict=False):
            file.append(rows[:, low:high])

    def checkpoint(self) -> int:
        return min(file.checkpoint() for file in self._files)

    def finish(self, names: Collection[str] = ()) -> None:
        for file in self._files:
            file.finish()

    def close(self) -> None:
        for file in self._files:
            file.close()
