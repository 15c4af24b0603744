"""Tables of text (``.tsv``, ``.csv``) that data sets come with."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

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
        If the file cannot be read, lacks a column or has rows of other lengths.
    """
    lines = read_text(path, "a table").splitlines()
    delimiter = "\t" if path.suffix == ".tsv" else ","
    try:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error as error:
        raise DataError(f"{path}: expected a table, which cannot be read: {one_line(error)}") from None
    header = rows[0] if rows else []
    for column in columns:
        if column not in header:
            raise DataError(f"{path}: expected the columns {', '.join(columns)}, found {', '.join(header) or 'none'}")
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
