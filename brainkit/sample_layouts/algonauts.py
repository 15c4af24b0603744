"""The simulated subject as a folder of the Algonauts 2023 challenge, with test responses."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from brainkit.cortex.vertices import space_size
from brainkit.sample_layouts.simulated import STREAMS, Simulated, write_notes, write_truth
from brainkit.utils.files import write_json


def write_algonauts(subject: Simulated, folder: Path) -> None:
    """Write a subject's folder: images, mean responses, masks, ROIs, ceilings, truth."""
    _move_images(subject, folder)
    _write_responses(subject, folder)
    write_truth(subject, folder)
    write_notes(subject, folder)


def _move_images(subject: Simulated, folder: Path) -> None:
    groups = {}
    for split, kind, start, stop in (
        ("train", "training", 0, subject.n_training),
        ("test", "test", subject.n_training, len(subject.images)),
    ):
        images = folder / f"{kind}_split" / f"{kind}_images"
        images.mkdir(parents=True)
        for row in range(start, stop):
            name = f"{split}-{row - start + 1:04d}_nsd-{subject.ids[row]:05d}.png"
            os.replace(subject.images[row], images / name)
            groups[name] = subject.sources[row]
    write_json(folder / "stimuli.json", groups)


def _write_responses(subject: Simulated, folder: Path) -> None:
    masks = folder / "roi_masks"
    masks.mkdir()
    for part in ("training_split/training_fmri", "test_split/test_fmri", "test_split/noise_ceiling"):
        (folder / part).mkdir(parents=True)
    vertices, n_training = subject.vertices, subject.n_training
    size = space_size(vertices.space)
    for short, columns, local in (  # local: ids within the hemisphere
        ("lh", slice(0, vertices.n_left), vertices.left),
        ("rh", slice(vertices.n_left, None), vertices.right),
    ):
        mask = np.zeros(size, np.int32)
        mask[local] = 1
        on_surface = np.zeros(size, np.int32)
        on_surface[local] = subject.streams[columns]
        training, test = subject.responses[:n_training, columns], subject.responses[n_training:, columns]
        np.save(masks / f"{short}.all-vertices_fsaverage_space.npy", mask)
        np.save(masks / f"{short}.streams_fsaverage_space.npy", on_surface)
        np.save(masks / f"{short}.streams_challenge_space.npy", subject.streams[columns])
        np.save(folder / "training_split/training_fmri" / f"{short}_training_fmri.npy", training)
        np.save(folder / "test_split/test_fmri" / f"{short}_test_fmri.npy", test)
        np.save(folder / "test_split/noise_ceiling" / f"{short}_noise_ceiling.npy", subject.noise_ceiling[columns])
    names = dict(enumerate(("Unknown", *STREAMS)))
    np.save(masks / "mapping_streams.npy", np.array(names, dtype=object), allow_pickle=True)
