"""Files that appear complete or not at all, text and JSON, and the cache folder."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.utils.file_kind import describe_kind


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path next to `path`; move it to `path` when the block ends without an error.

    Parameters
    ----------
    path : path-like
        The final path; its folder must exist. The temporary name has the same suffix, because some writers need it.

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
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    if not target.parent.is_dir():
        raise DataError(f"{target}: its folder {target.parent} does not exist; create it first")
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        if isinstance(error.filename, (str, bytes)):
            failed = Path(os.fsdecode(error.filename))
            if failed not in (target, temporary) and temporary not in failed.parents:
                raise
        raise BrainkitError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def check_new(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Check that an output may be written, before the work for it begins.

    Raises
    ------
    UsageError
        If it exists, and must not be overwritten.
    """
    if not overwrite and Path(path).exists():
        raise UsageError(f"{path}: exists already; give --overwrite, or name another output")


def create_folder(path: str | os.PathLike[str]) -> Path:
    """Create a folder for output, with its parents, unless it exists.

    Raises
    ------
    DataError
        If it cannot be created.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be created: {error.strerror}; name another one") from None
    return folder


def check_folder(path: str | os.PathLike[str]) -> Path:
    """Check that files can be written into a folder, before the work for them begins; nothing is left behind.

    Raises
    ------
    DataError
        If the folder does not exist and cannot be created, or no file can be created in it.
    """
    folder = Path(path)
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        create_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(f"{folder}: cannot be written into: {error.strerror}; name another folder") from None
    finally:
        for each in missing:
            with contextlib.suppress(OSError):  # was not created, or another process has put something into it
                each.rmdir()
    return folder


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically. NaN is refused, since JSON lacks it: use None."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file in UTF-8, with or without a byte order mark.

    Raises
    ------
    DataError
        If the file is missing, unreadable or not JSON.
    """
    text = read_text(path, "JSON")
    try:
        return json.loads(text)
    except ValueError as error:
        kind = describe_kind(text.encode(), len(text))
        found = "something else" if kind in ("text", None) else kind
        raise DataError(f"{path}: expected JSON, found {found} ({error})") from None


def read_text(path: str | os.PathLike[str], what: str = "text") -> str:
    """Read a text file in UTF-8, without the byte order mark that some programs put first.

    Raises
    ------
    DataError
        If the file is missing, unreadable or not text; `what` says what was expected.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: file not found") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = describe_kind(content[:512], len(content)) or f"other bytes ({error.reason} at position {error.start})"
        raise DataError(f"{path}: expected {what} in UTF-8, found {found}; save it as UTF-8") from None


def write_all(file: Any, data: bytes | memoryview) -> None:
    """Write all of `data` to an unbuffered file, which may take only part of it at once."""
    rest = memoryview(data).cast("B")
    while len(rest):
        rest = rest[file.write(rest) :]


def cache_folder() -> Path:
    """Folder of what can be recomputed: ``$BRAINKIT_CACHE``, else ``brainkit`` in the user's cache folder."""
    if chosen := folder_named_by("BRAINKIT_CACHE"):
        return chosen
    if os.name == "nt":
        base = folder_named_by("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        base = folder_named_by("XDG_CACHE_HOME") or Path.home() / ".cache"
    return base / "brainkit"


def folder_named_by(variable: str) -> Path | None:
    """The folder that an environment variable names, with ``~`` as the user's own; None if it is not set."""
    value = os.environ.get(variable)
    return users_path(value) if value else None


def users_path(path: str | os.PathLike[str]) -> Path:
    """A path as users write it: ``~`` is their folder. A shell expands it only outside quotes, and a file never."""
    return Path(os.path.expanduser(path))  # unlike Path.expanduser, it leaves the name of an unknown user
