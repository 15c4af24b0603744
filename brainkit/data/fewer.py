"""Fewer images to train and validate on, nested: what a shorter experiment would have."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from brainkit.data.split import Split
from brainkit.data.stimuli import hash_position
from brainkit.errors import DataError


def keep_first(split: Split, groups: Sequence[str], images: int) -> Split:
    """Keep the first images of training and validation, by the hash that makes the split; the test images stay.

    Of the images kept, validation has the share that it has of all of them, at least one. The images of 50 are among
    those of 100, also side by side, because each side is cut in one order; with several images of a stimulus, every
    stimulus has one before any has two.

    Parameters
    ----------
    split : Split
    groups : sequence of str
        The stimulus of each image.
    images : int
        How many to keep, of both sides together.

    Raises
    ------
    DataError
        If there are fewer.
    """
    available = len(split.train) + len(split.validation)
    if images > available:
        raise DataError(f"split: expected at least {images:,} images to train and validate on, found {available:,}")
    validation = min(max(1, round(images * len(split.validation) / available)), len(split.validation), images - 1)
    train = images - validation
    return dataclasses.replace(
        split,
        train=_first(split.train, groups, split.seed, train),
        validation=_first(split.validation, groups, split.seed, validation),
        notes=(*split.notes, f"{images:,} of {available:,} images: {train:,} to train, {validation:,} to validate"),
    )


def _first(rows: np.ndarray, groups: Sequence[str], seed: int, count: int) -> np.ndarray:
    """The first image of each stimulus in the order of their hashes, then the second of each, and so on."""
    seen: collections.Counter[str] = collections.Counter()
    order = []
    for row in rows.tolist():
        order.append((seen[groups[row]], hash_position(seed, groups[row]), groups[row], row))
        seen[groups[row]] += 1
    return np.array(sorted(row for *_, row in sorted(order)[:count]), np.int64)
