"""Tables of regions of interest, and the names that the field uses for them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from brainkit.cortex.roi_expressions import UnknownRegion, parse_expression
from brainkit.cortex.roi_files import Columns, is_region_file, names_file, read_region
from brainkit.cortex.vertices import Vertices, to_positions
from brainkit.cortex.volume import Volume
from brainkit.errors import DataError, UsageError
from brainkit.utils.text import nearest_names

_SHOWN = 8  # regions in a repr

# Common name -> the Algonauts and NSD labels it stands for. Labels that a table lacks are skipped.
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


class RoiTable(Mapping[str, np.ndarray]):
    """Regions of interest: name -> positions among the V vertices of a subject.

    Parameters
    ----------
    rois : mapping of str to array of shape (k,)
        Positions in 0 .. V-1, in any order; stored sorted and unique. Empty regions are kept: that a subject lacks a
        region is worth knowing.
    n_vertices : int
        V.

    Raises
    ------
    DataError
        If a region's positions are not integers within range, or two names differ only in case.
    """

    def __init__(self, rois: Mapping[str, Any], n_vertices: int) -> None:
        self.n_vertices = int(n_vertices)
        self._columns: Columns | None = None
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
                raise DataError(f"ROI {name}: duplicate of {self._lower[name.lower()]}; names ignore case")
            members = np.unique(positions).astype(np.int32)
            members.setflags(write=False)
            self._rois[name] = members
            self._lower[name.lower()] = name

    def __getitem__(self, name: str) -> np.ndarray:
        return self._rois[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rois)

    def __len__(self) -> int:
        return len(self._rois)

    def __repr__(self) -> str:
        shown = [f"{name}: {len(positions)}" for name, positions in itertools.islice(self.items(), _SHOWN)]
        sizes = ", ".join(shown + [f"... {len(self) - _SHOWN} more"] * (len(self) > _SHOWN))
        return f"RoiTable({{{sizes}}}, n_vertices={self.n_vertices})"

    @property
    def names(self) -> tuple[str, ...]:
        """Names in their original order and case."""
        return tuple(self._rois)

    @property
    def empty(self) -> tuple[str, ...]:
        """Names of the regions without vertices."""
        return tuple(name for name, positions in self.items() if not len(positions))

    def on(self, vertices: Vertices, volume: Volume | None = None) -> RoiTable:
        """The same table with the place of the V columns, so that regions can be read from files."""
        return (
            self if self._columns is not None else self._with(self._rois, Columns(vertices.space, vertices.ids, volume))
        )

    def without_empty(self) -> RoiTable:
        """The same table without the regions that have no vertices."""
        return self._with({name: members for name, members in self.items() if len(members)}, self._columns)

    def has(self, name: str) -> bool:
        """Whether `members` finds a region of this name or alias."""
        return bool(self._labels(name))

    @property
    def common_names(self) -> tuple[str, ...]:
        """Names of the field's that stand for two or more regions of the table, such as ``V1`` for V1v and V1d."""
        return tuple(name for name in _ALIASES if name.lower() not in self._lower and len(self._labels(name)) > 1)

    def members(self, name: str) -> np.ndarray:
        """Positions of a region, by its name or a common alias, ignoring case; of a file; or of an expression of these.

        ``V1`` is V1v and V1d, ``FFA`` is FFA-1 and FFA-2, ``OWFA`` is also OVWFA, and so on. A name in the table takes
        precedence over an alias. ``FFA-1+FFA-2-V4`` is a union and a difference, from left to right. Files are those of
        :func:`brainkit.cortex.roi_files.read_region`, of a table that knows where its columns lie, see `on`.

        Returns
        -------
        array of shape (k,), int32
            Sorted. May be empty.

        Raises
        ------
        UsageError
            If there is no such region; names the part of the expression, and suggests the nearest names.
        DataError
            If a file cannot be read.
        """
        if self.has(name):
            return self._named(name)
        try:
            terms = parse_expression(name, [*self.names, *filter(self.has, _ALIASES)])
        except UnknownRegion as unknown:
            raise UsageError(self._unknown_message(unknown.part, name)) from None
        members = np.empty(0, np.int32)
        for added, part in terms:
            own = self._named(part) if self.has(part) else read_region(part, self._columns)
            members = np.union1d(members, own) if added else np.setdiff1d(members, own)
        return members.astype(np.int32)

    def split_names(self, texts: str | Iterable[str]) -> tuple[str, ...]:
        """Names from texts that may hold several, separated by commas; of a name that has commas itself, the whole.

        Unknown names are kept, for `members` to refuse.

        Raises
        ------
        UsageError
            If a text holds no name.
        """
        names: list[str] = []
        for text in (texts,) if isinstance(texts, str) else texts:
            parts = text.split(",")
            if not any(part.strip() for part in parts):
                raise UsageError(f"ROI: expected a name, got {text!r}")
            while parts:
                lengths = range(len(parts), 1, -1)
                joined = ((n, ",".join(parts[:n]).strip()) for n in lengths)
                longest = next((n for n, text in joined if self.has(text) or is_region_file(text)), 1)
                name = ",".join(parts[:longest]).strip()
                names += [name] if name else []
                del parts[:longest]
        return tuple(names)

    def union(self, names: Iterable[str]) -> np.ndarray:
        """Positions of the vertices in any of these regions, named as for `members`: (k,) int32, sorted."""
        parts = [self.members(name) for name in names]
        return np.unique(np.concatenate(parts)).astype(np.int32) if parts else np.empty(0, np.int32)

    def subset(self, vertex_index: np.ndarray) -> RoiTable:
        """The table of the vertices at `vertex_index` only, renumbered to 0 .. k-1.

        Parameters
        ----------
        vertex_index : array of shape (k,) of distinct positions, or mask of shape (V,)
        """
        selected = to_positions(vertex_index, self.n_vertices)
        new_position = np.full(self.n_vertices, -1, dtype=np.int32)
        new_position[selected] = np.arange(len(selected), dtype=np.int32)
        rois = {name: new_position[positions] for name, positions in self.items()}
        left = {name: positions[positions >= 0] for name, positions in rois.items()}
        table = RoiTable(left, len(selected))
        return table if self._columns is None else table._with(left, self._columns.select(selected))

    def to_json(self) -> dict[str, list[int]]:
        """The table as plain lists."""
        return {name: positions.tolist() for name, positions in self.items()}

    @classmethod
    def from_json(cls, value: object, n_vertices: int) -> RoiTable:
        """Build a table from the output of :meth:`to_json`.

        Raises
        ------
        DataError
            If `value` is not an object of lists of positions.
        """
        if not isinstance(value, dict):
            raise DataError(f"ROI table: expected an object {{name: [positions]}}, found {type(value).__name__}")
        for name, positions in value.items():
            integers = isinstance(positions, list) and all(type(position) is int for position in positions)
            if not isinstance(name, str) or not integers:
                raise DataError(f"ROI {name}: expected a list of whole numbers")
            if len(positions) == n_vertices > 2 and set(positions) <= {0, 1}:
                raise DataError(f"ROI {name}: expected positions, found a mask of zeros and ones")
        return cls(value, n_vertices)

    def _labels(self, name: str) -> list[str]:
        """The regions of the table that a name stands for, in upper or lower case; none if it is unknown."""
        wanted = name.strip().lower()
        if wanted in self._lower:
            return [self._lower[wanted]]
        return [self._lower[label] for label in _alias_labels(wanted) if label in self._lower]

    def _with(self, rois: Mapping[str, np.ndarray], columns: Columns | None) -> RoiTable:
        table = RoiTable(rois, self.n_vertices)
        table._columns = columns
        return table

    def _named(self, name: str) -> np.ndarray:
        found = [self._rois[label] for label in self._labels(name)]
        return found[0] if len(found) == 1 else np.unique(np.concatenate(found)).astype(np.int32)

    def _unknown_message(self, part: str, whole: str) -> str:
        where = f"ROI {part!r}" + (f" in {whole.strip()!r}" if part != whole.strip() else "")
        if names_file(part):
            return f"{where}: no such file; expected a region's name, or a .label, .annot, .nii, .txt or .json file"
        if not self._rois:
            return f"{where}: unknown; this subject has no ROI table"
        near = nearest_names(part.strip(), [*filter(self.has, _ALIASES), *self.names])
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        return f"{where}: unknown; {hint}available: {', '.join(self.names)}"


def _alias_labels(wanted: str) -> list[str]:
    return [label.lower() for alias, labels in _ALIASES.items() if alias.lower() == wanted for label in labels]
