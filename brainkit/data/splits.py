"""Seeded three-way splits by stimulus, of one subject or of several that share images."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from brainkit.data.fewer import keep_first
from brainkit.data.halves import halve_training
from brainkit.data.hashed_sides import assign_sides, check_fractions, fill_empty_sides
from brainkit.data.named_splits import split_by_lists
from brainkit.data.split import SIDES, Split, hash_names
from brainkit.data.split_files import find_split
from brainkit.data.stimuli import join_stimuli
from brainkit.errors import DataError, UsageError
from brainkit.utils.text import plural

if TYPE_CHECKING:
    from brainkit.data.subject import Subject


def split_subjects(
    subjects: Sequence[Subject],
    seed: int = 0,
    fractions: tuple[float, float] = (0.1, 0.1),
    *,
    labels: Sequence[str] | None = None,
    half: str = "",
    images: int = 0,
    split: str = "",
) -> list[Split]:
    """Split the images of a subject, or of several that are trained together.

    Images with the same pixels, or of one group according to the data, are one stimulus
    (:func:`brainkit.data.stimuli.join_stimuli`), also across subjects; a stimulus is on one side of the split.

    Parameters
    ----------
    subjects : sequence of Subject
    seed, fractions
        As for `make_split`.
    labels : sequence of str, optional
        The subjects' names in messages.
    half : str
        Train on this half of the training stimuli, see `halve_training`; by default on all.
    images : int
        Train and validate each subject on so many images, see :func:`brainkit.data.fewer.keep_first`; 0: on all.
    split : str
        Name of a split, or a JSON file, see :func:`brainkit.data.split_files.find_split`: lists of images decide, see
        :func:`brainkit.data.named_splits.split_by_lists`, also over official test sets. By default ``splits.json`` of
        the data folder, else hashes.

    Returns
    -------
    list of Split
        One for each subject, in order; `Split.notes` counts the images that their pixels joined to another's stimulus.

    Raises
    ------
    DataError
        If an image cannot be read, or there are too few stimuli, see `make_split` and `make_joint_splits`.
    UsageError
        If there is no split of this name.
    """
    named = [find_split(subject, split) for subject in subjects]
    groups = common_stimuli(subjects)
    labels = labels or [subject.name for subject in subjects]
    names = [[path.name for path in subject.images] for subject in subjects]
    if any(named):
        splits = split_by_lists(named, subjects, groups, seed, fractions, labels)
    elif len(subjects) == 1:
        splits = [make_split(groups[0], subjects[0].official_test, seed, fractions, names=names[0])]
    else:
        official = [subject.official_test for subject in subjects]
        splits = make_joint_splits(groups, official, seed, fractions, names=names, subjects=labels)
    splits = [_note_joined(*each) for each in zip(splits, subjects, groups, strict=True)]
    if images:
        splits = [keep_first(split, own, images) for split, own in zip(splits, groups, strict=True)]
    return halve_training(splits, groups, half) if half else splits


def common_stimuli(subjects: Sequence[Subject]) -> list[tuple[str, ...]]:
    """The stimulus of each image of each subject; one that several subjects saw has the same name for all."""
    return join_stimuli(
        [subject.names for subject in subjects],
        [subject.named_groups for subject in subjects],
        [subject.pixel_hashes for subject in subjects],
    )


def leaked_images(splits: Sequence[Split], groups: Sequence[Sequence[str]]) -> int:
    """How many test images show a stimulus that is used in training or validation, of any of the subjects.

    None, in a split made here; a split of your own, or of brainkit 0.1.0, which did not compare pixels, may have some.

    Parameters
    ----------
    splits : sequence of Split
    groups : sequence of sequences of str
        The stimulus of each image of each split, see `common_stimuli`.
    """
    used = {
        own[row]
        for split, own in zip(splits, groups, strict=True)
        for row in (*split.train.tolist(), *split.validation.tolist())
    }
    return sum(own[row] in used for split, own in zip(splits, groups, strict=True) for row in split.test.tolist())


def make_split(
    groups: Sequence[str],
    official_test: npt.ArrayLike | None = None,
    seed: int = 0,
    fractions: tuple[float, float] = (0.1, 0.1),
    *,
    names: Sequence[str] | None = None,
) -> Split:
    """Split images into train, validation and test by the stimuli they show, for example ``subject.groups``.

    The side of a group depends only on a hash of the seed and the group's name, so that an image is on the same side
    for every subject, and adding images moves none. There are two exceptions, reported in `Split.notes`, when there are
    few groups:

    - a side that would be empty gets the group with the smallest hash (the largest, for training);
    - a validation or test side with more than twice its share of the images returns the groups with its largest hashes
      to training, until it has at most twice its share or one group is left.

    If the data set has an official test set, that is the test side; other images of its groups are left out.

    Parameters
    ----------
    groups : sequence of str, (n,)
    official_test : array of shape (n,), bool, optional
    seed : int
    fractions : (validation, test)
        Shares of the images; the second is not used if there is an official test set.
    names : sequence of str, (n,), optional
        The images' names; their hash is stored with the split.

    Returns
    -------
    Split

    Raises
    ------
    DataError
        If there are fewer than 3 groups, or fewer than 2 that are not in the official test set.
    UsageError
        If an argument is out of range or the lengths differ.
    """
    validation_share, test_share = check_fractions(fractions)
    groups = [str(group) for group in groups]
    official = np.zeros(len(groups), bool) if official_test is None else np.asarray(official_test, bool)
    if official.shape != (len(groups),) or (names is not None and len(names) != len(groups)):
        raise UsageError(f"groups, official_test and names must have the same length, got {len(groups)} groups")
    if len(set(groups)) < 3:
        raise DataError(
            f"split: expected at least 3 stimulus groups (train, validation, test), found {len(set(groups))}"
        )
    test_groups = set(np.array(groups, object)[official])
    free = [group for group in groups if group not in test_groups]
    notes: list[str] = []
    if left_out := len(groups) - len(free) - int(official.sum()):
        notes.append(f"{plural(left_out, 'image')} left out: the official test set has the same stimuli")
    sizes = collections.Counter(free)
    shares = {"validation": validation_share} | ({} if test_groups else {"test": test_share})
    if len(sizes) <= len(shares):
        raise DataError(f"split: expected at least 2 stimulus groups outside the official test set, found {len(sizes)}")
    sides = assign_sides(sizes, seed, shares, notes)
    return _split(groups, official, sides, seed, notes, "" if names is None else hash_names(names))


def make_joint_splits(
    groups: Sequence[Sequence[str]],
    official_test: Sequence[npt.ArrayLike],
    seed: int = 0,
    fractions: tuple[float, float] = (0.1, 0.1),
    *,
    names: Sequence[Sequence[str]],
    subjects: Sequence[str],
) -> list[Split]:
    """Split the images of several subjects together, so that a stimulus is on the same side for all of them.

    The union of their stimulus groups is split like the groups of one subject (`make_split`), including the exceptions
    for few groups, and each subject gets its own images of each side. With many groups, a subject's split is therefore
    the same as without the other subjects. In addition

    - a stimulus in the official test set of one subject is not used to train or validate any subject;
    - if only some subjects have an official test set, the hashed test side is for the others: a stimulus on it that one
      of them saw is left out for the subjects with an official test set, and any other one is used for training;
    - a side that would be empty for a subject gets one of its groups, for all subjects.

    Parameters
    ----------
    groups : sequence of sequences of str
        For each subject, the groups of its images: `common_stimuli` finds what they share.
    official_test : sequence of bool arrays
        For each subject, the rows of its official test set.
    seed, fractions
        As for `make_split`.
    names : sequence of sequences of str
        For each subject, its images' names.
    subjects : sequence of str
        The subjects' names in messages.

    Returns
    -------
    list of Split
        One for each subject, in order.

    Raises
    ------
    DataError
        If a subject has too few groups, or a side cannot be filled without emptying another one.
    UsageError
        If an argument is out of range or the lengths differ.
    """
    validation_share, test_share = check_fractions(fractions)
    groups = [[str(group) for group in own] for own in groups]
    official = [np.asarray(rows, bool) for rows in official_test]
    for own, rows, own_names in zip(groups, official, names, strict=True):
        if rows.shape != (len(own),) or len(own_names) != len(own):
            raise UsageError(f"groups, official_test and names must have the same length, got {len(own)} groups")
    test_groups = {g for own, rows in zip(groups, official, strict=True) for g in np.array(own, object)[rows]}
    free = [[group for group in own if group not in test_groups] for own in groups]
    # Subjects without an official test set are tested on a hashed side.
    needs_test = [not rows.any() for rows in official]
    needed = [SIDES if test else SIDES[:2] for test in needs_test]
    for own, sides, subject in zip(free, needed, subjects, strict=True):
        if len(set(own)) < len(sides):
            raise DataError(
                f"split: expected at least {len(sides)} stimulus groups of {subject} outside the official test sets, "
                f"found {len(set(own))}"
            )
    sizes = collections.Counter(group for own in free for group in own)
    shares = {"validation": validation_share} | ({"test": test_share} if any(needs_test) else {})
    notes: list[str] = []
    side_of = assign_sides(sizes, seed, shares, notes)
    tested = {group for own, test in zip(free, needs_test, strict=True) if test for group in own}
    side_of = {g: "train" if side == "test" and g not in tested else side for g, side in side_of.items()}
    fill_empty_sides(side_of, [set(own) for own in free], needed, seed, notes, subjects)
    splits = []
    for own, rows, own_names in zip(groups, official, names, strict=True):
        split = _split(own, rows, side_of, seed, notes, hash_names(own_names))
        if left_out := len(own) - sum(len(getattr(split, side)) for side in SIDES):
            note = f"{plural(left_out, 'image')} left out: the test set of one of the subjects has the same stimuli"
            split = dataclasses.replace(split, notes=(*notes, note))
        splits.append(split)
    return splits


def _note_joined(split: Split, subject: Subject, groups: Sequence[str]) -> Split:
    """Add a note on the images whose stimulus has a name other than theirs, because of their pixels."""
    own = [name if group is None else group for name, group in zip(subject.names, subject.named_groups, strict=True)]
    joined = sum(stimulus != name for stimulus, name in zip(groups, own, strict=True))
    if not joined:
        return split
    note = f"{plural(joined, 'image')} joined to the stimulus of images with the same pixels under another name"
    return dataclasses.replace(split, notes=(*split.notes, note))


def _split(
    groups: Sequence[str],
    official: npt.NDArray[np.bool_],
    side_of: Mapping[str, str],
    seed: int,
    notes: Sequence[str],
    names_hash: str,
) -> Split:
    rows = {side: np.array([i for i, g in enumerate(groups) if side_of.get(g) == side], np.int64) for side in SIDES}
    if official.any():
        rows["test"] = np.flatnonzero(official).astype(np.int64)
    train, validation, test = (rows[side] for side in SIDES)
    return Split(train, validation, test, seed=seed, notes=tuple(notes), names_hash=names_hash)
