"""Regions of the Natural Scenes Dataset: label maps on surfaces and in volumes, and the names of their labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainkit.data.layouts.nifti import Grid
from brainkit.errors import DataError
from brainkit.utils.files import read_text
from brainkit.utils.text import one_line

HEMISPHERES = ("lh", "rh")
FREESURFER = Path("nsddata") / "freesurfer"

# Sets whose regions keep their names, in the order of Algonauts 2023; of a name that two sets have, the second gets its
# set as a prefix. Regions of other sets always do: V1 of an atlas is not the V1 that was drawn by hand.
_PLAIN = (
    *("prf-visualrois", "floc-bodies", "floc-faces", "floc-places", "floc-words"),
    *("streams", "nsdgeneral", "prf-eccrois"),
)
# For sets without a table of colours.
_NAMES = {
    "prf-visualrois": "V1v V1d V2v V2d V3v V3d hV4",
    "prf-eccrois": "ecc0pt5 ecc1 ecc2 ecc4 ecc4+",
    "floc-bodies": "EBA FBA-1 FBA-2 mTL-bodies",
    "floc-faces": "OFA FFA-1 FFA-2 mTL-faces aTL-faces",
    "floc-places": "OPA PPA RSC",
    "floc-words": "OWFA VWFA-1 VWFA-2 mfs-words mTL-words",
    "streams": "early midventral midlateral midparietal ventral lateral parietal",
    "nsdgeneral": "nsdgeneral",
    "fVTC": "fVTC",
}

_NIFTI = (".nii.gz", ".nii")

Labels = npt.NDArray[np.int64]
Rois = dict[str, npt.NDArray[np.int64]]


def surface_rois(root: Path, subject: int, sizes: Mapping[str, int], average: bool) -> tuple[Rois, tuple[str, ...]]:
    """Regions on a surface: name -> columns, left hemisphere first; and notes.

    Parameters
    ----------
    root : Path
        Of the data set.
    subject : int
    sizes : mapping of str to int
        Vertices of each hemisphere.
    average : bool
        On fsaverage: its own sets, and the subject's, brought there by the subject's transforms. Otherwise on the
        subject's surface.
    """
    own = root / FREESURFER / f"subj{subject:02d}" / "label"
    shared = root / FREESURFER / "fsaverage" / "label"
    folders = (shared, own) if average else (own,)
    found = {name: folder for folder in reversed(folders) for name in _sets(folder, r"{side}\.(.+)\.mg[hz]")}
    labels: dict[str, Labels] = {}
    notes: list[str] = []
    steps = _to_fsaverage(root, subject, sizes) if average else {}
    for name, folder in found.items():
        moved = average and folder == own
        if moved and not steps:
            notes.append(f"regions of {name} are left out: expected the transforms lh.white-to-fsaverage.mgz and rh.")
            continue
        sides = []
        for side in HEMISPHERES:
            path = _existing(folder, f"{side}.{name}", ".mgz", ".mgh")
            if path is None:
                sides.append(np.zeros(sizes[side], np.int64))
            elif moved:
                source = read_surface_map(path)
                sides.append(_whole(path, source)[_check_steps(steps[side], len(source), path)])
            else:
                sides.append(_whole(path, read_surface_map(path, sizes[side])))
        labels[name] = np.concatenate(sides)
    return _regions(labels, (own, shared)), tuple(notes)


def volume_rois(root: Path, subject: int, space: str, grid: Grid, positions: npt.NDArray[np.int64]) -> Rois:
    """Regions in a volume: name -> columns, which are the voxels at `positions`, the first axis being the fastest."""
    folder = root / "nsddata" / "ppdata" / f"subj{subject:02d}" / space / "roi"
    labels: dict[str, Labels] = {}
    for name in _sets(folder, r"(?:{side}\.)?(.+)\.nii(?:\.gz)?"):
        whole = _existing(folder, name, *_NIFTI)
        # -1 is the other hemisphere's cortex, where its own file has the labels.
        paths = [whole] if whole else [p for side in HEMISPHERES if (p := _existing(folder, f"{side}.{name}", *_NIFTI))]
        volumes = [_whole(path, grid.read(path).ravel(order="F")[positions]) for path in paths]
        labels[name] = np.maximum.reduce(volumes)
    label_folders = (root / FREESURFER / f"subj{subject:02d}" / "label", root / FREESURFER / "fsaverage" / "label")
    return _regions(labels, label_folders)


def read_surface_map(path: Path, vertices: int | None = None) -> npt.NDArray[np.float64]:
    """A value for each vertex of a hemisphere, from ``.mgz`` or ``.mgh``.

    Raises
    ------
    DataError
        If the file is missing or damaged, or has another number of values.
    """
    import nibabel

    try:
        image: object = nibabel.load(path)
        values = np.asarray(image.dataobj, np.float64).ravel()  # type: ignore[attr-defined]
    except FileNotFoundError:
        raise DataError(f"{path}: file not found; expected a value for each vertex") from None
    except Exception as error:  # damaged files make nibabel raise many kinds
        raise DataError(f"{path}: expected an .mgz file, which cannot be read: {one_line(error)}") from None
    if vertices is not None and len(values) != vertices:
        raise DataError(f"{path}: expected values of {vertices:,} vertices, found {len(values):,}")
    return values


def _sets(folder: Path, pattern: str) -> list[str]:
    """Names of the sets whose files lie in a folder; maps of probabilities are none."""
    shape = re.compile(pattern.format(side="[lr]h"))
    names = {match[1] for path in folder.glob("*") if (match := shape.fullmatch(path.name))}
    return sorted(name for name in names if not name.startswith("probmap"))


def _existing(folder: Path, stem: str, *suffixes: str) -> Path | None:
    return next((p for suffix in suffixes if (p := folder / f"{stem}{suffix}").is_file()), None)


def _whole(path: Path, values: npt.NDArray[np.float64]) -> Labels:
    if not np.isfinite(values).all() or (values != np.round(values)).any():
        raise DataError(f"{path}: expected whole numbers as labels, found others")
    return values.astype(np.int64)


def _to_fsaverage(root: Path, subject: int, sizes: Mapping[str, int]) -> dict[str, Labels]:
    """For each vertex of fsaverage, the vertex of the subject's surface, from 0; empty without the transforms."""
    folder = root / "nsddata" / "ppdata" / f"subj{subject:02d}" / "transforms"
    paths = {side: folder / f"{side}.white-to-fsaverage.mgz" for side in HEMISPHERES}
    if not all(path.is_file() for path in paths.values()):
        return {}
    return {side: _whole(path, read_surface_map(path, sizes[side])) - 1 for side, path in paths.items()}


def _check_steps(steps: Labels, vertices: int, path: Path) -> Labels:
    if steps.min() < 0 or steps.max() >= vertices:
        counted = "; it seems to count from 0" if steps.min() == -1 else ""
        raise DataError(
            f"{path}: has {vertices:,} vertices; expected white-to-fsaverage from 1 to {vertices:,}, found "
            f"{steps.min() + 1} to {steps.max() + 1}{counted}"
        )
    return steps


def _regions(labels: Mapping[str, Labels], folders: Sequence[Path]) -> Rois:
    """Split label maps into regions. Labels up to 0 are none."""
    order = [name for name in _PLAIN if name in labels]
    rois: Rois = {}
    taken: set[str] = set()
    for name in (*order, *sorted(set(labels) - set(order))):
        names = _label_names(name, folders, labels[name])
        for label, region in sorted(names.items()):
            alone = len(names) == 1
            plain = name if alone else region
            prefixed = (name not in _PLAIN and not alone) or plain.lower() in taken
            unique = f"{name}.{region}" if prefixed else plain
            if unique.lower() in taken:
                unique = f"{unique}-{label}"
            taken.add(unique.lower())
            rois[unique] = np.flatnonzero(labels[name] == label)
    return rois


def _label_names(name: str, folders: Iterable[Path], labels: Labels) -> dict[int, str]:
    """Label -> name, from the set's table of colours, else as NSD's manual lists them, else numbers."""
    used = [label for label in np.unique(labels).tolist() if label > 0]
    table = next((p for folder in folders if (p := folder / f"{name}.mgz.ctab").is_file()), None)
    if table is not None:
        names = _read_ctab(table)
        if unknown := [label for label in used if label not in names]:
            raise DataError(f"{table}: expected a name for every label of {name}, found none for {unknown[0]}")
        return names
    listed = dict(enumerate(_NAMES.get(name, "").split(), 1))
    return {label: listed.get(label, f"{name}-{label}") for label in sorted({*listed, *used})}


def _read_ctab(path: Path) -> dict[int, str]:
    """Lines of a label and its name, which numbers of a colour may follow; without label 0."""
    names = {}
    for line in read_text(path).splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 2 or not words[0].lstrip("-").isdecimal():
            raise DataError(f"{path}: expected lines such as '1 V1v', found {line!r:.40}")
        if int(words[0]) > 0:
            names[int(words[0])] = words[1]
    return names
