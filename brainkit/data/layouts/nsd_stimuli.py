"""Pictures of the Natural Scenes Dataset: rows of HDF5 arrays named imgBrick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainkit.data.layouts.hdf5 import open_hdf5
from brainkit.data.trials.images import Picture, StimulusImages, check_pixels
from brainkit.errors import DataError

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

    def get(self, k: int) -> Pixels:
        """Picture k of those that are wanted, (H, W, 3)."""
        row = int(self.rows[k])
        with open_hdf5(self.path) as file:
            pixels = check_pixels(np.asarray(file[_ARRAY][row]), f"{self.path}: picture {row}")
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
