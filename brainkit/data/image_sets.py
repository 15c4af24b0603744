"""Named sets of a subject's images, to score encoders on."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.data.split import SIDES
from brainkit.data.stimuli import short_hashes
from brainkit.data.subject import Subject
from brainkit.errors import DataError, UsageError
from brainkit.utils.files import read_json
from brainkit.utils.text import plural

FILE = "image_sets.json"  # in a subject's folder: its own sets
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
    subject: Subject, chosen: Sequence[str], split: Mapping[str, np.ndarray] | None = None
) -> list[ImageSet]:
    """The sets that a user names.

    Parameters
    ----------
    subject : Subject
    chosen : sequence of str
        Each is a set of the data's own (a name in ``image_sets.json`` of the subject's folder); ``all``; ``test``: the
        official test images, else those of an encoder's split, else all; ``train`` or ``validation`` of its split; or a
        JSON file: a list of images' names or rows, or an object of such lists, one for each set.
    split : mapping of str to array of int64, optional
        The sides of the encoder's split, as :func:`brainkit.data.stimuli.short_hashes` of their images.

    Raises
    ------
    UsageError
        If a name is unknown, or two sets have the same name.
    DataError
        If a file does not list images of the subject, or a set has fewer than two.
    """
    own = _read_sets(subject, subject.root / FILE) if (subject.root / FILE).is_file() else {}
    sets: dict[str, npt.NDArray[np.int64]] = {}
    for name in chosen:
        found = {name: own[name]} if name in own else _named(subject, name, split)
        if found is None:
            found = _read_sets(subject, Path(name)) if name.endswith(".json") else None
        if found is None:
            raise UsageError(_unknown(subject, name, [*own, ALL, TEST, *(SIDES[:2] if split else ())]))
        if twice := sets.keys() & found.keys():
            raise UsageError(f"{min(twice)}: expected sets of different names, found two of this name")
        sets |= found
    for name, rows in sets.items():
        if len(rows) < LEAST_IMAGES:
            raise DataError(f"{subject.root}: expected at least {LEAST_IMAGES} images in {name}, found {len(rows)}")
    return [ImageSet(name, rows) for name, rows in sets.items()]


def _named(
    subject: Subject, name: str, split: Mapping[str, np.ndarray] | None
) -> dict[str, npt.NDArray[np.int64]] | None:
    """A set that has a name of brainkit's own; None if it is another name."""
    if name == ALL or (name == TEST and split is None and not subject.official_test.any()):
        return {name: np.arange(len(subject))}
    if name == TEST and subject.official_test.any():
        return {name: np.flatnonzero(subject.official_test)}
    if split is None or name not in SIDES:
        return None
    rows = np.flatnonzero(np.isin(short_hashes(subject.pixel_hashes), split[name]))
    return {name: np.arange(len(subject)) if name == TEST and not len(rows) else rows}


def _read_sets(subject: Subject, file: Path) -> dict[str, npt.NDArray[np.int64]]:
    value = read_json(file)
    lists = value if isinstance(value, dict) else {file.stem: value}
    rows_of: dict[str, int] = {}
    for row, (name, path) in enumerate(zip(subject.names, subject.images, strict=True)):
        rows_of |= {name: row, path.name: row}
    return {name: _rows(subject, rows_of, images, f"{file}: {name}") for name, images in lists.items()}


def _rows(subject: Subject, rows_of: dict[str, int], images: Any, where: str) -> npt.NDArray[np.int64]:
    numbers = isinstance(images, list) and all(type(each) is int for each in images)
    if not numbers and not (isinstance(images, list) and all(isinstance(each, str) for each in images)):
        raise DataError(f"{where}: expected a list of images' names, or of rows, found {type(images).__name__}")
    known = range(len(subject)) if numbers else rows_of
    if unknown := [each for each in images if each not in known]:
        what = f"row {unknown[0]}" if numbers else f"{unknown[0]!r}"
        more = f" and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
        raise DataError(f"{where}: expected images of {subject.root}, found {what}{more}")
    return np.unique(np.array(images if numbers else [rows_of[each] for each in images], np.int64))


def _unknown(subject: Subject, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    where = f"{subject.root}{os.sep}{FILE}"
    return f"split {name}: unknown; {hint}expected {', '.join(known)}, a name in {where}, or a JSON file"
