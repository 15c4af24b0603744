"""Means over regions of interest, in memory and as a table."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from brainkit.cortex.surface import RoiTable
from brainkit.errors import DataError, UsageError

_QUOTE = '"'
_SPECIAL = frozenset(',"\r\n')  # a field that holds one of them is quoted


def region_means(rows: np.ndarray, regions: Mapping[str, np.ndarray]) -> np.ndarray:
    """The mean over each region's columns, summed in float64. (b, columns) -> (b, regions), float32."""
    means = np.empty((len(rows), len(regions)), np.float32)
    for column, index in enumerate(regions.values()):
        means[:, column] = rows[:, index].mean(axis=1, dtype=np.float64)
    return means


def as_names(rois: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """Names of regions as they may be given: one alone is a name, not its letters."""
    return (rois,) if isinstance(rois, str) else None if rois is None else tuple(rois)


def chosen_columns(table: RoiTable, names: tuple[str, ...] | None) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
    """The columns to keep, ascending (None: all), and where each region lies among them."""
    if names is None:
        return None, {}
    if not names:
        raise UsageError("rois must name at least one region, got none")
    different = {name.strip().lower(): name for name in reversed(names)}  # V1 and v1 are one; as it was named first
    members = {name: table.members(name) for name in names if different[name.strip().lower()] == name}
    columns = np.unique(np.concatenate(list(members.values())))
    if not len(columns):
        raise UsageError(f"ROI {', '.join(names)}: has no vertices in this encoder")
    return columns, {name: np.searchsorted(columns, index) for name, index in members.items()}


def regions_with_vertices(table: RoiTable) -> tuple[str, ...]:
    """Names of all regions that have a mean.

    Raises
    ------
    UsageError
        If there is none.
    """
    names = tuple(name for name, index in table.items() if len(index))
    if not names:
        raise UsageError("this encoder file has no ROI table, so there are no ROI means; expected another format")
    return names


def check_regions(regions: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Refuse regions without a mean."""
    for name, index in regions.items():
        if not len(index):
            raise UsageError(f"ROI {name}: has no vertices in this encoder, so it has no mean")
    return regions


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
        if not resume_rows:
            self._stream.write(_record(["image", *regions]))

    def append(self, rows: np.ndarray, names: Sequence[str] = ()) -> None:
        """Take rows (b, columns) with the images' names."""
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
    """A line of CSV. The library's writer leaves a carriage return bare, which its reader takes for a line's end."""
    return ",".join(f'"{text.replace(_QUOTE, _QUOTE * 2)}"' if _SPECIAL & set(text) else text for text in fields) + "\n"


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
