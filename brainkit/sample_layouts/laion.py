"""The simulated subject as a subject of LAION-fMRI: betas of each session in a volume, images in HDF5, ROIs, splits."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from brainkit.sample_layouts.simulated import STREAMS, Simulated, write_notes, write_truth
from brainkit.sample_layouts.voxels import place_in_volume, save_volume
from brainkit.utils.files import write_json

SUBJECT, PARTICIPANT = "sub-03", "p04"  # the numbering of participants is another one
SESSIONS = 30
VOXEL = 1.778  # mm
CEILING_REPETITIONS = 4
# Regions of the simulated subject -> the ROIs of LAION-fMRI that stand for them, and their categories.
ROIS = {
    "early": ("laion", "laionEVC"),
    "midventral": ("retinotopic", "hV4"),
    "midlateral": ("retinotopic", "LO1"),
    "midparietal": ("retinotopic", "V3A"),
    "ventral": ("laion", "laionventral"),
    "lateral": ("laion", "laionlateral"),
    "parietal": ("laion", "laiondorsal"),
}


def write_laion(subject: Simulated, folder: Path) -> None:
    """Write the data set's folder, with one subject."""
    placed, voxels, affine = place_in_volume(subject, VOXEL)
    labels = image_labels(placed)
    _write_betas(placed, folder, voxels, affine, labels)
    _write_maps(placed, folder, voxels, affine)
    _write_stimuli(placed, folder / "stimuli", labels)
    _write_splits(placed, folder / "splits" / "data", labels)
    write_truth(placed, folder)
    write_notes(placed, folder)


def image_labels(subject: Simulated) -> list[str]:
    """The name of each image in the data set."""
    labels = []
    for row, number in enumerate(subject.ids):
        if row >= subject.n_training:
            labels.append(f"shared_4rep_OOD_shape_{number:05d}.jpg")
        elif row % 4 == 0:
            labels.append(f"shared_4rep_LAION_cluster_{number}_i0.jpg")
        else:
            labels.append(f"unique_LAION_cluster_{number}_i0_{PARTICIPANT}.jpg")
    return labels


def session_trials(subject: Simulated) -> list[npt.NDArray[np.int64]]:
    """The trials of each session: rows of `Simulated.trials` as one matrix (repetitions * n, V)."""
    count = subject.trials.shape[0] * subject.trials.shape[1]
    order = np.random.default_rng((subject.seed, 30)).permutation(count)
    return [np.asarray(part, np.int64) for part in np.array_split(order, SESSIONS)]


def _write_betas(
    subject: Simulated, folder: Path, voxels: npt.NDArray[np.int32], affine: npt.NDArray[np.float64], labels: list[str]
) -> None:
    trials = subject.trials.reshape(-1, subject.trials.shape[-1])
    for number, rows in enumerate(session_trials(subject), 1):
        session = f"{SUBJECT}_ses-{number:02d}_task-images"
        func = folder / "derivatives/glmsingle-tedana" / SUBJECT / f"ses-{number:02d}" / "func"
        func.mkdir(parents=True)
        # A session has its own offset and scale, which standardising takes out.
        values = np.float32(0.02) * (trials[rows] * np.float32(1 + 0.01 * number) + np.float32(number))
        save_volume(
            func / f"{session}_space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz", values, voxels, affine
        )
        lines = ["session\trun\tbeta_index\tlabel"]
        for index, row in enumerate(rows % len(subject.images)):
            lines.append(f"ses-{number:02d}\trun-{1 + 12 * index // len(rows):02d}\t{index}\t{labels[row]}")
        (func / f"{session}_desc-SingletrialBetas_trials.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_maps(
    subject: Simulated, folder: Path, voxels: npt.NDArray[np.int32], affine: npt.NDArray[np.float64]
) -> None:
    start = folder / "derivatives/glmsingle-tedana" / SUBJECT / f"{SUBJECT}_task-images_space-T1w"
    ones = np.ones(len(voxels), np.float32)
    save_volume(Path(f"{start}_stat-rsquare_desc-R2mean_statmap.nii.gz"), 20 * ones, voxels, affine)
    single = subject.noise_ceiling / (1 - subject.noise_ceiling) / len(subject.trials)  # signal over noise of a trial
    ceiling = 100 * single / (single + 1 / CEILING_REPETITIONS)
    save_volume(Path(f"{start}_desc-Noiseceiling4rep_statmap.nii.gz"), ceiling, voxels, affine)
    for number, stream in enumerate(STREAMS, 1):
        category, roi = ROIS[stream]
        masks = folder / "derivatives/rois" / SUBJECT / category
        masks.mkdir(parents=True, exist_ok=True)
        mask = (subject.streams == number).astype(np.uint8)
        save_volume(masks / f"{SUBJECT}_space-T1w_res-1pt8_label-{roi}_mask.nii.gz", mask, voxels, affine)


def _write_stimuli(subject: Simulated, folder: Path, labels: list[str]) -> None:
    import h5py

    folder.mkdir()
    lines = ["image_name,dataset,participant,unique_or_shared,n_reps"]
    order = np.random.default_rng((subject.seed, 31)).permutation(len(labels))  # not the order of names
    with h5py.File(folder / "task-images_stimuli.h5", "w") as file:
        images = file.create_dataset("images", (len(labels),), h5py.vlen_dtype(np.uint8))
        for position, row in enumerate(order):
            images[position] = np.frombuffer(_encode(subject.images[row], transparent=row == 0), np.uint8)
            shared = labels[row].startswith("shared")
            dataset = "OOD" if "OOD" in labels[row] else "LAION"
            whose = "shared,shared" if shared else f"{PARTICIPANT},unique"
            lines.append(f"{labels[row]},{dataset},{whose},4rep")
    (folder / "task-images_metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _encode(path: Path, transparent: bool) -> bytes:
    """An image as the bytes of a JPEG; of a PNG with transparent corners, as some of the data set's are."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        if transparent:
            alpha = Image.new("L", image.size, 255)
            alpha.paste(0, (0, 0, 16, 16))
            rgba = image.convert("RGBA")
            rgba.putalpha(alpha)
            rgba.save(buffer, "PNG")
        else:
            image.convert("RGB").save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _write_splits(subject: Simulated, folder: Path, labels: list[str]) -> None:
    training, ood = labels[: subject.n_training], labels[subject.n_training :]
    for pool, usual in ((SUBJECT, training), ("shared", [name for name in training if name.startswith("shared")])):
        (folder / pool).mkdir(parents=True)
        fifth = len(usual) // 5
        for name, splitter, train, test in (
            ("random_0", "random", usual[fifth:], usual[:fifth]),
            ("cluster_k5_0", "cluster_k5", usual[:-fifth], usual[-fifth:]),
            ("tau", "tau", usual[: 2 * fifth] + usual[3 * fifth :], usual[2 * fifth : 3 * fifth]),
            ("ood", "ood_holdout", usual, ood),
        ):
            ids = {"variant_id": 0, "train_ids": train, "test_ids": test}
            content = {
                "name": name,
                "pool": f"{pool} full pool ({len(usual)} images)",
                "splitter": splitter,
                "params": {},
                "n_train": len(train),
                "n_test": len(test),
                "variants": [ids],
            }
            write_json(folder / pool / f"{name}.json", content)
