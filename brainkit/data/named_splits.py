"""Splits of subjects' images from lists of names; what a list leaves open follows from hashes of the stimuli."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brainkit.data.hashed_sides import assign_sides, check_fractions, fill_empty_sides
from brainkit.data.image_names import ImageNames, not_found
from brainkit.data.split import SIDES, Split, hash_names
from brainkit.data.split_files import NamedSplit
from brainkit.data.subject import Subject
from brainkit.errors import DataError
from brainkit.utils.text import plural

Rows = npt.NDArray[np.int64]
_NO_LISTS = NamedSplit("", {}, "")


@dataclass(frozen=True, eq=False)
class _Listed:
    """What is given for one subject; None: to be hashed.

    ``train`` holds all images that may be on a side that is hashed.
    """

    split: NamedSplit
    train: Rows
    validation: Rows | None
    test: Rows | None
    sets: dict[str, Rows]
    notes: tuple[str, ...]

    @property
    def hashed(self) -> tuple[str, ...]:
        """The sides that `train` is hashed into; none if all are given."""
        open_sides = [side for side in SIDES[1:] if getattr(self, side) is None]
        return ("train", *open_sides) if open_sides else ()


def split_by_lists(
    named: Sequence[NamedSplit | None],
    subjects: Sequence[Subject],
    groups: Sequence[Sequence[str]],
    seed: int,
    fractions: tuple[float, float],
    labels: Sequence[str],
) -> list[Split]:
    """Split subjects' images by lists of names.

    A listed side has exactly the images that are named. Of what is not listed,

    - **test** is the data set's own test set, else the share of the other images that hashes of their stimuli choose;
    - **train** is every image that is in no list, but for those that show a stimulus which is tested or validated on in
      another image, or by another subject;
    - **validation** is a share of the training stimuli, also chosen by hashes.

    Parameters
    ----------
    named : sequence of NamedSplit or None
        For each subject; None: nothing is listed.
    subjects : sequence of Subject
    groups : sequence of sequences of str
        The stimulus of each image of each subject, see `brainkit.data.splits.common_stimuli`.
    seed, fractions
        As for `brainkit.data.splits.make_split`.
    labels : sequence of str
        The subjects' names in messages.

    Returns
    -------
    list of Split

    Raises
    ------
    DataError
        If a name is no image, an image is on two sides, or a side is empty.
    """
    shares = dict(zip(SIDES[1:], check_fractions(fractions), strict=True))
    lists = [each or _NO_LISTS for each in named]
    rows = _find_rows(lists, subjects)
    held_out = {
        own[row]
        for own, each in zip(groups, rows, strict=True)
        for side in each
        if side != "train"
        for row in each[side]
    }
    held_out |= {
        own[row]
        for own, each, subject in zip(groups, rows, subjects, strict=True)
        if "test" not in each
        for row in np.flatnonzero(subject.official_test).tolist()
    }
    listed = [_complete(*each, held_out) for each in zip(lists, rows, subjects, groups, strict=True)]
    side_of, notes = _hash_sides(listed, groups, seed, shares, labels)
    return [
        _split(each, own, side_of, seed, notes, subject)
        for each, own, subject in zip(listed, groups, subjects, strict=True)
    ]


def _find_rows(lists: Sequence[NamedSplit], subjects: Sequence[Subject]) -> list[dict[str, Rows]]:
    """The rows of each list; a name must be an image of one of the subjects that are split by it."""
    found: list[dict[str, Rows]] = []
    unknown: dict[str, set[str]] = {}
    for split, subject in zip(lists, subjects, strict=True):
        images = ImageNames(subject)
        result = {side: images.find(names, f"{split.where}: {side}") for side, names in split.lists.items()}
        missing = {name for each in result.values() for name in each.unknown}
        unknown[split.where] = unknown.get(split.where, missing) & missing
        rows = {side: each.rows for side, each in result.items()}
        _check_apart(rows, split, subject)
        found.append(rows)
    for split, subject in zip(lists, subjects, strict=True):
        if split.strict and unknown[split.where]:
            raise not_found(sorted(unknown[split.where]), split.where, subject.root)
    return found


def _check_apart(rows: dict[str, Rows], split: NamedSplit, subject: Subject) -> None:
    """Refuse an image on two sides; test sets may have images in common."""
    sides: dict[int, str] = {}
    for name, members in rows.items():
        side = name if name in ("train", "validation") else "test"
        for row in members.tolist():
            if sides.setdefault(row, side) != side:
                raise DataError(
                    f"{split.where}: expected every image on one side, found {subject.names[row]} in {sides[row]} and "
                    f"{name}"
                )


def _complete(
    split: NamedSplit, rows: dict[str, Rows], subject: Subject, groups: Sequence[str], held_out: set[str]
) -> _Listed:
    """What is given for a subject: its lists, the official test set, and the images that are in none."""
    official = np.setdiff1d(np.flatnonzero(subject.official_test), _union(rows.values()))
    test = rows.get("test", official if len(official) else None)
    notes = []
    if test is None and "train" in rows:
        raise DataError(
            f"{split.where}: expected the list of test images, as there is one of training images, found none"
        )
    taken = _union([*rows.values(), *([] if test is None else [test])])
    if "train" in rows:
        train = rows["train"]
        free = len(subject) - len(taken)
        if free:
            notes.append(f"{plural(free, 'image')} left out: in no list of {split.name}")
    else:
        others = np.setdiff1d(np.arange(len(subject)), taken)
        train = np.array([row for row in others.tolist() if groups[row] not in held_out], np.int64)
        if left_out := len(others) - len(train):
            notes.append(f"{plural(left_out, 'image')} left out: images of the other sides show the same stimuli")
    sets = {name: members for name, members in rows.items() if name not in SIDES}
    return _Listed(split, train, rows.get("validation"), test, sets, tuple(notes))


def _hash_sides(
    listed: Sequence[_Listed],
    groups: Sequence[Sequence[str]],
    seed: int,
    shares: dict[str, float],
    labels: Sequence[str],
) -> tuple[dict[str, str], list[str]]:
    """The side of each stimulus of subjects that have sides to be hashed."""
    chosen = [k for k, each in enumerate(listed) if each.hashed]
    pools = [[groups[k][row] for row in listed[k].train.tolist()] for k in chosen]
    notes: list[str] = []
    if not chosen:
        return {}, notes
    needed = [listed[k].hashed for k in chosen]
    for k, pool, sides in zip(chosen, pools, needed, strict=True):
        if len(set(pool)) < len(sides):
            raise DataError(
                f"split: expected at least {len(sides)} stimuli of {labels[k]} for {', '.join(sides)}, found "
                f"{len(set(pool))}"
            )
    sizes = collections.Counter(group for pool in pools for group in pool)
    wanted = {side: share for side, share in shares.items() if any(side in sides for sides in needed)}
    side_of = assign_sides(sizes, seed, wanted, notes)
    # A side that is not hashed for a subject: its stimuli are training images, unless others are tested on them.
    for side in wanted:
        those = {group for pool, sides in zip(pools, needed, strict=True) if side in sides for group in pool}
        side_of = {g: "train" if at == side and g not in those else at for g, at in side_of.items()}
    fill_empty_sides(side_of, [set(pool) for pool in pools], needed, seed, notes, [labels[k] for k in chosen])
    return side_of, notes


def _split(
    listed: _Listed,
    groups: Sequence[str],
    side_of: dict[str, str],
    seed: int,
    notes: Sequence[str],
    subject: Subject,
) -> Split:
    rows = {"train": listed.train, "validation": listed.validation, "test": listed.test}
    for side in listed.hashed:
        rows[side] = np.array([row for row in listed.train.tolist() if side_of[groups[row]] == side], np.int64)
    where = listed.split.where or str(subject.root)
    for side in SIDES:
        if not len(rows[side]):  # type: ignore[arg-type]
            raise DataError(f"{where}: expected {side} images of {subject.root}, found none")
    return Split(
        **rows,  # type: ignore[arg-type]
        seed=seed,
        notes=(*(notes if listed.hashed else ()), *listed.notes),
        names_hash=hash_names([path.name for path in subject.images]),
        name=listed.split.name,
        sha256=listed.split.sha256 if listed.split.name else "",
        sets={name: members for name, members in listed.sets.items() if len(members)},
    )


def _union(parts: Iterable[Rows]) -> Rows:
    return np.unique(np.concatenate([np.empty(0, np.int64), *parts]))
