"""One image to be scored: where it lies, and how to get at it."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from brainkit.errors import DataError
from brainkit.predict.inputs import remote

# No image of that many bytes could be decoded in the memory that MAX_PIXELS allows; whatever says so lies.
MAX_BYTES = 2_000_000_000


@dataclass(frozen=True)
class ImageSource:
    """An image of a list: plain data, which travels to other processes and is opened there.

    Attributes
    ----------
    name : str
        As it was given, or found under what was given; ``shard.tar/member.jpg`` in a tar shard.
    place : str
        The file (or shard) itself: an absolute path or an address (``s3://...``).
    offset : int
        Where its bytes begin in a shard; -1: the file is the image.
    size : int
        Bytes; -1 where not known.
    problem : str, optional
        Why it cannot be read, where that is known from the list.
    """

    name: str
    place: str
    offset: int = -1
    size: int = -1
    problem: str | None = None

    def open(self) -> Path | BinaryIO:
        """What `brainkit.images.decode` reads: the path of a local file, else its bytes.

        Raises
        ------
        DataError
            If it cannot be read.
        """
        if self.problem is not None:
            raise DataError(self.problem)
        away = remote.is_address(self.place)
        if self.offset < 0 and not away:
            return Path(self.place)
        if self.size > MAX_BYTES:
            raise DataError(f"expected at most {MAX_BYTES:,} bytes, found {self.size:,}")
        if away:
            data = remote.read(self.place, self.offset, self.size)
        else:
            data = _read_part(self.place, self.offset, self.size)
        if 0 <= self.size != len(data):
            raise DataError(f"expected {self.size:,} bytes, found {len(data):,}: it is cut off, or has changed")
        return io.BytesIO(data)


def as_path(name: str) -> Path | str:
    """An image's name as a path; an address stays one."""
    return name if remote.is_address(name) else Path(name)


def _read_part(place: str, offset: int, size: int) -> bytes:
    try:
        with open(place, "rb", buffering=0) as file:
            if offset + size > os.fstat(file.fileno()).st_size:
                raise DataError(f"expected {size:,} bytes, found fewer: the shard is cut off")
            file.seek(offset)
            parts = []
            while size > 0 and (part := file.read(size)):
                parts.append(part)
                size -= len(part)
            return b"".join(parts)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}") from None
