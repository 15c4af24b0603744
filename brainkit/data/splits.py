"""Seeded three-way splits by stimulus group."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.errors import DataError, UsageError
from brainkit.utils.files import read_json, write_json

_VERSION = 1
SIDES = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Which images are trained on, selected on and scored on.

    Attributes
    ----------
    train, validation, test : arrays of int64
        Row numbers, increasing; no row on two sides, no side empty.
    seed : int
    notes : tuple of str
        What else happened: groups moved so that no side is empty or too large, rows left out.
    names_hash : str
        SHA-256 over the images' names in order; "" if they were not given.
    """

    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    seed: int
    notes: tuple[str, ...] = ()
    names_hash: str = ""

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON."""
        value: dict[str, Any] = {"version": _VERSION, "seed": self.seed, "names_sha256": self.names_hash}
        value["notes"] = list(self.notes)
        value.update({side: getattr(self, side).tolist() for side in SIDES})
        write_json(path, value)

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, names: Sequence[str] | None = None) -> Split:
        """Read what `write` wrote.

        Parameters
        ----------
        path : path-like
        names : sequence of str, optional
            The images' names now; they must be those that were split.

        Raises
        ------
        DataError
            If the file is missing or is not a split, or the images are others.
        """
        value = read_json(path)
        if not isinstance(value, dict) or value.get("version") != _VERSION:
            found = value.get("version") if isinstance(value, dict) else type(value).__name__
            raise DataError(f"{path}: expected a split of version {_VERSION}, found {found}")
        sides = {side: _rows(path, side, value.get(side)) for side in SIDES}
        everything = np.concatenate(list(sides.values()))
        if len(np.unique(everything)) != len(everything):
            raise DataError(f"{path}: expected every row on one side, found some on two")
        notes, seed, names_hash = value.get("notes", []), value.get("seed"), value.get("names_sha256", "")
        texts = isinstance(notes, list) and all(isinstance(note, str) for note in notes)
        if not texts or type(seed) is not int or not isinstance(names_hash, str):
            raise DataError(f"{path}: expected a seed, notes and a hash of names, found something else")
        if names is not None:
            if names_hash and names_hash != hash_names(names):
                raise DataError(f"{path}: expected the images that were split, found others ({len(names)} images)")
            if everything.max() >= len(names):
                raise DataError(f"{path}: expected rows below {len(names)}, found {everything.max()}")
        return cls(**sides, seed=seed, notes=tuple(notes), names_hash=names_hash)


def make_split(
    groups: Sequence[str],
    official_test: npt.ArrayLike | None = None,
    seed: int = 0,
    fractions: tuple[float, float] = (0.1, 0.1),
    *,
    names: Sequence[str] | None = None,
) -> Split:
    """Split images into train, validation and test by the groups they belong to.

    A group's side follows from a hash of the seed and the group's name alone, so that an image lies on the same side
    for every subject and adding images moves none. Only with few groups must this bend, and `Split.notes` says so:

    - a side that would be empty gets the group with the smallest hash (the largest, for training);
    - a hashed validation or test side with more than twice its share of the images gives its groups with the largest
      hashes back to training, until it has at most twice its share or one group is left.

    Where the data set has an official test set, that is the test side; images of its groups are neither trained nor
    validated on, and are left out.

    Parameters
    ----------
    groups : sequence of str, (n,)
    official_test : array of shape (n,), bool, optional
    seed : int
    fractions : (validation, test)
        Shares of the images; the second is not used where there is an official test set.
    names : sequence of str, (n,), optional
        The images' names; their hash is kept with the split.

    Returns
    -------
    Split

    Raises
    ------
    DataError
        If there are fewer than 3 groups, or fewer than 2 beside those of the official test set.
    UsageError
        If an argument is out of range or the lengths differ.
    """
    share_validation, share_test = check_fractions(fractions)
    groups = [str(group) for group in groups]
    official = np.zeros(len(groups), bool) if official_test is None else np.asarray(official_test, bool)
    if official.shape != (len(groups),) or (names is not None and len(names) != len(groups)):
        raise UsageError(f"groups, official_test and names must have one length, got {len(groups)} groups")
    if len(set(groups)) < 3:
        raise DataError(
            f"split: expected at least 3 stimulus groups (train, validation, test), found {len(set(groups))}"
        )
    notes: list[str] = []
    taken = {group for group, is_test in zip(groups, official, strict=True) if is_test}
    free = np.array([group not in taken for group in groups])
    if left_out := int((~free & ~official).sum()):
        notes.append(f"{left_out} images left out: their stimuli are in the official test set")
    sizes: dict[str, int] = {}
    for group in np.asarray(groups, object)[free]:
        sizes[group] = sizes.get(group, 0) + 1
    shares = {"validation": share_validation} if taken else {"validation": share_validation, "test": share_test}
    if len(sizes) <= len(shares):
        raise DataError(f"split: expected at least 2 stimulus groups beside the official test set, found {len(sizes)}")
    side_of = place_groups(sizes, seed, shares, notes)
    rows = {
        side: np.array([i for i, group in enumerate(groups) if side_of.get(group) == side], np.int64) for side in SIDES
    }
    if taken:
        rows["test"] = np.flatnonzero(official).astype(np.int64)
    return Split(**rows, seed=seed, notes=tuple(notes), names_hash="" if names is None else hash_names(names))


def hash_names(names: Sequence[str]) -> str:
    """SHA-256 over names in order, in hexadecimal."""
    return hashlib.sha256("\0".join(names).encode()).hexdigest()


def place_groups(sizes: dict[str, int], seed: int, shares: dict[str, float], notes: list[str]) -> dict[str, str]:
    """Side of each group; `sizes` are images per group, `shares` the hashed sides in order, training the rest."""
    at = {group: position(seed, group) for group in sizes}
    order = sorted(sizes, key=lambda group: (at[group], group))
    # In order of their hashes the groups of a side are neighbours: [validation | test | train].
    cuts = np.searchsorted([at[group] for group in order], np.cumsum(list(shares.values()))).tolist()
    start, placed = 0, {}
    for k, (side, share) in enumerate(shares.items()):
        # Leave one group for each side still to come.
        last = len(order) - (len(shares) - k)
        stop = min(max(cuts[k], start + 1), last)
        if stop != cuts[k]:
            notes.append(f"groups moved so that no side is empty: {side} has {stop - start} of {len(order)} groups")
        members = order[start:stop]
        start = stop
        limit = 2 * share * sum(sizes.values())
        given_back = 0
        while len(members) > 1 and sum(sizes[group] for group in members) > limit:
            members.pop()
            given_back += 1
        if given_back:
            notes.append(f"{given_back} groups given back to train: {side} had more than twice its share of images")
        placed.update(dict.fromkeys(members, side))
    return {group: placed.get(group, "train") for group in order}


def position(seed: int, group: str) -> float:
    """Where a group lies in [0, 1): uniform over groups, the same wherever and whenever it is asked."""
    digest = hashlib.sha256(f"{seed}\0{group}".encode()).digest()
    # 53 bits, so that the quotient is exact and below 1.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def check_fractions(fractions: tuple[float, float]) -> tuple[float, float]:
    """Shares of validation and test, in (0, 1) with a sum below 1."""
    try:
        validation, test = (float(fraction) for fraction in fractions)
    except (TypeError, ValueError):
        raise UsageError(f"fractions must be (validation, test), got {fractions!r}") from None
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise UsageError(f"fractions must be positive with a sum below 1, got {fractions!r}")
    return validation, test


def _rows(path: str | os.PathLike[str], side: str, value: Any) -> npt.NDArray[np.int64]:
    whole = isinstance(value, list) and all(type(row) is int and 0 <= row < 2**62 for row in value)
    if not whole or not value:
        raise DataError(f"{Path(path)}: expected row numbers for {side}, found {'none' if value == [] else 'others'}")
    return np.array(value, np.int64)
