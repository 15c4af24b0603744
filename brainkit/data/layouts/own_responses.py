"""Responses of own data in any of the formats that are read: a table of formats, each a matrix read in parts."""

from __future__ import annotations

import functools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.data.dataset import Dataset, in_row_order
from brainkit.data.layouts.hdf5 import open_hdf5
from brainkit.data.layouts.own_cifti import SUFFIXES as CIFTI
from brainkit.data.layouts.own_cifti import open_cifti_files
from brainkit.data.layouts.own_matrix import Matrix, Rows
from brainkit.data.responses import open_array
from brainkit.errors import BrainkitError, DataError, require
from brainkit.utils.files import read_json
from brainkit.utils.text import first_line

NAME = "responses"
_SCALE = "responses.json"
_HEMISPHERE = re.compile(r"(?:^|[._-])(?:(lh|rh)|hemi-([LR]))(?=[._-])")
_SURFACE_SUFFIXES = (".gii", ".gii.gz", ".mgh", ".mgz")


def is_other_array(folder: Path) -> bool:
    """Whether a folder's ``responses.npy`` has another type of number than `brainkit.data.Folder` reads."""
    try:
        dtype = open_array(folder / f"{NAME}.npy", "responses").dtype
    except DataError:
        return False
    return dtype.kind in "fiu" and dtype not in (np.float32, np.float64)


def open_responses(folder: Path, dataset: Dataset) -> Matrix:
    """The responses of a folder of own data, in the format that is there.

    Raises
    ------
    DataError
        If there are none, or several; if the file is damaged, of another shape, or of integers without a scale.
    MissingDependency
        If the package for the format is not installed.
    """
    found = [(folder / f"{NAME}{suffix}", suffix) for suffix in _FORMATS if (folder / f"{NAME}{suffix}").exists()]
    if not found:
        raise DataError(f"{folder}: expected responses ({', '.join(NAME + each for each in _FORMATS)}), found none")
    if len(found) > 1:
        names = " and ".join(path.name for path, _ in found)
        raise DataError(f"{folder}: expected responses in one format, found {names}; keep one of them")
    path, suffix = found[0]
    try:
        matrix = _FORMATS[suffix](path, dataset)
    except BrainkitError:
        raise
    except Exception as error:  # of many libraries
        raise DataError(f"{path}: expected responses, which cannot be read: {first_line(error)}") from None
    if matrix.dtype.kind not in "fiu" or 0 in matrix.shape:
        raise DataError(f"{path}: expected numbers (trials, columns), found {matrix.dtype} of shape {matrix.shape}")
    return Matrix(**{**matrix.__dict__, "scale": _read_scale(folder / _SCALE, path, matrix.dtype)})


def _read_scale(file: Path, path: Path, dtype: np.dtype[Any]) -> float:
    """What stored numbers are divided by."""
    if not file.exists():
        if dtype.kind != "f":
            raise DataError(
                f'{path}: expected float responses, or integers with a scale in {_SCALE}, such as {{"scale": 300}} for '
                f"responses times 300, found {dtype} without one"
            )
        return 1.0
    value = read_json(file)
    scale = value.get("scale") if isinstance(value, dict) and set(value) == {"scale"} else None
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < float("inf"):
        raise DataError(f'{file}: expected {{"scale": a number above 0}}, found something else')
    return float(scale)


def _two_dimensional(path: Path, shape: Sequence[int]) -> tuple[int, int]:
    if len(shape) != 2:
        raise DataError(f"{path}: expected responses (trials, columns), found shape {tuple(shape)}")
    return int(shape[0]), int(shape[1])


def _block(array: Any, rows: Rows, columns: Rows) -> npt.NDArray[Any]:
    """Some rows and columns, both increasing, of an array that is read by slices."""
    part = np.asarray(array[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return part[np.ix_(rows - rows[0], columns - columns[0])]


def _open_npy(path: Path, _: Dataset) -> Matrix:
    array = open_array(path, "responses (trials, columns)")
    shape = _two_dimensional(path, array.shape)
    return Matrix(path.name, (path,), shape, array.dtype, lambda rows, columns: array[np.ix_(rows, columns)])


def _open_npz(path: Path, _: Dataset) -> Matrix:
    @functools.cache
    def load() -> npt.NDArray[Any]:
        with np.load(path, allow_pickle=False) as file:
            return np.asarray(file[_choose(path, file.files)])

    try:
        array = load()
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(
            f"{path}: expected an .npz archive of numbers, found a damaged one or Python objects ({first_line(error)})"
        ) from None
    shape = _two_dimensional(path, array.shape)
    return Matrix(path.name, (path,), shape, array.dtype, lambda rows, columns: array[np.ix_(rows, columns)])


def _open_h5(path: Path, _: Dataset) -> Matrix:
    with open_hdf5(path) as file:
        name = _choose(path, [each for each, item in file.items() if getattr(item, "ndim", 0) == 2])
        dataset = file[name]
        shape, dtype, chunks = _two_dimensional(path, dataset.shape), dataset.dtype, dataset.chunks

    def read(rows: Rows, columns: Rows) -> npt.NDArray[Any]:
        with open_hdf5(path) as file:
            return _block(file[name], rows, columns)

    return Matrix(path.name, (path,), shape, dtype, read, chunks is None or chunks[1] < shape[1])


def _open_zarr(path: Path, _: Dataset) -> Matrix:
    zarr = require("zarr", extra="zarr", purpose="reading Zarr arrays")
    found = zarr.open(path, mode="r")
    array = found if hasattr(found, "shape") else found[_choose(path, list(found.array_keys()))]
    shape = _two_dimensional(path, array.shape)
    files = tuple(sorted(each for each in path.rglob("*") if each.is_file()))

    def read(rows: Rows, columns: Rows) -> npt.NDArray[Any]:
        return _block(array, rows, columns)

    return Matrix(path.name, files, shape, np.dtype(array.dtype), read, array.chunks[1] < shape[1])


def _choose(path: Path, names: Sequence[str]) -> str:
    """The array named ``responses``, else the only one."""
    if NAME in names:
        return NAME
    if len(names) != 1:
        listed = ", ".join(sorted(names)[:5]) or "none"
        raise DataError(f"{path}: expected an array named {NAME}, or a single one, found {listed}")
    return names[0]


def _open_cifti(path: Path, _: Dataset) -> Matrix:
    return open_cifti_files(path.name, [path])


def _open_folder(path: Path, dataset: Dataset) -> Matrix:
    cifti = [Path(each.name) for each in path.iterdir() if each.name.endswith(CIFTI)]
    if not cifti:
        return _open_surfaces(path, dataset)
    if others := [each for each in path.iterdir() if each.name.lower().endswith(_SURFACE_SUFFIXES)]:
        raise DataError(f"{path}: expected files of one kind, found {cifti[0]} and {others[0].name}")
    return open_cifti_files(f"{path.name}/", [path / name for name in in_row_order(sorted(cifti), path, dataset)])


def _open_surfaces(path: Path, dataset: Dataset) -> Matrix:
    """Files of a hemisphere each, with one or several maps; in the order of their names, the maps are the rows."""
    names = [Path(each.name) for each in path.iterdir() if each.name.lower().endswith(_SURFACE_SUFFIXES)]
    sides: dict[str, list[Path]] = {"left": [], "right": []}
    for name in sorted(names):
        match = _HEMISPHERE.search(name.name)
        if match is None:
            raise DataError(f"{path / name}: expected a name that says the hemisphere, such as lh.{name}")
        sides["left" if (match[1] or match[2]) in ("lh", "L") else "right"].append(name)
    if not names:
        raise DataError(f"{path}: expected files {', '.join(_SURFACE_SUFFIXES)}, found none")
    ordered = {side: [path / name for name in in_row_order(files, path, dataset)] for side, files in sides.items()}
    frames, widths = {}, {"left": 0, "right": 0}
    dtype = np.dtype(np.float32)
    for side, files in ordered.items():
        shapes = []
        for file in files:
            maps = _read_maps(file)
            shapes.append(maps.shape)
            dtype = np.result_type(dtype, maps.dtype) if maps.dtype.kind == "f" else maps.dtype
        if len({width for _, width in shapes}) > 1:
            raise DataError(f"{path}: expected {side} hemispheres of one size, found {sorted({w for _, w in shapes})}")
        frames[side] = [(file, k) for file, (count, _) in zip(files, shapes, strict=True) for k in range(count)]
        widths[side] = shapes[0][1] if shapes else 0
    counts = {len(frames[side]) for side, files in sides.items() if files}
    if len(counts) > 1:
        raise DataError(
            f"{path}: expected as many maps of the left hemisphere as of the right, found {len(frames['left'])} and "
            f"{len(frames['right'])}"
        )

    def read(rows: Rows, columns: Rows) -> npt.NDArray[Any]:
        parts = []
        for side, low, high in (("left", 0, widths["left"]), ("right", widths["left"], sum(widths.values()))):
            own = columns[(columns >= low) & (columns < high)] - low
            if len(own):
                parts.append(_read_frames([frames[side][row] for row in rows.tolist()], own))
        return np.concatenate(parts, axis=1)

    every = tuple(file for side in ordered.values() for file in side)
    shape = counts.pop(), sum(widths.values())
    return Matrix(f"{path.name}/", every, shape, dtype, read, False, (widths["left"], widths["right"]))


def _read_frames(frames: Sequence[tuple[Path, int]], columns: Rows) -> npt.NDArray[Any]:
    """The maps (k, m) at these columns; each file is read once."""
    values: npt.NDArray[Any] | None = None
    by_file: dict[Path, list[tuple[int, int]]] = {}
    for row, (file, frame) in enumerate(frames):
        by_file.setdefault(file, []).append((row, frame))
    for file, places in by_file.items():
        rows, wanted = np.transpose(places)
        part = _read_maps(file)[np.ix_(wanted, columns)]
        values = np.empty((len(frames), len(columns)), part.dtype) if values is None else values
        values[rows] = part
    assert values is not None
    return values


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read_maps(path: Path) -> npt.NDArray[Any]:
    """The maps of a file of one hemisphere: (maps, vertices)."""
    import nibabel

    try:
        with _quiet():
            image: Any = nibabel.load(path)
            if hasattr(image, "darrays"):
                return np.stack([each.data.ravel() for each in image.darrays])
            values = np.asarray(image.dataobj)
    except Exception as error:  # nibabel raises many kinds
        raise DataError(f"{path}: expected maps of a hemisphere, which cannot be read: {first_line(error)}") from None
    frames = values.reshape(*values.shape[:3], -1)
    if sum(side > 1 for side in frames.shape[:3]) > 1:
        raise DataError(f"{path}: expected maps of a surface (vertices, 1, 1, maps), found a volume of {values.shape}")
    return frames.reshape(-1, frames.shape[3]).T


_FORMATS: dict[str, Callable[[Path, Dataset], Matrix]] = {
    ".npy": _open_npy,
    ".npz": _open_npz,
    ".h5": _open_h5,
    ".hdf5": _open_h5,
    ".zarr": _open_zarr,
    **dict.fromkeys(CIFTI, _open_cifti),
    "": _open_folder,
}
