"""Means over regions of interest as a table."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from brainkit.errors import DataError
from brainkit.predict.outputs.rows import Layout, RowWriter
from brainkit.predict.regions import region_means

_QUOTE = '"'
_SPECIAL = frozenset(',"\r\n')  # a field with one of these is quoted


def open_csv(path: Path, layout: Layout, resume_rows: int) -> RowWriter:
    """One row per image, one column per region."""
    return RoiMeanRows(path, layout.regions, resume_rows)


class RoiMeanRows:
    """A CSV file: one row per image, its name first, then the mean over each region.

    Numbers have as many digits as float32 needs to be read back unchanged. Names are quoted where necessary; a newline
    in a name stays inside its quotes, as CSV readers expect.

    Parameters
    ----------
    path : Path
    regions : mapping of str to array of int
        Positions of each region among the columns of the rows.
    resume_rows : int
        The file exists and keeps so many rows; what follows them is cut off.

    Raises
    ------
    DataError
        If the file holds fewer rows than it is to keep.
    """

    def __init__(self, path: Path, regions: Mapping[str, np.ndarray], resume_rows: int = 0) -> None:
        self._regions, self._rows = regions, resume_rows
        if resume_rows:
            os.truncate(path, _end_of(path, 1 + resume_rows))
        # Names are clean text already; a stray surrogate would otherwise end the run at its last image.
        self._stream = path.open("a" if resume_rows else "w", newline="", encoding="utf-8", errors="backslashreplace")
        if not resume_rows:
            self._stream.write(_record(["image", *regions]))

    def append(self, rows: np.ndarray, names: Sequence[str] = ()) -> None:
        """Take rows (b, columns) and the images' names."""
        for name, means in zip(names, region_means(rows, self._regions), strict=True):
            self._stream.write(_record([name, *map(str, means)]))
        self._rows += len(rows)

    def checkpoint(self) -> int:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return self._rows

    def finish(self, names: Collection[str] = ()) -> None:
        """Nothing is left to do: each row is complete by itself."""

    def close(self) -> None:
        self._stream.close()


def _record(fields: Iterable[str]) -> str:
    """A line of CSV. Python's writer leaves a carriage return unquoted, which its reader takes for the line's end."""
    return ",".join(f'"{text.replace(_QUOTE, _QUOTE * 2)}"' if _SPECIAL & set(text) else text for text in fields) + "\n"


def _end_of(path: Path, records: int) -> int:
    """Bytes that the first records of a CSV file take, counting quoted newlines as content."""
    used = 0

    def lines(stream: TextIO) -> Iterator[str]:
        nonlocal used
        for line in stream:
            used += len(line.encode("utf-8"))
            yield line

    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.reader(lines(stream))
        for record in range(records):
            if next(reader, None) is None:
                raise DataError(f"{path}: expected {records - 1} rows to resume from, found {max(0, record - 1)}")
    return used
