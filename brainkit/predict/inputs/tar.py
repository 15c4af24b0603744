"""Tar shards in WebDataset's layout: which images are in them, and where. Nothing is ever unpacked to disk."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from brainkit.images import SUFFIXES
from brainkit.predict.inputs import remote
from brainkit.predict.inputs.image_source import MAX_BYTES, ImageSource

_MAX_HEADER = 16_000_000  # bytes; names and other headers of that size are an attack

_BLOCK = 512


class Shard:
    """A tar file that is looked through once, member by member.

    Attributes
    ----------
    others : int
        Members whose names do not end as images' do, once it has been looked through.
    first_other : str
        The first of them.
    """

    def __init__(self, name: str, place: str) -> None:
        self.name, self.place = name, place
        self.others, self.first_other = 0, ""

    def members(self) -> Iterator[ImageSource]:
        """Its images in the archive's order. What cannot be read comes too, with the problem said."""
        try:
            with remote.open_file(self.place) if remote.is_address(self.place) else open(self.place, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(0)
                yield from self._members(_Guarded(file), size)
        except Exception as error:  # tarfile raises nearly anything on damaged archives
            text = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
            yield self._broken(f"expected a tar archive, cannot be read on: {text}")

    def _members(self, file: _Guarded, size: int) -> Iterator[ImageSource]:
        # Uncompressed only: in a compressed one there is no way to a member but through all before it.
        with tarfile.open(fileobj=file, mode="r:") as archive:  # type: ignore[call-overload]
            before = -1
            while (member := archive.next()) is not None:
                archive.members = []  # it would keep them all
                if member.offset <= before:
                    raise tarfile.ReadError("its headers go round in a circle")
                before = member.offset
                if (source := self._source(member, size)) is not None:
                    yield source
            file.seek(archive.offset)  # where it stopped: at the blocks of zeros that end an archive, or at damage
            rest = file.read(_BLOCK)
            if rest.strip(b"\0"):
                raise tarfile.ReadError(f"there is no header at byte {archive.offset}")

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
            problem = "a link in a tar shard, which is not followed"
        elif not member.isreg() or member.issparse():
            problem = "expected a file in the tar shard, found a device or the like"
        elif member.size > MAX_BYTES:
            problem = f"expected at most {MAX_BYTES:,} bytes, found {member.size:,}"
        elif member.offset_data + member.size > size:
            problem = "the shard is cut off in it"
        return ImageSource(f"{self.name}/{member.name}", self.place, member.offset_data, member.size, problem)

    def _broken(self, problem: str) -> ImageSource:
        return ImageSource(self.name, self.place, -2, -1, problem)


class _Guarded:
    """A file of which nothing absurd can be asked, as a hostile header would have tarfile do."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return bytes(self._file.read(size))
