"""Predictions as files: a writer for each format, and the JSON that says what is what."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from brainkit.encoder_file import EncoderInfo
from brainkit.errors import BrainkitError, DataError, UsageError, require
from brainkit.files import write_json
from brainkit.scoring.brain_images import Place, StagedRows
from brainkit.scoring.decoding import as_text
from brainkit.scoring.encoder import Encoder
from brainkit.scoring.npy_rows import HemisphereRows, NpyRows
from brainkit.scoring.npz_rows import NpzRows
from brainkit.scoring.tables import RoiMeanRows, check_regions
from brainkit.scoring.zarr_rows import ZarrRows
from brainkit.surface import CUSTOM, SPACES, Vertices

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

    def finish(self, names: Sequence[str] = ()) -> None:
        """Complete the files. `names` of all rows, which some formats hold; none where they are not known."""

    def close(self) -> None:
        """Let go of the files, finished or not."""


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
        Where to write until all is there; `Part.path` tells where each of several files lies.
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
    parts = parts_of(final, vertices, hemispheres)
    count = len(vertices)
    if suffix == ".csv":
        return RoiMeanRows(path_beside, check_regions(regions or {}), resume_rows)
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
        places = [_in_volume(path_beside, final, info, columns)]
    else:
        sides = {"left": vertices.left, "right": vertices.right}
        places = [
            Place(part.path(path_beside), part.columns, sides[part.hemisphere], SPACES[vertices.space], part.structure)
            for part in parts
            if part.hemisphere
        ]
    return StagedRows(_waiting(path_beside), count, places, suffix, resume_rows)


@contextlib.contextmanager
def writing(
    out: Path,
    info: EncoderInfo,
    columns: np.ndarray | None,
    *,
    hemispheres: bool = False,
    regions: Mapping[str, np.ndarray] | None = None,
) -> Iterator[RowWriter]:
    """Give a writer whose files are moved to their places when the block ends without an error, and else removed.

    The block calls ``finish``.

    Raises
    ------
    BrainkitError
        If they cannot be written: the disk is full, for example.
    """
    beside = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    vertices = info.vertices if columns is None else info.vertices.select(columns)
    parts = parts_of(out, vertices, hemispheres)
    try:
        writer = make_writer(beside, out, info, columns, hemispheres=hemispheres, regions=regions)
        with contextlib.closing(writer):
            yield writer
        move_into_place(beside, out, parts)
    except OSError as error:
        if isinstance(error.filename, str | bytes) and beside.name not in os.fsdecode(error.filename):
            raise
        raise BrainkitError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        for path in (*(part.path(beside) for part in parts), _waiting(beside)):
            _remove(path)


def move_into_place(path_beside: Path, final: Path, parts: Sequence[Part]) -> None:
    """Move finished files to their places, over what is there."""
    for part in parts:
        source, target = part.path(path_beside), part.path(final)
        if not (source.is_dir() and target.is_dir()):
            os.replace(source, target)
            continue
        old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")  # no folder is replaced in one step
        os.rename(target, old)
        os.rename(source, target)
        _remove(old)


def vertices_ids(info: EncoderInfo, columns: np.ndarray | None) -> np.ndarray:
    """Ids of the vertices that the columns are, as the encoder file has them. (columns,), int32."""
    ids = info.vertices.ids
    return ids if columns is None else ids[columns]


def write_description(
    path: Path,
    out: Path,
    encoder: Encoder,
    written: list[Path],
    skipped: list[tuple[Path, str]],
    columns: np.ndarray | None,
    regions: dict[str, np.ndarray],
    *,
    hemispheres: bool = False,
    more: Mapping[str, Any] | None = None,
) -> None:
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
    description: dict[str, Any] = {
        "file": out.name if files[0]["hemisphere"] is None else [part["file"] for part in files],
        "format": FORMATS[suffix] if not hemispheres else "float32 (images, vertices of the hemisphere)",
        "shape": [len(written), len(regions) if suffix == ".csv" else len(ids)],
        "dtype": "float32",
        "rows": "images, in this order",
        "images": [as_text(image) for image in written],
        "skipped": [{"path": as_text(image), "reason": reason} for image, reason in skipped],
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
    if files[0]["hemisphere"] is not None:
        description["hemispheres"] = files
    if suffix == ".csv":
        description["columns"] = ["image", *regions]
    if regions:
        description["rois"] = {name: index.tolist() for name, index in regions.items()}
    write_json(path, description | dict(more or {}))


def _in_volume(path_beside: Path, final: Path, info: EncoderInfo, columns: np.ndarray | None) -> Place:
    volume = info.volume
    if volume is None:
        raise UsageError(f"{final}: .nii.gz needs an encoder of volumetric data; this one does not know of a volume")
    voxels = volume.voxels if columns is None else volume.voxels[columns]
    positions = np.ravel_multi_index(tuple(voxels.T.astype(np.intp)), volume.shape, order="F")
    return Place(
        path_beside, slice(None), positions, int(np.prod(volume.shape)), shape=volume.shape, affine=volume.affine
    )


def _waiting(path_beside: Path) -> Path:
    return path_beside.with_name(f"{path_beside.name}.rows")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
