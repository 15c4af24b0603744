"""What the simulated subject of NSD saw and when: the design, the log, the table of images, the pictures."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from brainkit.sample_layouts.nsd_files import write_brick, write_mat
from brainkit.sample_layouts.simulated import Simulated
from brainkit.utils.files import create_folder

IMAGES, SIZE = 73_000, 425
SUBJECTS, RUNS, REPETITIONS = 8, 12, 3
PLANNED, MEASURED = 8, 6  # sessions
SYNTHETIC_IMAGES, SAME_FOR_ALL = 284, 220
_SYNTHETIC, _SYNTHETIC_SIZE = 12, (240, 320)  # images of the sample; height and width

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PlannedSession:
    """Trials of a session.

    Attributes
    ----------
    name : str
        In the names of files: ``session01``.
    rows : array of shape (k,)
        Of `Simulated.images`.
    repetitions : array of shape (k,)
        Which of the simulated trials of the image, from 0.
    """

    name: str
    rows: Integers
    repetitions: Integers

    def measured(self, trials: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Of trials (repetitions, n, V), those of this session: (k, V)."""
        return trials[self.repetitions, self.rows]


@dataclass(frozen=True, eq=False)
class Experiment:
    """An experiment: the measured sessions, the order of all planned trials, the images that it counts.

    Attributes
    ----------
    sessions : tuple of PlannedSession
    order : array of shape (planned trials,)
        Position of each trial's image in `numbers`, from 0.
    numbers : array of shape (m,)
        Numbers of the images, from 0.
    rows : array of shape (m,)
        The images, as rows of `Simulated.images`.
    n_shared : int
        The first of the images, which all subjects see.
    """

    sessions: tuple[PlannedSession, ...]
    order: Integers
    numbers: Integers
    rows: Integers
    n_shared: int

    @property
    def n_measured(self) -> int:
        return sum(len(session.rows) for session in self.sessions)


def plan(subject: Simulated, number: int) -> Experiment:
    """Three trials of each image in random order over the planned sessions; the test images are the shared ones."""
    count = len(subject.images)
    rows = np.concatenate([np.arange(subject.n_training, count), np.arange(subject.n_training)])
    per_session = REPETITIONS * count // PLANNED
    order = np.random.default_rng((subject.seed, number)).permutation(np.repeat(np.arange(count), REPETITIONS))
    order = order[: PLANNED * per_session]
    names = [f"session{k + 1:02d}" for k in range(MEASURED)]
    return Experiment(
        _sessions(names, rows[order], per_session), order, subject.ids[rows], rows, count - subject.n_training
    )


def plan_synthetic(subject: Simulated) -> Experiment:
    """One session of some test images, shown one to three times; half of them count as the subject's own colours."""
    rows = np.arange(subject.n_training, len(subject.images))[:_SYNTHETIC]
    half = len(rows) // 2
    numbers = np.concatenate([np.arange(half) * 7, SAME_FOR_ALL + np.arange(len(rows) - half) * 5])
    times = np.resize([1, 2, 3], len(rows))
    order = np.random.default_rng((subject.seed, 284)).permutation(np.repeat(np.arange(len(rows)), times))
    return Experiment(_sessions(["nsdsynthetic"], rows[order], len(order)), order, numbers, rows, half)


def _sessions(names: list[str], rows: Integers, per_session: int) -> tuple[PlannedSession, ...]:
    repetitions = np.array([(rows[:trial] == row).sum() for trial, row in enumerate(rows)])
    parts = [slice(k * per_session, (k + 1) * per_session) for k in range(len(names))]
    return tuple(PlannedSession(name, rows[part], repetitions[part]) for name, part in zip(names, parts, strict=True))


def write_experiment(subject: Simulated, experiment: Experiment, folder: Path, number: int) -> None:
    """Design, log and table of images, and the pictures in the rows of their numbers."""
    of_subjects = _images_of_all(subject, experiment, number)
    design = folder / "nsddata" / "experiments" / "nsd"
    write_mat(
        design / "nsd_expdesign.mat",
        masterordering=experiment.order[None] + 1,
        subjectim=of_subjects + 1,
        sharedix=np.sort(experiment.numbers[: experiment.n_shared])[None] + 1,
    )
    _write_log(experiment, folder / "nsddata" / "ppdata" / f"subj{number:02d}" / "behav" / "responses.tsv", number)
    _write_table(experiment, of_subjects, design / "nsd_stim_info_merged.csv")
    pictures = {int(subject.ids[row]): _picture(path, (SIZE, SIZE)) for row, path in enumerate(subject.images)}
    write_brick(folder / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5", IMAGES, pictures)


def write_synthetic(subject: Simulated, experiment: Experiment, folder: Path, number: int) -> None:
    """The design of NSD-synthetic, and its pictures in linear light."""
    path = folder / "nsddata" / "experiments" / "nsdsynthetic" / "nsdsynthetic_expdesign.mat"
    write_mat(path, masterordering=experiment.numbers[experiment.order][None] + 1)
    height, width = _SYNTHETIC_SIZE
    pictures = {}
    for image, row in zip(experiment.numbers.tolist(), experiment.rows.tolist(), strict=True):
        pictures[image] = np.rint((_picture(subject.images[row], (width, height)) / 255) ** 2 * 255).astype(np.uint8)
    stimuli = folder / "nsddata_stimuli" / "stimuli" / "nsdsynthetic"
    same = {image: picture for image, picture in pictures.items() if image < SAME_FOR_ALL}
    own = {image - SAME_FOR_ALL: picture for image, picture in pictures.items() if image >= SAME_FOR_ALL}
    write_brick(stimuli / "nsdsynthetic_stimuli.hdf5", SAME_FOR_ALL, same)
    colours = stimuli / f"nsdsynthetic_colorstimuli_subj{number:02d}.hdf5"
    write_brick(colours, SYNTHETIC_IMAGES - SAME_FOR_ALL, own)


def _picture(path: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))


def _images_of_all(subject: Simulated, experiment: Experiment, number: int) -> Integers:
    """Numbers of the images of the eight subjects, from 0: the shared ones first, then each subject's own."""
    shared, own = np.split(experiment.numbers, [experiment.n_shared])
    others = np.setdiff1d(np.arange(IMAGES), experiment.numbers)
    others = np.random.default_rng((subject.seed, 8)).permutation(others)
    rows = np.resize(others, (SUBJECTS, len(own)))
    rows[number - 1] = own
    return np.concatenate([np.tile(shared, (SUBJECTS, 1)), rows], axis=1)


def _write_log(experiment: Experiment, path: Path, number: int) -> None:
    create_folder(path.parent)
    lines = ["SUBJECT\tSESSION\tRUN\tTRIAL\t73KID\t10KID\tTIME\tISOLD"]
    seen: set[int] = set()
    per_session = len(experiment.sessions[0].rows)
    for trial, place in enumerate(experiment.order[: experiment.n_measured].tolist()):
        session, k = divmod(trial, per_session)
        run = k * RUNS // per_session
        first = -(-run * per_session // RUNS)  # trial of the run
        image = experiment.numbers[place] + 1
        time, old = f"{4 * trial / 86400:.6f}", int(place in seen)  # in days
        values = (number, session + 1, run + 1, k - first + 1, image, place + 1, time, old)
        lines.append("\t".join(map(str, values)))
        seen.add(place)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_table(experiment: Experiment, of_subjects: Integers, path: Path) -> None:
    create_folder(path.parent)
    whose = np.zeros((SUBJECTS, IMAGES), np.int64)
    trials = np.zeros((SUBJECTS, IMAGES, REPETITIONS), np.int64)
    for k, images in enumerate(of_subjects):
        whose[k, images] = 1
        seen = np.zeros(len(images), np.int64)
        for trial, place in enumerate(experiment.order.tolist(), 1):
            trials[k, images[place], seen[place]] = trial
            seen[place] += 1
    shared = set(experiment.numbers[: experiment.n_shared].tolist())
    subjects = [f"subject{k + 1}" for k in range(SUBJECTS)]
    header = ["", "cocoId", "cocoSplit", "cropBox", "loss", "nsdId", "flagged", "BOLD5000", "shared1000", *subjects]
    header += [f"{name}_rep{k}" for name in subjects for k in range(REPETITIONS)]
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        for image in range(IMAGES):
            row = [image, image, "train2017", "(0.0, 0.0, 0.0, 0.0)", 0.0, image, False, False, image in shared]
            table.writerow([*row, *whose[:, image].tolist(), *trials[:, image].ravel().tolist()])
