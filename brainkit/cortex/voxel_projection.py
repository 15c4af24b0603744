"""Responses of voxels on a surface in the same coordinates: each vertex takes those between white matter and pia.

Axes: V voxels, n vertices of both hemispheres, k of them that meet a voxel.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from brainkit.cortex.cortical_surface import CorticalSurface, Hemisphere
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.surface import HEMISPHERES
from brainkit.cortex.vertices import CUSTOM, Vertices
from brainkit.cortex.volume import Volume
from brainkit.errors import DataError, UsageError

DEPTHS = (0.25, 0.5, 0.75)
"""Between the white surface, 0, and the pial one, 1."""

_MEMBER = 0.5  # weight of an ROI's voxels from which on a vertex is in the ROI


@dataclass(frozen=True, eq=False)
class VoxelProjection:
    """Which voxels the vertices of a surface take their values from.

    Parameters
    ----------
    surface : CorticalSurface
    ids : array of shape (k,), int32
        Vertices that meet a voxel, increasing, numbered over both hemispheres.
    weights : scipy.sparse.csr_array of shape (k, V)
        Non-negative; each row sums to 1.
    """

    surface: CorticalSurface
    ids: np.ndarray
    weights: Any

    @property
    def vertices(self) -> Vertices:
        """The k vertices; of a surface of its own they are drawn with `ids`."""
        return (
            Vertices.custom(len(self.ids)) if self.surface.space == CUSTOM else Vertices(self.surface.space, self.ids)
        )

    def values(self, values: np.ndarray) -> np.ndarray:
        """Values of voxels, (V,) or (V, K), as those of vertices, (k,) or (k, K); NaN where all voxels are NaN."""
        values = np.asarray(values, dtype=np.float64)
        if len(values) != self.weights.shape[1]:
            raise UsageError(f"values: expected {self.weights.shape[1]:,} voxels, got {len(values):,}")
        known = np.isfinite(values)
        with np.errstate(invalid="ignore"):
            return np.asarray((self.weights @ np.where(known, values, 0.0)) / (self.weights @ known.astype(np.float64)))

    def rois(self, rois: RoiTable) -> RoiTable:
        """ROIs of voxels as ROIs of the k vertices."""
        inside = np.zeros((self.weights.shape[1], len(rois)))
        for column, positions in enumerate(rois.values()):
            inside[positions, column] = 1.0
        members = self.weights @ inside >= _MEMBER
        return RoiTable({name: np.flatnonzero(members[:, i]) for i, name in enumerate(rois)}, len(self.ids))


def project_voxels(
    volume: Volume,
    surface: CorticalSurface,
    *,
    depths: Sequence[float] = DEPTHS,
    how: Literal["nearest", "linear"] = "nearest",
) -> VoxelProjection:
    """Find the voxels that the vertices of a surface lie in.

    Parameters
    ----------
    volume : Volume
    surface : CorticalSurface
        With a white and a pial shape, or one of them or midthickness, in the volume's coordinates (mm).
    depths : sequence of float
        Where each vertex is sampled, from 0 (white) to 1 (pial); voxels are averaged over them. With one shape only,
        it alone is sampled.
    how : {"nearest", "linear"}
        The voxel that a sample lies in, or the eight around it by distance, of which some may be unknown.

    Raises
    ------
    DataError
        If the surface has none of these shapes, or meets none of the voxels.
    """
    points = np.concatenate([_samples(surface.hemisphere(name), depths, surface.name) for name in HEMISPHERES])
    inverse = np.linalg.inv(volume.affine)
    voxels = points @ inverse[:3, :3].T + inverse[:3, 3]  # (n, samples, 3), in voxels
    weights = _matrix(volume, voxels, how)
    ids = np.flatnonzero(np.diff(weights.indptr))
    if not len(ids):
        raise DataError(
            f"surface {surface.name}: expected voxels of the responses on it, found none; "
            "both must be in the same coordinates (mm)"
        )
    weights = weights[ids]
    weights.data /= np.repeat(weights.sum(axis=1), np.diff(weights.indptr))
    return VoxelProjection(surface, ids.astype(np.int32), weights)


def _samples(half: Hemisphere, depths: Sequence[float], name: str) -> np.ndarray:
    """Points of each vertex. (n, samples, 3), float64."""
    if {"white", "pial"} <= half.points.keys():
        white, pial = (half.points[shape].astype(np.float64) for shape in ("white", "pial"))
        return np.stack([white + depth * (pial - white) for depth in depths], axis=1)
    for shape in ("midthickness", "pial", "white"):
        if shape in half.points:
            return half.points[shape].astype(np.float64)[:, None]
    raise DataError(f"surface {name}: expected a white or pial shape to project voxels on, found none")


def _matrix(volume: Volume, voxels: np.ndarray, how: str) -> Any:
    """The weight of each column of the volume at each vertex. (n, V)."""
    from scipy.sparse import csr_array

    column_of = np.full(volume.shape, -1, dtype=np.int32)
    column_of[tuple(volume.voxels.T)] = np.arange(len(volume.voxels))
    low = np.rint(voxels) if how == "nearest" else np.floor(voxels)
    corners = [(0, 0, 0)] if how == "nearest" else list(itertools.product((0, 1), repeat=3))
    rows, columns, shares = [], [], []
    for corner in corners:
        index = low + corner
        share = np.ones(index.shape[:2]) if how == "nearest" else np.prod(1 - np.abs(voxels - index), axis=2)
        inside = ((index >= 0) & (index < volume.shape)).all(axis=2)
        column = np.full(inside.shape, -1)
        column[inside] = column_of[tuple(index[inside].astype(np.intp).T)]
        found = (column >= 0) & (share > 0)
        rows.append(np.nonzero(found)[0])
        columns.append(column[found])
        shares.append(share[found])
    entries = np.concatenate(shares), (np.concatenate(rows), np.concatenate(columns))
    return csr_array(entries, shape=(len(voxels), len(volume.voxels)))
