"""Voxels in a volume, for responses that are volumetric."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainkit.errors import DataError
from brainkit.utils.text import plural

MAX_SIDE = 4096  # voxels
_OFF_CENTRE = 0.1  # voxels: how far a coordinate may be from a voxel's centre, which allows for rounding


@dataclass(frozen=True, eq=False)
class Volume:
    """The volume whose voxels the V columns are.

    Parameters
    ----------
    shape : tuple of three int
    affine : array of shape (4, 4), float64
        Voxel indices to mm, as in NIfTI.
    voxels : array of shape (V, 3), int32
        Index of each column's voxel, all different.

    Raises
    ------
    DataError
        If a value is out of range, or a voxel is repeated.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    voxels: np.ndarray

    def __post_init__(self) -> None:
        x, y, z = read_shape(self.shape)
        object.__setattr__(self, "shape", (x, y, z))
        object.__setattr__(self, "affine", read_affine(self.affine))
        voxels = np.asarray(self.voxels)
        if voxels.ndim != 2 or voxels.shape[1] != 3 or voxels.dtype.kind not in "iu":
            raise DataError(f"volume: voxels must be whole numbers (V, 3), got {voxels.dtype} of shape {voxels.shape}")
        if voxels.size and (voxels.min() < 0 or (voxels >= self.shape).any()):
            raise DataError(f"volume: voxels must lie within {self.shape}, got some outside")
        flat = np.ravel_multi_index(tuple(voxels.T.astype(np.intp)), self.shape)
        if len(np.unique(flat)) < len(flat):
            raise DataError("volume: no two columns may be the same voxel")
        object.__setattr__(self, "voxels", voxels.astype(np.int32))

    def __repr__(self) -> str:
        return f"Volume(shape={self.shape}, {plural(len(self.voxels), 'voxel')})"

    @classmethod
    def at_coordinates(cls, shape: Any, affine: Any, coordinates: np.ndarray) -> Volume:
        """The voxels whose centres are at `coordinates`, (V, 3) in mm.

        Raises
        ------
        DataError
            If some are not at the centre of a voxel.
        """
        matrix = read_affine(affine)
        inverse = np.linalg.inv(matrix)
        exact = np.asarray(coordinates, np.float64) @ inverse[:3, :3].T + inverse[:3, 3]
        voxels = np.rint(exact)
        off = np.abs(exact - voxels).max(axis=1) > _OFF_CENTRE
        if off.any():
            raise DataError(
                f"volume: expected coordinates at the centres of voxels, found {int(off.sum())} rows that are not, "
                f"the first is row {int(off.argmax())}"
            )
        return cls(read_shape(shape), matrix, voxels.astype(np.int64))

    def positions_of(self, other: Volume) -> np.ndarray | None:
        """The columns here of the voxels of another volume, (n,) int64; None if it is another grid or has others."""
        if self.shape != other.shape or not np.allclose(self.affine, other.affine, atol=1e-4):
            return None
        column_of = np.full(self.shape, -1, dtype=np.int64)
        column_of[tuple(self.voxels.T)] = np.arange(len(self.voxels))
        found = column_of[tuple(other.voxels.T)]
        return None if (found < 0).any() else found

    def select(self, index: np.ndarray) -> Volume:
        """The volume of the columns at `index` only."""
        return Volume(self.shape, self.affine, self.voxels[index])


def read_shape(value: Any) -> tuple[int, int, int]:
    """The size of a volume along its three axes, in voxels.

    Raises
    ------
    DataError
        If it is not a list of three sizes.
    """
    sides = value if isinstance(value, list | tuple) else ()
    if len(sides) != 3 or not all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides):
        raise DataError(f"volume: shape must be three whole numbers from 1 to {MAX_SIDE}, got {value!r:.60}")
    return sides[0], sides[1], sides[2]


def read_affine(value: Any) -> np.ndarray:
    """An invertible 4 x 4 matrix with the last row 0 0 0 1.

    Raises
    ------
    DataError
        If it is not one.
    """
    try:
        affine = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        affine = np.empty(0)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or affine[3].tolist() != [0, 0, 0, 1]:
        raise DataError("volume: affine must be 4 rows of 4 numbers, the last row 0 0 0 1")
    size = math.fabs(float(np.linalg.det(affine[:3, :3])))
    if not 1e-9 < size < 1e12:
        raise DataError(f"volume: affine must give each voxel a volume above 0, got {size:.3g} mm^3")
    affine.setflags(write=False)
    return affine
