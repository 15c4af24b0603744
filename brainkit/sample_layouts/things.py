"""The simulated subject as a subject of THINGS-fMRI: a table of responses as pandas stores it, and two of text."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from brainkit.sample_layouts.simulated import STREAMS, Simulated, write_notes, write_truth
from brainkit.sample_layouts.voxels import place_in_volume, save_volume

SUBJECT = "sub-01"
SESSIONS = 12
RUNS = 10
VOXEL = 2.0  # mm
TEST_REPETITIONS = 12
# Regions of the simulated subject -> the columns of the voxel table that stand for them.
ROIS = {
    "early": "V1",
    "midventral": "hV4",
    "midlateral": "LO1 (prf)",
    "midparietal": "V3a",
    "ventral": "lFFA",
    "lateral": "rFFA",
    "parietal": "glasser-IPS1",
}


def write_things(subject: Simulated, folder: Path) -> None:
    """Write the tables of one subject, its brain mask, and the images as the THINGS database has them."""
    placed, voxels, affine = place_in_volume(subject, VOXEL)
    names = image_names(placed)
    trials = trial_rows(placed)
    tables = folder / "betas_csv"
    tables.mkdir()
    (folder / "brainmasks").mkdir()
    mask = folder / "brainmasks" / f"{SUBJECT}_space-T1w_brainmask.nii.gz"
    save_volume(mask, np.ones(len(voxels), np.uint8), voxels, affine)
    _write_responses(tables / f"{SUBJECT}_ResponseData.h5", responses(placed, trials))
    _write_voxels(tables / f"{SUBJECT}_VoxelMetadata.csv", placed, voxels)
    _write_stimuli(tables / f"{SUBJECT}_StimulusMetadata.csv", placed, names, trials)
    for path, name in zip(placed.images, names, strict=True):
        concept = folder / "images" / name.rpartition("_")[0]
        concept.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.convert("RGB").save(concept / name, "JPEG", quality=95)
    write_truth(placed, folder)
    write_notes(placed, folder)


def image_names(subject: Simulated) -> list[str]:
    """The name of each image: its concept, and a number and letter."""
    concepts = sorted(set(subject.sources))
    return [
        f"concept{concepts.index(source):03d}_{number:05d}s.jpg"
        for source, number in zip(subject.sources, subject.ids, strict=True)
    ]


def trial_rows(subject: Simulated) -> list[npt.NDArray[np.int64]]:
    """The trials of each session: rows of `Simulated.trials` as one matrix (repetitions * n, V).

    Training images are shown once, test images as often as there are repetitions.
    """
    count = len(subject.images)
    every = np.concatenate(
        [np.arange(subject.n_training)]
        + [np.arange(subject.n_training, count) + k * count for k in range(len(subject.trials))]
    )
    order = np.random.default_rng((subject.seed, 12)).permutation(every)
    return [np.asarray(part, np.int64) for part in np.array_split(order, SESSIONS)]


def responses(subject: Simulated, trials: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.float64]:
    """Betas (V, trials): each session has its own offset and scale, which standardising takes out."""
    flat = subject.trials.reshape(-1, subject.trials.shape[-1]).astype(np.float64)
    parts = [(1 + 0.02 * number) * flat[rows] + 0.1 * number for number, rows in enumerate(trials, 1)]
    return np.ascontiguousarray(np.concatenate(parts).T)


def _write_responses(path: Path, values: npt.NDArray[np.float64]) -> None:
    """What ``DataFrame.to_hdf`` writes of a frame with a column voxel_id, and columns 0, 1, ... of the trials."""
    import h5py

    empty = h5py.Empty("S1")
    voxels, trials = values.shape

    def describe(item: Any, class_: str, version: str, /, **more: Any) -> None:
        attributes = {"CLASS": class_, "VERSION": version, "TITLE": empty, **more}
        for name, value in attributes.items():
            if isinstance(value, str):
                item.attrs.create(name, value.encode(), dtype=h5py.string_dtype("utf-8", len(value)))
            else:
                item.attrs[name] = value

    def array(group: Any, path: str, content: npt.NDArray[Any], /, **more: Any) -> None:
        item = group.create_dataset(path, data=content)
        describe(item, "ARRAY", "2.4", FLAVOR="numpy", transposed=np.uint8(1), **more)

    def pickled(group: Any, name: str, content: list[Any]) -> None:
        """PyTables pickles names that are not all texts."""
        item = group.create_dataset(name, (1,), h5py.vlen_dtype(np.uint8), maxshape=(None,))
        item[0] = np.frombuffer(pickle.dumps(np.array(content, object), 4), np.uint8)
        describe(item, "VLARRAY", "1.4", PSEUDOATOM="object", kind="object", name="N.", transposed=np.uint8(1))

    with h5py.File(path, "w") as file:
        describe(file, "GROUP", "1.0", PYTABLES_FORMAT_VERSION="2.1")
        group = file.create_group("ResponseData")
        varieties = ("axis0", "axis1", "block0_items", "block1_items")
        form: dict[str, Any] = {f"{name}_variety": "regular" for name in varieties}
        form |= {"encoding": "UTF-8", "errors": "strict", "pandas_type": "frame"}
        describe(group, "GROUP", "1.0", nblocks=np.int64(2), ndim=np.int64(2), **form)
        pickled(group, "axis0", ["voxel_id", *range(trials)])
        array(group, "axis1", np.arange(voxels), kind="integer", name="N.")
        pickled(group, "block0_items", list(range(trials)))
        array(group, "block0_values", values)
        array(group, "block1_items", np.array([b"voxel_id"]), kind="string", name="N.", nan_rep=empty)
        array(group, "block1_values", np.arange(voxels)[:, None])


def _write_voxels(path: Path, subject: Simulated, voxels: npt.NDArray[np.int32]) -> None:
    single = subject.noise_ceiling / (1 - subject.noise_ceiling) / len(subject.trials)  # signal over noise of a trial
    columns: dict[str, npt.NDArray[Any]] = {
        "voxel_id": np.arange(len(voxels)),
        "subject_id": np.full(len(voxels), SUBJECT[-2:]),
        **{f"voxel_{axis}": voxels[:, k] for k, axis in enumerate("xyz")},
        "nc_singletrial": 100 * single / (single + 1),
        "nc_testset": 100 * single / (single + 1 / TEST_REPETITIONS),
        "prf-eccentricity": np.zeros(len(voxels)),
        **{ROIS[stream]: (subject.streams == number).astype(int) for number, stream in enumerate(STREAMS, 1)},
    }
    _write_csv(path, list(columns), zip(*(column.tolist() for column in columns.values()), strict=True))


def _write_stimuli(path: Path, subject: Simulated, names: list[str], trials: list[npt.NDArray[np.int64]]) -> None:
    rows: list[tuple[Any, ...]] = []
    for session, part in enumerate(trials, 1):
        for position, image in enumerate((part % len(names)).tolist()):
            kind = "train" if image < subject.n_training else "test"
            run = 1 + RUNS * position // len(part)
            rows.append((kind, session, run, 1, len(rows), names[image], names[image].rpartition("_")[0]))
    _write_csv(path, ["trial_type", "session", "run", "subject_id", "trial_id", "stimulus", "concept"], rows)


def _write_csv(path: Path, header: list[str], rows: Any) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
