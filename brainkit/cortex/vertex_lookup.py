"""Finds which vertices of fsaverage a set of coordinates belongs to, by their positions on the sphere."""

from __future__ import annotations

import numpy as np

from brainkit.cortex.surface import SPHERE_RADIUS, mesh
from brainkit.cortex.vertices import FSAVERAGE, SPACES, Vertices

TOLERANCE = 0.1  # mm: versions of one mesh differ by 0.013, and neighbours are at least 0.6 apart


def vertices_on_sphere(coordinates: np.ndarray) -> Vertices | None:
    """Recognise coordinates on fsaverage's sphere, with the right hemisphere shifted along x by any amount.

    Parameters
    ----------
    coordinates : array of shape (V, 3)
        In mm.

    Returns
    -------
    Vertices or None
        Of the coarsest fsaverage space that has them all. None if a row matches no vertex, if rows are repeated or
        out of order (left hemisphere first, ids increasing), or if the hemispheres cannot be told apart.
    """
    coordinates = np.asarray(coordinates, np.float64)
    radii = np.linalg.norm(coordinates, axis=1)
    shifted = np.flatnonzero(np.abs(radii - SPHERE_RADIUS) > TOLERANCE)
    n_left = int(shifted[0]) if len(shifted) else len(coordinates)
    right = coordinates[n_left:]
    if not len(right):
        return None  # both spheres have the same coordinates: this may be either hemisphere, or both
    shift = _shift_along_x(right)
    if shift is None or abs(shift) <= TOLERANCE:
        return None
    # A shifted vertex may happen to lie at the sphere's radius: it then counts as left, and is not found.
    left_ids = _nearest_vertices(coordinates[:n_left], "left")
    right_ids = _nearest_vertices(right - [shift, 0.0, 0.0], "right")
    if left_ids is None or right_ids is None:
        return None
    largest = max(left_ids.max(initial=0), right_ids.max())
    space = next(name for name in FSAVERAGE if largest < SPACES[name])
    ids = np.concatenate([left_ids, right_ids + SPACES[space]])
    return Vertices(space, ids) if (np.diff(ids) > 0).all() else None


def _shift_along_x(coordinates: np.ndarray) -> float | None:
    """How far along x the sphere of these points (n, 3) is shifted; None if they all have the same x.

    (x - s)^2 + y^2 + z^2 = R^2 makes |p|^2 linear in x, with slope 2 s.
    """
    squares = (coordinates**2).sum(1)
    x = coordinates[:, 0] - coordinates[:, 0].mean()
    if not (x**2).sum() > 0:
        return None
    return float((x * squares).sum() / (x**2).sum() / 2)


def _nearest_vertices(coordinates: np.ndarray, hemisphere: str) -> np.ndarray | None:
    """The vertex of fsaverage at each of the coordinates, int64; None if one has none within the tolerance."""
    from scipy.spatial import cKDTree

    distances, ids = cKDTree(mesh("fsaverage", hemisphere, "sphere")[0]).query(coordinates)
    return np.asarray(ids, np.int64) if (distances <= TOLERANCE).all() else None
