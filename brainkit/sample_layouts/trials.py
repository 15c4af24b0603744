"""The simulated subject as a folder of own data with single trials."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

from brainkit.sample_layouts.simulated import NOTE, STREAMS, Simulated, write_notes, write_truth
from brainkit.utils.files import write_json

SESSIONS, RUNS = 6, 4  # runs of each session


def write_trials(subject: Simulated, folder: Path) -> None:
    """Write ``responses.npy`` of single trials, ``trials.csv``, images, vertices, ROIs, stimuli, a split and truth.

    The trials are in a random order, in six sessions. Each session has a mean and an s.d. of its own at each vertex,
    which z-scoring within sessions removes.
    """
    (folder / "images").mkdir()
    names = [path.name for path in subject.images]
    for path, name in zip(subject.images, names, strict=True):
        os.replace(path, folder / "images" / name)
    order = trial_order(subject)
    np.save(folder / "responses.npy", _responses(subject, order))
    with (folder / "trials.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("session", "run", "image"))
        for session, trials in enumerate(np.array_split(order, SESSIONS), 1):
            for run, part in enumerate(np.array_split(trials, RUNS), 1):
                writer.writerows((session, run, names[trial % len(names)]) for trial in part.tolist())
    write_json(folder / "vertices.json", {"space": subject.vertices.space, "ids": subject.vertices.ids.tolist()})
    streams = {name: np.flatnonzero(subject.streams == k).tolist() for k, name in enumerate(STREAMS, 1)}
    write_json(folder / "rois.json", streams)
    write_json(folder / "stimuli.json", dict(zip(names, subject.sources, strict=True)))
    write_json(folder / "splits.json", {"test": sorted(names[subject.n_training :])})
    write_json(folder / "dataset.json", {"name": NOTE})
    write_truth(subject, folder)
    write_notes(subject, folder)


def trial_order(subject: Simulated) -> np.ndarray:
    """The trials in the order of the rows, (repetitions * n,): trial k of n images shows image k % n."""
    repetitions, images, _ = subject.trials.shape
    return np.random.default_rng((subject.seed, 3)).permutation(repetitions * images)


def _responses(subject: Simulated, order: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng((subject.seed, 4))
    responses = subject.trials.reshape(-1, subject.trials.shape[-1])[order]
    for rows in np.array_split(np.arange(len(order)), SESSIONS):
        shape = (2, responses.shape[1])
        mean, log_scale = rng.standard_normal(shape) * [[0.5], [0.2]]
        responses[rows] = responses[rows] * np.exp(log_scale) + mean
    return responses.astype(np.float32)
