"""Volumes in NIfTI files: masks, maps, and responses of one volume a trial, read without keeping them in memory."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.errors import DataError
from brainkit.utils.text import one_line

SAME_AFFINE = 1e-3  # mm: how far affines of one grid may differ


class Grid:
    """The grid of a volume, which all files of a subject must share.

    Attributes
    ----------
    shape : tuple of three int
    affine : array of shape (4, 4)
    source : Path
        Whose grid it is, for messages.
    """

    def __init__(self, path: Path) -> None:
        image = open_nifti(path)
        self.shape: tuple[int, int, int] = tuple(image.shape[:3])
        self.affine = np.asarray(image.affine, np.float64)
        self.source = path

    def check(self, path: Path, image: Any, axes: int) -> None:
        """Raise DataError unless an image of `axes` axes lies on this grid."""
        if len(image.shape) != axes or tuple(image.shape[:3]) != self.shape:
            shape = " x ".join(map(str, self.shape)) + (" x trials" if axes == 4 else "")
            found = " x ".join(map(str, image.shape))
            raise DataError(f"{path}: expected {shape} voxels as in {self.source.name}, found {found}")
        if not np.allclose(image.affine, self.affine, atol=SAME_AFFINE):
            raise DataError(f"{path}: expected the affine of {self.source.name}, found another one")

    def read(self, path: Path) -> npt.NDArray[np.float64]:
        """The values of a map on this grid, (X, Y, Z)."""
        image = open_nifti(path)
        if len(image.shape) == 4 and image.shape[3] == 1:
            image = image.slicer[..., 0]
        self.check(path, image, 3)
        return read_volume(path, image, slice(None)).astype(np.float64)


def open_nifti(path: Path) -> Any:
    """Open a NIfTI file; its values are read later.

    Raises
    ------
    DataError
        If it is missing or damaged.
    """
    import nibabel

    try:
        # A compressed file that was opened anew for each volume would be unpacked from its start each time.
        return nibabel.load(path, keep_file_open=True)
    except FileNotFoundError:
        raise DataError(f"{path}: file not found; expected a NIfTI volume") from None
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: expected a NIfTI volume, which cannot be read: {one_line(error)}") from None


def read_trials(path: Path, grid: Grid, voxels: npt.NDArray[np.integer[Any]], count: int) -> npt.NDArray[np.float32]:
    """Responses of some voxels, a volume a trial: (count, k), float32.

    Parameters
    ----------
    path : Path
        Of a file (X, Y, Z, count), which is read volume by volume.
    grid : Grid
    voxels : array of shape (k, 3)
    count : int

    Raises
    ------
    DataError
        If the file is damaged, or has another shape.
    """
    image = open_nifti(path)
    check_trials(path, image, grid, count)
    where = tuple(voxels.T)
    values = np.empty((count, len(voxels)), np.float32)
    for trial in range(count):
        values[trial] = read_volume(path, image, trial)[where]
    return values


def check_trials(path: Path, image: Any, grid: Grid, count: int) -> None:
    """Raise DataError unless an image has a volume for each of `count` trials on the grid."""
    grid.check(path, image, 4)
    if image.shape[3] != count:
        raise DataError(f"{path}: expected {count} volumes, one a trial, found {image.shape[3]}")


def read_volume(path: Path, image: Any, index: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(image.dataobj[..., index])
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: expected all its values, which cannot be read: {one_line(error)}") from None
