"""The spin test: is a map related to an order of areas, beyond what any equally smooth map would be?

Both maps are smooth, so neighbouring vertices do not count as independent. The null keeps the map's smoothness: the map
is rotated on the sphere of each hemisphere, and related to the areas again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brainkit.cortex.surface import HEMISPHERES, SPHERE_RADIUS, mesh
from brainkit.cortex.vertices import Vertices, space_size
from brainkit.errors import UsageError

LEAST_OVERLAP = 0.1  # of the vertices asked for: a rotation that leaves fewer with a value is drawn again
LEAST_ROTATIONS = 0.01  # of the rotations drawn: with fewer that overlap, the vertices cover too little of the sphere
_BLOCK = 2**17  # rotated vertices at a time
_MIRROR = np.array([-1.0, 1.0, 1.0])  # the hemispheres are mirror images along x


@dataclass(frozen=True, eq=False)
class Sphere:
    """Where V vertices lie on the sphere, of one hemisphere or of both.

    Attributes
    ----------
    points : array of shape (M, 3)
        Unit vectors: every vertex of the mesh, also those that are not in the data.
    positions : array of shape (M,), int
        Which of the V vertices each point is; -1 for a point that is not in the data.
    right : array of shape (M,), bool
        Points of the right hemisphere; its coordinates are a mirror image of the left one's.
    reach : float
        A vertex that is rotated further than this from every point falls outside the data. In units of the radius.
    """

    points: np.ndarray
    positions: np.ndarray
    right: np.ndarray
    reach: float = np.inf


@dataclass(frozen=True, eq=False)
class Spins:
    """Rotations of the vertices' values.

    Attributes
    ----------
    sources : array of shape (draws, k), int32
        Of which vertex each of the k vertices has the value after a rotation; -1: of one that is not in the data.
    drawn : int
        How many rotations were drawn to find those with enough overlap.
    """

    sources: np.ndarray
    drawn: int

    @property
    def overlap(self) -> float:
        """Mean share of the vertices that have a value after a rotation."""
        return float((self.sources >= 0).mean())


def fsaverage_sphere(vertices: Vertices) -> Sphere:
    """The spheres of both hemispheres of an fsaverage space.

    Raises
    ------
    UsageError
        If the space is custom.
    MissingDependency
        If nilearn, which ships the meshes, is not installed.
    """
    size = space_size(vertices.space)
    points = np.concatenate([mesh(vertices.space, side, "sphere")[0] for side in HEMISPHERES]) / SPHERE_RADIUS
    positions = np.full(2 * size, -1)
    positions[vertices.ids] = np.arange(len(vertices))
    return Sphere(points, positions, np.arange(2 * size) >= size)


def fit_sphere(coordinates: np.ndarray, tolerance: float = 0.01) -> Sphere | None:
    """A sphere through coordinates that come without a mesh; None where they do not lie on one.

    Parameters
    ----------
    coordinates : array of shape (V, 3)
        In any unit.
    tolerance : float
        Largest deviation of a vertex from the sphere, in units of the radius.
    """
    from scipy.spatial import cKDTree

    points = np.asarray(coordinates, np.float64)
    if len(points) < 10 or not np.isfinite(points).all():
        return None
    # |x|^2 = 2 c.x + (r^2 - |c|^2), a linear equation for the centre c.
    design = np.column_stack([2 * points, np.ones(len(points))])
    solution, _, rank, _ = np.linalg.lstsq(design, (points**2).sum(1), rcond=None)
    from_centre = points - solution[:3]
    distance = np.linalg.norm(from_centre, axis=1)
    if rank < 4 or np.ptp(distance) > 2 * tolerance * distance.mean():
        return None
    unit = from_centre / distance[:, None]
    spacing = np.median(cKDTree(unit).query(unit, 2)[0][:, 1])
    return Sphere(unit, np.arange(len(unit)), np.zeros(len(unit), bool), reach=float(spacing))


def spin(sphere: Sphere, vertices: np.ndarray, draws: int = 1000, seed: int = 0) -> Spins:
    """Rotate the values of all vertices over the sphere at random, and say where those of some vertices come from.

    The left hemisphere is rotated by a rotation drawn uniformly from all, the right one by its mirror image, so that
    the symmetry of the two is kept (Alexander-Bloch et al. 2018). A vertex gets the value of the point nearest to where
    the rotation takes it. Rotations that leave fewer than a tenth of the vertices with a value are drawn again: which
    these are depends on where the vertices lie, and on no value.

    Parameters
    ----------
    sphere : Sphere
    vertices : array of shape (k,), int
        Positions among the V vertices of those that need a value.
    draws : int
    seed : int

    Raises
    ------
    UsageError
        If the data cover so little of the sphere that fewer than one rotation in a hundred overlaps.

    References
    ----------
    Alexander-Bloch et al. (2018), On testing for spatial correspondence between maps of human brain structure and
    function.
    """
    from scipy.spatial import cKDTree
    from scipy.spatial.transform import Rotation

    known = sphere.positions >= 0
    point_of = np.zeros(int(sphere.positions.max(initial=-1)) + 1, np.int64)
    point_of[sphere.positions[known]] = np.flatnonzero(known)
    asked = point_of[vertices]
    sides = [(mask, np.flatnonzero(mask)) for mask in (~sphere.right, sphere.right)]
    trees = [cKDTree(sphere.points[points]) if len(points) else None for _, points in sides]
    rng, block = np.random.default_rng(seed), max(_BLOCK // len(vertices), 1)
    kept: list[np.ndarray] = []
    drawn = found = 0
    while found < draws:
        if drawn >= 1000 and found < LEAST_ROTATIONS * drawn:
            raise UsageError(
                f"spin test: expected vertices that cover more of the sphere, found that only {found} of {drawn} "
                "rotations leave a tenth of them inside the data; it cannot be computed"
            )
        rotations = Rotation.from_quat(rng.standard_normal((block, 4))).as_matrix()  # normalised: uniform over all
        sources = np.full((block, len(vertices)), -1, np.int32)
        for (mask, points), tree, mirror in zip(sides, trees, (np.ones(3), _MIRROR), strict=True):
            columns = np.flatnonzero(mask[asked])
            if not len(columns) or tree is None:
                continue
            own = sphere.points[asked[columns]]
            moved = np.einsum("rij,vj->rvi", rotations * mirror[:, None] * mirror, own)
            distance, nearest = tree.query(moved.reshape(-1, 3))
            reached = np.where(distance <= sphere.reach, sphere.positions[points[nearest]], -1)
            sources[:, columns] = reached.reshape(block, -1)
        enough = (sources >= 0).mean(1) >= LEAST_OVERLAP
        kept.append(sources[enough])
        drawn, found = drawn + block, found + int(enough.sum())
    return Spins(np.concatenate(kept)[:draws], drawn)


def spun_values(values: np.ndarray, spins: Spins) -> np.ndarray:
    """The values of a map (V,) after each rotation: (draws, k), NaN where they come from outside the data."""
    values = np.asarray(values, np.float64)
    return np.where(spins.sources >= 0, values[np.maximum(spins.sources, 0)], np.nan)


def smoothed_p(observed: float, null: np.ndarray) -> float:
    """Two-sided p of a statistic whose null values are given: (1 + how many are as far from 0) / (1 + how many).

    NaN where the statistic is; null values that are NaN do not count.
    """
    known = null[np.isfinite(null)]
    if not np.isfinite(observed) or not len(known):
        return float("nan")
    return float((1 + np.count_nonzero(np.abs(known) >= abs(observed))) / (1 + len(known)))
