"""Means over regions of interest, in memory and as a table."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from brainkit.errors import DataError


def region_means(rows: np.ndarray, regions: Mapping[str, np.ndarray]) -> np.ndarray:
    """The mean over each region's columns, summed in float64. (b, columns) -> (b, regions), float32."""
    means = np.empty((len(rows), len(regions)), np.float32)
    for column, index in enumerate(regions.values()):
        means[:, column] = rows[:, index].mean(axis=1, dtype=np.float64)
    return means


class RoiMeanRows:
    """A CSV file: a row an image, its name first, then the mean over each region.

    Numbers have as many digits as float32 needs to be read back the same. Names are quoted where they must be; a
    newline within one stays in its quotes, as CSV readers know it.

    Parameters
    ----------
    path : Path
    regions : mapping of str to array of int
        Positions of each region among the columns of the rows.
    resume_rows : int
        The file is there and keeps so many rows; what follows them is cut off.

    Raises
    ------
    DataError
        If the file holds fewer rows than it is to keep.
    """

    def __init__(self, path: Path, regions: Mapping[str, np.ndarray], resume_rows: int = 0) -> None:
        self._regions, self._rows = regions, resume_rows
        if resume_rows:
            end = _end_of(path, 1 + resume_rows)
            os.truncate(path, end)
        # Names are clean text already; a stray surrogate would otherwise end the work at its last image.
        self._stream = path.open("a" if resume_rows else "w", newline="", encoding="utf-8", errors="backslashreplace")
        self._table = csv.writer(self._stream, lineterminator="\n")
        if not resume_rows:
            self._table.writerow(["image", *regions])

    def append(self, rows: np.ndarray, names: Sequence[str] = ()) -> None:
        """Take rows (b, columns) with the images' names."""
        for name, means in zip(names, region_means(rows, self._regions), strict=True):
            self._table.writerow([name, *map(str, means)])
        self._rows += len(rows)

    def checkpoint(self) -> int:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return self._rows

    def finish(self, names: Sequence[str] = ()) -> None:
        """Nothing is left to do: each row is complete by itself."""

    def close(self) -> None:
        self._stream.close()


def _end_of(path: Path, records: int) -> int:
    """Bytes that the first records of a CSV file take, newlines in quotes minded."""
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
                raise DataError(f"{path}: expected {records - 1} rows to go on from, found {max(0, record - 1)}")
    return used
