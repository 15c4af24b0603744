"""An encoder of selected vertices: choosing them, and the model and metadata reduced to them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.cortex.roi_files import read_vertex_list
from brainkit.cortex.vertices import CUSTOM, Vertices
from brainkit.data.responses import open_array
from brainkit.encoder_file import EncoderInfo, pack_array, unpack_array
from brainkit.errors import DataError, EncoderFileError, UsageError

if TYPE_CHECKING:
    from brainkit.model.factor_topy import Folded

MAX_BYTES = 64 << 20  # of a file of vertex ids


@dataclass(frozen=True, eq=False)
class VertexSubset:
    """Selected vertices of an encoder.

    Parameters
    ----------
    positions : array of shape (n,), int64
        Their columns in the full encoder, ascending.
    source : dict
        How they were chosen, for the file's provenance.
    """

    positions: np.ndarray
    source: dict[str, Any]


def choose_subset(
    info: EncoderInfo, *, rois: str | Iterable[str] = (), vertices: str | os.PathLike[str] | np.ndarray | None = None
) -> VertexSubset | None:
    """The vertices of regions, those with given ids, or the union of both; None if neither is given.

    Parameters
    ----------
    info : EncoderInfo
        Of the full encoder.
    rois : str or iterable of str
        Names of ROIs, in upper or lower case, or their common names (``V1``, ``FFA``), also several with commas.
    vertices : path-like or array of int, optional
        Ids in the encoder's space, each once, in any order: an array, a ``.npy`` file, or a text file with one id per
        line.

    Raises
    ------
    UsageError
        If a ROI is unknown, an id is not in the encoder or is repeated, or no vertex is left.
    DataError
        If the file cannot be read.
    """
    names = info.rois.split_names(rois)
    if not names and vertices is None:
        return None
    parts, source = [], {}
    if names:
        parts += [info.rois.members(name) for name in names]
        source["rois"] = ", ".join(names)
        if not sum(map(len, parts)):
            raise UsageError(f"ROI {', '.join(names)}: has no vertices in this encoder")
    if vertices is not None:
        if isinstance(vertices, np.ndarray):
            parts.append(_positions(vertices, info.vertices, "vertices"))
        else:
            parts.append(_positions(read_ids(vertices), info.vertices, str(vertices)))
            source["file"] = Path(vertices).name
    return VertexSubset(np.unique(np.concatenate(parts)).astype(np.int64), source)


def read_ids(path: str | os.PathLike[str]) -> np.ndarray:
    """Vertex ids from a ``.npy`` file of integers (n,), a ``.json`` list, or a text file with one id per line.

    Raises
    ------
    DataError
        If the file is missing or has other content.
    """
    file = Path(path)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise DataError(f"{file}: expected vertex ids, found a file of over {MAX_BYTES >> 20} MB")
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    ids = np.array(open_array(file, "vertex ids")) if file.suffix == ".npy" else read_vertex_list(file)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise DataError(f"{file}: expected integers of shape (n,), found {ids.dtype} of shape {ids.shape}")
    return ids


def select_vertices(folded: Folded, info: EncoderInfo, subset: VertexSubset) -> tuple[Folded, EncoderInfo]:
    """The model's constants and the metadata, for these vertices only.

    ROIs keep their selected vertices, and those without any are dropped. The provenance records what the subset is
    taken from; in the custom space, where the vertices are renumbered, also their positions.
    """
    kept = subset.positions
    ids = info.vertices.ids
    provenance: dict[str, Any] = {
        **subset.source,
        "vertices": len(kept),
        "of": len(ids),
        "of_sha256": hashlib.sha256(np.ascontiguousarray(ids, "<i4").tobytes()).hexdigest(),
    }
    if info.vertices.space == CUSTOM:
        provenance["positions"] = pack_array(kept.astype("<i4"))
        vertices = Vertices.custom(len(kept))
    else:
        vertices = Vertices(info.vertices.space, ids[kept])
    rows = ("layer_weights", "locations", "scale")
    reduced = dataclasses.replace(
        info,
        vertices=vertices,
        rois=info.rois.subset(kept).without_empty(),
        volume=None if info.volume is None else info.volume.select(kept),
        uncertainty=None if info.uncertainty is None else info.uncertainty.select(kept),
        **{name: getattr(info, name)[kept] for name in (*rows, "r", "R2", "noise_ceiling")},
        provenance={**info.provenance, "subset": provenance},
    )
    return _select_rows(folded, kept), reduced


def _select_rows(folded: Folded, kept: np.ndarray) -> Folded:
    names = ("layer_weights", "locations", "scale", "weight", "bias")
    changes: dict[str, Any] = {name: getattr(folded, name)[kept] for name in names}
    if members := getattr(folded, "members", ()):  # of an ensemble
        changes["members"] = tuple(_select_rows(member, kept) for member in members)
    return dataclasses.replace(folded, **changes)


def custom_positions(info: EncoderInfo, n_vertices: int) -> np.ndarray | None:
    """The full encoder's columns of a subset in the custom space, (n,) int64; None for other encoders."""
    subset = info.provenance.get("subset")
    if info.vertices.space != CUSTOM or not isinstance(subset, dict) or "positions" not in subset:
        return None
    shape = (len(info.vertices),)
    positions = unpack_array(subset["positions"], dtype="<i4", shape=shape, what="provenance.subset.positions")
    if (np.diff(positions) <= 0).any() or positions[0] < 0 or positions[-1] >= n_vertices:
        raise EncoderFileError(f"provenance.subset.positions must increase within 0..{n_vertices - 1}")
    return positions.astype(np.int64)


def _positions(ids: np.ndarray, vertices: Vertices, name: str) -> np.ndarray:
    """The encoder's columns of these ids; `name` is where they come from, for errors."""
    if not np.issubdtype(ids.dtype, np.integer) or ids.ndim != 1:
        raise UsageError(f"{name}: must be integers of shape (n,), got {ids.dtype} of shape {ids.shape}")
    if not len(ids):
        raise UsageError(f"{name}: must name at least one vertex, got none")
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        raise UsageError(f"{name}: must name each vertex once, got {unique[counts > 1][0]} more than once")
    positions = np.minimum(np.searchsorted(vertices.ids, unique), len(vertices) - 1)
    missing = unique[vertices.ids[positions] != unique]
    if len(missing):
        raise UsageError(
            f"{name}: {len(missing)} of {len(ids)} ids are not among the encoder's {len(vertices)} vertices of "
            f"{vertices.space}, the first is {missing[0]}"
        )
    return positions
