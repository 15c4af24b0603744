"""Splits of several subjects that see some of the same images: an image lies on one side for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from brainkit.data.splits import SIDES, Split, check_fractions, hash_names, place_groups, position
from brainkit.errors import DataError, UsageError


def make_joint_splits(
    groups: Sequence[Sequence[str]],
    official_test: Sequence[npt.ArrayLike],
    seed: int = 0,
    fractions: tuple[float, float] = (0.1, 0.1),
    *,
    names: Sequence[Sequence[str]],
    subjects: Sequence[str],
) -> list[Split]:
    """Split the images of several subjects at once.

    The union of their stimulus groups is split as :func:`brainkit.data.splits.make_split` splits one subject's, its
    rules for few groups included, and every subject is given its own images of each side. So with many groups a
    subject's split is what it would be alone. Beyond this

    - a stimulus in the official test set of one subject is trained and validated on by none;
    - where some subjects have an official test set and others have not, the hashed test side is for the others: a
      stimulus on it that one of them saw is left out for those with an official test set, any other is trained on;
    - a side that a subject would lack gets one of its groups, for all subjects.

    Parameters
    ----------
    groups : sequence of sequences of str
        For each subject the groups of its images.
    official_test : sequence of bool arrays
        For each subject the rows of its official test set.
    seed, fractions
        As for :func:`brainkit.data.splits.make_split`.
    names : sequence of sequences of str
        For each subject its images' names.
    subjects : sequence of str
        What the subjects are called in messages.

    Returns
    -------
    list of Split
        One for each subject, in order.

    Raises
    ------
    DataError
        If a subject has too few groups, or no side can be given to it without taking another's.
    UsageError
        If an argument is out of range or the lengths differ.
    """
    share_validation, share_test = check_fractions(fractions)
    own = [[str(group) for group in theirs] for theirs in groups]
    official = [np.asarray(rows, bool) for rows in official_test]
    for theirs, rows, called in zip(own, official, names, strict=True):
        if rows.shape != (len(theirs),) or len(called) != len(theirs):
            raise UsageError(f"groups, official_test and names must have one length, got {len(theirs)} groups")
    taken = {group for theirs, rows in zip(own, official, strict=True) for group in np.array(theirs, object)[rows]}
    free = [[group for group in theirs if group not in taken] for theirs in own]
    # Who brings no official test set is tested on a hashed side.
    hashed = [not rows.any() for rows in official]
    needed = [SIDES if without else SIDES[:2] for without in hashed]
    for theirs, sides, subject in zip(free, needed, subjects, strict=True):
        if len(set(theirs)) < len(sides):
            raise DataError(
                f"split: expected at least {len(sides)} stimulus groups of {subject} beside the official test sets, "
                f"found {len(set(theirs))}"
            )
    sizes: dict[str, int] = {}
    for group in (group for theirs in free for group in theirs):
        sizes[group] = sizes.get(group, 0) + 1
    shares = {"validation": share_validation} | ({"test": share_test} if any(hashed) else {})
    notes: list[str] = []
    side_of = place_groups(sizes, seed, shares, notes)
    tested = {group for theirs, without in zip(free, hashed, strict=True) if without for group in theirs}
    side_of = {g: "train" if side == "test" and g not in tested else side for g, side in side_of.items()}
    _fill(side_of, [set(theirs) for theirs in free], needed, seed, notes, subjects)
    return [
        _split_of(theirs, rows, side_of, seed, notes, called)
        for theirs, rows, called in zip(own, official, names, strict=True)
    ]


def _fill(
    side_of: dict[str, str],
    groups: list[set[str]],
    needed: Sequence[tuple[str, ...]],
    seed: int,
    notes: list[str],
    subjects: Sequence[str],
) -> None:
    """Give every subject a group on each side that it needs, by moving groups for all subjects."""

    def on(subject: int, side: str) -> list[str]:
        return [group for group in groups[subject] if side_of[group] == side]

    def can_leave(group: str) -> bool:
        side = side_of[group]
        return all(
            group not in theirs or side not in sides or len(on(k, side)) > 1
            for k, (theirs, sides) in enumerate(zip(groups, needed, strict=True))
        )

    for subject, sides in enumerate(needed):
        for side in sides:
            if on(subject, side):
                continue
            free = sorted(filter(can_leave, groups[subject]), key=lambda group: (position(seed, group), group))
            # Training lies at the far end of the hashes, the other sides at the near one.
            order = free[::-1] if side == "train" else [g for g in free if side_of[g] == "train"] + free
            if not order:
                raise DataError(
                    f"split: no stimulus group of {subjects[subject]} can be its {side} side without taking another's; "
                    "train these subjects one by one"
                )
            side_of[order[0]] = side
            notes.append(f"a group moved to {side} for all subjects, so that {subjects[subject]} has one")


def _split_of(
    groups: list[str],
    official: npt.NDArray[np.bool_],
    side_of: dict[str, str],
    seed: int,
    notes: list[str],
    names: Sequence[str],
) -> Split:
    rows = {
        side: np.array([i for i, group in enumerate(groups) if side_of.get(group) == side], np.int64) for side in SIDES
    }
    own_notes = list(notes)
    used = len(rows["train"]) + len(rows["validation"])
    if official.any():
        rows["test"] = np.flatnonzero(official).astype(np.int64)
    if left_out := len(groups) - used - len(rows["test"]):
        own_notes.append(f"{left_out} images left out: their stimuli are in the test set of one of the subjects")
    return Split(**rows, seed=seed, notes=tuple(own_notes), names_hash=hash_names(names))
