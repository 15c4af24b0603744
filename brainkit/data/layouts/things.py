"""THINGS-fMRI: the tables of single-trial responses of three subjects, in voxels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.cortex.vertices import Vertices
from brainkit.cortex.volume import Volume
from brainkit.data.dataset import Dataset
from brainkit.data.layouts.hdf5 import open_hdf5
from brainkit.data.layouts.nifti import Grid
from brainkit.data.layouts.pictures import find_pictures
from brainkit.data.layouts.published_ceilings import ncsnr_of_percent
from brainkit.data.layouts.subject_files import choose_subject
from brainkit.data.layouts.tables import Table, numbers, read_table, whole_numbers
from brainkit.data.subject import read_note
from brainkit.data.trials.trials import Session, Trials
from brainkit.errors import DataError

DATASET = Dataset(
    name="THINGS-fMRI",
    licence="fMRI: CC0; images: terms of the THINGS database (academic use)",
    citation=(
        "Hebart, Contier, Teichmann et al. (2023), THINGS-data, a multimodal collection of large-scale datasets for "
        "investigating object representations in human brain and behavior. eLife 12:e82580. doi:10.7554/eLife.82580",
    ),
)
IMAGES = ("images", "images_THINGS/object_images", "object_images")
"""Folders that are looked for beside the tables and above them, with ``dog_12s.jpg`` or ``dog/dog_12s.jpg`` in them."""

_EDGE = 2.0  # mm of a voxel, where no brain mask says it
_NO_ROI = ("voxel_", "nc_", "splithalf", "prf-")


def things_fmri(path: Path, *, subject: str = "") -> Trials:
    """Describe the trials of a subject of THINGS-fMRI.

    Columns are the voxels of the tables, in their order. Responses are standardised within sessions.

    Parameters
    ----------
    path : Path
        The folder of the tables (``betas_csv``), or the one above it.
    subject : str
        ``1``, ``01`` or ``sub-01``; may be left out if there is one.

    Raises
    ------
    DataError
        If a file is missing or does not fit the others.
    UsageError
        If the subject is not there, or several are and none was chosen.
    """
    folder = path / "betas_csv" if (path / "betas_csv").is_dir() else path
    found = sorted(folder.glob("sub-*_ResponseData.h5"))
    name = choose_subject(path, [file.name.removesuffix("_ResponseData.h5") for file in found], subject)
    response_file = folder / f"{name}_ResponseData.h5"
    voxel_file, stimulus_file = folder / f"{name}_VoxelMetadata.csv", folder / f"{name}_StimulusMetadata.csv"
    stimuli = read_table(stimulus_file, ("trial_type", "session", "trial_id", "stimulus"))
    voxels = read_table(voxel_file, ("voxel_id", "voxel_x", "voxel_y", "voxel_z"))
    trials = len(stimuli["stimulus"])
    _check_numbering(stimulus_file, stimuli, "trial_id", trials)
    _check_numbering(voxel_file, voxels, "voxel_id", len(voxels["voxel_id"]))
    dataset, notes = _check_responses(response_file, len(voxels["voxel_id"]), trials)
    names = tuple(sorted(set(stimuli["stimulus"])))
    rows = {image: row for row, image in enumerate(names)}
    shown = np.array([rows[image] for image in stimuli["stimulus"]], np.int64)
    sessions = np.array(whole_numbers(stimulus_file, stimuli, "session"))
    coordinates, volume, place_note = _places(path, folder, name, voxel_file, voxels)
    ncsnr, ceiling_note = _ncsnr(voxel_file, voxels)
    return Trials(
        name=name,
        layout="THINGS-fMRI, tables of single-trial responses",
        root=path,
        sessions=tuple(
            _session(response_file, dataset, int(number), np.flatnonzero(sessions == number), shown)
            for number in np.unique(sessions)
        ),
        images=find_pictures(names, (folder, path, folder.parent), IMAGES, _concept),
        vertices=Vertices.custom(len(voxels["voxel_id"])),
        rois=_rois(voxels),
        coordinates=coordinates,
        volume=volume,
        ncsnr=ncsnr,
        splits=_splits(stimulus_file, stimuli),
        units="z-scored betas",
        dataset=DATASET,
        note=read_note(path),
        notes=(*notes, *place_note, *ceiling_note),
        extra_files=tuple(file for file in (path / "simulated.json", path / "truth.npz") if file.is_file()),
    )


def _check_numbering(path: Path, table: Table, column: str, count: int) -> None:
    """Raise DataError unless a column counts the rows from 0: the responses are in this order."""
    found = whole_numbers(path, table, column)
    if found != list(range(count)):
        first = next(row for row, number in enumerate(found) if number != row)
        raise DataError(
            f"{path}: expected {column} 0 to {count - 1} in order, found {found[first]} in row {first}; the rows are "
            "those of the responses"
        )


def _check_responses(path: Path, voxels: int, trials: int) -> tuple[str, tuple[str, ...]]:
    """Name of the array (voxels, trials) in a table that pandas has stored, and what is to be said of it."""
    with open_hdf5(path) as file:
        if "ResponseData/table" in file:
            raise DataError(f"{path}: expected a table of pandas in its fixed form, found its table form")
        blocks: dict[str, Any] = dict(file["ResponseData"]) if "ResponseData" in file else {}
        values = [name for name in blocks if name.endswith("_values") and blocks[name].dtype.kind == "f"]
        if len(values) != 1 or blocks[values[0]].shape != (voxels, trials):
            found = ", ".join(f"{name} {blocks[name].shape}" for name in values) or "none"
            raise DataError(
                f"{path}: expected one array of responses in ResponseData, of {voxels:,} voxels and {trials:,} trials "
                f"as in the tables next to it, found {found}"
            )
        for name, block in blocks.items():
            is_id = name.endswith("_values") and block.dtype.kind in "iu" and block.shape == (voxels, 1)
            if is_id and not np.array_equal(block[:, 0], np.arange(voxels)):
                raise DataError(f"{path}: expected voxel_id 0 to {voxels - 1} in order, found another order")
        items = blocks[values[0].replace("_values", "_items")]
        if items.dtype.kind == "O":  # a pickle, which is not opened
            return f"ResponseData/{values[0]}", (f"{path.name}: names of its trials are pickled and were not read",)
        labels = [label.decode() if isinstance(label, bytes) else str(label) for label in items[:]]
        if labels != [str(trial) for trial in range(trials)]:
            raise DataError(f"{path}: expected trials 0 to {trials - 1} in order, found another order")
        return f"ResponseData/{values[0]}", ()


def _session(
    path: Path, dataset: str, number: int, trials: npt.NDArray[np.int64], shown: npt.NDArray[np.int64]
) -> Session:
    def read(columns: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        with open_hdf5(path) as file:
            values = file[dataset]
            if not len(columns):
                return np.empty((len(trials), 0), np.float32)
            first, last = int(columns[0]), int(columns[-1]) + 1
            start, stop = int(trials[0]), int(trials[-1]) + 1  # a session's trials follow each other
            if last - first == len(columns):
                found = values[first:last, start:stop]
            else:
                found = np.stack([values[column, start:stop] for column in columns.tolist()])
            return np.ascontiguousarray(found[:, trials - start].T, np.float32)

    return Session(f"session {number:02d}", (path,), shown[trials], read)


def _concept(name: str) -> str:
    """The folder of an image in the THINGS database: ``dog`` of ``dog_12s.jpg``."""
    return re.sub(r"_[^_]*$", "", name.rpartition(".")[0])


def _places(
    path: Path, folder: Path, name: str, voxel_file: Path, voxels: Table
) -> tuple[npt.NDArray[np.float32], Volume | None, tuple[str, ...]]:
    """Coordinates in mm, by the brain mask's affine if it is there."""
    index = np.array([whole_numbers(voxel_file, voxels, f"voxel_{axis}") for axis in "xyz"], np.int64).T
    if (index < 0).any() or len(np.unique(index, axis=0)) < len(index):
        raise DataError(f"{voxel_file}: expected voxel_x, voxel_y, voxel_z, all different, from 0, found others")
    mask = f"brainmasks/{name}_space-T1w_brainmask.nii.gz"
    file = next((root / mask for root in (path, folder, folder.parent) if (root / mask).is_file()), None)
    if file is None:
        note = (
            f"no {mask}: coordinates are voxel numbers times {_EDGE:g} mm, and predictions cannot be written as NIfTI"
        )
        return (_EDGE * index).astype(np.float32), None, (note,)
    grid = Grid(file)
    inside = grid.read(file) > 0
    if (index >= grid.shape).any() or not inside[tuple(index.T)].all():
        raise DataError(f"{file}: expected the voxels of {voxel_file.name} to lie in the mask, found some outside")
    return (
        (index @ grid.affine[:3, :3].T + grid.affine[:3, 3]).astype(np.float32),
        Volume(grid.shape, grid.affine, index),
        (),
    )


def _rois(voxels: Table) -> dict[str, npt.NDArray[np.int64]]:
    """The columns of zeros and ones; of ``lFFA`` and ``rFFA`` also both together, as ``FFA``."""
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    for name, texts in voxels.items():
        if name and not name.startswith(_NO_ROI) and set(texts) <= {"0", "1", "0.0", "1.0"}:
            masks[name] = np.array([text[0] == "1" for text in texts])
    for name in list(masks):
        both = name[1:]
        if name[0] == "l" and both[:1].isupper() and f"r{both}" in masks and both not in masks:
            masks[both] = masks[name] | masks[f"r{both}"]
    return {name: np.flatnonzero(mask) for name, mask in masks.items()}


def _ncsnr(path: Path, voxels: Table) -> tuple[npt.NDArray[np.float64] | None, tuple[str, ...]]:
    """Ratio of signal to noise from the published ceiling of single trials."""
    if "nc_singletrial" not in voxels:
        return None, ()
    ceiling = numbers(path, voxels, "nc_singletrial")
    ncsnr = ncsnr_of_percent(ceiling, f"{path}: nc_singletrial")
    return ncsnr, ("published noise ceilings: nc_singletrial, in percent",)


def _splits(path: Path, stimuli: Table) -> dict[str, dict[str, Sequence[str]]]:
    """``things``: the images that are shown once train, the others test."""
    sides: dict[str, set[str]] = {"train": set(), "test": set()}
    for image, kind in zip(stimuli["stimulus"], stimuli["trial_type"], strict=True):
        if kind not in sides:
            raise DataError(f"{path}: expected the trial_type train or test, found {kind!r:.40}")
        sides[kind].add(image)
    if both := sides["train"] & sides["test"]:
        raise DataError(f"{path}: expected images either in train or in test, found {min(both)} in both")
    return {"things": {side: sorted(images) for side, images in sides.items()}} if all(sides.values()) else {}
