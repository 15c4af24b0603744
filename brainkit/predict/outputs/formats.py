"""The table of output formats: suffix, what the file holds, what it needs, and what writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainkit.cortex.resampling import resample
from brainkit.cortex.vertices import CUSTOM
from brainkit.encoder_file.info import EncoderInfo
from brainkit.errors import DataError, UsageError, require
from brainkit.predict.outputs.brain_images import open_gifti, open_mgz, open_nifti
from brainkit.predict.outputs.csv import open_csv
from brainkit.predict.outputs.npy import open_npy
from brainkit.predict.outputs.npz import open_npz
from brainkit.predict.outputs.rows import HEMISPHERES, Layout, RowWriter
from brainkit.predict.outputs.zarr import open_zarr
from brainkit.predict.regions import check_have_vertices
from brainkit.utils.files import check_new


@dataclass(frozen=True)
class Format:
    """A format of predictions.

    Parameters
    ----------
    suffix : str
    content : str
        What a file holds, for the JSON next to it.
    open : callable
        (path, layout, rows to keep of an interrupted run) -> writer. All writers stream, and can be resumed.
    surface : bool
        One file per hemisphere, over its whole fsaverage surface.
    splits : bool
        One file per hemisphere if asked for (``--hemispheres``).
    volume : bool
        Needs an encoder of volumetric data.
    means : bool
        The columns are regions, not vertices.
    folder : bool
        The output is a folder with a file of that name in it.
    extra : str
        The extra of brainkit, and its package, that writing needs.
    """

    suffix: str
    content: str
    open: Callable[[Path, Layout, int], RowWriter]
    surface: bool = False
    splits: bool = False
    volume: bool = False
    means: bool = False
    folder: str = ""
    extra: str = ""


# docs/scoring.md has this table for users.
FORMATS = {
    each.suffix: each
    for each in (
        Format(".npy", "float32 (images, vertices)", open_npy, splits=True),
        Format(".npz", "arrays fmri (images, vertices), vertices, space, units, images", open_npz),
        Format(".csv", "the mean over each ROI's vertices, one row per image", open_csv, means=True),
        Format(
            ".zarr",
            "Zarr format 3, an array (images, vertices) chunked by rows; attributes units, space, vertices",
            open_zarr,
            folder="zarr.json",
            extra="zarr",
        ),
        Format(
            ".func.gii",
            "GIFTI, one data array per image over the whole hemisphere, NaN where nothing is predicted",
            open_gifti,
            surface=True,
        ),
        Format(
            ".mgz",
            "FreeSurfer, (vertices of the hemisphere, 1, 1, images), NaN where nothing is predicted",
            open_mgz,
            surface=True,
        ),
        Format(".nii.gz", "NIfTI, (X, Y, Z, images), NaN where nothing is predicted", open_nifti, volume=True),
    )
}


def format_of(out: Path) -> Format:
    """The format that a file name asks for.

    Raises
    ------
    UsageError
        If none.
    """
    for suffix, found in FORMATS.items():
        if out.name.lower().endswith(suffix) and len(out.name) > len(suffix):
            return found
    raise UsageError(f"{out}: the output must end in {', '.join(FORMATS)}")


def suffix_of(out: Path) -> str:
    """The suffix of a file name, as `format_of`."""
    return format_of(out).suffix


def description_path(out: Path) -> Path:
    """The JSON next to an output: ``fmri.npy.json`` next to ``fmri.npy``."""
    return out.with_name(f"{out.name}.json")


def spread_path(out: Path) -> Path:
    """The file for an ensemble's spread: ``fmri-sd.npy`` next to ``fmri.npy``."""
    return sibling(out, f"-sd{suffix_of(out)}")


def sibling(out: Path, ending: str) -> Path:
    """A file named after an output, with `ending` in place of its suffix."""
    return out.with_name(out.name[: -len(suffix_of(out))] + ending)


def check_output(out: Path, overwrite: bool, hemispheres: bool = False) -> Path:
    """Refuse what cannot be written, before any work is done.

    Returns
    -------
    Path
        The JSON next to the output.

    Raises
    ------
    UsageError
        If the format is unknown or has no `hemispheres`, or a file exists and may not be replaced.
    DataError
        If the output's folder does not exist.
    MissingDependency
        If the format needs a package that is not installed.
    """
    chosen = format_of(out)
    if hemispheres and not chosen.splits:
        splitting = ", ".join(each.suffix for each in FORMATS.values() if each.splits)
        surfaces = ", ".join(each.suffix for each in FORMATS.values() if each.surface)
        raise UsageError(f"{out}: --hemispheres is for {splitting}; {surfaces} always have one file per hemisphere")
    if not out.parent.is_dir():
        raise DataError(f"{out}: its folder {out.parent} does not exist; create it first")
    if chosen.extra:
        require(chosen.extra, extra=chosen.extra, purpose=f"writing {chosen.suffix}")
    description = description_path(out)
    by_hemisphere = [out.with_name(f"{side}{'.' if chosen.surface else '_'}{out.name}") for side, _, _ in HEMISPHERES]
    files, others = (by_hemisphere, [out]) if hemispheres or chosen.surface else ([out], by_hemisphere)
    if chosen.splits and description.exists() and (other := next(filter(Path.exists, others), None)):
        raise UsageError(f"{other}: exists, and {description.name} describes it; choose another name")
    for path in (*files, description):
        expects_folder = bool(chosen.folder) and path == out
        if path.is_dir() and not expects_folder:
            raise UsageError(f"{path}: is a folder; the output must be a file")
        if path.is_dir() and not (path / chosen.folder).is_file():
            raise UsageError(f"{path}: is a folder that is not {chosen.suffix}; choose another name")
        check_new(path, overwrite)
        if path.is_file() and expects_folder:
            raise UsageError(f"{path}: is a file; a {chosen.suffix} output is a folder")
    return description


def make_layout(
    out: Path,
    info: EncoderInfo,
    columns: np.ndarray | None = None,
    regions: Mapping[str, np.ndarray] | None = None,
    hemispheres: bool = False,
    space: str | None = None,
) -> Layout:
    """What the rows of an output are.

    Parameters
    ----------
    out : Path
        Its suffix chooses the format.
    info : EncoderInfo
    columns : array of int, optional
        Which of the encoder's vertices the columns are, increasing; all by default.
    regions : mapping of str to array of int, optional
        Positions of each region among the columns.
    hemispheres : bool
        One file per hemisphere.
    space : str, optional
        The space of the columns that are written, if it is another one than the encoder's.

    Raises
    ------
    UsageError
        If the format does not suit the encoder, or its vertices are of no surface.
    MissingDependency
        If the meshes of a space are not installed.
    """
    chosen = format_of(out)
    if space is not None and chosen.means:
        raise UsageError(f"{out}: {chosen.suffix} holds means of regions, which have no space")
    if chosen.means:
        check_have_vertices(regions or {})
    if chosen.volume and info.volume is None:
        raise UsageError(f"{out}: {chosen.suffix} needs an encoder of volumetric data; this one has no volume")
    split = hemispheres or chosen.surface
    if split and info.vertices.space == CUSTOM:
        what = "--hemispheres" if hemispheres else chosen.suffix
        raise UsageError(f"{out}: {what} needs vertices of an fsaverage space; those of this encoder are 'custom'")
    separator = "_" if hemispheres else "."
    if space in (None, info.vertices.space):
        return Layout(info, columns, regions or {}, split, separator)
    of_columns = info.vertices if columns is None else info.vertices.select(columns)
    resampling = resample(of_columns, str(space))
    moved = {name: np.flatnonzero(np.isin(resampling.sources, index)) for name, index in (regions or {}).items()}
    return Layout(info, columns, moved, split, separator, resampling)


def open_writer(path: Path, out: Path, layout: Layout, resume_rows: int = 0) -> RowWriter:
    """Open a writer for rows of predictions.

    Parameters
    ----------
    path : Path
        The file to write until all is complete; formats converted at the end also write a ``.rows`` file next to it.
    out : Path
        What it will be called; its suffix chooses the format.
    layout : Layout
    resume_rows : int
        Keep so many rows of what `path` holds: a number that `checkpoint` returned.

    Raises
    ------
    DataError
        If it holds fewer rows.
    """
    return format_of(out).open(path, layout, resume_rows)
