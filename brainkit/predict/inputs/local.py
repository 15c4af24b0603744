"""Image files on this machine: folders and patterns, read as they are listed, so that no folder is too large."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from brainkit.errors import DataError
from brainkit.images import SUFFIXES
from brainkit.predict.inputs.image_list import ImageList

_ANY_DEPTH = "**"

Found = tuple[Path, os.stat_result | None]


def status_of(path: str | os.PathLike[str]) -> os.stat_result | None:
    """The status of a file, links followed; None if it does not exist or cannot be looked up."""
    with contextlib.suppress(OSError, ValueError):
        return os.stat(path)
    return None


def stamp_of(status: os.stat_result | None) -> str:
    """Text that changes when the file does."""
    return "" if status is None else f"{status.st_size} {status.st_mtime_ns}"


def sort_key(path: Path) -> bytes:
    """Orders paths part by part, as `brainkit.images.find_images` does."""
    return "\0".join(path.parts).encode("utf-8", "surrogatepass")


def walk(folder: Path, images: ImageList, search: str) -> Iterator[Found]:
    """Image files below a folder, links followed, no folder twice in a search; hidden files are left out.

    Files whose names are not those of images are counted, and noted in `images`.

    Raises
    ------
    DataError
        If a folder cannot be listed.
    """
    others, first_other = 0, ""
    for parent, entries in _folders(folder, images, search, lambda parts: True):
        for entry, is_folder in entries:
            if is_folder or entry.name.startswith("."):
                continue
            path = parent / entry.name
            status = status_of(path)
            # A broken link is kept, so that it is reported as unreadable and not dropped silently.
            kept = entry.is_symlink() if status is None else stat.S_ISREG(status.st_mode)
            if kept and path.suffix.lower() in SUFFIXES:
                yield path, status
            else:
                others, first_other = others + 1, first_other or str(path)
    if others:
        images.note_ignored(str(folder), others, "file", first_other)


def is_pattern(text: str) -> bool:
    return any(_is_magic(part) for part in Path(text).parts)


def glob(pattern: str, images: ImageList, search: str) -> Iterator[Found]:
    """What a pattern matches, as in a shell; ``**`` is any number of folders, and then folders do not match.

    Hidden names match only where the pattern itself begins with a dot. No folder is entered twice in a search.
    """
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if _is_magic(part))
    base, wanted = Path(*parts[:fixed]), parts[fixed:]
    if not base.is_dir():
        return
    for folder, entries in _folders(base, images, search, lambda below: _fits(below, wanted, prefix=True)):
        below = folder.parts[len(base.parts) :]
        for entry, is_folder in entries:
            if not (is_folder and _ANY_DEPTH in wanted) and _fits((*below, entry.name), wanted, prefix=False):
                path = folder / entry.name
                yield path, status_of(path)


def _folders(
    top: Path, images: ImageList, search: str, enter: Callable[[tuple[str, ...]], bool]
) -> Iterator[tuple[Path, Iterator[tuple[os.DirEntry[str], bool]]]]:
    """Folders from `top` down, the subfolders of each in order, each with its entries, listed as they are read."""
    images.push_folder(search, str(top))
    while (text := images.pop_folder(search)) is not None:
        folder = Path(text)
        if images.first_time(f"{search}\0{os.path.realpath(folder)}"):
            below: list[str] = []
            yield folder, _list_folder(folder, below)
            for name in sorted(below, reverse=True):
                if enter((*folder.parts[len(top.parts) :], name)):
                    images.push_folder(search, str(folder / name))


def _list_folder(folder: Path, below: list[str]) -> Iterator[tuple[os.DirEntry[str], bool]]:
    """The entries of a folder, each with whether it is a folder; names of visible subfolders are added to `below`."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                is_folder = False
                with contextlib.suppress(OSError):  # a broken link
                    is_folder = entry.is_dir()
                if is_folder and not entry.name.startswith("."):
                    below.append(entry.name)
                yield entry, is_folder
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from None


def _is_magic(part: str) -> bool:
    return any(sign in part for sign in "*?[")


def _fits(parts: tuple[str, ...], wanted: tuple[str, ...], *, prefix: bool) -> bool:
    """Whether a path fits a pattern; `prefix`: whether something below it may."""
    if not wanted or not parts:
        return not parts and (prefix or all(part == _ANY_DEPTH for part in wanted))
    if wanted[0] == _ANY_DEPTH:
        if len(wanted) > 1 and _fits(parts, wanted[1:], prefix=prefix):
            return True
        return not parts[0].startswith(".") and _fits(parts[1:], wanted, prefix=prefix)
    if parts[0].startswith(".") and not wanted[0].startswith("."):
        return False
    return fnmatch.fnmatchcase(parts[0], wanted[0]) and _fits(parts[1:], wanted[1:], prefix=prefix)
