"""A matrix of responses of own data, in whatever files it is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.cortex.vertices import Vertices
from brainkit.errors import DataError
from brainkit.utils.text import plural

_FEW = 10  # columns: where a trial lacks fewer, it is the columns that were not measured

Rows = npt.NDArray[np.int64]
Read = Callable[[Rows, Rows], npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Matrix:
    """Responses on disk.

    Attributes
    ----------
    name : str
        The file or folder, for messages.
    files : tuple of Path
    shape : (int, int)
        Rows, each a trial or the mean over trials, and columns.
    dtype : dtype
    read : callable
        ``read(rows, columns)``: (k, m) numbers as they are stored.
    reads_columns : bool
        Whether reading some of the columns costs less than reading all.
    hemispheres : (int, int) or None
        Columns of the left and of the right hemisphere, each a whole surface, if the files say so.
    vertices : Vertices or None
        Of the columns, if the files say them.
    stored : int or None
        Columns of the files, if some of them are left out.
    kept : array of shape (columns,), or None
        Which of those the columns are.
    row_names : tuple of tuples of str
        What the files call the rows, in one way or in another; each row has a name.
    must_be_named : bool
        The order of the rows is known by their names alone.
    notes : tuple of str
    """

    name: str
    files: tuple[Path, ...]
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    read: Read
    reads_columns: bool = True
    hemispheres: tuple[int, int] | None = None
    scale: float = field(default=1.0)
    vertices: Vertices | None = None
    stored: int | None = None
    kept: Rows | None = None
    row_names: tuple[tuple[str, ...], ...] = ()
    must_be_named: bool = False
    notes: tuple[str, ...] = ()

    @property
    def stored_columns(self) -> int:
        """Columns of the files, which regions and noise ceilings count."""
        return self.shape[1] if self.stored is None else self.stored

    def values(self, rows: Rows, columns: Rows) -> npt.NDArray[np.float32]:
        """The responses (k, m), float32: what is stored, over the scale.

        Raises
        ------
        DataError
            If a row has no finite value: a trial that was not measured.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.asarray(self.read(rows, columns), np.float32)
            values = values if self.scale == 1.0 else values / np.float32(self.scale)
        empty = ~np.isfinite(values).any(axis=1)
        if empty.any() and not empty.all() and len(columns) >= _FEW:
            raise DataError(
                f"{self.files[0]}: expected a response of every trial, found {plural(int(empty.sum()), 'row')} without "
                f"a number, the first is row {rows[empty.argmax()]}, counted from 0; remove these trials"
            )
        return values
