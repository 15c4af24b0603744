"""Responses of own data in CIFTI files: the cortex by the files' own brain models, on fsLR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.cortex.fs_lr import FS_LR_SIZE, STRUCTURES
from brainkit.cortex.vertices import FS_LR, Vertices
from brainkit.data.layouts.own_matrix import Matrix, Rows
from brainkit.errors import DataError
from brainkit.utils.text import one_line

SUFFIXES = (".dscalar.nii", ".dtseries.nii")
_WINDOW = 4096  # grayordinates read at once: all maps of a grayordinate lie together


@dataclass(frozen=True, eq=False)
class CiftiFile:
    """A CIFTI file of maps (or time points) by grayordinates.

    Attributes
    ----------
    path : Path
    names : tuple of str
        Of the maps; empty for time points.
    maps, grayordinates : int
    dtype : dtype
        Of the values, after the header's scale.
    vertices : Vertices
        Of the cortex, on fsLR.
    columns : array of shape (V,), int64
        The grayordinate of each of these vertices.
    """

    path: Path
    names: tuple[str, ...]
    maps: int
    grayordinates: int
    dtype: np.dtype[Any]
    vertices: Vertices
    columns: npt.NDArray[np.int64]

    def read(self, maps: slice, columns: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Some maps at some of the vertices, increasing: (n, k)."""
        image = _open(self.path)
        wanted = self.columns[columns]
        values = np.empty((maps.stop - maps.start, len(wanted)), self.dtype)
        for window in np.unique(wanted // _WINDOW).tolist():
            here = np.flatnonzero(wanted // _WINDOW == window)
            first, last = int(wanted[here].min()), int(wanted[here].max()) + 1
            try:
                block = np.asarray(image.dataobj[maps, first:last])
            except (OSError, EOFError, ValueError) as error:
                raise DataError(f"{self.path}: expected all its values, cannot be read: {one_line(error)}") from None
            values[:, here] = block[:, wanted[here] - first]
        return values


def open_cifti(path: Path) -> CiftiFile:
    """Read what the maps and columns of a CIFTI file are; the order of its columns is whatever its axis says.

    Raises
    ------
    DataError
        If the file cannot be read, has parcels instead of grayordinates, another mesh than fs_LR 32k, or no cortex.
    """
    from nibabel.cifti2.cifti2_axes import BrainModelAxis, ScalarAxis

    image = _open(path)
    rows, axis = (image.header.get_axis(index) for index in (0, 1))
    if not isinstance(axis, BrainModelAxis):
        raise DataError(f"{path}: expected grayordinates, found {type(axis).__name__}; parcels have no vertices")
    ids: list[npt.NDArray[np.int64]] = []
    columns: list[npt.NDArray[np.int64]] = []
    for structure, where, model in axis.iter_structures():
        for index, (side, name) in enumerate(STRUCTURES.items()):
            if structure == name:
                size = model.nvertices.get(structure)
                if size != FS_LR_SIZE:
                    raise DataError(f"{path}: expected {FS_LR_SIZE:,} vertices of the {side} mesh (32k), found {size}")
                ids.append(np.asarray(model.vertex, np.int64) + index * FS_LR_SIZE)
                start = where.start or 0
                columns.append(np.arange(start, start + len(model.vertex)))
    if not ids:
        raise DataError(f"{path}: expected cortex of {' or '.join(STRUCTURES.values())}, found none")
    found, places = np.concatenate(ids), np.concatenate(columns)
    order = np.argsort(found, kind="stable")
    try:
        vertices = Vertices(FS_LR, found[order])
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    names = tuple(str(name) for name in rows.name) if isinstance(rows, ScalarAxis) else ()
    return CiftiFile(
        path, names, len(rows), len(axis), np.asarray(image.dataobj[:1, :1]).dtype, vertices, places[order]
    )


def open_cifti_files(name: str, paths: Sequence[Path]) -> Matrix:
    """The maps of files, one file after another, at the vertices of their cortex.

    Raises
    ------
    DataError
        If a file cannot be read, or has other vertices than the first.
    """
    files = [open_cifti(path) for path in paths]
    first = files[0]
    for file in files[1:]:
        if file.vertices != first.vertices or _suffix(file.path) != _suffix(first.path):
            raise DataError(f"{file.path}: expected the vertices and kind of {first.path.name}, found others")
    starts = np.cumsum([0, *(file.maps for file in files)])

    def read(rows: Rows, columns: Rows) -> npt.NDArray[Any]:
        values = np.empty((len(rows), len(columns)), np.result_type(*(file.dtype for file in files)))
        for file, start in zip(files, starts[:-1].tolist(), strict=True):
            here = np.flatnonzero((rows >= start) & (rows < start + file.maps))
            if len(here):
                maps = rows[here] - start
                low, high = int(maps[0]), int(maps[-1]) + 1  # a session's maps mostly follow each other
                values[here] = file.read(slice(low, high), columns)[maps - low]
        return values

    left_out = first.grayordinates - len(first.columns)
    alone = len(files) > 1 and all(file.maps == 1 for file in files)
    of_maps = tuple(name for file in files for name in file.names)
    of_files = tuple(path.name.removesuffix(_suffix(path)) for path in paths) if alone else ()
    return Matrix(
        name,
        tuple(paths),
        (int(starts[-1]), len(first.columns)),
        np.result_type(*(file.dtype for file in files)),
        read,
        vertices=first.vertices,
        stored=first.grayordinates,
        kept=first.columns,
        row_names=tuple(names for names in (of_maps, of_files) if len(names) == starts[-1]),
        must_be_named=alone,
        notes=(f"left out: {left_out:,} grayordinates that are not cortex",) if left_out else (),
    )


def _open(path: Path) -> Any:
    import nibabel

    try:
        image = nibabel.load(path)
    except FileNotFoundError:
        raise DataError(f"{path}: file not found; expected a CIFTI file") from None
    except Exception as error:  # nibabel raises many kinds for damaged files
        raise DataError(f"{path}: expected a CIFTI file, which cannot be read: {one_line(error)}") from None
    if not isinstance(image, nibabel.Cifti2Image):
        raise DataError(f"{path}: expected CIFTI-2, found another NIfTI file")
    return image


def _suffix(path: Path) -> str:
    return next(suffix for suffix in SUFFIXES if path.name.endswith(suffix))
