"""Images elsewhere: s3://, gs://, http:// and what else fsspec knows. It is imported when an address is met."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from brainkit.errors import BrainkitError, DataError, MissingDependency, UsageError, require
from brainkit.utils.text import one_line

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_TRIES = 3
_PAUSE = 0.5  # seconds before the second try, twice that before the third

# What a listing says of a file that changes when the file does: S3, Google, local and in memory, the web.
_STAMPS = ("ETag", "etag", "generation", "mtime", "LastModified", "last_modified", "created")


def is_address(text: str) -> bool:
    """Whether a name is an address (``s3://bucket/key``) and no path."""
    return _ADDRESS.match(text) is not None


def expand(address: str) -> list[str]:
    """The addresses that a pattern (``s3://bucket/*.tar``) means, sorted; none where nothing is there.

    Raises
    ------
    DataError
        If the place cannot be reached.
    """
    system, path = _reached(address)
    return sorted(_full(system, str(found)) for found in _asked(address, system.glob, path))


def kind(address: str) -> str | None:
    """``"file"`` or ``"folder"``, or None where nothing is there."""
    system, path = _reached(address)
    if not address.endswith("/") and _asked(address, system.isfile, path):
        return "file"
    return "folder" if _asked(address, system.isdir, path) else None


def describe(address: str) -> tuple[int, str]:
    """Size of a file in bytes (-1: not told), and what changes when the file does."""
    system, path = _reached(address)
    return _size_and_stamp(_asked(address, system.info, path))


def walk(address: str) -> Iterator[tuple[str, int, str]]:
    """Files below a folder: address, size, stamp. One folder's listing is in memory at a time."""
    system, path = _reached(address)
    waiting = [path]
    met = {path}
    while waiting:
        here = waiting.pop()
        for info in _asked(address, system.ls, here, detail=True):
            found = str(info["name"])
            if info.get("type") != "directory":
                yield (_full(system, found), *_size_and_stamp(info))
            elif found not in met:  # a page of the web may name itself
                met.add(found)
                waiting.append(found)


def open_file(address: str) -> Any:
    """A remote file, open for reading from any place in it."""
    system, path = _reached(address)
    return _asked(address, system.open, path, "rb")


def read(address: str, offset: int, size: int) -> bytes:
    """The bytes of a file; with an offset only `size` bytes from there.

    Raises
    ------
    DataError
        If it cannot be read, even when tried again.
    """
    system, path = _reached(address)
    part = {} if offset < 0 else {"start": offset, "end": offset + size}
    for attempt in range(1, _TRIES + 1):
        try:
            return bytes(system.cat_file(path, **part))
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise DataError(f"cannot be read: {_line(error)}") from None
        except Exception as error:  # a network fails in many ways, and often for a moment only
            if attempt == _TRIES:
                raise DataError(f"cannot be read, tried {_TRIES} times: {_line(error)}") from None
        time.sleep(_PAUSE * attempt)
    raise AssertionError("unreachable")


def send(path: Path, address: str) -> None:
    """Copy a file of this machine to an address, whole or not at all where the storage does so.

    Raises
    ------
    DataError
        If it cannot be written, even when tried again.
    """
    system, place = _reached(address)
    for attempt in range(1, _TRIES + 1):
        try:
            system.makedirs(str(PurePosixPath(place).parent), exist_ok=True)
            system.put_file(str(path), place)
            return
        except Exception as error:  # every storage has errors of its own
            if attempt == _TRIES or isinstance(error, PermissionError):
                raise DataError(f"{address}: cannot be written: {_line(error)}") from None
        time.sleep(_PAUSE * attempt)


def remove(address: str) -> None:
    """Remove a file or folder, if it is there.

    Raises
    ------
    DataError
        If it cannot be removed.
    """
    system, path = _reached(address)
    if _asked(address, system.exists, path):
        _asked(address, system.rm, path, recursive=True)


def _reached(address: str) -> tuple[Any, str]:
    """The file system of an address, which fsspec keeps, and the path in it."""
    protocol = address.split("://")[0]
    core = require("fsspec.core", extra="remote", purpose=f"using {protocol}:// addresses")
    try:
        # Listings are asked for once, so nothing is won by keeping them in memory.
        system, path = core.url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
        raise MissingDependency(
            f"using {protocol}:// addresses needs a package that is not installed ({_line(error)}); "
            "install it with: pip install 'brainkit[remote]'"
        ) from None
    except ValueError as error:
        raise UsageError(f"{address}: no address that can be read ({_line(error)})") from None
    except Exception as error:  # no credentials, for example
        raise DataError(f"{address}: cannot be reached: {_line(error)}") from None
    return system, str(path)


def _asked(address: str, ask: Any, *given: Any, **options: Any) -> Any:
    try:
        return ask(*given, **options)
    except BrainkitError:
        raise
    except Exception as error:  # every file system has errors of its own
        raise DataError(f"{address}: cannot be read: {_line(error)}") from None


def _full(system: Any, path: str) -> str:
    return path if is_address(path) else str(system.unstrip_protocol(path))


def _size_and_stamp(info: dict[str, Any]) -> tuple[int, str]:
    size = info.get("size")
    stamp = next((f"{name} {info[name]}" for name in _STAMPS if info.get(name) is not None), "")
    return (int(size) if isinstance(size, int) else -1), stamp


def _line(error: Exception) -> str:
    return one_line(getattr(error, "strerror", None) or error)
