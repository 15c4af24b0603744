"""Named sets of a subject's images, to score encoders on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.data.image_names import ImageNames, not_found
from brainkit.data.split_files import NamedSplit, find_split, safe_name, split_files
from brainkit.data.stimuli import short_hashes
from brainkit.data.subject import Subject
from brainkit.errors import DataError, UsageError
from brainkit.utils.files import read_json
from brainkit.utils.text import nearest_name, plural

ALL, TEST = "all", "test"
LEAST_IMAGES = 2  # that a correlation takes


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Some of a subject's images.

    Attributes
    ----------
    name : str
    rows : array of shape (n,), int64
        Increasing.
    """

    name: str
    rows: npt.NDArray[np.int64]

    def __repr__(self) -> str:
        return f"ImageSet({self.name!r}, {plural(len(self.rows), 'image')})"


def choose_sets(
    subject: Subject, chosen: Sequence[str], split: Mapping[str, np.ndarray] | None = None, split_name: str = ""
) -> list[ImageSet]:
    """The sets that a user names.

    Parameters
    ----------
    subject : Subject
    chosen : sequence of str
        Each is the first of these that there is: ``all``; ``train``, ``validation``, ``test`` or a further test set of
        an encoder's split; a list of ``splits.json`` of the data folder, or of the split by which the encoder was
        trained; the name of another split of the data (``laion:tau``): its test images; ``test``: the official test
        images, else all; or a JSON file: a list of images' names or rows, or an object of such lists, one for each set.
    split : mapping of str to array of int64, optional
        The sides of the encoder's split, as :func:`brainkit.data.stimuli.short_hashes` of their images.
    split_name : str
        The name of the encoder's split; "" if it follows from hashes, or is not known.

    Raises
    ------
    UsageError
        If a name is unknown, or two sets have the same name.
    DataError
        If a file does not list images of the subject, or a set has fewer than two.
    """
    own = _own_lists(subject, split_name)
    sets: dict[str, npt.NDArray[np.int64]] = {}
    for name in chosen:
        found = _named(subject, name, split, bool(split_name), own)
        if found is None and name.endswith(".json"):
            found = _read_file(subject, Path(name))
        if found is None:
            known = dict.fromkeys([*own, *split_files(subject), ALL, TEST, *(split or ())])
            where = subject.location or subject.root
            raise UsageError(
                f"split {name}: unknown; expected a set of {where}, or a JSON file{nearest_name(name, known)}"
            )
        if twice := sets.keys() & found.keys():
            raise UsageError(f"{min(twice)}: expected sets of different names, found two of this name")
        sets |= found
    for name, rows in sets.items():
        if len(rows) < LEAST_IMAGES:
            raise DataError(f"{subject.root}: expected at least {LEAST_IMAGES} images in {name}, found {len(rows)}")
    return [ImageSet(name, rows) for name, rows in sets.items()]


def _own_lists(subject: Subject, split_name: str) -> dict[str, NamedSplit]:
    """The lists that come with the data: the split that each is from, by its name."""
    files = split_files(subject)
    splits = [find_split(subject, split_name)] if safe_name(split_name) in files else []
    splits.append(find_split(subject))
    return {name: split for split in reversed(splits) if split is not None for name in split.lists}


def _named(
    subject: Subject, name: str, split: Mapping[str, np.ndarray] | None, is_named: bool, own: Mapping[str, NamedSplit]
) -> dict[str, npt.NDArray[np.int64]] | None:
    """A set that has a name; None if it is another name."""
    if name == ALL:
        return {name: np.arange(len(subject))}
    in_split = None
    # The default split of an encoder may be that of another subject, who had other official test images.
    official = name == TEST and not is_named and (name in own or bool(subject.official_test.any()))
    if split is not None and name in split and not official:
        in_split = np.flatnonzero(np.isin(short_hashes(subject.pixel_hashes), split[name]))
        if len(in_split):
            return {name: in_split}
    if name in own:
        return {name: _rows(subject, own[name].lists[name], f"{own[name].where}: {name}", strict=own[name].strict)}
    if safe_name(name) in split_files(subject):
        listed = find_split(subject, name)
        if listed is not None and TEST in listed.lists:
            return {name: _rows(subject, listed.lists[TEST], listed.where, strict=False)}
    if name != TEST:
        return None if in_split is None else {name: in_split}
    return {name: np.flatnonzero(subject.official_test) if subject.official_test.any() else np.arange(len(subject))}


def _read_file(subject: Subject, file: Path) -> dict[str, npt.NDArray[np.int64]]:
    value = read_json(file)
    lists = value if isinstance(value, dict) else {file.stem: value}
    return {name: _rows(subject, images, f"{file}: {name}") for name, images in lists.items()}


def _rows(subject: Subject, images: Any, where: str, *, strict: bool = True) -> npt.NDArray[np.int64]:
    is_list = isinstance(images, list | tuple)
    if is_list and all(type(each) is int for each in images):
        if outside := [row for row in images if not 0 <= row < len(subject)]:
            raise not_found([f"row {row}" for row in outside], where, subject.root)
        return np.unique(np.array(images, np.int64))
    if not is_list or not all(isinstance(each, str) for each in images):
        raise DataError(f"{where}: expected a list of images' names, or of rows, found {type(images).__name__}")
    found = ImageNames(subject).find(images, where)
    if strict and found.unknown:
        raise not_found(found.unknown, where, subject.root)
    return found.rows
