"""One image to predict: where its bytes are, and how to read them."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from brainkit.errors import ImageError
from brainkit.images import MAX_BYTES
from brainkit.predict.inputs import remote


@dataclass(frozen=True)
class ImageSource:
    """An image of a list: plain data that can be sent to another process and opened there.

    Attributes
    ----------
    name : str
        As given, or as found under what was given; ``shard.tar/member.jpg`` in a tar shard.
    file : str
        The image file, or the tar shard that holds it: an absolute path or a URL (``s3://...``).
    offset : int
        Where its bytes begin in a shard; -1: the file is the image.
    size : int
        Bytes; -1 if unknown.
    problem : str, optional
        Why it cannot be read, if that is known already.
    """

    name: str
    file: str
    offset: int = -1
    size: int = -1
    problem: str | None = None

    def open(self) -> Path | BinaryIO:
        """What `brainkit.images.decode` reads: the path of a local image file, otherwise the image's bytes.

        Raises
        ------
        ImageError
            If it cannot be read.
        """
        if self.problem is not None:
            raise ImageError(self.problem)
        is_remote = remote.is_url(self.file)
        if self.offset < 0 and not is_remote:
            return Path(self.file)
        if self.size > MAX_BYTES:
            raise ImageError(f"expected at most {MAX_BYTES:,} bytes, found {self.size:,}")
        data = (remote.read if is_remote else _read_range)(self.file, self.offset, self.size)
        if 0 <= self.size != len(data):
            raise ImageError(f"expected {self.size:,} bytes, found {len(data):,}: it is truncated, or has changed")
        return io.BytesIO(data)


def as_path(name: str) -> Path | str:
    """An image's name as a path; a URL stays text."""
    return name if remote.is_url(name) else Path(name)


def _read_range(file: str, offset: int, size: int) -> bytes:
    try:
        with open(file, "rb", buffering=0) as stream:
            if offset + size > os.fstat(stream.fileno()).st_size:
                raise ImageError(f"expected {size:,} bytes, found fewer: the shard is truncated")
            stream.seek(offset)
            parts = []
            while size > 0 and (part := stream.read(size)):
                parts.append(part)
                size -= len(part)
            return b"".join(parts)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from None
