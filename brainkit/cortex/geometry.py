"""Triangle meshes: normals, orientation, how bent they are, and which vertices hang together.

Axes: n vertices, m faces.
"""

from __future__ import annotations

import numpy as np


def vertex_normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Outward unit normals, the mean over a vertex's faces weighted by their area. (n, 3), float64."""
    first, second, third = (points[faces[:, corner]].astype(np.float64) for corner in range(3))
    area = np.cross(second - first, third - first)
    normals = np.empty((len(points), 3))
    for axis in range(3):
        normals[:, axis] = np.bincount(faces.ravel(), np.repeat(area[:, axis], 3), len(points))
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def outward(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Faces of a closed mesh whose corners run counter-clockwise seen from outside: as given, or turned round."""
    first, second, third = (points[faces[:, corner]].astype(np.float64) for corner in range(3))
    volume = np.einsum("ij,ij->", first, np.cross(second, third))
    return faces if volume >= 0 else np.ascontiguousarray(faces[:, [0, 2, 1]])


def bending(points: np.ndarray, faces: np.ndarray, passes: int = 2) -> np.ndarray:
    """How far a vertex lies below its neighbours, per squared edge: like mean curvature, positive in sulci, in 1/mm.

    Parameters
    ----------
    points : array of shape (n, 3)
        In mm.
    faces : array of shape (m, 3)
    passes : int
        Times that the result is averaged over neighbours.

    Returns
    -------
    array of shape (n,), float64
    """
    places = points.astype(np.float64)
    steps = np.stack([average_over_faces(places[:, axis], faces) for axis in range(3)], axis=1) - places
    edges = np.linalg.norm(places[faces] - places[np.roll(faces, 1, axis=1)], axis=2)
    bent = np.einsum("ij,ij->i", steps, vertex_normals(points, faces)) * 4 / max(float(np.square(edges).mean()), 1e-12)
    for _ in range(passes):
        bent = average_over_faces(bent, faces)
    return bent


def average_over_faces(values: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The mean of each vertex's faces, each the mean of its corners; 0 for a vertex without faces. (n,), float64."""
    weight = np.maximum(np.bincount(faces.ravel(), minlength=len(values)), 1)
    first, second, third = values[faces.T]
    mean = np.repeat((first + second + third) / 3, 3)
    return np.bincount(faces.ravel(), weights=mean, minlength=len(values)) / weight


def pieces(inside: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Number the connected pieces of a set of vertices.

    Parameters
    ----------
    inside : array of shape (n,), bool
    faces : array of shape (m, 3)
        Two vertices are neighbours if they share a face.

    Returns
    -------
    array of shape (n,), int32
        0, 1, ... by piece; -1 outside.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    members = np.flatnonzero(inside)
    number = np.full(len(inside), -1, dtype=np.int32)
    number[members] = np.arange(len(members))
    edges = number[edges[inside[edges].all(axis=1)]]
    links = coo_array((np.ones(len(edges), dtype=bool), edges.T), shape=(len(members), len(members)))
    number[members] = connected_components(links, directed=False)[1]
    return number
