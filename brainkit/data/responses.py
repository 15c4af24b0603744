"""Responses on disk: ``.npy`` files, memory-mapped and read a few rows at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.errors import DataError, UsageError
from brainkit.utils.file_kind import NPY, file_kind
from brainkit.utils.text import one_line, plural

# Rows per block when all responses are read: about 40 MB for 40,000 vertices.
_BLOCK = 256


class Responses:
    """Responses on disk, read a few rows at a time.

    Parameters
    ----------
    files : sequence of sequences of Path
        ``.npy`` files. The inner sequences are concatenated along the columns (left hemisphere, right hemisphere), the
        outer one along the rows (training images, official test images).
    columns : array of shape (V,), int64, optional
        The columns to use, increasing; by default all.
    kept : array of shape (n,), int64, optional
        The rows of the files to use; by default all, in order.

    Raises
    ------
    DataError
        If a file is missing or not a float32 or float64 matrix, or if the shapes do not fit.
    """

    def __init__(
        self,
        files: Sequence[Sequence[Path]],
        columns: npt.NDArray[np.int64] | None = None,
        kept: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.files = tuple(tuple(Path(file) for file in block) for block in files)
        self.kept = kept
        self._open()
        total = sum(self._widths)
        self.columns = np.arange(total) if columns is None else np.asarray(columns, np.int64)
        edges = np.cumsum([0, *self._widths])
        # The columns to use of each file; None for all, which avoids a copy.
        self._file_columns: list[npt.NDArray[np.int64] | None] = []
        for low, high in itertools.pairwise(edges):
            used = self.columns[(self.columns >= low) & (self.columns < high)] - low
            self._file_columns.append(None if len(used) == high - low else used)

    def __repr__(self) -> str:
        images, vertices = self.shape
        return f"Responses({plural(images, 'image')}, {plural(vertices, 'vertex', 'vertices')})"

    @property
    def shape(self) -> tuple[int, int]:
        """(n images, V columns)."""
        return sum(self.block_rows) if self.kept is None else len(self.kept), len(self.columns)

    @property
    def block_rows(self) -> tuple[int, ...]:
        """Number of rows of each block of files (training, official test)."""
        return tuple(len(block[0]) for block in self._arrays)

    @property
    def parts(self) -> tuple[slice, ...]:
        """The columns of each file of a block (left hemisphere, right hemisphere)."""
        widths = [
            width if used is None else len(used) for width, used in zip(self._widths, self._file_columns, strict=True)
        ]
        return tuple(itertools.starmap(slice, itertools.pairwise(np.cumsum([0, *widths]).tolist())))

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, index: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Read rows, in the order requested.

        Parameters
        ----------
        index : array of shape (k,), int, 0 <= index < n

        Returns
        -------
        array of shape (k, V), float32

        Raises
        ------
        UsageError
            If an index is out of range.
        """
        wanted = np.asarray(index)
        if wanted.ndim != 1 or (wanted.size and not np.issubdtype(wanted.dtype, np.integer)):
            raise UsageError(f"index must be a row of integers, got {wanted.dtype} of shape {wanted.shape}")
        n, vertices = self.shape
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < n):
            raise UsageError(f"index must lie in 0 .. {n - 1}, got {wanted.min()} .. {wanted.max()}")
        if self.kept is not None and wanted.size:
            wanted = self.kept[wanted]
        out = np.empty((len(wanted), vertices), np.float32)
        # The disk is read forwards, whatever the order of the rows.
        order = np.argsort(wanted, kind="stable")
        ordered = wanted[order]
        start = 0
        for block, count in zip(self._arrays, self.block_rows, strict=True):
            here = (ordered >= start) & (ordered < start + count)
            if here.any():
                column = 0
                for part, used in zip(block, self._file_columns, strict=True):
                    values = part[ordered[here] - start]
                    values = values if used is None else values[:, used]
                    with np.errstate(over="ignore"):
                        out[order[here], column : column + values.shape[1]] = values
                    column += values.shape[1]
            start += count
        return out

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """All rows in order, in arrays of shape (at most 256, V), float32."""
        for start in range(0, len(self), _BLOCK):
            yield self.rows(np.arange(start, min(start + _BLOCK, len(self))))

    def keep(self, columns: npt.NDArray[np.int64]) -> Responses:
        """The same responses with fewer columns; `columns` are positions among the current ones."""
        return Responses(self.files, self.columns[columns], self.kept)

    def take(self, rows: npt.NDArray[np.int64]) -> Responses:
        """The same responses of some images; `rows` are positions among the current ones."""
        return Responses(self.files, self.columns, rows if self.kept is None else self.kept[rows])

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memory map would copy the whole matrix to every worker process, which may work in another folder.
        files = tuple(tuple(file.absolute() for file in block) for block in self.files)
        return {"files": files, "columns": self.columns, "kept": self.kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["files"], state["columns"], state["kept"])  # type: ignore[misc]

    def _open(self) -> None:
        self._arrays = [[open_matrix(file) for file in block] for block in self.files]
        self._widths = [part.shape[1] for part in self._arrays[0]]
        for files, block in zip(self.files, self._arrays, strict=True):
            for file, part, width in zip(files, block, self._widths, strict=True):
                if len(part) != len(block[0]):
                    raise DataError(
                        f"{file}: expected {len(block[0])} rows as in {files[0].name}, found {len(part)} rows"
                    )
                if part.shape[1] != width:
                    raise DataError(
                        f"{file}: expected {width} columns as in {self.files[0][0].parent}, found {part.shape[1]}"
                    )


def open_array(path: Path, what: str) -> npt.NDArray[Any]:
    """Memory-map a ``.npy`` file of plain numbers.

    Raises
    ------
    DataError
        If it is missing, truncated, not a ``.npy`` file, or contains Python objects.
    """
    try:
        # Not numpy.load, which takes other kinds of files for pickles, and advises to open those unsafely.
        return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise DataError(f"{path}: file not found; expected {what}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, SyntaxError) as error:
        raise not_an_array(path, what, error) from None


def not_an_array(path: Path, what: str, error: Exception) -> DataError:
    """The error of a file that is no ``.npy`` array of numbers, with the kind of file that it is instead."""
    kind = file_kind(path)
    if kind == NPY:
        return DataError(f"{path}: expected {what} as .npy, found a damaged file or Python objects ({one_line(error)})")
    return DataError(
        f"{path}: expected {what} as .npy, found {kind or 'other or damaged content'}; save the array with numpy.save"
    )


def open_matrix(path: Path) -> npt.NDArray[Any]:
    """Memory-map responses: a ``.npy`` file of shape (images, vertices), float32 or float64.

    Raises
    ------
    DataError
        As `open_array`, and for another shape or dtype.
    """
    array = open_array(path, "responses (images, vertices)")
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(f"{path}: expected responses of shape (images, vertices), found shape {array.shape}")
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        raise DataError(f"{path}: expected float32 or float64 responses, found {array.dtype}")
    return array
