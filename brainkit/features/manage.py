"""What lies in the token cache, whether it is whole, and making room: what ``brainkit cache`` does."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from brainkit.errors import DataError, UsageError
from brainkit.features.shard import SUFFIX, Shard
from brainkit.features.store import IN_USE, TokenKind, read_description, remove_folder
from brainkit.utils.files import cache_folder
from brainkit.utils.locks import FileLock
from brainkit.utils.system import cores

_UNITS = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_SPANS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True)
class StoreReport:
    """What is known of a store from its heads alone.

    Attributes
    ----------
    folder : Path
    kind : TokenKind or None
        None where it cannot be read; `trouble` says why.
    images : int
        Whose tokens are in it.
    nbytes : int
        On disk.
    used : float
        When it was last used, in seconds since 1970.
    busy : bool
        Whether a process has it open.
    trouble : str
        Empty where nothing is wrong.
    """

    folder: Path
    kind: TokenKind | None
    images: int
    nbytes: int
    used: float
    busy: bool
    trouble: str

    @property
    def name(self) -> str:
        """By which `find` finds it."""
        return self.folder.name


def list_stores(home: Path | None = None) -> list[StoreReport]:
    """All stores, the one used last first.

    Parameters
    ----------
    home : Path, optional
        Folder of all token stores; by default under the user's cache folder.
    """
    home = home or cache_folder() / "tokens"
    folders = [place for place in home.iterdir() if _is_store(place)] if home.is_dir() else []
    return sorted((_report(folder) for folder in folders), key=lambda store: (-store.used, store.name))


def find(stores: Sequence[StoreReport], names: Sequence[str]) -> list[StoreReport]:
    """The stores of these names; the first characters of a name suffice where they are one store's alone.

    Raises
    ------
    UsageError
        If a name fits no store, or several.
    """
    found = []
    for name in names:
        fits = [store for store in stores if store.name == name] or [
            store for store in stores if name and store.name.startswith(name)
        ]
        if len(fits) != 1:
            known = ", ".join(store.name[:8] for store in stores) or "none"
            what = "no such token store" if not fits else f"{len(fits)} token stores begin so"
            raise UsageError(f"{name}: {what}; the stores are: {known}")
        found.append(fits[0])
    return found


def verify(
    store: StoreReport, *, repair: bool = False, progress: Callable[[int, int], None] | None = None
) -> list[str]:
    """Read a store whole and compare all checksums.

    Parameters
    ----------
    store : StoreReport
    repair : bool
        Remove damaged shards, or a store that cannot be read: what was in them is run again when it is needed.
    progress : callable, optional
        Called with the shards that were read, and how many there are.

    Returns
    -------
    list of str
        A line for everything that is damaged.
    """
    try:
        kind, _ = read_description(store.folder)
    except DataError as error:
        if repair and "version" not in str(error):
            remove_folder(store.folder)
        return [f"{store.folder}: {error}"]
    paths = sorted(store.folder.glob(f"*{SUFFIX}"))

    def examine(path: Path) -> str:
        try:
            shard = Shard(path, kind.layout.record)
            bad = [row for row in range(len(shard)) if shard.damaged([row])]
        except FileNotFoundError:
            return ""  # removed meanwhile
        except DataError as error:
            return f"{path}: {error}"
        return f"{path}: {len(bad)} of {len(shard)} records do not have their checksum" if bad else ""

    lines = []
    with ThreadPoolExecutor(min(16, cores())) as pool:
        for done, (path, line) in enumerate(zip(paths, pool.map(examine, paths), strict=True), 1):
            if progress is not None:
                progress(done, len(paths))
            if line:
                lines.append(line)
                if repair:
                    path.unlink(missing_ok=True)
    return lines


def choose(
    stores: Sequence[StoreReport], *, older_than: float | None = None, max_size: float | None = None
) -> list[StoreReport]:
    """Which stores to remove.

    Parameters
    ----------
    stores : sequence of StoreReport
    older_than : float, optional
        Those last used more than so many seconds ago.
    max_size : float, optional
        Those longest unused, until the rest takes at most so many bytes.
    """
    chosen = [store for store in stores if older_than is not None and time.time() - store.used > older_than]
    if max_size is not None:
        left = sum(store.nbytes for store in stores if store not in chosen)
        for store in sorted(stores, key=lambda store: store.used):
            if left > max_size and store not in chosen and not store.busy:
                chosen.append(store)
                left -= store.nbytes
    return chosen


def remove(store: StoreReport) -> bool:
    """Remove a store, unless a process is using it; whether it was removed."""
    try:
        lock = FileLock.take(store.folder / IN_USE)
    except FileNotFoundError:
        return True  # somebody was faster
    if lock is None:
        return False
    try:
        remove_folder(store.folder)
    finally:
        lock.release()
    return True


def size_of(text: str) -> float:
    """Bytes out of ``50GB``, ``800MB`` or a plain number.

    Raises
    ------
    UsageError
        If it is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Z]*)", text.strip().upper())
    if not match or match[2] not in _UNITS:
        raise UsageError(f"a size must be a number and {', '.join(list(_UNITS)[2:])}, as in 50GB, got {text!r}")
    return float(match[1]) * _UNITS[match[2]]


def seconds_of(text: str) -> float:
    """Seconds out of ``30d``, ``12h``, ``2w`` or ``90m``.

    Raises
    ------
    UsageError
        If it is no span of time.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mhdw])", text.strip().lower())
    if not match:
        raise UsageError(f"an age must be a number and {', '.join(_SPANS)}, as in 30d, got {text!r}")
    return float(match[1]) * _SPANS[match[2]]


def _is_store(place: Path) -> bool:
    return place.is_dir() and not place.name.startswith(".")


def _report(folder: Path) -> StoreReport:
    kind, images, trouble = None, 0, ""
    try:
        kind, _ = read_description(folder)
    except DataError as error:
        trouble = str(error)
    damaged, seen = 0, set()
    for path in folder.glob(f"*{SUFFIX}") if kind else ():
        try:
            seen.update(Shard(path, kind.layout.record).images)  # type: ignore[union-attr]
        except FileNotFoundError:
            continue
        except DataError:
            damaged += 1
    images = len(seen)
    if damaged:
        trouble = f"{damaged} damaged shard{'s' if damaged > 1 else ''}"
    return StoreReport(folder, kind, images, sum(_sizes(folder)), _last_used(folder), _busy(folder), trouble)


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            yield path.stat().st_size


def _last_used(folder: Path) -> float:
    for place in (folder / IN_USE, folder):
        with contextlib.suppress(FileNotFoundError):
            return place.stat().st_mtime
    return 0.0


def _busy(folder: Path) -> bool:
    if not (folder / IN_USE).exists():
        return False
    with contextlib.suppress(OSError):
        lock = FileLock.take(folder / IN_USE)
        if lock is None:
            return True
        lock.release()
    return False
