"""Looking for image files: folders, patterns and lists, read as they come, so that no folder is too large."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from brainkit.errors import DataError
from brainkit.images import SUFFIXES
from brainkit.predict.inputs.image_list import ImageList

MAX_LINE = 65_536  # bytes; no path is as long
_CHUNK = 1 << 16
_ANY_DEPTH = "**"
_RANGE = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")

Found = tuple[Path, os.stat_result | None]


def stat_of(path: str | os.PathLike[str]) -> os.stat_result | None:
    """What the system says of a file, links followed; None where there is none, or it cannot be asked."""
    with contextlib.suppress(OSError, ValueError):
        return os.stat(path)
    return None


def stamp_of(status: os.stat_result | None) -> str:
    """Changes when the file does."""
    return "" if status is None else f"{status.st_size} {status.st_mtime_ns}"


def walk(folder: Path, images: ImageList) -> Iterator[Found]:
    """Image files below a folder, links followed, no folder twice; hidden ones are left out.

    Files that are no images by their names are counted, and noted in `images`.

    Raises
    ------
    DataError
        If a folder cannot be listed.
    """
    others, first = 0, ""
    for here, entries in _folders(folder, images, "walk", lambda parts: True):
        for entry, is_folder in entries:
            if is_folder or entry.name.startswith("."):
                continue
            path = here / entry.name
            status = stat_of(path)
            # A link to nothing is kept, so that it is reported as unreadable and not lost in silence.
            kept = entry.is_symlink() if status is None else stat.S_ISREG(status.st_mode)
            if kept and path.suffix.lower() in SUFFIXES:
                yield path, status
            else:
                others, first = others + 1, first or str(path)
    if others:
        images.note(str(folder), f"{counted(others, 'file')} left out, no images by their names; the first: {first}")


def matches(pattern: str, images: ImageList) -> Iterator[Found]:
    """What a pattern names, as a shell would find it; ``**`` is any number of folders, and then folders do not match.

    Hidden names are found only where the pattern itself begins with a dot. No folder is entered twice.
    """
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if _is_magic(part))
    base, wanted = Path(*parts[:fixed]), parts[fixed:]
    if not base.is_dir():
        return
    for here, entries in _folders(base, images, f"glob {pattern}", lambda below: _fits(below, wanted, partly=True)):
        below = here.parts[len(base.parts) :]
        for entry, is_folder in entries:
            if not (is_folder and _ANY_DEPTH in wanted) and _fits((*below, entry.name), wanted, partly=False):
                path = here / entry.name
                yield path, stat_of(path)


def is_pattern(text: str) -> bool:
    return any(_is_magic(part) for part in Path(text).parts)


def expand_braces(text: str) -> Iterator[str]:
    """``a-{000..010}.tar`` and ``{a,b}.png`` written out, in order; leading zeros are kept."""
    match = min(
        filter(None, (_RANGE.search(text), _CHOICE.search(text))), key=lambda found: found.start(), default=None
    )
    if match is None:
        yield text
        return
    for each in _numbers(match[1], match[2]) if match.re is _RANGE else match[1].split(","):
        yield from expand_braces(f"{text[: match.start()]}{each}{text[match.end() :]}")


def has_braces(text: str) -> bool:
    return bool(_RANGE.search(text) or _CHOICE.search(text))


def lines(file: BinaryIO, name: str) -> Iterator[str]:
    """The paths of a list: one a line, or ended by zero bytes where there are some (``find -print0``).

    Raises
    ------
    DataError
        If a line is longer than any path, as in a file that is no list.
    """
    rest = file.read(_CHUNK).removeprefix(b"\xef\xbb\xbf")
    end = b"\0" if b"\0" in rest else b"\n"
    while rest:
        *whole, rest = rest.split(end)
        for line in whole:
            if path := _line(line, end):
                yield path
        if len(rest) > MAX_LINE:
            raise DataError(f"{name}: expected one path a line, found a line of more than {MAX_LINE:,} bytes")
        more = file.read(_CHUNK)
        if not more:
            if path := _line(rest, end):
                yield path
            return
        rest += more


def _numbers(first: str, last: str) -> Iterator[str]:
    width = len(first) if first.startswith("0") or len(first) == len(last) else 0
    step = 1 if int(last) >= int(first) else -1
    for number in range(int(first), int(last) + step, step):
        yield f"{number:0{width}d}"


def sort_key(path: Path) -> bytes:
    """Orders paths part by part, as `brainkit.images.find_images` does."""
    return "\0".join(path.parts).encode("utf-8", "surrogatepass")


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _line(line: bytes, end: bytes) -> str:
    return os.fsdecode(line.removesuffix(b"\r") if end == b"\n" else line)


def _folders(
    folder: Path, images: ImageList, walk: str, enter: Callable[[tuple[str, ...]], bool]
) -> Iterator[tuple[Path, Iterator[tuple[os.DirEntry[str], bool]]]]:
    """Folders from `folder` down, a folder's own subfolders in order, each with what it holds, read as it comes."""
    images.push_folder(walk, str(folder))
    while (text := images.pop_folder(walk)) is not None:
        here = Path(text)
        if images.first_time(f"{walk}\0{os.path.realpath(here)}"):
            below: list[str] = []
            yield here, _listed(here, below)
            for name in sorted(below, reverse=True):
                if enter((*here.parts[len(folder.parts) :], name)):
                    images.push_folder(walk, str(here / name))


def _listed(folder: Path, below: list[str]) -> Iterator[tuple[os.DirEntry[str], bool]]:
    """What a folder holds, and whether it is a folder; the names of those that are not hidden go into `below`."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                is_folder = False
                with contextlib.suppress(OSError):  # a link that leads nowhere
                    is_folder = entry.is_dir()
                if is_folder and not entry.name.startswith("."):
                    below.append(entry.name)
                yield entry, is_folder
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from None


def _is_magic(part: str) -> bool:
    return any(sign in part for sign in "*?[")


def _fits(parts: tuple[str, ...], wanted: tuple[str, ...], *, partly: bool) -> bool:
    """Whether a path fits a pattern; `partly`: whether something below it may."""
    if not wanted or not parts:
        return not parts and (partly or all(part == _ANY_DEPTH for part in wanted))
    if wanted[0] == _ANY_DEPTH:
        if len(wanted) > 1 and _fits(parts, wanted[1:], partly=partly):
            return True
        return not parts[0].startswith(".") and _fits(parts[1:], wanted, partly=partly)
    if parts[0].startswith(".") and not wanted[0].startswith("."):
        return False
    return fnmatch.fnmatchcase(parts[0], wanted[0]) and _fits(parts[1:], wanted[1:], partly=partly)
