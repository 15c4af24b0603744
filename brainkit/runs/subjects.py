"""The subjects of a run: their data, split into training, validation and test images, and the folders of results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainkit.config import Config
from brainkit.data.leaks import note_leaks
from brainkit.data.readers import find_layout, locate, open_subject
from brainkit.data.split import Split
from brainkit.data.splits import split_subjects
from brainkit.data.subject import Subject
from brainkit.errors import UsageError
from brainkit.evaluation.recovery import read_truth
from brainkit.runs.settings import Data
from brainkit.utils.files import folder_named_by
from brainkit.utils.progress import Say

if TYPE_CHECKING:
    from brainkit.backbones import Backbone

# Names in the folder of a run of several subjects that no subject's folder may have.
_RESERVED = (
    "checkpoints",
    "config.yaml",
    "log.txt",
    "maps",
    "metrics.csv",
    "repeats",
    "run.json",
    "split.json",
    "tensorboard",
)


@dataclass(frozen=True)
class SubjectRun:
    """A subject of a run.

    Attributes
    ----------
    name : str
        The subject's name; among several subjects, the name of its folder.
    subject : Subject
    settings : Config
        Those of a run on this subject alone.
    folder : Path
        For its results: the run folder; among several subjects, a folder in it.
    split : Split
    truth : dict, optional
        The planted selectors of a simulated subject, see :func:`brainkit.evaluation.recovery.read_truth`.
    """

    name: str
    subject: Subject
    settings: Config
    folder: Path
    split: Split
    truth: dict[str, np.ndarray] | None


def check_data_folders(settings: Config) -> None:
    """Check that the data are there, in a known layout, before anything is created.

    Raises
    ------
    DataError
        If one does not; names it.
    """
    for path in filter(None, (settings.data.path, *settings.data.paths)):
        find_layout(locate(path))


def open_subjects(settings: Config, data: Sequence[Data], say: Say) -> tuple[list[Subject], Config]:
    """Open the data that the settings name, else ``$BRAINKIT_DATA``, else the sample subject.

    Parameters
    ----------
    settings : Config
    data : sequence of path-like or Subject
        If some of it is opened, it is what is used. ``settings.data.rois`` restrict it.
    say : callable
        Called with each line of progress.

    Returns
    -------
    list of Subject
        Without their unreadable images, if the settings say so.
    Config
        The settings with the absolute path of the data.
    """
    subjects, settings = _open(settings, data, say)
    if settings.data.skip_unreadable:
        subjects = [subject.skip_unreadable() for subject in subjects]
    if rois := settings.data.rois:
        return [each if each.chosen_rois == rois else each.restrict(rois) for each in subjects], settings
    # Subjects that were restricted before they came here: a resumed run opens the data by the settings.
    chosen = {subject.chosen_rois for subject in subjects}
    if len(chosen) > 1:
        raise UsageError("subjects trained together must be restricted to the same ROIs: use rois=")
    return subjects, replace(settings, data=replace(settings.data, rois=chosen.pop()))


def _open(settings: Config, data: Sequence[Data], say: Say) -> tuple[list[Subject], Config]:
    if any(isinstance(each, Subject) for each in data):
        return [each if isinstance(each, Subject) else open_subject(each, say=say) for each in data], settings
    rois = settings.data.rois
    if settings.data.paths:
        return [open_subject(path, rois=rois, say=say) for path in settings.data.paths], settings
    path = settings.data.path
    if not path and (named := folder_named_by("BRAINKIT_DATA")):
        path = str(named)
        say(f"data: {path} ($BRAINKIT_DATA)")
    if not path:
        from brainkit.sample import default_sample

        path = str(default_sample(say))
        say(f"data: none given, using the simulated sample subject ({path})")
    settings = replace(settings, data=replace(settings.data, path=str(locate(path).absolute())))
    return [open_subject(path, rois=rois, say=say)], settings


def plan_subjects(
    subjects: Sequence[Subject], settings: Config, folder: Path, *, stored_splits: bool = False
) -> list[SubjectRun]:
    """Give each subject its split, its settings and the folder of its results; several are split jointly.

    Parameters
    ----------
    subjects : sequence of Subject
    settings : Config
    folder : Path
        The run folder.
    stored_splits : bool
        Take the splits from the run folder: a run is resumed.

    Raises
    ------
    DataError
        If the subjects cannot be split, or a stored split is of other images.
    """
    names = [subjects[0].name] if len(subjects) == 1 else subject_folder_names([each.name for each in subjects])
    folders = [folder] if len(subjects) == 1 else [folder / name for name in names]
    if stored_splits:
        splits = [
            Split.read(its_folder / "split.json", names=[path.name for path in subject.images])
            for its_folder, subject in zip(folders, subjects, strict=True)
        ]
    else:
        seed = settings.seed if settings.data.split_seed < 0 else settings.data.split_seed
        fractions = settings.data.validation, settings.data.test
        data = settings.data
        splits = split_subjects(
            subjects, seed, fractions, labels=names, half=data.half, images=data.images, split=data.split
        )
    splits = note_leaks(splits, subjects)
    runs = []
    for name, subject, its_folder, split in zip(names, subjects, folders, splits, strict=True):
        path = settings.data.path or subject.location or str(subject.root.resolve())
        alone = replace(settings, data=replace(settings.data, path=path, paths=()))
        runs.append(SubjectRun(name, subject, alone, its_folder, split, subject_truth(subject)))
    return runs


def subject_folder_names(names: Sequence[str]) -> list[str]:
    """Folder names that differ, also on file systems that do not distinguish upper and lower case."""
    taken, unique = set(_RESERVED), []
    for name in names:
        candidate, k = name, 2
        while candidate.lower() in taken:
            candidate, k = f"{name}-{k}", k + 1
        taken.add(candidate.lower())
        unique.append(candidate)
    return unique


def training_identity(runs: Sequence[SubjectRun], network: Backbone) -> dict[str, str]:
    """What a run is trained on, by the name used in messages; kept in checkpoints, and compared when it is resumed."""
    sides = np.concatenate(
        [side for run in runs for side in (run.split.train, [-1], run.split.validation, [-1], run.split.test)]
    )
    hashes = [run.subject.data_hash for run in runs]
    return {
        "images or responses": hashes[0] if len(runs) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest(),
        "backbone weights": network.weights_hash,
        "backbone layers": ", ".join(network.layer_names),
        "preprocessing": json.dumps(network.preprocessing.to_json(), sort_keys=True),
        "split": hashlib.sha256(sides.astype("<i8").tobytes()).hexdigest(),
    }


def response_scale(run: SubjectRun) -> tuple[np.ndarray, np.ndarray]:
    """Mean and s.d. (V,) of the training responses, in two passes over blocks of images."""
    rows = run.split.train
    blocks = [rows[start : start + 256] for start in range(0, len(rows), 256)]
    responses = run.subject.responses
    mean = sum(responses.rows(block).sum(0, dtype=np.float64) for block in blocks) / len(rows)
    square = sum(np.square(responses.rows(block) - mean).sum(0) for block in blocks)
    return np.asarray(mean), np.sqrt(np.asarray(square) / len(rows))


def subject_truth(subject: Subject) -> dict[str, np.ndarray] | None:
    """The planted selectors of a simulated subject; None for any other."""
    file = subject.root / "truth.npz"
    return read_truth(file) if file.is_file() else None
