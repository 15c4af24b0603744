"""Cortical spaces: meshes, coordinates, hemispheres, masks and ROI tables.

Everything is in FreeSurfer's fsaverage family. fsaverage5 comes from nilearn's wheel; fsaverage6 and fsaverage are
regenerated from it by icosahedral subdivision in FreeSurfer's own order, so nothing is ever downloaded. The spaces
nest: the first 10,242 vertices of a hemisphere of fsaverage are those of fsaverage5.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.errors import DataError, UsageError, require

SPACES: dict[str, int] = {"fsaverage5": 10_242, "fsaverage6": 40_962, "fsaverage": 163_842}
"""Space -> vertices in each hemisphere."""

CUSTOM = "custom"
"""The space of responses that lie on no surface we know; such vertices are only numbered."""

HEMISPHERES = ("left", "right")
SURFACES = ("sphere", "pial", "white", "infl", "flat")
SCALARS = ("curv", "sulc")
SPHERE_RADIUS = 100.0  # mm, as FreeSurfer's

# Names the field uses -> the labels of Algonauts and NSD they stand for. Labels absent from a table are passed over.
_ALIASES: dict[str, tuple[str, ...]] = {
    "V1": ("V1v", "V1d"),
    "V2": ("V2v", "V2d"),
    "V3": ("V3v", "V3d"),
    "V4": ("hV4",),
    "hV4": ("V4",),
    "EVC": ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "V1", "V2", "V3"),
    "FFA": ("FFA-1", "FFA-2"),
    "FBA": ("FBA-1", "FBA-2"),
    "VWFA": ("VWFA-1", "VWFA-2"),
    "OWFA": ("OVWFA",),
    "OVWFA": ("OWFA",),
    "floc-bodies": ("EBA", "FBA-1", "FBA-2", "mTL-bodies"),
    "floc-faces": ("OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"),
    "floc-places": ("OPA", "PPA", "RSC"),
    "floc-words": ("OWFA", "OVWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words"),
    "prf-visualrois": ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4"),
}


@dataclass(frozen=True, eq=False)
class Vertices:
    """Which vertices of which space, in the order of the columns of the responses.

    Parameters
    ----------
    space : str
        ``"fsaverage5"``, ``"fsaverage6"``, ``"fsaverage"`` or ``"custom"``.
    ids : array of shape (V,), int32
        Strictly increasing: left hemisphere, then right, the right offset by ``SPACES[space]``. In the custom space
        they are 0 .. V-1.

    Raises
    ------
    DataError
        If the space is unknown, or the ids are not integers, not increasing or out of range.
    """

    space: str
    ids: np.ndarray

    def __post_init__(self) -> None:
        raw = np.asarray(self.ids)
        if self.space not in SPACES and self.space != CUSTOM:
            raise DataError(f"vertices: space must be one of {', '.join([*SPACES, CUSTOM])}, got {self.space!r}")
        if raw.ndim != 1 or (raw.size and not np.issubdtype(raw.dtype, np.integer)):
            raise DataError(f"vertices: ids must be a row of integers, got shape {raw.shape} of {raw.dtype}")
        limit = 2 * SPACES[self.space] if self.space in SPACES else raw.size
        if raw.size and (int(raw.min()) < 0 or int(raw.max()) >= limit):
            raise DataError(
                f"vertices: ids of {self.space} must lie in 0 .. {limit - 1}, got {int(raw.min())} .. {int(raw.max())}"
            )
        ids = raw.astype(np.int32)
        steps = np.flatnonzero(np.diff(ids) <= 0)
        if steps.size:
            at = int(steps[0])
            raise DataError(f"vertices: ids must increase strictly, got {ids[at]} then {ids[at + 1]} at {at + 1}")
        ids.setflags(write=False)
        object.__setattr__(self, "ids", ids)

    @classmethod
    def from_masks(cls, left: np.ndarray, right: np.ndarray) -> Vertices:
        """Vertices where the masks of the two hemispheres are non-zero.

        Parameters
        ----------
        left, right : array of shape (n,)
            Zeros and ones over a whole hemisphere; the length tells the space.

        Raises
        ------
        DataError
            If the lengths differ, or belong to no fsaverage space.
        """
        left, right = np.asarray(left).ravel(), np.asarray(right).ravel()
        if len(left) != len(right):
            raise DataError(f"masks: both hemispheres must have one length, got {len(left)} left, {len(right)} right")
        space = space_of_mask(len(left))
        return cls(space, np.concatenate([np.flatnonzero(left), np.flatnonzero(right) + len(left)]))

    @classmethod
    def custom(cls, count: int) -> Vertices:
        """`count` vertices that lie on no known surface."""
        return cls(CUSTOM, np.arange(count, dtype=np.int32))

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vertices):
            return NotImplemented
        return self.space == other.space and np.array_equal(self.ids, other.ids)

    def __hash__(self) -> int:
        return hash((self.space, self.ids.tobytes()))

    @property
    def n_left(self) -> int:
        """How many lie in the left hemisphere (all of them, in the custom space)."""
        return int(np.searchsorted(self.ids, SPACES[self.space])) if self.space in SPACES else len(self)

    @property
    def left(self) -> np.ndarray:
        """Ids of the left hemisphere's vertices, numbered within it. Array of shape (n_left,), int32."""
        return self.ids[: self.n_left]

    @property
    def right(self) -> np.ndarray:
        """Ids of the right hemisphere's vertices, numbered within it. Array of shape (V - n_left,), int32."""
        return self.ids[self.n_left :] - np.int32(SPACES.get(self.space, 0))

    def select(self, index: np.ndarray) -> Vertices:
        """The vertices at `index`: increasing positions (k,), or a mask (V,). Custom ones are numbered afresh."""
        positions = _as_positions(index, len(self))
        return Vertices.custom(len(positions)) if self.space == CUSTOM else Vertices(self.space, self.ids[positions])

    def to_surface(self, values: np.ndarray, fill: float = np.nan) -> tuple[np.ndarray, np.ndarray]:
        """Spread one value a vertex over both whole hemispheres.

        Parameters
        ----------
        values : array of shape (V,)
        fill : float
            Value where there is no vertex.

        Returns
        -------
        left, right : array of shape (SPACES[space],), float32

        Raises
        ------
        UsageError
            If the space is custom, or `values` does not have V entries.
        """
        count = _size_of(self.space)
        values = np.asarray(values)
        if values.shape != (len(self),):
            raise UsageError(f"values must have shape ({len(self)},), one a vertex; got {values.shape}")
        whole = np.full(2 * count, fill, dtype=np.float32)
        whole[self.ids] = values
        return whole[:count], whole[count:]


def space_of_mask(length: int) -> str:
    """Name the space whose hemispheres have `length` vertices.

    Raises
    ------
    DataError
        If there is none.
    """
    for space, count in SPACES.items():
        if count == length:
            return space
    known = ", ".join(f"{count} ({space})" for space, count in SPACES.items())
    raise DataError(f"mask: length must be one of {known}; got {length}")


class RoiTable(Mapping[str, np.ndarray]):
    """Regions of interest: name -> positions among the V vertices of a subject.

    Parameters
    ----------
    rois : mapping of str to array of shape (k,)
        Positions in 0 .. V-1, in any order; they are kept sorted and unique. Empty regions are kept: that a subject
        lacks a region is worth knowing.
    n_vertices : int
        V.

    Raises
    ------
    DataError
        If a region's positions are not integers within range, or two names differ in case alone.
    """

    def __init__(self, rois: Mapping[str, Any], n_vertices: int) -> None:
        self.n_vertices = int(n_vertices)
        self._rois: dict[str, np.ndarray] = {}
        self._lower: dict[str, str] = {}
        for name, raw in rois.items():
            positions = np.asarray(raw)
            if positions.ndim != 1 or (positions.size and not np.issubdtype(positions.dtype, np.integer)):
                raise DataError(
                    f"ROI {name}: must be a list of vertex positions, got {positions.dtype} {positions.shape}"
                )
            if positions.size and (int(positions.min()) < 0 or int(positions.max()) >= self.n_vertices):
                found = f"{int(positions.min())} .. {int(positions.max())}"
                raise DataError(f"ROI {name}: positions must lie in 0 .. {self.n_vertices - 1}, got {found}")
            if name.lower() in self._lower:
                raise DataError(f"ROI {name}: there is already {self._lower[name.lower()]}; names ignore case")
            kept = np.unique(positions).astype(np.int32)
            kept.setflags(write=False)
            self._rois[name] = kept
            self._lower[name.lower()] = name

    def __getitem__(self, name: str) -> np.ndarray:
        return self._rois[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rois)

    def __len__(self) -> int:
        return len(self._rois)

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}: {len(positions)}" for name, positions in self.items())
        return f"RoiTable({{{inside}}}, n_vertices={self.n_vertices})"

    @property
    def names(self) -> tuple[str, ...]:
        """Names as given, in the order given."""
        return tuple(self._rois)

    @property
    def empty(self) -> tuple[str, ...]:
        """Names of the regions without a single vertex."""
        return tuple(name for name, positions in self.items() if not len(positions))

    def members(self, name: str) -> np.ndarray:
        """Positions of a region, by its name or by one the field uses for it, in any case.

        ``V1`` is V1v and V1d, ``FFA`` is FFA-1 and FFA-2, ``OWFA`` is also OVWFA, and so on. A region that the table
        names itself always wins over an alias.

        Returns
        -------
        array of shape (k,), int32
            Sorted. May be empty.

        Raises
        ------
        UsageError
            If there is no such region; the nearest names are offered.
        """
        wanted = name.strip().lower()
        if wanted in self._lower:
            return self._rois[self._lower[wanted]]
        found = [self._rois[self._lower[label]] for label in _alias_labels(wanted) if label in self._lower]
        if found:
            return np.unique(np.concatenate(found)).astype(np.int32)
        raise UsageError(self._unknown(name))

    def subset(self, vertex_index: np.ndarray) -> RoiTable:
        """The table for the vertices at `vertex_index` alone, renumbered to 0 .. k-1.

        Parameters
        ----------
        vertex_index : array of shape (k,) of distinct positions, or mask of shape (V,)
        """
        kept = _as_positions(vertex_index, self.n_vertices)
        renumber = np.full(self.n_vertices, -1, dtype=np.int32)
        renumber[kept] = np.arange(len(kept), dtype=np.int32)
        inside = {name: renumber[positions] for name, positions in self.items()}
        return RoiTable({name: positions[positions >= 0] for name, positions in inside.items()}, len(kept))

    def to_json(self) -> dict[str, list[int]]:
        """The table as plain lists."""
        return {name: positions.tolist() for name, positions in self.items()}

    @classmethod
    def from_json(cls, value: object, n_vertices: int) -> RoiTable:
        """Build a table from what :meth:`to_json` gave.

        Raises
        ------
        DataError
            If `value` is not an object of lists of positions.
        """
        if not isinstance(value, dict):
            raise DataError(f"ROI table: expected an object {{name: [positions]}}, found {type(value).__name__}")
        for name, positions in value.items():
            whole = isinstance(positions, list) and all(type(position) is int for position in positions)
            if not isinstance(name, str) or not whole:
                raise DataError(f"ROI {name}: expected a list of whole numbers")
        return cls(value, n_vertices)

    def _unknown(self, name: str) -> str:
        if not self._rois:
            return f"ROI {name!r}: unknown; this subject has no ROI table"
        aliases = [alias for alias in _ALIASES if any(label in self._lower for label in _alias_labels(alias.lower()))]
        spelled = {known.lower(): known for known in [*aliases, *self.names]}
        near = [spelled[close] for close in difflib.get_close_matches(name.strip().lower(), spelled, n=3, cutoff=0.5)]
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(self.names)}"
        return f"ROI {name!r}: unknown; {hint}"


def mesh(space: str, hemisphere: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """One surface of the average brain.

    Parameters
    ----------
    space : str
        A key of ``SPACES``.
    hemisphere : {"left", "right"}
    kind : {"sphere", "pial", "white", "infl", "flat"}
        ``sphere`` has radius 100 mm. ``flat`` is a cut flatmap in the x-y plane: its faces leave out the medial wall
        and the cuts, and only the vertices named by its faces have meaningful points.

    Returns
    -------
    points : array of shape (n, 3), float64
        In mm. Read-only, shared.
    faces : array of shape (m, 3), int32
        Read-only, shared.

    Raises
    ------
    UsageError
        If an argument is not one of those named.
    MissingDependency
        If nilearn, which carries the meshes, is not installed.
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
        If nilearn is not installed.
    """
    _check(space, hemisphere)
    _one_of("kind", kind, SCALARS)
    return _scalar(space, hemisphere, kind)


def sphere_coordinates(vertices: Vertices) -> np.ndarray:
    """Where each vertex lies on the sphere, the hemispheres set apart along x.

    The right hemisphere is shifted so that its smallest x lies at ``min + 1.5 * (max - min)`` of the left one (over
    the vertices given), only if it lies left of that. One hemisphere alone is not shifted.

    Returns
    -------
    array of shape (V, 3), float32
        In mm.

    Raises
    ------
    UsageError
        If the space is custom.
    MissingDependency
        If nilearn is not installed.
    """
    _size_of(vertices.space)
    left = _mesh(vertices.space, "left", "sphere")[0][vertices.left]
    right = _mesh(vertices.space, "right", "sphere")[0][vertices.right]
    if len(left) and len(right):
        low, high = left[:, 0].min(), left[:, 0].max()
        apart = low + 1.5 * (high - low) - right[:, 0].min()
        right = right + [max(apart, 0.0), 0.0, 0.0]
    return np.concatenate([left, right]).astype(np.float32)


def _alias_labels(wanted: str) -> list[str]:
    return [label.lower() for alias, labels in _ALIASES.items() if alias.lower() == wanted for label in labels]


def _as_positions(index: np.ndarray, count: int) -> np.ndarray:
    index = np.asarray(index)
    if index.dtype == bool:
        if index.shape != (count,):
            raise UsageError(f"a vertex mask must have shape ({count},), got {index.shape}")
        return np.flatnonzero(index)
    return index.astype(np.int64).reshape(-1)


def _size_of(space: str) -> int:
    if space not in SPACES:
        raise UsageError(f"space {space!r} has no surface; expected one of {', '.join(SPACES)}")
    return SPACES[space]


def _one_of(what: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise UsageError(f"{what} must be one of {', '.join(known)}; got {value!r}")


def _check(space: str, hemisphere: str) -> None:
    _size_of(space)
    _one_of("hemisphere", hemisphere, HEMISPHERES)


@functools.cache
def _mesh(space: str, hemisphere: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    coarse = _COARSER.get(space)
    if coarse is None:
        points, faces = _read(hemisphere, kind)
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
    if coarse is None:
        return _frozen(_read(hemisphere, kind)[0])
    values = _scalar(coarse, hemisphere, kind)
    _, parents = _subdivided(space, hemisphere)
    return _frozen(np.concatenate([values, values[parents].mean(axis=1)]))


_COARSER = {"fsaverage6": "fsaverage5", "fsaverage": "fsaverage6"}


@functools.cache
def _subdivided(space: str, hemisphere: str) -> tuple[np.ndarray, np.ndarray]:
    """Faces of the whole closed mesh, and the two parents of each vertex that the coarser space lacks."""
    faces, _ = _closed_faces(_COARSER[space], hemisphere)
    return _subdivide(faces, SPACES[_COARSER[space]])


def _closed_faces(space: str, hemisphere: str) -> tuple[np.ndarray, np.ndarray | None]:
    if space in _COARSER:
        return _subdivided(space, hemisphere)
    return _mesh(space, hemisphere, "sphere")[1], None


@functools.cache
def _on_flatmap(space: str, hemisphere: str) -> np.ndarray:
    """Which faces of the closed mesh descend from the faces of fsaverage5's flatmap. (m,) bool."""
    if space in _COARSER:
        parent = _on_flatmap(_COARSER[space], hemisphere)
        return np.concatenate([parent, np.repeat(parent, 3)])  # the corner faces first, then three per parent
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
        The ends of the edge that vertex ``count + i`` halves. New vertices are numbered as the faces first meet them.
    """
    first, second, third = faces.T
    edges = np.stack([first, third, third, second, second, first], axis=1).reshape(-1, 2)
    edges = np.sort(edges, axis=1).astype(np.int64)
    _, seen, inverse = np.unique(edges[:, 0] * count + edges[:, 1], return_index=True, return_inverse=True)
    order = np.argsort(seen)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    m13, m32, m21 = (count + rank[inverse.reshape(-1)]).reshape(-1, 3).T
    corners = np.stack([first, m21, m13], axis=1)
    others = np.stack([m13, m32, third, m21, m32, m13, m21, second, m32], axis=1).reshape(-1, 3)
    return _frozen(np.concatenate([corners, others]).astype(np.int32)), _frozen(edges[seen[order]].astype(np.int32))


def _read(hemisphere: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    # Located without importing nilearn, which would bring scikit-learn and pandas with it.
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        require("nilearn", extra="maps", purpose="reading cortical surfaces")
        raise DataError("nilearn: expected a normal installation, found one without files")
    from nibabel.gifti import GiftiImage

    path = Path(spec.origin).parent / "datasets" / "data" / "fsaverage5" / f"{kind}_{hemisphere}.gii.gz"
    if not path.is_file():
        raise DataError(f"{path}: file not found; this nilearn lacks it, brainkit needs nilearn 0.10 or later")
    arrays = [array.data for array in GiftiImage.from_filename(path).darrays]
    points = np.asarray(arrays[0], dtype=np.float64)
    faces = np.asarray(arrays[1], dtype=np.int32) if len(arrays) > 1 else np.empty((0, 3), dtype=np.int32)
    return points, faces


def _on_sphere(points: np.ndarray) -> np.ndarray:
    return points * (SPHERE_RADIUS / np.linalg.norm(points, axis=1, keepdims=True))


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
