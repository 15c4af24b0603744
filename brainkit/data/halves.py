"""Halves of the training stimuli: what two runs on separate stimuli are trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from brainkit.data.split import Split
from brainkit.data.stimuli import hash_position
from brainkit.errors import DataError
from brainkit.utils.text import plural


def halve_training(splits: Sequence[Split], groups: Sequence[Sequence[str]], half: str) -> list[Split]:
    """Keep one half of the training stimuli; validation and test stay as they are.

    The stimuli of all splits together are put in an order that depends on the draw and their names, and cut in the
    middle. Each half of a draw thus has the same number of stimuli (or one more), and no stimulus is in both.

    Parameters
    ----------
    splits : sequence of Split
        Of one or several subjects, made by one seed.
    groups : sequence of sequences of str
        The stimulus of each image of each split, see `common_stimuli`.
    half : str
        ``a:N`` or ``b:N``: the first or the second half of draw N.

    Raises
    ------
    DataError
        If a subject has no training stimulus in the half.
    """
    side, _, draw = half.partition(":")
    stimuli = {own[row] for split, own in zip(splits, groups, strict=True) for row in split.train.tolist()}
    # Other positions than those that made the split: the training stimuli are the last of these.
    order = sorted(stimuli, key=lambda group: (hash_position(int(draw), f"half\0{group}"), group))
    middle = len(order) // 2
    kept = set(order[:middle] if side == "a" else order[middle:])
    halves = []
    for split, own in zip(splits, groups, strict=True):
        rows = np.array([row for row in split.train.tolist() if own[row] in kept], np.int64)
        if not len(rows):
            raise DataError(f"split: expected training stimuli in both halves of draw {draw}, found one half empty")
        note = f"half {half} of the training stimuli: {len(rows):,} of {plural(len(split.train), 'training image')}"
        halves.append(dataclasses.replace(split, train=rows, notes=(*split.notes, note), half=half))
    return halves
