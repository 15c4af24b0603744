"""Listing, verifying and pruning the token cache: the work of ``brainkit cache``."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from brainkit.errors import DataError, UsageError
from brainkit.features.shard import SUFFIX, Shard
from brainkit.features.store import IN_USE, OtherVersion, TokenSpec, read_description, remove_folder
from brainkit.utils.files import cache_folder
from brainkit.utils.locks import FileLock
from brainkit.utils.progress import Progress
from brainkit.utils.system import cores
from brainkit.utils.text import plural

_UNITS = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_AGES = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True)
class StoreReport:
    """A store, as its description and the headers of its shards describe it.

    Attributes
    ----------
    folder : Path
    spec : TokenSpec or None
        None if it cannot be read; `problem` has the reason.
    n_images : int
        Images with tokens in the store.
    nbytes : int
        On disk.
    last_used : float
        Seconds since 1970.
    in_use : bool
        Whether a process has it open.
    problem : str
        Empty if nothing is wrong.
    """

    folder: Path
    spec: TokenSpec | None
    n_images: int
    nbytes: int
    last_used: float
    in_use: bool
    problem: str

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name


def list_stores(home: Path | None = None) -> list[StoreReport]:
    """All stores, the most recently used first.

    Parameters
    ----------
    home : Path, optional
        Folder of all token stores; by default in the user's cache folder.
    """
    home = home or cache_folder() / "tokens"
    folders = [path for path in home.iterdir() if _is_store(path)] if home.is_dir() else []
    return sorted((_report(folder) for folder in folders), key=lambda store: (-store.last_used, store.name))


def find_stores(stores: Sequence[StoreReport], names: Sequence[str]) -> list[StoreReport]:
    """The stores with these names; the first characters of a name are enough if they are unique.

    Raises
    ------
    UsageError
        If a name matches no store, or several.
    """
    found = []
    for name in names:
        matches = [store for store in stores if store.name == name] or [
            store for store in stores if name and store.name.startswith(name)
        ]
        if len(matches) != 1:
            known = ", ".join(store.name[:8] for store in stores) or "none"
            reason = f"matches {len(matches)} token stores" if matches else "no such token store"
            raise UsageError(f"{name}: {reason}; available: {known}")
        found.append(matches[0])
    return found


def verify_store(store: StoreReport, *, repair: bool = False, progress: Progress | None = None) -> list[str]:
    """Read a whole store and compare all checksums.

    Parameters
    ----------
    store : StoreReport
    repair : bool
        Remove damaged shards, or a store that cannot be read; their images are extracted again when needed. Stores of
        another version are kept.
    progress : callable, optional
        Called with the number of shards read, and of all shards.

    Returns
    -------
    list of str
        A line for everything that is damaged.
    """
    try:
        spec, _ = read_description(store.folder)
    except OtherVersion as error:
        return [f"{store.folder}: {error}"]
    except DataError as error:
        if repair:
            remove_folder(store.folder)
        return [f"{store.folder}: {error}"]
    paths = sorted(store.folder.glob(f"*{SUFFIX}"))
    problems = []
    with ThreadPoolExecutor(min(16, cores())) as pool:
        results = pool.map(lambda path: _shard_problem(path, spec.layout.record), paths)
        for done, (path, problem) in enumerate(zip(paths, results, strict=True), 1):
            if progress is not None:
                progress(done, len(paths))
            if problem:
                problems.append(f"{path}: {problem}")
                if repair:
                    path.unlink(missing_ok=True)
    return problems


def prune(
    stores: Sequence[StoreReport],
    *,
    older_than: float | None = None,
    max_size: float | None = None,
    dry_run: bool = False,
) -> list[tuple[StoreReport, bool]]:
    """Remove stores, except those that a process is using.

    Parameters
    ----------
    stores : sequence of StoreReport
    older_than : float, optional
        Remove those last used more than this many seconds ago.
    max_size : float, optional
        Remove the least recently used ones, until the others take at most this many bytes. With neither limit, all
        stores are removed.
    dry_run : bool
        Remove nothing.

    Returns
    -------
    list of (StoreReport, bool)
        The stores selected, and whether each was (or would be) removed; False if it is in use.
    """
    if older_than is None and max_size is None:
        selected = list(stores)
    else:
        selected = [store for store in stores if older_than is not None and time.time() - store.last_used > older_than]
    if max_size is not None:
        size = sum(store.nbytes for store in stores if store not in selected)
        for store in sorted(stores, key=lambda store: store.last_used):
            if size > max_size and store not in selected and not store.in_use:
                selected.append(store)
                size -= store.nbytes
    return [(store, not store.in_use if dry_run else _remove(store)) for store in selected]


def parse_size(text: str) -> float:
    """Bytes from ``50GB``, ``800MB`` or a plain number.

    Raises
    ------
    UsageError
        If it is not a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Z]*)", text.strip().upper())
    if not match or match[2] not in _UNITS:
        raise UsageError(f"size must be a number and {', '.join(list(_UNITS)[2:])}, as in 50GB, got {text!r}")
    return float(match[1]) * _UNITS[match[2]]


def parse_age(text: str) -> float:
    """Seconds from ``30d``, ``12h``, ``2w`` or ``90m``.

    Raises
    ------
    UsageError
        If it is not an age.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mhdw])", text.strip().lower())
    if not match:
        raise UsageError(f"age must be a number and {', '.join(_AGES)}, as in 30d, got {text!r}")
    return float(match[1]) * _AGES[match[2]]


def _is_store(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _report(folder: Path) -> StoreReport:
    spec, problem = None, ""
    try:
        spec, _ = read_description(folder)
    except DataError as error:
        problem = str(error)
    n_damaged, images = 0, set()
    for path in folder.glob(f"*{SUFFIX}") if spec else ():
        try:
            images.update(Shard(path, spec.layout.record).images)  # type: ignore[union-attr]
        except FileNotFoundError:
            continue
        except DataError:
            n_damaged += 1
    if n_damaged:
        problem = plural(n_damaged, "damaged shard")
    return StoreReport(
        folder, spec, len(images), sum(_file_sizes(folder)), _last_used(folder), _in_use(folder), problem
    )


def _file_sizes(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            yield path.stat().st_size


def _last_used(folder: Path) -> float:
    for path in (folder / IN_USE, folder):
        with contextlib.suppress(FileNotFoundError):
            return path.stat().st_mtime
    return 0.0


def _in_use(folder: Path) -> bool:
    if not (folder / IN_USE).exists():
        return False
    with contextlib.suppress(OSError):
        lock = FileLock.take(folder / IN_USE)
        if lock is None:
            return True
        lock.release()
    return False


def _shard_problem(path: Path, record: int) -> str:
    try:
        shard = Shard(path, record)
        damaged = shard.damaged(range(len(shard)))
    except FileNotFoundError:
        return ""  # removed in the meantime
    except DataError as error:
        return str(error)
    return f"{len(damaged)} of {len(shard)} records do not match their checksums" if damaged else ""


def _remove(store: StoreReport) -> bool:
    """Remove a store unless a process is using it."""
    try:
        lock = FileLock.take(store.folder / IN_USE)
    except FileNotFoundError:
        return True  # another process has removed it
    if lock is None:
        return False
    try:
        remove_folder(store.folder)
    finally:
        lock.release()
    return True
