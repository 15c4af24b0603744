"""Sides of a split that follow from hashes of the stimuli's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from brainkit.data.stimuli import hash_position
from brainkit.errors import DataError, UsageError
from brainkit.utils.text import plural


def check_fractions(fractions: tuple[float, float]) -> tuple[float, float]:
    """Shares of validation and test, each above 0, together below 1."""
    try:
        validation, test = (float(fraction) for fraction in fractions)
    except (TypeError, ValueError):
        raise UsageError(f"fractions must be (validation, test), got {fractions!r}") from None
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise UsageError(f"fractions must be positive with a sum below 1, got {fractions!r}")
    return validation, test


def assign_sides(sizes: Mapping[str, int], seed: int, shares: dict[str, float], notes: list[str]) -> dict[str, str]:
    """The side of each group, from the images per group and the shares of all sides but training."""
    positions = {group: hash_position(seed, group) for group in sizes}
    order = sorted(sizes, key=lambda group: (positions[group], group))
    # In the order of their hashes, the groups of a side are neighbours: [validation | test | train].
    cuts = np.searchsorted([positions[group] for group in order], np.cumsum(list(shares.values()))).tolist()
    start, side_of = 0, dict.fromkeys(order, "train")
    for k, (side, share) in enumerate(shares.items()):
        # Leave at least one group for each of the other sides.
        last = len(order) - (len(shares) - k)
        stop = min(max(cuts[k], start + 1), last)
        if stop != cuts[k]:
            notes.append(f"groups moved so that no side is empty: {side} has {stop - start} of {len(order)} groups")
        members = order[start:stop]
        start = stop
        limit = 2 * share * sum(sizes.values())
        returned = 0
        while len(members) > 1 and sum(sizes[group] for group in members) > limit:
            members.pop()
            returned += 1
        if returned:
            notes.append(
                f"{plural(returned, 'group')} given back to train: {side} had more than twice its share of images"
            )
        side_of.update(dict.fromkeys(members, side))
    return side_of


def fill_empty_sides(
    side_of: dict[str, str],
    groups: list[set[str]],
    needed: Sequence[tuple[str, ...]],
    seed: int,
    notes: list[str],
    subjects: Sequence[str],
) -> None:
    """Give every subject a group on each side that it needs, by moving groups for all subjects."""

    def members(subject: int, side: str) -> list[str]:
        return [group for group in groups[subject] if side_of[group] == side]

    def can_move(group: str) -> bool:
        side = side_of[group]
        return all(
            group not in own or side not in sides or len(members(k, side)) > 1
            for k, (own, sides) in enumerate(zip(groups, needed, strict=True))
        )

    for subject, sides in enumerate(needed):
        for side in sides:
            if members(subject, side):
                continue
            movable = sorted(filter(can_move, groups[subject]), key=lambda group: (hash_position(seed, group), group))
            # Training has the largest hashes, the other sides the smallest.
            order = movable[::-1] if side == "train" else [g for g in movable if side_of[g] == "train"] + movable
            if not order:
                raise DataError(
                    f"split: no stimulus group of {subjects[subject]} can be its {side} side without emptying another "
                    "side; train these subjects one by one"
                )
            side_of[order[0]] = side
            notes.append(f"a group moved to {side} for all subjects, so that {subjects[subject]} has one")
