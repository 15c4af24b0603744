"""Which images a model was trained, validated and tested on, by the hashes of their pixels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from brainkit.data.split import SIDES, Split
from brainkit.data.stimuli import short_hashes
from brainkit.data.subject import Subject
from brainkit.utils.files import atomic_write

_FILE = "image_hashes.npz"


def split_hashes(data: Sequence[tuple[Subject, Split]]) -> dict[str, np.ndarray]:
    """The images of each side of the splits of one or more subjects that are trained together.

    Returns
    -------
    dict of str to array of shape (n,), int64
        ``train``, ``validation`` and ``test`` -> short hashes, increasing.
    """
    hashes = [(short_hashes(subject.pixel_hashes), split) for subject, split in data]
    return {side: np.unique(np.concatenate([own[getattr(split, side)] for own, split in hashes])) for side in SIDES}


def write_image_hashes(
    folder: Path, data: Sequence[tuple[Subject, Split]], before: dict[str, np.ndarray] | None = None
) -> None:
    """Write ``image_hashes.npz``, see `split_hashes`; `before`: what the run that this one started from had seen."""
    hashes = split_hashes(data)
    if before is not None:
        hashes |= {side: np.union1d(hashes[side], before[side]) for side in ("train", "validation")}
    with atomic_write(folder / _FILE) as temporary:
        np.savez(temporary, **hashes)  # type: ignore[arg-type]


def read_image_hashes(folder: Path) -> dict[str, np.ndarray] | None:
    """Read ``image_hashes.npz``; None of a run that has none."""
    if not (folder / _FILE).is_file():
        return None
    with np.load(folder / _FILE) as file:
        return {side: file[side] for side in SIDES}


def join_image_hashes(members: Sequence[dict[str, np.ndarray] | None]) -> dict[str, np.ndarray] | None:
    """Those of an ensemble: what any member was trained or validated on, and what is a test image for all.

    None if a member's are not known.
    """
    known = [each for each in members if each is not None]
    if len(known) < len(members):
        return None
    joined = {side: functools.reduce(np.union1d, [each[side] for each in known]) for side in SIDES}
    joined["test"] = functools.reduce(np.intersect1d, [each["test"] for each in known])
    return joined
