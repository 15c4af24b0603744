"""Tar shards in WebDataset's layout: which images they hold, and at which bytes. Nothing is unpacked to disk."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from brainkit.images import MAX_BYTES, SUFFIXES
from brainkit.predict.inputs import remote
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.utils.text import one_line

_MAX_HEADER = 16_000_000  # bytes; longer names and other headers are an attack

_BLOCK = 512


class Shard:
    """A tar file that is scanned once, member by member.

    Parameters
    ----------
    name : str
        As given.
    file : str
        Absolute path or URL.

    Attributes
    ----------
    others : int
        Members that are not images by their names, counted by the scan.
    first_other : str
        The first of them.
    """

    def __init__(self, name: str, file: str) -> None:
        self.name, self.file = name, file
        self.others, self.first_other = 0, ""

    def members(self) -> Iterator[ImageSource]:
        """Its images in the archive's order. An unreadable one is included, with its problem."""
        try:
            with remote.open_file(self.file) if remote.is_url(self.file) else open(self.file, "rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(0)
                yield from self._scan(_BoundedFile(stream), size)
        except Exception as error:  # tarfile raises nearly anything on damaged archives
            reason = one_line(getattr(error, "strerror", None) or error)
            yield ImageSource(self.name, self.file, -2, -1, f"expected a tar archive, cannot be read further: {reason}")

    def _scan(self, stream: _BoundedFile, size: int) -> Iterator[ImageSource]:
        # Uncompressed only: a compressed archive has no way to a member except through all before it.
        with tarfile.open(fileobj=stream, mode="r:") as archive:  # type: ignore[call-overload]
            previous = -1
            while (member := archive.next()) is not None:
                archive.members = []  # tarfile would keep them all
                if member.offset <= previous:
                    raise tarfile.ReadError("its headers form a loop")
                previous = member.offset
                if (source := self._source(member, size)) is not None:
                    yield source
            stream.seek(archive.offset)  # where tarfile stopped: at the zeros that end an archive, or at damage
            if stream.read(_BLOCK).strip(b"\0"):
                raise tarfile.ReadError(f"no header at byte {archive.offset}")

    def _source(self, member: tarfile.TarInfo, size: int) -> ImageSource | None:
        if member.isdir():
            return None
        path = PurePosixPath(member.name)
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            self.others += 1
            self.first_other = self.first_other or member.name
            return None
        problem = None
        if member.issym() or member.islnk():
            problem = "a link in a tar shard; links are not followed"
        elif not member.isreg() or member.issparse():
            problem = "expected a regular file in the tar shard, found a device, pipe or sparse file"
        elif member.size > MAX_BYTES:
            problem = f"expected at most {MAX_BYTES:,} bytes, found {member.size:,}"
        elif member.offset_data + member.size > size:
            problem = "the shard is truncated within it"
        return ImageSource(f"{self.name}/{member.name}", self.file, member.offset_data, member.size, problem)


class _BoundedFile:
    """A file that refuses to read as much at once as a hostile header asks for."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return bytes(self._stream.read(size))
