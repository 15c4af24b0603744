"""Which vertices of which cortical space the columns of the responses are.

The spaces are FreeSurfer's fsaverage family, which nest (the first 10,242 vertices of a hemisphere of fsaverage are
those of fsaverage5), and fsLR, the mesh of CIFTI files, which is another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from brainkit.errors import DataError, UsageError

FS_LR = "fsLR"
"""The space of CIFTI files: fs_LR at 32k."""

FSAVERAGE = ("fsaverage5", "fsaverage6", "fsaverage")
"""The spaces that nest, from coarse to fine."""

SPACES: dict[str, int] = {"fsaverage5": 10_242, "fsaverage6": 40_962, "fsaverage": 163_842, FS_LR: 32_492}
"""Space -> vertices in each hemisphere, with the medial wall."""

CUSTOM = "custom"
"""The space of vertices (or voxels) that lie on none of these surfaces: they are only numbered."""


@dataclass(frozen=True, eq=False)
class Vertices:
    """Which vertices of which space, in the order of the columns of the responses.

    Parameters
    ----------
    space : str
        ``"fsaverage5"``, ``"fsaverage6"``, ``"fsaverage"``, ``"fsLR"`` or ``"custom"``.
    ids : array of shape (V,), int32
        Strictly increasing: left hemisphere first, then right, offset by ``SPACES[space]``. 0 .. V-1 in the custom
        space.

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
            i = int(steps[0])
            raise DataError(
                f"vertices: ids must be strictly increasing, got {ids[i]} then {ids[i + 1]} at position {i + 1}"
            )
        ids.setflags(write=False)
        object.__setattr__(self, "ids", ids)

    @classmethod
    def from_masks(cls, left: np.ndarray, right: np.ndarray) -> Vertices:
        """Vertices where the masks of the two hemispheres are non-zero.

        Parameters
        ----------
        left, right : array of shape (n,)
            Zeros and ones over a whole hemisphere; the length determines the space.

        Raises
        ------
        DataError
            If the lengths differ, or match no space.
        """
        left, right = np.asarray(left).ravel(), np.asarray(right).ravel()
        if len(left) != len(right):
            raise DataError(
                f"masks: both hemispheres must have the same length, got {len(left)} (left) and {len(right)} (right)"
            )
        space = space_of_mask(len(left))
        return cls(space, np.concatenate([np.flatnonzero(left), np.flatnonzero(right) + len(left)]))

    @classmethod
    def custom(cls, count: int) -> Vertices:
        """`count` vertices of the custom space."""
        return cls(CUSTOM, np.arange(count, dtype=np.int32))

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        sides = "" if self.space == CUSTOM else f": {self.n_left:,} left, {len(self) - self.n_left:,} right"
        return f"Vertices({self.space!r}, {len(self):,}{sides})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vertices):
            return NotImplemented
        return self.space == other.space and np.array_equal(self.ids, other.ids)

    def __hash__(self) -> int:
        return hash((self.space, self.ids.tobytes()))

    @property
    def n_left(self) -> int:
        """Number of vertices in the left hemisphere; in the custom space, all of them."""
        return int(np.searchsorted(self.ids, SPACES[self.space])) if self.space in SPACES else len(self)

    @property
    def left(self) -> np.ndarray:
        """Left-hemisphere vertices, numbered within the hemisphere: array of shape (n_left,), int32."""
        return self.ids[: self.n_left]

    @property
    def right(self) -> np.ndarray:
        """Right-hemisphere vertices, numbered within the hemisphere: array of shape (V - n_left,), int32."""
        return self.ids[self.n_left :] - np.int32(SPACES.get(self.space, 0))

    def select(self, index: np.ndarray) -> Vertices:
        """The vertices at `index`: increasing positions (k,), or a mask (V,). Custom vertices are renumbered."""
        positions = to_positions(index, len(self))
        return Vertices.custom(len(positions)) if self.space == CUSTOM else Vertices(self.space, self.ids[positions])

    def to_surface(self, values: np.ndarray, fill: float = np.nan) -> tuple[np.ndarray, np.ndarray]:
        """Place one value per vertex on both whole hemispheres.

        Parameters
        ----------
        values : array of shape (V,)
        fill : float
            Value of all other vertices.

        Returns
        -------
        left, right : array of shape (SPACES[space],), float32

        Raises
        ------
        UsageError
            If the space is custom, or `values` does not have V entries.
        """
        count = space_size(self.space)
        values = np.asarray(values)
        if values.shape != (len(self),):
            raise UsageError(f"values must have shape ({len(self)},), one per vertex; got {values.shape}")
        whole = np.full(2 * count, fill, dtype=np.float32)
        whole[self.ids] = values
        return whole[:count], whole[count:]


def space_of_mask(length: int) -> str:
    """The space whose hemispheres have `length` vertices.

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


def space_size(space: str) -> int:
    """Number of vertices in each hemisphere of a space.

    Raises
    ------
    UsageError
        If the space has no surface.
    """
    if space not in SPACES:
        raise UsageError(f"space {space!r} has no surface; expected one of {', '.join(SPACES)}")
    return SPACES[space]


def to_ranges(ids: np.ndarray) -> list[list[int]]:
    """Ids as runs of consecutive ones, [first, last + 1] each: the short form in JSON, as `from_ranges` reads it."""
    ids = np.asarray(ids, np.int64)
    edges = np.flatnonzero(np.diff(ids) != 1) + 1
    starts, ends = np.r_[0, edges], np.r_[edges, len(ids)]
    return [[int(ids[start]), int(ids[end - 1]) + 1] for start, end in zip(starts, ends, strict=True) if end > start]


def from_ranges(ranges: Iterable[Iterable[int]]) -> np.ndarray:
    """The ids that `to_ranges` took. (n,), int64."""
    return np.concatenate([np.empty(0, np.int64), *(np.arange(start, stop) for start, stop in ranges)])


def to_positions(index: np.ndarray, count: int) -> np.ndarray:
    """Convert positions of any integer type, or a mask of shape (count,), to positions (k,), int64."""
    index = np.asarray(index)
    if index.dtype == bool:
        if index.shape != (count,):
            raise UsageError(f"a vertex mask must have shape ({count},), got {index.shape}")
        return np.flatnonzero(index)
    return index.astype(np.int64).reshape(-1)
