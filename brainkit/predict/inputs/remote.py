"""Remote files (s3://, gs://, https:// and whatever else fsspec knows). fsspec is imported at the first URL."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from brainkit.errors import BrainkitError, DataError, ImageError, MissingDependency, UsageError, require
from brainkit.utils.text import one_line

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_TRIES = 3
_PAUSE = 0.5  # seconds before the second try, twice that before the third

# What a listing says about a file that changes when the file does: S3, Google, local and in memory, the web.
_STAMPS = ("ETag", "etag", "generation", "mtime", "LastModified", "last_modified", "created")


def is_url(text: str) -> bool:
    """Whether a name is a URL (``s3://bucket/key``), not a path."""
    return _URL.match(text) is not None


def glob(url: str) -> list[str]:
    """The URLs that match a pattern (``s3://bucket/*.tar``), sorted.

    Raises
    ------
    DataError
        If the storage cannot be reached.
    """
    system, path = _open_storage(url)
    return sorted(_full_url(system, str(found)) for found in _call(url, system.glob, path))


def kind(url: str) -> str | None:
    """``"file"`` or ``"folder"``, or None if there is nothing."""
    system, path = _open_storage(url)
    if not url.endswith("/") and _call(url, system.isfile, path):
        return "file"
    return "folder" if _call(url, system.isdir, path) else None


def stat(url: str) -> tuple[int, str]:
    """Size of a file in bytes (-1: unknown), and a stamp that changes when the file does."""
    system, path = _open_storage(url)
    return _size_and_stamp(_call(url, system.info, path))


def walk(url: str) -> Iterator[tuple[str, int, str]]:
    """Files below a folder: URL, size, stamp. One folder's listing is in memory at a time."""
    system, path = _open_storage(url)
    pending = [path]
    seen = {path}
    while pending:
        folder = pending.pop()
        for info in _call(url, system.ls, folder, detail=True):
            found = str(info["name"])
            if info.get("type") != "directory":
                yield (_full_url(system, found), *_size_and_stamp(info))
            elif found not in seen:  # a web page may link to itself
                seen.add(found)
                pending.append(found)


def open_file(url: str) -> Any:
    """A remote file, open for reading from its beginning on."""
    system, path = _open_storage(url)
    return _call(url, system.open, path, "rb")


def reader(url: str, file: Any) -> Callable[[int], bytes]:
    """The `read` of an open file, with errors of this package."""
    return lambda size: bytes(_call(url, file.read, size))


def open_in_parts(url: str) -> Any:
    """A remote file, open for reading at any position.

    Raises
    ------
    DataError
        If its server sends files only as a whole.
    """
    file = open_file(url)
    if url.startswith("http"):
        try:
            # fsspec finds out when it first reads from another position than the beginning.
            size = file.seek(0, os.SEEK_END)
            file.seek(size - min(size, 1))
            file.read(1)
            file.seek(0)
        except ValueError:
            file.close()
            raise DataError(
                "its server sends files only as a whole (no range requests), and a tar archive is read in parts; "
                "download it, and give the file"
            ) from None
    return file


def read(url: str, offset: int, size: int) -> bytes:
    """The bytes of an image file; with an offset only `size` bytes from there.

    Raises
    ------
    ImageError
        If it cannot be read, even after retries.
    """
    system, path = _open_storage(url)
    part = {} if offset < 0 else {"start": offset, "end": offset + size}
    for attempt in range(1, _TRIES + 1):
        try:
            return bytes(system.cat_file(path, **part))
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            missing = isinstance(error, FileNotFoundError)
            raise ImageError(f"cannot be read: {_reason(error)}", missing=missing) from None
        except Exception as error:  # a network fails in many ways, and often only for a moment
            if attempt == _TRIES:
                raise ImageError(f"cannot be read after {_TRIES} tries: {_reason(error)}") from None
        time.sleep(_PAUSE * attempt)
    raise AssertionError("unreachable")


def upload(path: Path, url: str) -> None:
    """Copy a local file to a URL; atomic where the storage is.

    Raises
    ------
    DataError
        If it cannot be written, even after retries.
    """
    system, target = _open_storage(url)
    for attempt in range(1, _TRIES + 1):
        try:
            system.makedirs(str(PurePosixPath(target).parent), exist_ok=True)
            system.put_file(str(path), target)
            return
        except Exception as error:  # every storage has errors of its own
            if attempt == _TRIES or isinstance(error, PermissionError):
                raise DataError(f"{url}: cannot be written: {_reason(error)}") from None
        time.sleep(_PAUSE * attempt)


def remove(url: str) -> None:
    """Remove a file or folder if it exists.

    Raises
    ------
    DataError
        If it cannot be removed.
    """
    system, path = _open_storage(url)
    if _call(url, system.exists, path):
        _call(url, system.rm, path, recursive=True)


def _open_storage(url: str) -> tuple[Any, str]:
    """The file system of a URL, which fsspec caches, and the path in it."""
    protocol = url.split("://")[0]
    core = require("fsspec.core", extra="remote", purpose=f"reading {protocol}:// URLs")
    try:
        # Each folder is listed once, so a cache of listings would only take memory.
        system, path = core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise MissingDependency(
            f"reading {protocol}:// URLs needs a package that is not installed ({_reason(error)}); "
            "install it with: pip install 'brainkit[remote]'"
        ) from None
    except ValueError as error:
        raise UsageError(f"{url}: not a valid URL ({_reason(error)})") from None
    except Exception as error:  # no credentials, for example
        raise DataError(f"{url}: cannot be reached: {_reason(error)}") from None
    return system, str(path)


def _call(url: str, method: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return method(*arguments, **options)
    except BrainkitError:
        raise
    except Exception as error:  # every file system has errors of its own
        raise DataError(f"{url}: cannot be read: {_reason(error)}") from None


def _full_url(system: Any, path: str) -> str:
    return path if is_url(path) else str(system.unstrip_protocol(path))


def _size_and_stamp(info: dict[str, Any]) -> tuple[int, str]:
    size = info.get("size")
    stamp = next((f"{name} {info[name]}" for name in _STAMPS if info.get(name) is not None), "")
    return (int(size) if isinstance(size, int) else -1), stamp


def _reason(error: Exception) -> str:
    return one_line(getattr(error, "strerror", None) or error)
