"""Listing, checking and removing prepared subjects in the cache: ``brainkit data list`` and ``remove``."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainkit.data.folder import PREPARED
from brainkit.data.trials.prepared import prepared_home
from brainkit.errors import DataError, UsageError
from brainkit.utils.files import read_json
from brainkit.utils.text import nearest_name


@dataclass(frozen=True)
class CachedSubject:
    """A prepared subject in the cache, or an interrupted preparation.

    Attributes
    ----------
    folder : Path
    layout : str
        What it was prepared from, in words; "" for an interrupted preparation.
    images, columns : int
        Of the responses; 0 for an interrupted preparation.
    nbytes : int
        On disk.
    made : float
        Seconds since 1970.
    """

    folder: Path
    layout: str
    images: int
    columns: int
    nbytes: int
    made: float

    @property
    def name(self) -> str:
        """The name of its folder: the subject, and the start of a hash of what it was prepared from."""
        return self.folder.name


def list_prepared() -> list[CachedSubject]:
    """All prepared subjects and interrupted preparations in the cache, the newest first."""
    home = prepared_home()
    folders = [path for path in home.iterdir() if path.is_dir()] if home.is_dir() else []
    return sorted((_describe(folder) for folder in folders), key=lambda each: (-each.made, each.name))


def find_cached(names: Sequence[str]) -> list[CachedSubject]:
    """The prepared subjects of these names; the first characters are enough if they are unique.

    Raises
    ------
    UsageError
        If a name matches none, or several.
    """
    known = {each.name: each for each in list_prepared()}
    found = []
    for name in names:
        matches = [name] if name in known else [each for each in known if name and each.startswith(name)]
        if len(matches) != 1:
            reason = f"matches {len(matches)} prepared subjects" if matches else "no such prepared subject"
            raise UsageError(f"{name}: {reason}{nearest_name(name, known)}")
        found.append(known[matches[0]])
    return found


def check_cached(subject: CachedSubject) -> str:
    """What is wrong with a prepared subject's responses; "" if they are as they were written."""
    try:
        described = read_json(subject.folder / PREPARED)
        with (subject.folder / "responses.npy").open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (DataError, OSError) as error:
        return str(error)
    return "" if found == described.get("responses_sha256") else "responses.npy does not match its checksum"


def remove_cached(subject: CachedSubject) -> None:
    """Remove a prepared subject; it is prepared again when it is needed."""
    shutil.rmtree(subject.folder)


def _describe(folder: Path) -> CachedSubject:
    described: dict[str, Any] = {}
    with contextlib.suppress(DataError):
        described = read_json(folder / PREPARED)
    sizes = [path.lstat().st_size for path in folder.rglob("*")]  # of links, not of what they lead to
    images, columns = described.get("images", 0), described.get("columns", 0)
    return CachedSubject(folder, described.get("layout", ""), images, columns, sum(sizes), folder.stat().st_mtime)
