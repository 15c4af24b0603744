"""Which vertices of fsaverage a set of coordinates is, found by where they lie on the sphere."""

from __future__ import annotations

import numpy as np

from brainkit.cortex.surface import SPACES, SPHERE_RADIUS, Vertices, mesh

NEAR = 0.1  # mm: meshes of one surface differ by 0.013, neighbours are 0.6 or more apart


def vertices_on_sphere(coordinates: np.ndarray) -> Vertices | None:
    """Recognise coordinates on fsaverage's sphere, the right hemisphere's shifted along x by any amount.

    Parameters
    ----------
    coordinates : array of shape (V, 3)
        In mm.

    Returns
    -------
    Vertices or None
        Of the coarsest fsaverage space that has them all. None if some row lies on no vertex, if a row stands twice
        or out of order (left hemisphere first, ids increasing), or if nothing tells the hemispheres apart.
    """
    places = np.asarray(coordinates, np.float64)
    radii = np.linalg.norm(places, axis=1)
    off = np.flatnonzero(np.abs(radii - SPHERE_RADIUS) > NEAR)
    first = int(off[0]) if len(off) else len(places)
    right = places[first:]
    if not len(right):
        return None  # both spheres have the same coordinates: this may be either hemisphere, or both
    shift = _shift(right)
    if shift is None or abs(shift) <= NEAR:
        return None
    # A shifted row may lie at the sphere's radius by chance: then it stands among the left ones, and is not found.
    found = [_nearest(places[:first], "left"), _nearest(right - [shift, 0.0, 0.0], "right")]
    if any(ids is None for ids in found):
        return None
    left_ids, right_ids = (np.asarray(ids, np.int64) for ids in found)
    space = next(name for name, size in SPACES.items() if max(left_ids.max(initial=0), right_ids.max()) < size)
    ids = np.concatenate([left_ids, right_ids + SPACES[space]])
    return Vertices(space, ids) if (np.diff(ids) > 0).all() else None


def _shift(places: np.ndarray) -> float | None:
    """How far along x a piece of the sphere was moved, from its points (n, 3); None if they are on no such sphere.

    (x - s)^2 + y^2 + z^2 = R^2 makes |p|^2 a line in x, of slope 2 s.
    """
    squares = (places**2).sum(1)
    x = places[:, 0] - places[:, 0].mean()
    if not (x**2).sum() > 0:
        return None
    return float((x * squares).sum() / (x**2).sum() / 2)


def _nearest(places: np.ndarray, hemisphere: str) -> np.ndarray | None:
    """The vertex of fsaverage at each place; None if there is none within reach."""
    from scipy.spatial import cKDTree

    distance, ids = cKDTree(mesh("fsaverage", hemisphere, "sphere")[0]).query(places)
    return np.asarray(ids) if (distance <= NEAR).all() else None
