"""Names of files from names of maps, images, regions and subjects."""

from __future__ import annotations

import re
from collections.abc import Iterable

from brainkit.errors import UsageError

LONGEST = 200  # bytes: file systems take 255, and suffixes, numbers and temporary names come on top
PART = 80  # bytes of one of several parts of a name


def file_stem(name: str, longest: int = LONGEST) -> str:
    """A name as a file's, without its suffix: letters, digits, ``_``, ``-`` and ``.``, which is never the first.

    Parameters
    ----------
    name : str
        Any text.
    longest : int
        Bytes in UTF-8.
    """
    text = re.sub(r"[^\w.-]+", "_", name).lstrip(".") or "unnamed"
    return text.encode()[:longest].decode(errors="ignore")


def file_stems(names: Iterable[str]) -> list[str]:
    """The `file_stem` of each of the names that share a folder.

    Raises
    ------
    UsageError
        If two would be the same: one file would replace the other.
    """
    named: dict[str, str] = {}
    for name in names:
        stem = file_stem(name)
        if stem in named:
            both = name if name == named[stem] else f"{named[stem]} and {name}"
            raise UsageError(f"{both}: two files would be named {stem}; rename one, or write them to different folders")
        named[stem] = name
    return list(named)
