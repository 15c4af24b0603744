"""What images can be given as: files, folders, patterns, lists and tar shards, on this machine or at URLs (s3://...)."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from brainkit.errors import DataError, UsageError
from brainkit.images import SUFFIXES
from brainkit.predict.inputs import local, remote
from brainkit.predict.inputs.image_list import ImageList
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.predict.inputs.tar import Shard

STDIN = "-"
MAX_LINE = 65_536  # bytes; longer than any path
_CHUNK = 1 << 16
_RANGE = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")

ImagePaths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def list_images(images: ImagePaths) -> ImageList:
    """List the images that files, folders, patterns, lists, tar shards and URLs name.

    Parameters
    ----------
    images : path-like or iterable of path-like
        Files and folders, as `brainkit.images.find_images` takes them; patterns (``photos/**/*.jpg``); brace ranges
        (``shards-{000..010}.tar``); tar shards; lists (``@list``, or a ``.txt`` file: one path per line, relative to
        the list's folder); ``-`` for a list on standard input (relative to the working folder); and URLs that fsspec
        knows.

    Returns
    -------
    ImageList
        First the images that files, folders and patterns name, in the order of `find_images`; then lists and shards as
        given, each in its own order. No image twice.

    Raises
    ------
    UsageError
        If something does not exist, or no image is found.
    DataError
        If a folder or a list cannot be read.
    """
    arguments = _as_texts(images)
    if not arguments:
        raise UsageError("no images given; name image files or folders that contain some")
    found = ImageList()
    try:
        for part, text in enumerate(arguments, start=1):
            _Argument(found, part).add(text)
        found.sort()
        if not len(found):
            where = ", ".join(arguments[:3]) + (" ..." if len(arguments) > 3 else "")
            raise UsageError(f"{where}: no images found; expected files that end in {' '.join(sorted(SUFFIXES))}")
    except BaseException:
        found.close()
        raise
    return found


def _as_texts(images: Any) -> list[str]:
    """The paths as text. Images in memory are refused: they have no names for an output to list."""
    given = [images] if isinstance(images, str | os.PathLike) or not isinstance(images, Iterable) else images
    texts = []
    for path in given:
        if not isinstance(path, str | os.PathLike):
            raise UsageError(
                f"images must be a path or paths here, got {type(path).__name__}; images in memory can be given to the "
                "methods of an open encoder"
            )
        texts.append(os.fspath(path))
    return texts


class _Argument:
    """Adds to a list what one argument names. Lists and shards, which have an order, form the part of that number."""

    def __init__(self, images: ImageList, part: int) -> None:
        self._images, self._part = images, part
        self._ordered = 0

    def add(self, text: str) -> None:
        if text == STDIN:
            self._add_lines(sys.stdin.buffer, "standard input", ".")
            return
        text = _without_file_scheme(text)
        if remote.is_url(text):
            self._add_url(text)
        elif not self._add_path(Path(text)):
            self._add_notation(text)

    def _add_path(self, path: Path) -> bool:
        """Add the file or folder of exactly that name; False if there is none."""
        status = local.status_of(path)
        if status is None:
            return False
        if stat.S_ISDIR(status.st_mode):
            for image, found in local.walk(path, self._images):
                self._add_local_image(image, found)
        elif not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path}: expected an image file or a folder, found neither")
        elif path.suffix.lower() == ".txt":
            self._add_list(path)
        elif path.suffix.lower() == ".tar":
            self._add_shard(str(path))
        else:
            self._add_local_image(path, status)
        return True

    def _add_notation(self, text: str) -> None:
        """Add what ``@list``, a brace range or a pattern names."""
        if text.startswith("@"):
            if not Path(text[1:]).is_file():
                raise UsageError(f"{text[1:]}: no such list of images")
            self._add_list(Path(text[1:]))
        elif has_braces(text):
            for each in expand_braces(text):
                self.add(each)
        elif local.is_pattern(text):
            matched = False
            for path, status in local.glob(text, self._images):
                matched = True
                if path.suffix.lower() == ".tar":
                    self._add_shard(str(path), local.sort_key(path))
                elif status is not None and stat.S_ISDIR(status.st_mode):
                    self._add_path(path)
                else:
                    self._add_local_image(path, status)
            if not matched:
                raise UsageError(f"{text}: no file matches")
        else:
            raise UsageError(f"{text}: no such file or folder")

    def _add_list(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self._add_lines(file, str(path), str(path.parent))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None

    def _add_lines(self, file: BinaryIO, name: str, folder: str) -> None:
        # Lines are not checked here: one that names no image is reported when it is read, and ends nothing.
        for line in read_lines(file, name):
            path = _without_file_scheme(line)
            if not remote.is_url(path):
                path = f"{folder}/{path}" if remote.is_url(folder) else str(Path(folder, path))
            if _suffix(path) == ".tar":
                self._add_shard(path)
            elif remote.is_url(path):
                self._add_remote_image(path, key=self._next_key())
            else:
                self._add_local_image(Path(path), local.status_of(path), self._next_key())

    def _add_url(self, url: str) -> None:
        if has_braces(url):
            for each in expand_braces(url):
                self._add_url(each)
            return
        if local.is_pattern(url) and not url.startswith("http"):  # a question mark is common in a web address
            found = remote.glob(url)
            if not found:
                raise UsageError(f"{url}: no file matches")
            for each in found:
                self._add_url(each)
            return
        kind = remote.kind(url)
        if kind is None:
            raise UsageError(f"{url}: no such file or folder")
        if kind == "folder":
            self._add_remote_folder(url)
        elif _suffix(url) == ".tar":
            self._add_shard(url)
        elif _suffix(url) == ".txt":
            with remote.open_file(url) as file:
                self._add_lines(file, url, url.rpartition("/")[0])
        else:
            self._add_remote_image(url, *remote.stat(url))

    def _add_remote_folder(self, folder: str) -> None:
        others, first_other = 0, ""
        for url, size, stamp in remote.walk(folder):
            if PurePosixPath(url).name.startswith("."):
                continue
            if _suffix(url) in SUFFIXES:
                self._add_remote_image(url, size, stamp)
            else:
                others, first_other = others + 1, first_other or url
        if others:
            self._images.note_ignored(folder, others, "file", first_other)

    def _add_local_image(self, path: Path, status: os.stat_result | None, key: bytes | None = None) -> None:
        source = ImageSource(str(path), os.path.abspath(path), size=-1 if status is None else status.st_size)
        self._add_image(source, local.stamp_of(status), local.sort_key(path), key)

    def _add_remote_image(self, url: str, size: int = -1, stamp: str = "", key: bytes | None = None) -> None:
        self._add_image(ImageSource(url, url, size=size), stamp, local.sort_key(Path(url)), key)

    def _add_image(self, source: ImageSource, stamp: str, by_name: bytes, key: bytes | None) -> None:
        # Images without an order of their own form part 0, sorted by name.
        self._images.add(0 if key is None else self._part, by_name if key is None else key, source, stamp)

    def _add_shard(self, name: str, sort_first: bytes = b"") -> None:
        """Add a shard's images in the archive's order; shards as they come, or sorted by `sort_first`."""
        if remote.is_url(name):
            file, stamp = name, " ".join(map(str, remote.stat(name)))
        else:
            file, stamp = os.path.abspath(name), local.stamp_of(local.status_of(name))
        if not self._images.first_time(f"shard\0{file}"):
            self._images.note(name, "listed more than once; predicted once")
            return
        shard = Shard(name, file)
        for source in shard.members():
            if not self._images.first_time(f"member\0{file}\0{source.name}"):
                self._images.note(source.name, "several members of the shard have this name; each is predicted")
            self._images.add(self._part, sort_first + self._next_key(), source, stamp)
        if shard.others:
            self._images.note_ignored(name, shard.others, "member", shard.first_other)

    def _next_key(self) -> bytes:
        self._ordered += 1
        return self._ordered.to_bytes(8, "big")


def has_braces(text: str) -> bool:
    return bool(_RANGE.search(text) or _CHOICE.search(text))


def expand_braces(text: str) -> Iterator[str]:
    """``a-{000..010}.tar`` and ``{a,b}.png`` expanded, in order; leading zeros are kept."""
    match = min(
        filter(None, (_RANGE.search(text), _CHOICE.search(text))), key=lambda found: found.start(), default=None
    )
    if match is None:
        yield text
        return
    for each in _numbers(match[1], match[2]) if match.re is _RANGE else match[1].split(","):
        yield from expand_braces(f"{text[: match.start()]}{each}{text[match.end() :]}")


def _numbers(first: str, last: str) -> Iterator[str]:
    width = len(first) if first.startswith("0") or len(first) == len(last) else 0
    step = 1 if int(last) >= int(first) else -1
    for number in range(int(first), int(last) + step, step):
        yield f"{number:0{width}d}"


def read_lines(file: BinaryIO, name: str) -> Iterator[str]:
    """The paths of a list: one per line, or separated by zero bytes if it has some (``find -print0``).

    Raises
    ------
    DataError
        If a line is longer than any path: then the file is not a list.
    """
    rest = file.read(_CHUNK).removeprefix(b"\xef\xbb\xbf")
    end = b"\0" if b"\0" in rest else b"\n"
    while rest:
        *whole, rest = rest.split(end)
        for line in whole:
            if path := _decode_line(line, end):
                yield path
        if len(rest) > MAX_LINE:
            raise DataError(f"{name}: expected one path per line, found a line of more than {MAX_LINE:,} bytes")
        more = file.read(_CHUNK)
        if not more:
            if path := _decode_line(rest, end):
                yield path
            return
        rest += more


def _decode_line(line: bytes, end: bytes) -> str:
    return os.fsdecode(line.removesuffix(b"\r") if end == b"\n" else line)


def _without_file_scheme(text: str) -> str:
    for start in ("file://", "local://"):
        text = text.removeprefix(start)
    return text


def _suffix(text: str) -> str:
    path = text.split("?")[0] if text.startswith("http") else text
    return PurePosixPath(path).suffix.lower()
