"""Pictures of the Natural Scenes Dataset: rows of HDF5 arrays named imgBrick."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.data.layouts.hdf5 import open_hdf5
from brainkit.data.trials.images import Picture, StimulusImages, check_pixels
from brainkit.errors import DataError, require
from brainkit.utils.text import one_line

_ARRAY = "imgBrick"

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Brick:
    """Some pictures of a file.

    Attributes
    ----------
    path : Path
    rows : array of shape (k,)
        Where they are in the file, from 0.
    count : int
        Pictures that the file must have.
    """

    path: Path
    rows: npt.NDArray[np.int64]
    count: int

    def check(self) -> None:
        """Raise DataError unless the file is there and has all pictures."""
        if not self.path.is_file():
            raise DataError(
                f"{self.path}: file not found; expected the pictures of the stimuli: download this file of NSD"
            )
        with open_hdf5(self.path) as file:
            shape = getattr(file.get(_ARRAY), "shape", None)
        if shape is None or len(shape) != 4 or shape[3] != 3:
            raise DataError(f"{self.path}: expected {_ARRAY} of (pictures, height, width, 3), found {shape}")
        if shape[0] != self.count:
            raise DataError(f"{self.path}: expected {self.count:,} pictures, found {shape[0]:,}")

    @functools.cached_property
    def _array(self) -> Any:
        """Stays open: opening the file takes as long as reading a picture."""
        h5py = require("h5py", extra="hdf5", purpose="reading the pictures of NSD")
        return h5py.File(self.path, "r")[_ARRAY]

    def get(self, k: int) -> Pixels:
        """Picture k of those that are wanted, (H, W, 3)."""
        row = int(self.rows[k])
        try:
            pixels = check_pixels(np.asarray(self._array[row]), f"{self.path}: picture {row}")
        except OSError as error:
            raise DataError(f"{self.path}: picture {row} cannot be read: {one_line(error)}") from None
        if not pixels.any():
            raise DataError(f"{self.path}: expected a picture in row {row} (from 0), found an empty one")
        return pixels


def read_images(
    bricks: Sequence[Brick], names: Sequence[str], transform: Callable[[Pixels], Pixels] | None = None
) -> StimulusImages:
    """The pictures of some files, one file after the other.

    Parameters
    ----------
    bricks : sequence of Brick
    names : sequence of str
        What the data set calls the stimuli, in the order of the pictures; ``.png`` is added for the files.
    transform : callable, optional
        Of the pixels.
    """
    wanted = [(brick, k) for brick in bricks for k in range(len(brick.rows))]
    for brick in bricks:
        brick.check()

    def get(row: int) -> Picture:
        brick, k = wanted[row]
        return transform(brick.get(k)) if transform else brick.get(k)

    files = tuple(brick.path for brick in bricks)
    return StimulusImages(tuple(f"{name}.png" for name in names), get, tuple(names), files)
