"""Outputs written beside and renamed, so that nothing is ever half-written."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from brainkit.errors import BrainkitError, DataError


@contextlib.contextmanager
def write_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`, moved onto it when the block ends without an error.

    Parameters
    ----------
    path : path-like
        Final place. Its folder must exist. The temporary name keeps the suffix, because some writers look at it.

    Yields
    ------
    Path
        Where to write a file (or make a folder).

    Raises
    ------
    BrainkitError
        If the folder does not exist or is not writable, or the disk is full.
    """
    target = Path(path)
    beside = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    if not target.parent.is_dir():
        raise DataError(f"{target}: its folder {target.parent} does not exist; make it first")
    try:
        yield beside
        os.replace(beside, target)
    except OSError as error:
        if isinstance(error.filename, (str, bytes)):
            place = Path(os.fsdecode(error.filename))
            if place != target and place != beside and beside not in place.parents:
                raise
        raise BrainkitError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        if beside.is_dir():
            shutil.rmtree(beside, ignore_errors=True)
        else:
            beside.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically. NaN is refused: JSON has none, so say null."""
    with write_beside(path) as beside:
        beside.write_text(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file, or say in one line why it cannot be read.

    Raises
    ------
    DataError
        If the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: file not found") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path}: expected JSON, found something else ({error})") from None


def write_all(file: Any, data: bytes | memoryview) -> None:
    """Write all of `data` to an unbuffered file, which may take only part of it at once."""
    rest = memoryview(data).cast("B")
    while len(rest):
        rest = rest[file.write(rest) :]


def cache_folder() -> Path:
    """Where brainkit keeps what it can make again: ``$BRAINKIT_CACHE``, else the user's cache folder."""
    if chosen := os.environ.get("BRAINKIT_CACHE"):
        return Path(chosen)
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "brainkit"
