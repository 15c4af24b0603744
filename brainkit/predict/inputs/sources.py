"""What can be scored: files, folders, patterns, lists, tar shards, and all of these elsewhere (``s3://...``)."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from brainkit.errors import DataError, UsageError
from brainkit.images import SUFFIXES
from brainkit.predict.inputs import remote
from brainkit.predict.inputs.finding import (
    counted,
    expand_braces,
    has_braces,
    is_pattern,
    lines,
    matches,
    sort_key,
    stamp_of,
    stat_of,
    walk,
)
from brainkit.predict.inputs.image_list import ImageList
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.predict.inputs.tar import Shard

STDIN = "-"

Images = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def list_images(images: Images) -> ImageList:
    """Collect the images that files, folders, patterns, lists, tar shards and addresses name.

    Parameters
    ----------
    images : path-like or iterable of path-like
        Files and folders, as `brainkit.images.find_images` takes them; patterns (``photos/**/*.jpg``), brace ranges
        (``shards-{000..010}.tar``), tar shards, lists (``@list``, or a ``.txt`` file: a path a line, relative to the
        list's folder), ``-`` for a list on standard input (relative to the working folder), and addresses that fsspec
        knows.

    Returns
    -------
    ImageList
        First what files, folders and patterns name, in the order of `find_images`; then lists and shards as they were
        given, each in its own order. No image twice.

    Raises
    ------
    UsageError
        If something does not exist, or nothing is found.
    DataError
        If a folder or a list cannot be read.
    """
    given = [os.fspath(images)] if isinstance(images, str | os.PathLike) else [os.fspath(path) for path in images]
    if not given:
        raise UsageError("no images given; name image files or folders that hold some")
    found = ImageList()
    try:
        for part, text in enumerate(given, start=1):
            _Argument(found, part).take(text)
        found.settle()
        if not len(found):
            where = ", ".join(given[:3]) + (" ..." if len(given) > 3 else "")
            raise UsageError(f"{where}: no images found; expected files that end in {' '.join(sorted(SUFFIXES))}")
    except BaseException:
        found.close()
        raise
    return found


class _Argument:
    """Adds to a list what one argument names. What comes in an order of its own is the list's part of that number."""

    def __init__(self, images: ImageList, part: int) -> None:
        self._images, self._part = images, part
        self._ordered = 0

    def take(self, text: str) -> None:
        if text == STDIN:
            self._take_lines(sys.stdin.buffer, "standard input", ".")
            return
        text = _without_file_scheme(text)
        if remote.is_address(text):
            self._take_address(text)
        elif not self._take_path(Path(text)):
            self._take_written_out(text)

    def _take_path(self, path: Path) -> bool:
        """Take a file or folder of that very name; False where there is none."""
        status = stat_of(path)
        if status is None:
            return False
        if stat.S_ISDIR(status.st_mode):
            for image, found in walk(path, self._images):
                self._add_file(image, found)
        elif not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path}: expected an image file or a folder, found neither")
        elif path.suffix.lower() == ".txt":
            self._take_list(path)
        elif path.suffix.lower() == ".tar":
            self._add_shard(str(path))
        else:
            self._add_file(path, status)
        return True

    def _take_written_out(self, text: str) -> None:
        """Take a list behind ``@``, a brace range or a pattern."""
        if text.startswith("@"):
            if not Path(text[1:]).is_file():
                raise UsageError(f"{text[1:]}: no such list of images")
            self._take_list(Path(text[1:]))
        elif has_braces(text):
            for each in expand_braces(text):
                self.take(each)
        elif is_pattern(text):
            anything = False
            for path, status in matches(text, self._images):
                anything = True
                if path.suffix.lower() == ".tar":
                    self._add_shard(str(path), sort_key(path))
                elif status is not None and stat.S_ISDIR(status.st_mode):
                    self._take_path(path)
                else:
                    self._add_file(path, status)
            if not anything:
                raise UsageError(f"{text}: no file matches")
        else:
            raise UsageError(f"{text}: no such file or folder")

    def _take_list(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self._take_lines(file, str(path), str(path.parent))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None

    def _take_lines(self, file: BinaryIO, name: str, folder: str) -> None:
        # What a line names is not looked for yet: a bad one is found out when it is read, and ends nothing.
        for line in lines(file, name):
            place = _without_file_scheme(line)
            if not remote.is_address(place):
                place = f"{folder}/{place}" if remote.is_address(folder) else str(Path(folder, place))
            if _suffix(place) == ".tar":
                self._add_shard(place)
            elif remote.is_address(place):
                self._add_address(place, key=self._next())
            else:
                self._add_file(Path(place), stat_of(place), self._next())

    def _take_address(self, text: str) -> None:
        if has_braces(text):
            for each in expand_braces(text):
                self._take_address(each)
            return
        if is_pattern(text) and not text.startswith("http"):  # a question mark is common in a web address
            found = remote.expand(text)
            if not found:
                raise UsageError(f"{text}: no file matches")
            for each in found:
                self._take_address(each)
            return
        kind = remote.kind(text)
        if kind is None:
            raise UsageError(f"{text}: no such file or folder")
        if kind == "folder":
            self._take_remote_folder(text)
        elif _suffix(text) == ".tar":
            self._add_shard(text)
        elif _suffix(text) == ".txt":
            with remote.open_file(text) as file:
                self._take_lines(file, text, text.rpartition("/")[0])
        else:
            self._add_address(text, *remote.describe(text))

    def _take_remote_folder(self, text: str) -> None:
        others, first = 0, ""
        for address, size, stamp in remote.walk(text):
            name = PurePosixPath(address).name
            if name.startswith("."):
                continue
            if _suffix(address) in SUFFIXES:
                self._add_address(address, size, stamp)
            else:
                others, first = others + 1, first or address
        if others:
            self._images.note(text, f"{counted(others, 'file')} left out, no images by their names; the first: {first}")

    def _add_file(self, path: Path, status: os.stat_result | None, key: bytes | None = None) -> None:
        source = ImageSource(str(path), os.path.abspath(path), size=-1 if status is None else status.st_size)
        self._add(source, stamp_of(status), sort_key(path), key)

    def _add_address(self, address: str, size: int = -1, stamp: str = "", key: bytes | None = None) -> None:
        self._add(ImageSource(address, address, size=size), stamp, sort_key(Path(address)), key)

    def _add(self, source: ImageSource, stamp: str, by_name: bytes, key: bytes | None) -> None:
        # What has no order of its own is the first part, sorted by name.
        self._images.add(0 if key is None else self._part, by_name if key is None else key, source, stamp)

    def _add_shard(self, name: str, before: bytes = b"") -> None:
        """Add a shard's images in the archive's order; shards as they come, or in the order of `before`."""
        if remote.is_address(name):
            place, stamp = name, " ".join(map(str, remote.describe(name)))
        else:
            place, stamp = os.path.abspath(name), stamp_of(stat_of(name))
        if not self._images.first_time(f"shard\0{place}"):
            self._images.note(name, "named more than once; scored once")
            return
        shard = Shard(name, place)
        for source in shard.members():
            if not self._images.first_time(f"member\0{place}\0{source.name}"):
                self._images.note(source.name, "there are several of that name in the shard; each is scored")
            self._images.add(self._part, before + self._next(), source, stamp)
        if shard.others:
            left = f"{counted(shard.others, 'member')} left out, no images by their names"
            self._images.note(name, f"{left}; the first: {shard.first_other}")

    def _next(self) -> bytes:
        self._ordered += 1
        return self._ordered.to_bytes(8, "big")


def _without_file_scheme(text: str) -> str:
    for start in ("file://", "local://"):
        text = text.removeprefix(start)
    return text


def _suffix(text: str) -> str:
    path = text.split("?")[0] if text.startswith("http") else text
    return PurePosixPath(path).suffix.lower()
