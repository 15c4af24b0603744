"""An encoder of some vertices only: which they are, and the same model and description cut down to them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.cortex.surface import CUSTOM, RoiTable, Vertices
from brainkit.encoder_file import EncoderInfo, pack_array, unpack_array
from brainkit.errors import DataError, EncoderFileError, UsageError

if TYPE_CHECKING:
    from brainkit.model.factor_topy import Folded

MAX_BYTES = 64 << 20  # of a file of vertex ids


@dataclass(frozen=True, eq=False)
class Subset:
    """Vertices of an encoder that are kept.

    Parameters
    ----------
    positions : array of shape (n,), int64
        Among the whole encoder's columns, ascending.
    said : dict
        How they were chosen, for the file's provenance.
    """

    positions: np.ndarray
    said: dict[str, Any]


def choose_subset(
    info: EncoderInfo, *, rois: str | Iterable[str] = (), vertices: str | os.PathLike[str] | np.ndarray | None = None
) -> Subset | None:
    """The vertices asked for, by region, by id, or both together; None where neither is given.

    Parameters
    ----------
    info : EncoderInfo
        Of the whole encoder.
    rois : str or iterable of str
        Names of regions, in any case, or those the field uses (``V1``, ``FFA``).
    vertices : path-like or array of int, optional
        Ids in the encoder's space, each once, in any order: an array, a ``.npy`` file, or a text file with one id a
        line.

    Raises
    ------
    UsageError
        If a region is unknown, an id is not in the encoder or stands twice, or no vertex is left.
    DataError
        If the file cannot be read.
    """
    names = (rois,) if isinstance(rois, str) else tuple(rois)
    if not names and vertices is None:
        return None
    parts, said = [], {}
    if names:
        parts += [info.rois.members(name) for name in names]
        said["rois"] = ", ".join(names)
        if not sum(map(len, parts)):
            raise UsageError(f"ROI {', '.join(names)}: has no vertices in this encoder")
    if vertices is not None:
        given = vertices if isinstance(vertices, np.ndarray) else read_ids(vertices)
        named = "vertices" if isinstance(vertices, np.ndarray) else str(vertices)
        parts.append(_positions(given, info.vertices, named))
        said["file"] = "" if isinstance(vertices, np.ndarray) else Path(vertices).name
    positions = np.unique(np.concatenate(parts)).astype(np.int64)
    return Subset(positions, {key: text for key, text in said.items() if text})


def read_ids(path: str | os.PathLike[str]) -> np.ndarray:
    """Vertex ids from a ``.npy`` file of integers (n,), or a text file with one id a line.

    Raises
    ------
    DataError
        If it is missing, or holds something else.
    """
    file = Path(path)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise DataError(f"{file}: expected vertex ids, found a file of over {MAX_BYTES >> 20} MB")
        if file.suffix == ".npy":
            ids = np.load(file, allow_pickle=False)
        else:
            lines = file.read_text(encoding="utf-8").splitlines()
            ids = np.array([_id(line, file, at) for at, line in enumerate(lines, 1) if line.strip()], np.int64)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or 'damaged'}") from None
    except (ValueError, EOFError):
        raise DataError(f"{file}: expected a .npy file of vertex ids, or one id a line, found something else") from None
    if not isinstance(ids, np.ndarray) or ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        found = f"{ids.dtype} of shape {ids.shape}" if isinstance(ids, np.ndarray) else "several arrays"
        raise DataError(f"{file}: expected whole numbers of shape (n,), found {found}")
    return ids


def subset_of(folded: Folded, info: EncoderInfo, subset: Subset) -> tuple[Folded, EncoderInfo]:
    """The model's constants and its description, for these vertices alone.

    Regions keep those of their vertices that are here, and regions left with none are dropped. The provenance says
    that it is a subset, and of what; in the custom space, where ids are numbered anew, also which vertices.
    """
    kept = subset.positions
    ids = info.vertices.ids
    said: dict[str, Any] = {
        **subset.said,
        "vertices": len(kept),
        "of": len(ids),
        "of_sha256": hashlib.sha256(np.ascontiguousarray(ids, "<i4").tobytes()).hexdigest(),
    }
    if info.vertices.space == CUSTOM:
        said["positions"] = pack_array(kept.astype("<i4"))
        vertices = Vertices.custom(len(kept))
    else:
        vertices = Vertices(info.vertices.space, ids[kept])
    table = info.rois.subset(kept)
    rows = ("layer_weights", "locations", "scale")
    described = dataclasses.replace(
        info,
        vertices=vertices,
        rois=RoiTable({name: members for name, members in table.items() if len(members)}, len(kept)),
        volume=None if info.volume is None else info.volume.select(kept),
        **{name: getattr(info, name)[kept] for name in (*rows, "r", "R2", "noise_ceiling")},
        provenance={**info.provenance, "subset": said},
    )
    return _rows_of(folded, kept), described


def _rows_of(folded: Folded, kept: np.ndarray) -> Folded:
    names = ("layer_weights", "locations", "scale", "weight", "bias")
    changes: dict[str, Any] = {name: getattr(folded, name)[kept] for name in names}
    if members := getattr(folded, "members", ()):  # of an ensemble
        changes["members"] = tuple(_rows_of(member, kept) for member in members)
    return dataclasses.replace(folded, **changes)


def custom_positions(info: EncoderInfo, n_vertices: int) -> np.ndarray | None:
    """Which of the whole's `n_vertices` an encoder of some in the custom space has, (n,) int64; else None."""
    said = info.provenance.get("subset")
    if info.vertices.space != CUSTOM or not isinstance(said, dict) or "positions" not in said:
        return None
    shape = (len(info.vertices),)
    positions = unpack_array(said["positions"], dtype="<i4", shape=shape, what="provenance.subset.positions")
    if (np.diff(positions) <= 0).any() or positions[0] < 0 or positions[-1] >= n_vertices:
        raise EncoderFileError(f"provenance.subset.positions must increase within 0..{n_vertices - 1}, found others")
    return positions.astype(np.int64)


def _positions(ids: np.ndarray, vertices: Vertices, named: str) -> np.ndarray:
    """Where these ids lie among the encoder's vertices."""
    if not np.issubdtype(ids.dtype, np.integer) or ids.ndim != 1:
        raise UsageError(f"{named}: must be whole numbers of shape (n,), got {ids.dtype} of shape {ids.shape}")
    if not len(ids):
        raise UsageError(f"{named}: must name at least one vertex, got none")
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        raise UsageError(f"{named}: must name each vertex once, got {unique[counts > 1][0]} twice or more")
    positions = np.minimum(np.searchsorted(vertices.ids, unique), len(vertices) - 1)
    missing = unique[vertices.ids[positions] != unique]
    if len(missing):
        raise UsageError(
            f"{named}: {len(missing)} of {len(ids)} ids are not among the encoder's {len(vertices)} vertices of "
            f"{vertices.space}, the first is {missing[0]}"
        )
    return positions


def _id(line: str, file: Path, at: int) -> int:
    try:
        number = int(line)
    except ValueError:
        raise DataError(f"{file}: line {at}: expected a vertex id, found {line.strip()[:40]!r}") from None
    if not 0 <= number < 2**31:
        raise DataError(f"{file}: line {at}: expected a vertex id, found {line.strip()[:40]}")
    return number
