"""Predictions as files: a writer for each format, and the JSON that says what is what."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from brainkit.cortex.surface import CUSTOM, SPACES, Vertices
from brainkit.encoder_file import EncoderInfo
from brainkit.errors import DataError, UsageError, require
from brainkit.predict.encoder import Encoder
from brainkit.predict.inputs.image_list import ImageList
from brainkit.predict.outputs.brain_images import Place, StagedRows
from brainkit.predict.outputs.csv import RoiMeanRows, check_regions
from brainkit.predict.outputs.npy import HemisphereRows, NpyRows
from brainkit.predict.outputs.npz import NpzRows
from brainkit.predict.outputs.zarr import ZarrRows
from brainkit.utils.text import as_text

# suffix -> what is in the file; docs/scoring.md has the table.
FORMATS = {
    ".npy": "float32 (images, vertices)",
    ".npz": "arrays fmri (images, vertices), vertices, space, units, images",
    ".csv": "the mean over each ROI's vertices, a row an image",
    ".zarr": "Zarr format 3, an array (images, vertices) chunked by rows; attributes units, space, vertices",
    ".func.gii": "GIFTI, a data array an image over the whole hemisphere, NaN where nothing is predicted",
    ".mgz": "FreeSurfer, (vertices of the hemisphere, 1, 1, images), NaN where nothing is predicted",
    ".nii.gz": "NIfTI, (X, Y, Z, images), NaN where nothing is predicted",
}
SURFACE_FORMATS = (".func.gii", ".mgz")
_SIDES = (("lh", "left", "CortexLeft"), ("rh", "right", "CortexRight"))


class RowWriter(Protocol):
    """A file, or a few, that take rows in order; how many there are is known at the end."""

    def append(self, rows: np.ndarray, names: Sequence[str] = ()) -> None:
        """Take rows (b, columns), float32. Only ``.csv`` needs the images' names here."""

    def checkpoint(self) -> int:
        """Bring what can be to the disk; how many rows are safe there, and may be asked for as `resume_rows`."""

    def finish(self, names: Collection[str] = ()) -> None:
        """Complete the files. `names` of all rows, which some formats hold; none where they are not known."""

    def close(self) -> None:
        """Let go of the files, finished or not."""


class PairRows:
    """Two outputs at once: of rows (b, 2, columns) the first goes to the one, the second to the other."""

    def __init__(self, first: RowWriter, second: RowWriter) -> None:
        self._writers = (first, second)

    def append(self, rows: np.ndarray, names: Sequence[str] = ()) -> None:
        for index, writer in enumerate(self._writers):
            writer.append(np.ascontiguousarray(rows[:, index]), names)

    def checkpoint(self) -> int:
        return min(writer.checkpoint() for writer in self._writers)

    def finish(self, names: Collection[str] = ()) -> None:
        for writer in self._writers:
            writer.finish(names)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@dataclass(frozen=True)
class Part:
    """One of the files that an output consists of: all vertices, or those of one hemisphere."""

    prefix: str
    hemisphere: str | None
    structure: str
    columns: slice

    def path(self, whole: Path) -> Path:
        """Its place, by the one given for the output; a hidden name stays hidden."""
        hidden = whole.name.startswith(".")
        return whole.with_name(f"{'.' if hidden else ''}{self.prefix}{whole.name.removeprefix('.')}")


def suffix_of(out: Path) -> str:
    """Which of the formats a file name asks for.

    Raises
    ------
    UsageError
        If none.
    """
    for suffix in FORMATS:
        if out.name.lower().endswith(suffix) and len(out.name) > len(suffix):
            return suffix
    raise UsageError(f"{out}: the output must end in {', '.join(FORMATS)}")


def description_path(out: Path) -> Path:
    """The JSON beside an output."""
    return beside_output(out, ".json")


def spread_path(out: Path) -> Path:
    """Where the spread of an ensemble goes: ``fmri-sd.npy`` beside ``fmri.npy``."""
    return beside_output(out, f"-sd{suffix_of(out)}")


def beside_output(out: Path, ending: str) -> Path:
    """A file named after an output, its suffix replaced by `ending`."""
    return out.with_name(out.name[: -len(suffix_of(out))] + ending)


def parts_of(out: Path, vertices: Vertices, hemispheres: bool) -> list[Part]:
    """The files that an output consists of; a hemisphere without vertices has none.

    Raises
    ------
    UsageError
        If the format does not suit the space of the vertices.
    """
    suffix = suffix_of(out)
    if hemispheres and suffix != ".npy":
        raise UsageError(f"{out}: --hemispheres is for .npy; {', '.join(SURFACE_FORMATS)} are by hemisphere anyway")
    if not hemispheres and suffix not in SURFACE_FORMATS:
        return [Part("", None, "", slice(None))]
    if vertices.space == CUSTOM:
        what = "--hemispheres" if hemispheres else suffix
        raise UsageError(f"{out}: {what} needs an fsaverage space; this encoder's vertices lie in a space of their own")
    left = vertices.n_left
    columns = (slice(0, left), slice(left, len(vertices)))
    join = "_" if hemispheres else "."
    return [
        Part(prefix + join, name, structure, where)
        for (prefix, name, structure), where in zip(_SIDES, columns, strict=True)
        if where.stop > where.start
    ]


def check_output(out: Path, overwrite: bool, hemispheres: bool = False) -> Path:
    """Refuse what cannot be written before any work is done; the path of the JSON beside."""
    suffix = suffix_of(out)
    if not out.parent.is_dir():
        raise DataError(f"{out}: its folder {out.parent} does not exist; make it first")
    beside = description_path(out)
    split = hemispheres or suffix in SURFACE_FORMATS
    join = "_" if hemispheres else "."
    files = [out.with_name(f"{prefix}{join}{out.name}") for prefix, _, _ in _SIDES] if split else [out]
    for path in (*files, beside):
        if path.is_dir() and not (path == out and suffix == ".zarr" and (path / "zarr.json").is_file()):
            found = "a folder that is no Zarr array" if path.suffix == ".zarr" else "a folder"
            raise UsageError(f"{path}: is {found}; the output must be a file")
        if path.exists() and not overwrite:
            raise UsageError(f"{path}: exists already; --overwrite replaces it")
    if suffix == ".zarr":
        require("zarr", extra="zarr", purpose="writing .zarr")
        if out.is_file():
            raise UsageError(f"{out}: is a file; a Zarr array is a folder")
    return beside


def check_format(
    out: Path,
    info: EncoderInfo,
    columns: np.ndarray | None,
    regions: Mapping[str, np.ndarray],
    hemispheres: bool = False,
) -> list[Part]:
    """Refuse a format that does not suit the encoder; the files that the output consists of.

    Raises
    ------
    UsageError
        If it does not.
    """
    if suffix_of(out) == ".csv":
        check_regions(regions)
    if suffix_of(out) == ".nii.gz" and info.volume is None:
        raise UsageError(f"{out}: .nii.gz needs an encoder of volumetric data; this one does not know of a volume")
    return parts_of(out, info.vertices if columns is None else info.vertices.select(columns), hemispheres)


def make_writer(
    path_beside: Path,
    final: Path,
    info: EncoderInfo,
    columns: np.ndarray | None,
    *,
    resume_rows: int = 0,
    hemispheres: bool = False,
    regions: Mapping[str, np.ndarray] | None = None,
) -> RowWriter:
    """Open a writer for rows of predictions.

    Parameters
    ----------
    path_beside : Path
        Where to write until all is there; `Part.path` tells where each of several files lies. Formats that are made of
        all rows at the end keep a file of the same name and ``.rows`` there, too.
    final : Path
        What they will be called; its suffix chooses the format.
    info : EncoderInfo
    columns : array of int, optional
        Which of the encoder's vertices the columns are, increasing; all by default.
    resume_rows : int
        Keep so many rows of what is at `path_beside`: a number that `checkpoint` gave.
    hemispheres : bool
        ``.npy``: one file a hemisphere.
    regions : mapping of str to array of int
        ``.csv``: positions of each region among the columns.

    Returns
    -------
    RowWriter

    Raises
    ------
    UsageError
        If the format does not suit the encoder.
    DataError
        If there are fewer rows to go on from than `resume_rows`.
    MissingDependency
        If the format needs a package that is not installed.
    """
    suffix = suffix_of(final)
    vertices = info.vertices if columns is None else info.vertices.select(columns)
    parts = check_format(final, info, columns, regions or {}, hemispheres)
    count = len(vertices)
    if suffix == ".csv":
        return RoiMeanRows(path_beside, regions or {}, resume_rows)
    if suffix == ".npy" and hemispheres:
        widths = [part.columns.stop - part.columns.start for part in parts]
        return HemisphereRows([part.path(path_beside) for part in parts], widths, resume_rows)
    if suffix == ".npy":
        return NpyRows(path_beside, count, resume_rows)
    facts: dict[str, Any] = {"units": info.units, "space": info.vertices.space, "note": info.note or ""}
    if suffix == ".npz":
        arrays = {name: np.array(value) for name, value in facts.items()}
        return NpzRows(path_beside, count, {"vertices": vertices_ids(info, columns), **arrays}, resume_rows)
    if suffix == ".zarr":
        facts |= {"encoder_sha256": info.digest, "vertices": vertices_ids(info, columns).tolist()}
        return ZarrRows(path_beside, count, facts, resume_rows)
    if suffix == ".nii.gz":
        places = [_in_volume(path_beside, info, columns)]
    else:
        sides = {"left": vertices.left, "right": vertices.right}
        places = [
            Place(part.path(path_beside), part.columns, sides[part.hemisphere], SPACES[vertices.space], part.structure)
            for part in parts
            if part.hemisphere
        ]
    return StagedRows(path_beside.with_name(f"{path_beside.name}.rows"), count, places, suffix, resume_rows)


def vertices_ids(info: EncoderInfo, columns: np.ndarray | None) -> np.ndarray:
    """Ids of the vertices that the columns are, as the encoder file has them. (columns,), int32."""
    ids = info.vertices.ids
    return ids if columns is None else ids[columns]


def write_description(
    path: Path,
    out: Path,
    encoder: Encoder,
    images: ImageList,
    rows: int,
    columns: np.ndarray | None,
    regions: dict[str, np.ndarray],
    *,
    hemispheres: bool = False,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write what the rows and columns of an output are; images are written as they are read from their list."""
    info = encoder.info
    ids = vertices_ids(info, columns)
    suffix = suffix_of(out)
    digest = hashlib.sha256(np.ascontiguousarray(ids, "<i4").tobytes()).hexdigest()
    vertices: dict[str, Any] = {"count": len(ids), "sha256": digest}
    if columns is None:
        vertices["where"] = "all vertices of the encoder file, in its order"
    else:
        vertices["ids"] = ids.tolist()
    chosen = info.vertices if columns is None else info.vertices.select(columns)
    files = [
        {"file": part.path(out).name, "hemisphere": part.hemisphere, "columns": part.columns.indices(len(ids))[:2]}
        for part in parts_of(out, chosen, hemispheres)
    ]
    split = files[0]["hemisphere"] is not None
    description: dict[str, Any] = {
        "file": [part["file"] for part in files] if split else out.name,
        "format": "float32 (images, vertices of the hemisphere)" if hemispheres else FORMATS[suffix],
        "shape": [rows, len(regions) if suffix == ".csv" else len(ids)],
        "dtype": "float32",
        "rows": "images, in this order",
        "images": (as_text(name) for name in images.readable()),
        "skipped": ({"path": as_text(name), "reason": reason} for name, reason in images.skipped()),
        "notes": ({"path": as_text(name), "note": as_text(note)} for name, note in images.notes()),
        "units": info.units,
        "space": info.vertices.space,
        "vertices": vertices,
        "encoder": {
            "file": as_text(encoder.path),
            "sha256": info.digest,
            "backbone": info.backbone.get("name"),
            "device": encoder.device,
        },
        "note": info.note,
    }
    if split:
        description["hemispheres"] = files
    if suffix == ".csv":
        description["columns"] = ["image", *regions]
    if regions:
        description["rois"] = {name: index.tolist() for name, index in regions.items()}
    with path.open("w", encoding="utf-8") as file:
        write_streaming(file, description | dict(more or {}))
        file.flush()
        os.fsync(file.fileno())


def write_streaming(file: TextIO, value: dict[str, Any]) -> None:
    """Write an object as indented JSON; where a value is an iterator, its items as they come."""
    for number, (key, each) in enumerate(value.items()):
        file.write(f"{',' if number else '{'}\n  {json.dumps(key)}: ")
        if not isinstance(each, Iterator):
            file.write(_indented(each, "  "))
            continue
        start = "["
        for item in each:
            file.write(f"{start}\n    {_indented(item, '    ')}")
            start = ","
        file.write("[]" if start == "[" else "\n  ]")
    file.write("\n}\n")


def _indented(value: Any, by: str) -> str:
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False).replace("\n", f"\n{by}")


def _in_volume(path_beside: Path, info: EncoderInfo, columns: np.ndarray | None) -> Place:
    volume = info.volume
    assert volume is not None  # checked before
    voxels = volume.voxels if columns is None else volume.voxels[columns]
    positions = np.ravel_multi_index(tuple(voxels.T.astype(np.intp)), volume.shape, order="F")
    return Place(
        path_beside, slice(None), positions, int(np.prod(volume.shape)), shape=volume.shape, affine=volume.affine
    )
