"""Splits that have a name: lists of images in a file, which come with the data or are a user's own."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from brainkit.data.subject import Subject
from brainkit.errors import DataError, UsageError
from brainkit.utils.files import read_json, users_path
from brainkit.utils.text import nearest_name

FILE = "splits.json"  # in a data folder: its own split, used by default
FOLDER = "splits"  # in a data folder: further splits, NAME.json
HASHED = "hashed"  # brainkit's own split, by hashes of the stimuli's names
ALGONAUTS = "algonauts"  # the official test images are the test side
_RESERVED = ("all", HASHED)


@dataclass(frozen=True, eq=False)
class NamedSplit:
    """Lists of images.

    Attributes
    ----------
    name : str
    lists : mapping of str to tuple of str
        ``train``, ``validation``, ``test``, as far as they are listed, and further test sets -> names of images.
    where : str
        For messages.
    strict : bool
        Whether every name must be an image of the data: lists that come with a data set may name images that a subject
        has not seen.
    """

    name: str
    lists: Mapping[str, tuple[str, ...]]
    where: str
    strict: bool = True

    @property
    def sha256(self) -> str:
        """Of the content: which names are in which list, in any order."""
        content = {side: sorted(set(names)) for side, names in self.lists.items()}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def find_split(subject: Subject, name: str = "") -> NamedSplit | None:
    """The split of a name; None if it is brainkit's own.

    Parameters
    ----------
    subject : Subject
    name : str
        A JSON file; or that of a file in ``splits`` of the data folder, ``laion:tau`` or ``laion-tau`` for
        ``splits/laion-tau.json``; ``algonauts``, whose test side are the official test images; ``hashed``; or "":
        ``splits.json`` of the data folder, else ``hashed``.

    Raises
    ------
    UsageError
        If there is no such split; suggests the nearest.
    DataError
        If a file cannot be read.
    """
    if name == HASHED:
        return None
    own = subject.root / FILE
    if not name:
        return read_split(own) if own.is_file() else None
    if name.lower().endswith(".json"):
        return read_split(own if name == FILE and not users_path(name).is_file() else users_path(name))
    files = split_files(subject)
    if safe_name(name) in files:
        return read_split(files[safe_name(name)], name, strict=False)
    if name == ALGONAUTS and subject.official_test.any():
        test = tuple(subject.names[row] for row in subject.official_test.nonzero()[0])
        return NamedSplit(name, {"test": test}, str(subject.root))
    known = [*files, HASHED, *([ALGONAUTS] if subject.official_test.any() else [])]
    where = subject.location or subject.root
    raise UsageError(f"split {name}: expected a split of {where}, or a JSON file{nearest_name(name, known)}")


def split_files(subject: Subject) -> dict[str, Path]:
    """Splits in ``splits`` of the data folder, by name."""
    return {file.stem: file for file in sorted((subject.root / FOLDER).glob("*.json"))}


def read_split(path: Path, name: str | None = None, *, strict: bool = True) -> NamedSplit:
    """Read a file of lists of images' names.

    Raises
    ------
    DataError
        If it is something else.
    """
    value = read_json(path)
    if not isinstance(value, dict) or not value:
        raise DataError(
            f'{path}: expected an object of lists, {{"train": [names of images], "test": ...}}, found others'
        )
    for side, images in value.items():
        if not isinstance(images, list) or not all(isinstance(image, str) and image for image in images):
            raise DataError(f"{path}: {side}: expected a list of images' names, found something else")
        if side in _RESERVED or not side.strip():
            raise DataError(f"{path}: expected other names of sets than {side!r}, which has a meaning of its own")
    lists = {side: tuple(images) for side, images in value.items()}
    return NamedSplit(name or path.name, lists, str(path), strict)


def safe_name(name: str) -> str:
    """A name as that of a file, which is safe on every file system: ``laion:tau`` is ``laion-tau``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)
