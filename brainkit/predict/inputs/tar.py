"""Tar shards in WebDataset's layout: which images they hold, and at which bytes. Nothing is unpacked to disk."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from brainkit.errors import DataError
from brainkit.images import MAX_BYTES, SUFFIXES
from brainkit.predict.inputs import remote
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.utils.file_kind import describe_kind
from brainkit.utils.text import one_line, plural

_MAX_HEADER = 16_000_000  # bytes; longer names and other headers are an attack

_BLOCK = 512
_CHUNK = 1 << 16
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd


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
    notes : list of str
        What else of the file is not read, found by the scan.
    """

    def __init__(self, name: str, file: str) -> None:
        self.name, self.file = name, file
        self.others, self.first_other = 0, ""
        self.notes: list[str] = []

    def members(self) -> Iterator[ImageSource]:
        """Its images in the archive's order. An unreadable one is included, with its problem."""
        try:
            with remote.open_in_parts(self.file) if remote.is_url(self.file) else open(self.file, "rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                yield from self._scan(_BoundedFile(stream), size)
        except DataError as error:
            yield self._problem(str(error))
        except Exception as error:  # tarfile raises nearly anything on damaged archives
            reason = one_line(getattr(error, "strerror", None) or error)
            yield self._problem(f"expected a tar archive, cannot be read further: {reason}")

    def _problem(self, reason: str) -> ImageSource:
        return ImageSource(self.name, self.file, -2, -1, reason)

    def _scan(self, stream: _BoundedFile, size: int) -> Iterator[ImageSource]:
        """The images of an archive, and of those appended to it (``cat a.tar b.tar``)."""
        start: int | None = 0
        while start is not None:
            stream.seek(start)
            with _open(stream, size) as archive:
                yield from self._members(archive, size)
                # Where tarfile stopped: at the zeros that end an archive, or at damage.
                start = self._next_archive(stream, start, archive.offset, size)

    def _members(self, archive: tarfile.TarFile, size: int) -> Iterator[ImageSource]:
        previous = -1
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
            if member.offset <= previous:
                raise tarfile.ReadError("its headers form a loop")
            previous = member.offset
            if (source := self._source(member, size)) is not None:
                yield source

    def _next_archive(self, stream: _BoundedFile, start: int, end: int, size: int) -> int | None:
        """Where the next archive starts, if there is something behind the zeros that end this one."""
        position = _first_nonzero(stream, end)
        if position is None:
            if end >= size:
                self.notes.append("has no end-of-archive mark, and may be incomplete")
            return None
        if position - end >= _BLOCK:
            return position
        if end == start:
            self.notes.append(f"{plural(size - end, 'byte')} behind the end of the archive are not read")
            return None
        if size - end < _BLOCK:
            raise tarfile.ReadError("the file is cut off within a header")
        raise tarfile.ReadError(f"no header at byte {end}")

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


def _open(stream: _BoundedFile, size: int) -> tarfile.TarFile:
    start = stream.tell()
    try:
        # Uncompressed only: a compressed archive has no way to a member except through all before it.
        return tarfile.open(fileobj=stream, mode="r:")  # type: ignore[call-overload, no-any-return]
    except tarfile.ReadError:
        stream.seek(start)
        head = stream.read(_BLOCK)
        kind = describe_kind(head, size) or "other or damaged content"
        advice = "; decompress it first" if head.startswith(_COMPRESSED) else ""
        raise DataError(f"expected a tar archive, found {kind}{advice}") from None


def _first_nonzero(stream: _BoundedFile, position: int) -> int | None:
    """Position of the first byte from there on that is not zero; None if there is none."""
    stream.seek(position)
    while chunk := stream.read(_CHUNK):
        if rest := chunk.lstrip(b"\0"):
            return position + len(chunk) - len(rest)
        position += len(chunk)
    return None


class _BoundedFile:
    """A file that refuses to read as much at once as a hostile header asks for."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return bytes(self._stream.read(size))
