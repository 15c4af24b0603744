"""Images of own data: a folder, or an array of pixels or of encoded images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from brainkit.data.dataset import Dataset, in_row_order
from brainkit.data.folder import list_images
from brainkit.data.layouts.hdf5 import open_hdf5
from brainkit.data.responses import open_array
from brainkit.data.trials.images import Picture, check_pixels
from brainkit.errors import DataError
from brainkit.images import SUFFIXES
from brainkit.utils.file_kind import describe_kind
from brainkit.utils.files import read_json

NAMES = "image_names.json"
_SUFFIX_OF = {"a JPEG image": ".jpg", "a PNG image": ".png", "a GIF image": ".gif", "a TIFF image": ".tif"}


@dataclass(frozen=True, eq=False)
class OwnImages:
    """Images in the order in which they lie.

    Attributes
    ----------
    where : str
        For messages.
    names : tuple of str, (n,)
        Each once.
    get : callable
        ``get(row)``: the picture.
    files : tuple of Path
    numbered : bool
        Whether the names are made from row numbers, because the data state none.
    """

    where: str
    names: tuple[str, ...]
    get: Callable[[int], Picture]
    files: tuple[Path, ...]
    numbered: bool = False


def open_images(folder: Path, dataset: Dataset) -> OwnImages:
    """The images of a folder of own data.

    Raises
    ------
    DataError
        If there are none, or in two forms, or if an array is damaged or of another shape.
    """
    found = [folder / name for name in ("images", "images.h5", "images.hdf5", "images.npy") if (folder / name).exists()]
    if len(found) != 1:
        listed = " and ".join(path.name for path in found) or "none"
        raise DataError(f"{folder}: expected images in one form (images/, images.h5 or images.npy), found {listed}")
    path = found[0]
    if path.is_dir():
        names = tuple(name.as_posix() for name in in_row_order(list_images(path), path, dataset))
        files = tuple(path / name for name in names)
        return OwnImages(str(path), names, files.__getitem__, files)
    return _open_npy(path) if path.suffix == ".npy" else _open_h5(path)


def _open_npy(path: Path) -> OwnImages:
    pixels = open_array(path, "images (n, height, width, 3)")
    if pixels.ndim != 4:
        raise DataError(f"{path}: expected images (n, height, width, 3), uint8, found shape {pixels.shape}")
    check_pixels(pixels[0], str(path))
    return _named(path, len(pixels), ".png", lambda row: np.asarray(pixels[row]))


def _open_h5(path: Path) -> OwnImages:
    import h5py

    with open_hdf5(path) as file:
        arrays = [name for name, item in file.items() if getattr(item, "ndim", 0) in (1, 4)]
        if "images" not in arrays and len(arrays) != 1:
            raise DataError(
                f"{path}: expected an array named images, or a single one, found {', '.join(arrays) or 'none'}"
            )
        name = "images" if "images" in arrays else arrays[0]
        dataset = file[name]
        count, suffix = len(dataset), ".png"
        if not count:
            raise DataError(f"{path}: expected images, found none")
        encoded = h5py.check_vlen_dtype(dataset.dtype) == np.uint8
        if not encoded and dataset.ndim != 4:
            raise DataError(
                f"{path}: expected encoded images (n,), each of bytes (uint8), or pixels (n, height, width, 3), found "
                f"{dataset.dtype} of shape {dataset.shape}"
            )
        first = _picture(dataset[0], encoded, f"{path}, row 0")
        if isinstance(first, bytes):
            kind = describe_kind(first[:512], len(first))
            if kind is None or not kind.endswith("image"):
                raise DataError(f"{path}: expected encoded images, found {kind or 'other bytes'} in row 0")
            suffix = _SUFFIX_OF.get(kind, ".png")

    def get(row: int) -> Picture:
        with open_hdf5(path) as file:
            return _picture(file[name][row], encoded, f"{path}, row {row}")

    return _named(path, count, suffix, get)


def _picture(value: Any, encoded: bool, where: str) -> Picture:
    return np.asarray(value).tobytes() if encoded else check_pixels(np.asarray(value), where)


def _named(path: Path, count: int, suffix: str, get: Callable[[int], Picture]) -> OwnImages:
    """Images of an array, with the names of ``image_names.json``, else with their row numbers."""
    listed = path.parent / NAMES
    if not listed.exists():
        digits = max(5, len(str(count - 1)))
        names = tuple(f"{row:0{digits}d}{suffix}" for row in range(count))
        return OwnImages(str(path), names, get, (path,), numbered=True)
    value = read_json(listed)
    if not isinstance(value, list) or not all(isinstance(name, str) and _is_name(name) for name in value):
        raise DataError(f"{listed}: expected a list of names of images, in the order of {path.name}, found others")
    names = tuple(name if PurePosixPath(name).suffix.lower() in SUFFIXES else name + suffix for name in value)
    if len(names) != count or len({name.lower() for name in names}) != count:
        raise DataError(
            f"{listed}: expected {count} different names, one for each image of {path.name}, found {len(set(names))}"
        )
    return OwnImages(str(path), names, get, (path,))


def _is_name(name: str) -> bool:
    """Whether a text is a path in a folder, safe on every file system."""
    path = PurePosixPath(name)
    return (
        bool(name.strip()) and not path.is_absolute() and ".." not in path.parts and not set(name) & set('\\:*?"<>|\0')
    )
