"""What images can be given as: files, folders, patterns, lists and tar shards, on this machine or at URLs (s3://...)."""

from __future__ import annotations

import functools
import os
import stat
import sys
import urllib.parse
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from brainkit.errors import DataError, UsageError
from brainkit.images import SUFFIXES
from brainkit.predict.inputs import local, remote
from brainkit.predict.inputs.braces import expand_braces, has_braces
from brainkit.predict.inputs.figures import is_figure
from brainkit.predict.inputs.image_list import ImageList
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.predict.inputs.lines import read_lines
from brainkit.predict.inputs.other_files import advice_for
from brainkit.predict.inputs.tar import Shard
from brainkit.utils.text import plural

STDIN = "-"
_IMAGE_SUFFIXES = tuple(SUFFIXES)
ORDERS = ("given", "sorted", "any")

ImagePaths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def list_images(
    images: ImagePaths, *, order: str = "given", own_sheets: str | os.PathLike[str] | None = None
) -> ImageList:
    """List the images that files, folders, patterns, lists, tar shards and URLs name.

    Parameters
    ----------
    images : path-like or iterable of path-like
        Files; folders, searched as `brainkit.images.find_images` does; patterns (``photos/**/*.jpg``); brace ranges
        (``shards-{000..010}.tar``); tar shards; lists (``@list``, or a ``.txt`` file: one path per line, relative to
        the list's folder); ``-`` for a list on standard input (relative to the working folder); and URLs that fsspec
        knows.
    order : {"given", "sorted", "any"}
        ``given``: one after the other, and what is given twice comes twice; a folder's or pattern's images are sorted.
        ``sorted``, as on the command line: first the images that files, folders and patterns name, sorted, each once;
        then shards, each once, and lists, one image per line, as given. ``any``, for what does not depend on the order:
        as ``sorted``, but every image once, also if a list repeats it.
    own_sheets : path-like, optional
        How the paths of contact sheets begin that are to be written (``fmri-top-``): these are no images, even if the
        shell's ``*.png`` names them.

    Returns
    -------
    ImageList
        Figures that brainkit itself drew are not in it, unless they are named.

    Raises
    ------
    UsageError
        If something does not exist, or no image is found, only other kinds of files.
    DataError
        If a folder or a list cannot be read.
    """
    if order not in ORDERS:
        raise UsageError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")
    arguments = _as_texts(images)
    if not arguments:
        raise UsageError("no images given; name image files or folders that contain some")
    found = ImageList()
    try:
        search = _Search(found, sort_paths=order != "given", repeats=order != "any")
        for part, text in enumerate(arguments, start=1):
            search.add(part, text)
        _sort_out_figures(found, None if own_sheets is None else os.path.abspath(own_sheets))
        found.sort(check_order=order != "any")
        if not len(found):
            where = ", ".join(arguments[:3]) + (" ..." if len(arguments) > 3 else "")
            raise UsageError(f"{where}: no images found{_found_instead(found)}")
        if (first_problem := found.only_problems()) is not None:
            raise UsageError(f"{first_problem.name}: {first_problem.problem}")
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


def listed_images(images: str | os.PathLike[str]) -> list[Path | ImageSource]:
    """The images that a path names, as `list_images` lists them, in memory; its remarks are warnings."""
    found = list_images(images)
    for remark in found.remarks():
        warnings.warn(remark, stacklevel=2)
    return [
        source if source.offset != -1 or remote.is_url(source.file) else Path(source.name)
        for source in found.entries(0, len(found))
    ]


def at_address(path: str) -> str | ImageSource:
    """The image at a path, at a ``file://`` address or at a URL."""
    path = without_file_scheme(path)
    return ImageSource(path, path) if remote.is_url(path) else path


def _sort_out_figures(images: ImageList, own_sheets: str | None) -> None:
    """Remove figures that brainkit drew, but for those that are named; note either."""
    ignored, predicted = [], []
    for number, name, file, is_named in images.figures():
        if is_named and not (own_sheets is not None and file.startswith(own_sheets)):
            predicted.append(name)
        else:
            images.remove(number)
            ignored.append(name)
    for names, what in (
        (ignored, "ignored{}; name a figure to predict it"),
        (predicted, "predicted{} because it is named; a folder, or a pattern in quotes, leaves figures out"),
    ):
        if names:
            more = f" (and {len(names) - 1:,} more)" if len(names) > 1 else ""
            images.note(names[0], f"a figure drawn by brainkit, {what.format(more)}", say=True)


def _found_instead(images: ImageList) -> str:
    """The end of the error that no image was found: the first thing there, and how to get to images."""
    expected = f"expected files that end in {' '.join(sorted(SUFFIXES))}"
    first = images.first_ignored
    if not first:
        return "; ".join(["", *(f"{name}: {note}" for name, note in images.notes()), expected])
    if _suffix(first) in (".tar", ".txt"):
        return f"; {first} is read if it is named, or by a pattern: '*{_suffix(first)}'"
    return f"; {expected}, found {first}" + ("" if (advice := advice_for(first)) is None else f": {advice}")


class _Search:
    """Adds to a list what arguments name, one after the other; each is a part of the list.

    Parameters
    ----------
    images : ImageList
    sort_paths : bool
        Images without an order of their own form part 0, sorted by name, each once; shards come once.
    repeats : bool
        Whether lists may repeat images.
    """

    def __init__(self, images: ImageList, *, sort_paths: bool, repeats: bool) -> None:
        self._images, self._sort_paths = images, sort_paths
        self._paths_once, self._lines_once = sort_paths, not repeats
        self._part = self._ordered = 0
        self._real_folder = functools.lru_cache(maxsize=1024)(os.path.realpath)

    def add(self, part: int, text: str) -> None:
        self._part = part
        self._add_text(text)

    def _add_text(self, text: str) -> None:
        if text == STDIN:
            self._add_lines(sys.stdin.buffer.read, "standard input", ".")
            return
        text = without_file_scheme(text)
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
            for image, found in local.walk(path, self._images, f"{self._part} walk"):
                self._add_local_image(image, found, is_named=False)
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
                self._add_text(each)
        elif local.is_pattern(text):
            matched = False
            for path, status in local.glob(text, self._images, f"{self._part} glob {text}"):
                matched = True
                if path.suffix.lower() == ".tar":
                    self._add_shard(str(path), local.sort_key(path))
                elif status is not None and stat.S_ISDIR(status.st_mode):
                    self._add_path(path)
                else:
                    self._add_local_image(path, status, is_named=False)
            if not matched:
                raise UsageError(f"{text}: no file matches")
        else:
            raise UsageError(f"{text}: no such file or folder")

    def _add_list(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self._add_lines(file.read, str(path), str(path.parent))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None

    def _add_lines(self, read: Callable[[int], bytes], name: str, folder: str) -> None:
        # Lines are not checked here: one that names no image is reported when it is read, and ends nothing.
        which, number, lines, any_exists = self._images.add_list(name), 0, 0, False
        for number, text in read_lines(read, name):
            lines += 1
            path, line = without_file_scheme(text), (which, number)
            if not remote.is_url(path):
                path = f"{folder}/{path}" if remote.is_url(folder) else str(Path(folder, path))
            is_url = remote.is_url(path)
            status = None if is_url else local.status_of(path)
            any_exists = any_exists or is_url or status is not None
            if _suffix(path) == ".tar":
                self._add_shard(path, line=line)
            elif is_url:
                self._add_remote_image(path, line=line)
            else:
                self._add_local_image(Path(path), status, line=line)
        self._images.end_list(which, number, number - lines)
        if lines and not any_exists:
            advice = f"a line is a path relative to the folder of the list ({folder}), or an absolute one"
            self._images.note(name, f"none of its {plural(lines, 'line')} names a file that exists; {advice}", say=True)
        if number > lines:
            self._images.note(name, f"{plural(number - lines, 'empty line')} ignored", say=True)

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
                self._add_lines(remote.reader(url, file), url, url.rpartition("/")[0])
        else:
            self._add_remote_image(url, *remote.stat(url))

    def _add_remote_folder(self, folder: str) -> None:
        others, first_other = 0, ""
        for url, size, stamp in remote.walk(folder):
            if PurePosixPath(url).name.startswith("."):
                continue
            if _suffix(url) in SUFFIXES:
                self._add_remote_image(url, size, stamp, is_named=False)
            else:
                others, first_other = others + 1, first_other or url
        if others:
            self._images.note_ignored(folder, others, "file", first_other)

    def _add_local_image(self, path: Path, status: os.stat_result | None, **more: Any) -> None:
        name, file = str(path), os.path.abspath(path)
        source = ImageSource(name, file, size=-1 if status is None else status.st_size, problem=_problem_of(name))
        # A folder may be reached by several links; but a link to an image is an image of its own.
        folder, last = os.path.split(file)
        identity = f"{self._real_folder(folder)}/{last}"
        self._add_image(source, local.stamp_of(status), identity, local.sort_key(path), **more)

    def _add_remote_image(self, url: str, size: int = -1, stamp: str = "", **more: Any) -> None:
        source = ImageSource(url, url, size=size, problem=_problem_of(url.split("?")[0]))
        self._add_image(source, stamp, url, local.sort_key(Path(url)), **more)

    def _add_image(
        self,
        source: ImageSource,
        stamp: str,
        identity: str,
        by_name: bytes,
        *,
        is_named: bool = True,
        line: tuple[int, int] | None = None,
    ) -> None:
        """Add an image that is named, on a line of a list or otherwise, or that is found in a folder."""
        if line is not None:
            once, part, key = self._lines_once, self._part, self._next_key()
        else:
            once, part, key = self._paths_once, 0 if self._sort_paths else self._part, by_name
        self._images.add(
            part,
            key,
            source,
            stamp,
            identity=identity,
            once=once,
            line=line or (None, None),
            named=is_named,
            is_figure=line is None and is_figure(source.file),  # lines of a list are never left out
        )

    def _add_shard(self, name: str, sort_first: bytes = b"", *, line: tuple[int, int] | None = None) -> None:
        """Add a shard's images in the archive's order; shards as they come, or sorted by `sort_first`."""
        if remote.is_url(name):
            file, stamp = name, " ".join(map(str, remote.stat(name)))
        else:
            file, stamp = os.path.abspath(name), local.stamp_of(local.status_of(name))
        once = self._paths_once if line is None else self._lines_once
        if once and not self._images.first_time(f"shard\0{file}"):
            self._images.drop(name)
            return
        shard, first = Shard(name, file), self._ordered
        for source in shard.members():
            if not self._images.first_time(f"member\0{first}\0{source.name}"):
                self._images.note(source.name, "several members of the shard have this name; each is predicted")
            key = sort_first + self._next_key()
            self._images.add(self._part, key, source, stamp, once=False, line=line or (None, None))
        if shard.others:
            self._images.note_ignored(name, shard.others, "member", shard.first_other)
        for note in shard.notes:
            self._images.note(name, note, say=True)

    def _next_key(self) -> bytes:
        self._ordered += 1
        return self._ordered.to_bytes(8, "big")


def _problem_of(name: str) -> str | None:
    """Why a file holds no image, by its suffix."""
    if name.lower().endswith(_IMAGE_SUFFIXES) or (advice := advice_for(name)) is None:
        return None
    return f"expected images, found {advice}"


def without_file_scheme(text: str) -> str:
    """The path of a ``file://`` address, which is percent-encoded; other text as it is."""
    if text.startswith("local://"):  # fsspec's, which is not
        return text.removeprefix("local://")
    scheme, _, path = text.partition(":")
    if scheme.lower() != "file" or not path.startswith("/"):
        return text
    if path.startswith("//"):
        path = path[2:].removeprefix("localhost")
    path = os.fsdecode(urllib.parse.unquote_to_bytes(os.fsencode(path)))
    return path.removeprefix("/") if os.name == "nt" else path


def _suffix(text: str) -> str:
    path = text.split("?")[0] if text.startswith("http") else text
    return PurePosixPath(path).suffix.lower()
