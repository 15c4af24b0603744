"""The contract of a writer of predictions: the layout of its rows, and its methods."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from brainkit.cortex.resampling import Resampling
from brainkit.cortex.vertices import CUSTOM, SPACES, Vertices, to_ranges
from brainkit.encoder_file.info import EncoderInfo

# Prefix in file names, hemisphere, GIFTI's AnatomicalStructurePrimary.
HEMISPHERES = (("lh", "left", "CortexLeft"), ("rh", "right", "CortexRight"))


class RowWriter(Protocol):
    """A file, or a few, that take rows in order; how many there are is known only at the end."""

    def append(self, rows: np.ndarray, names: Sequence[str] = ()) -> None:
        """Take rows (b, columns), float32, and the names of their images."""

    def checkpoint(self) -> int:
        """Bring what can be to the disk; the number of rows that are safe there, and may be passed as `resume_rows`."""

    def finish(self, names: Collection[str] = ()) -> None:
        """Complete the files. `names`: those of all rows, which some formats hold; none if they are not known."""

    def close(self) -> None:
        """Close the files, finished or not."""


@dataclass(frozen=True)
class Layout:
    """What the rows of an output are.

    Parameters
    ----------
    info : EncoderInfo
    columns : array of int, optional
        Positions of the columns among the encoder's vertices, increasing; all by default.
    regions : mapping of str to array of int
        Positions of each requested region among the columns.
    by_hemisphere : bool
        One file per hemisphere.
    separator : str
        Between ``lh`` or ``rh`` and the output's name.
    resampling : Resampling, optional
        How those columns become columns of another space, which are the ones written.
    """

    info: EncoderInfo
    columns: np.ndarray | None = None
    regions: Mapping[str, np.ndarray] = field(default_factory=dict)
    by_hemisphere: bool = False
    separator: str = "."
    resampling: Resampling | None = None

    @cached_property
    def vertices(self) -> Vertices:
        """The vertices that the columns are."""
        if self.resampling is not None:
            return self.resampling.vertices
        return self.info.vertices if self.columns is None else self.info.vertices.select(self.columns)

    @cached_property
    def ids(self) -> np.ndarray:
        """Ids of the vertices; custom ones as the encoder file has them. (columns,), int32."""
        if self.resampling is not None:
            return self.resampling.vertices.ids
        return self.info.vertices.ids if self.columns is None else self.info.vertices.ids[self.columns]

    @cached_property
    def parts(self) -> list[Part]:
        """The files of the output; a hemisphere without vertices has none."""
        if not self.by_hemisphere:
            return [Part("", None, "", slice(None))]
        left = self.vertices.n_left
        columns = (slice(0, left), slice(left, len(self.vertices)))
        return [
            Part(prefix + self.separator, name, structure, span)
            for (prefix, name, structure), span in zip(HEMISPHERES, columns, strict=True)
            if span.stop > span.start
        ]

    def to_json(self) -> dict[str, Any]:
        """What the columns are, for the JSON next to an output: no encoder file is needed to place them."""
        space = self.vertices.space
        found: dict[str, Any] = {
            "units": self.info.units,
            "space": space,
            "vertices": {
                "count": len(self.ids),
                "sha256": hashlib.sha256(np.ascontiguousarray(self.ids, "<i4").tobytes()).hexdigest(),
                "ranges": to_ranges(self.ids),
                "what": "ids of the columns, in order, as runs [first, last + 1]"
                + ("" if space == CUSTOM else f"; the right hemisphere's are offset by {SPACES[space]}"),
            },
        }
        if self.resampling is not None:
            source = self.info.vertices.space
            found["resampled"] = f"each vertex of {space} has the prediction of the nearest one of {source}"
        if (volume := self.info.volume) is not None:
            voxels = volume.voxels if self.columns is None else volume.voxels[self.columns]
            flat = np.ravel_multi_index(tuple(voxels.T.astype(np.intp)), volume.shape)
            found["volume"] = {
                "shape": list(volume.shape),
                "affine": volume.affine.tolist(),
                "ranges": to_ranges(flat),
                "what": "the columns' voxels as positions in the volume in C order, as runs [first, last + 1]",
            }
        return found


@dataclass(frozen=True)
class Part:
    """One file of an output: all columns, or those of one hemisphere."""

    prefix: str
    hemisphere: str | None
    structure: str
    columns: slice

    def path(self, output: Path) -> Path:
        """The file's path, given the output's; a hidden name stays hidden."""
        hidden = output.name.startswith(".")
        return output.with_name(f"{'.' if hidden else ''}{self.prefix}{output.name.removeprefix('.')}")
