"""The simulated subject as a subject of MOSAIC: one HDF5 file with an array of 91,282 grayordinates a trial."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainkit.cortex.fs_lr import FS_LR_SIZE, fs_lr_cortex
from brainkit.cortex.resampling import resample
from brainkit.cortex.vertices import FS_LR
from brainkit.sample_layouts.simulated import Simulated, write_notes, write_truth
from brainkit.sample_layouts.voxels import reorder
from brainkit.utils.files import write_json

SUBJECT, DATASET = "sub-01", "NSD"
GRAYORDINATES = 91_282


def write_mosaic(subject: Simulated, folder: Path) -> None:
    """Write the file of one subject, the published lists of its stimuli, and the images beside it."""
    import h5py

    placed, columns = on_grayordinates(subject)
    names, count = image_names(placed), len(placed.images)
    start = f"{SUBJECT}_{DATASET}"
    phases = ["train" if row < placed.n_training else "test" for row in range(count)]
    outside = np.setdiff1d(np.arange(GRAYORDINATES), columns)
    with h5py.File(folder / f"{start}.hdf5", "w") as file:
        file.attrs["subjectID"], file.attrs["dataset_name"] = SUBJECT, "NaturalScenesDataset"
        ceilings = file.create_group("noiseceilings", track_order=True)
        single = placed.noise_ceiling / (1 - placed.noise_ceiling) / len(placed.trials)
        for n, times in (("1", 1), ("avg", len(placed.trials))):
            whole = np.full(GRAYORDINATES, np.nan)
            whole[columns] = 100 * single / (single + 1 / times)
            array = ceilings.create_dataset(f"{start}_phase-test_n-{n}_noiseceiling", data=whole, track_order=True)
            array.attrs["nan_indices"], array.attrs["n"], array.attrs["phase"] = outside, n, "test"
        betas = file.create_group("betas", track_order=True)
        for row, name in enumerate(names):
            for repetition in repetitions(placed, row):
                whole = np.zeros(GRAYORDINATES)
                whole[columns] = placed.trials[repetition, row]
                trial = f"{start}_stimulus-{Path(name).stem}_phase-{phases[row]}_rep-{repetition}"
                # Compressed, unlike the data set's own: only the simulated part of the cortex has values.
                array = betas.create_dataset(trial, data=whole, track_order=True, compression="gzip")
                array.attrs["nan_indices"], array.attrs["phase"] = np.empty(0, np.int64), phases[row]
                array.attrs["repetition"], array.attrs["presented_stimulus_filename"] = repetition, name
    for phase, listed in (("train", "train_naturalistic.json"), ("test", "test_naturalistic.json")):
        keys = [f"{start}_stimulus-{name}" for name, of in zip(names, phases, strict=True) if of == phase]
        write_json(folder / listed, [{key: [f"{key}_phase-{phase}"]} for key in keys])
    (folder / "images").mkdir()
    for path, name in zip(placed.images, names, strict=True):
        os.replace(path, folder / "images" / name)
    write_truth(placed, folder)
    write_notes(placed, folder)


def on_grayordinates(subject: Simulated) -> tuple[Simulated, npt.NDArray[np.int64]]:
    """The subject at the vertices of fsLR next to its own, and the grayordinates that they are."""
    moved = resample(subject.vertices, FS_LR)
    cortex = np.concatenate([np.flatnonzero(fs_lr_cortex("left")), FS_LR_SIZE + np.flatnonzero(fs_lr_cortex("right"))])
    placed = reorder(subject, moved.sources, FS_LR, moved.vertices.ids)
    return placed, np.searchsorted(cortex, moved.vertices.ids).astype(np.int64)


def image_names(subject: Simulated) -> list[str]:
    """The name of each image, as COCO's files have them."""
    return [f"{number:012d}.png" for number in subject.ids]


def repetitions(subject: Simulated, row: int) -> range:
    """Which repetitions of an image are written: fewer of some, as in the data set."""
    return range(len(subject.trials) - (1 if row % 5 == 0 else 0))
