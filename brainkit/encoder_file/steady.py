"""One file, checked and then opened by another library: seen to be the same all the while."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from brainkit.errors import EncoderFileError


@contextlib.contextmanager
def steady(path: str | os.PathLike[str]) -> Iterator[None]:
    """Refuse a file that is replaced or written to between its check and its use.

    ONNX Runtime opens a file by its path. Giving it the bytes that were checked would hold the file in memory twice
    for as long as the session lives, so what the system knows of the file is compared instead: device, number, size,
    and both times, of which nobody but the administrator can set the second back.

    Raises
    ------
    EncoderFileError
        At the end of the block, if it changed.
    """
    before = seen(path)
    yield
    if before is not None and seen(path) != before:
        raise EncoderFileError(f"{path}: changed while it was being opened")


def seen(path: str | os.PathLike[str]) -> tuple[int, ...] | None:
    """What the system knows of a file; None where it cannot be looked at; who opens it then says why."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
