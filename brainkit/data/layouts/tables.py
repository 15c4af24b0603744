"""Tables of text (``.tsv``, ``.csv``) that data sets come with."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainkit.errors import DataError
from brainkit.utils.files import read_text
from brainkit.utils.text import one_line, plural

Table = dict[str, list[str]]


def read_table(path: Path, columns: Sequence[str] = ()) -> Table:
    """Read all columns of a table with a header, as texts.

    Parameters
    ----------
    path : Path
        ``.tsv``: tabs between the columns; else commas.
    columns : sequence of str
        That it must have.

    Raises
    ------
    DataError
        If the file cannot be read, lacks a column, has one twice, or has rows of other lengths.
    """
    text = io.StringIO(read_text(path, "a table"), newline="")  # a quoted name may have line breaks
    delimiter = "\t" if path.suffix == ".tsv" else ","
    try:
        rows = [row for row in csv.reader(text, delimiter=delimiter) if row]
    except csv.Error as error:
        raise DataError(f"{path}: expected a table, which cannot be read: {one_line(error)}") from None
    header = rows[0] if rows else []
    for column in columns:
        if column not in header:
            raise DataError(f"{path}: expected the columns {', '.join(columns)}, found {', '.join(header) or 'none'}")
    if len(set(header)) < len(header):
        twice = next(column for column in header if header.count(column) > 1)
        raise DataError(f"{path}: expected each column once, found {twice!r:.40} twice; remove or rename one")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise DataError(f"{path}: expected {plural(len(header), 'column')}, found {len(row)} in row {number}")
    return {name: [row[k] for row in rows[1:]] for k, name in enumerate(header)}


def whole_numbers(path: Path, table: Table, column: str) -> list[int]:
    """A column of whole numbers, which may be written with decimals (``3.0``).

    Raises
    ------
    DataError
        If a value is something else.
    """
    numbers = []
    for text in table[column]:
        try:
            value = float(text)
        except ValueError:
            value = 0.5
        if not value.is_integer():
            raise DataError(f"{path}: expected whole numbers in the column {column}, found {text!r:.40}")
        numbers.append(int(value))
    return numbers


def numbers(path: Path, table: Table, column: str) -> npt.NDArray[np.float64]:
    """A column of numbers; empty cells are NaN.

    Raises
    ------
    DataError
        If a value is something else.
    """
    values = []
    for text in table[column]:
        try:
            values.append(float(text or "nan"))
        except ValueError:
            raise DataError(f"{path}: expected numbers in the column {column}, found {text!r:.40}") from None
    return np.array(values, np.float64)
