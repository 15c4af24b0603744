"""Token stores on disk: what identifies a store, which images it holds, and how several processes share it.

A store is a folder, ``$BRAINKIT_CACHE/tokens/<key>/``. The key is a hash of everything that tokens depend on except the
image; the images are identified by their content, so that runs, subjects and processes share them. ``store.json``
describes the store, ``channels.npy`` holds the offset and the s.d. of each channel, and ``*.shard`` the images'
records (:mod:`brainkit.features.shard`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.errors import BrainkitError, DataError
from brainkit.features.shard import SUFFIX, VERSION, Layout, Shard
from brainkit.utils.files import atomic_write, read_json, write_json
from brainkit.utils.locks import FileLock
from brainkit.utils.progress import Say
from brainkit.utils.system import allow_open_files, cores

IN_USE = "in-use"
_FORMAT = "brainkit tokens"
_CLAIM = ".claim"
_STALE = 24 * 3600  # seconds


class OtherVersion(DataError):
    """A token store of another version of the format: intact, but not for this brainkit."""


@dataclass(frozen=True)
class TokenSpec:
    """Everything that tokens depend on, except the image.

    Attributes
    ----------
    backbone, weights, code : str
        Its name, and hashes of its weights and of the file that defines it.
    layers : tuple of (str, int)
        In order of depth, with their channels.
    grid : (int, int)
    preprocessing : dict
        From :meth:`brainkit.images.Preprocessing.to_json`.
    dtype : str
        Of the records: float16 or bfloat16.
    arithmetic : str
        Of the network: float32 or float16 autocast.
    """

    backbone: str
    weights: str
    code: str
    layers: tuple[tuple[str, int], ...]
    grid: tuple[int, int]
    preprocessing: dict[str, Any]
    dtype: str
    arithmetic: str

    @property
    def layout(self) -> Layout:
        """Of the records."""
        return Layout(self.layers, self.grid)

    @property
    def key(self) -> str:
        """The name of the store's folder."""
        parts = json.dumps([VERSION, asdict(self)], sort_keys=True)
        return hashlib.sha256(parts.encode()).hexdigest()[:32]

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TokenSpec:
        """Read the entry ``tokens`` of ``store.json``.

        Raises
        ------
        DataError
            If a value is missing or wrong.
        """
        try:
            layers = tuple((str(layer), int(width)) for layer, width in value["layers"])
            height, width = value["grid"]
            return cls(**{**value, "layers": layers, "grid": (int(height), int(width))})
        except (TypeError, KeyError, ValueError):
            raise DataError("its description is damaged") from None


class TokenStore:
    """An open store; other processes may add images at the same time.

    Parameters
    ----------
    folder : Path
    say : callable
        Called with a line for every damaged shard; it is removed, and its images count as missing.

    Raises
    ------
    OtherVersion
        If the store has another version of the format.
    DataError
        If the folder is not an intact store. The message has the reason, without the path.
    """

    def __init__(self, folder: Path, say: Say) -> None:
        folder = folder.absolute()  # a cache may be sent to a process that works in another folder
        self.folder, self._say = folder, say
        self.spec, (self.offsets, self.std) = read_description(folder)
        self.layout = self.spec.layout
        # With this lock, no process prunes the store. A read-only folder has no such file, and needs none.
        self.lock: FileLock | None = None
        with contextlib.suppress(OSError):
            self.lock = FileLock.take(folder / IN_USE, shared=True, wait=True)
            os.utime(folder / IN_USE)  # the time of last use
        if not (folder / "store.json").is_file():
            raise DataError("it was removed")
        self._shards: dict[str, Shard] = {}
        self._row_of: dict[bytes, tuple[Shard, int]] = {}
        self._remove_leftovers()
        self.refresh()

    @classmethod
    def create(
        cls, home: Path, spec: TokenSpec, channels: np.ndarray, say: Say, provenance: dict[str, Any]
    ) -> TokenStore:
        """Create an empty store, or open it if another process has just created it.

        Parameters
        ----------
        home : Path
            Folder of all stores; must exist.
        spec : TokenSpec
        channels : float32 array of shape (2, 2 * channels)
            The offset and the s.d. of each channel: the local tokens' of all layers, then the global tokens'.
        say : callable
        provenance : dict
            Further entries of ``store.json``.
        """
        folder = home / spec.key
        remove_leftovers(home)
        try:
            with atomic_write(folder) as temporary:
                temporary.mkdir()
                np.save(temporary / "channels.npy", channels)
                description = {
                    "format": _FORMAT,
                    "version": VERSION,
                    **provenance,
                    "tokens": asdict(spec),
                    "record": spec.layout.record,
                    "channels": "channels.npy",
                    "channels_crc32": zlib.crc32(channels.tobytes()),
                }
                write_json(temporary / "store.json", description)
        except BrainkitError:
            if not folder.is_dir():
                raise
        return cls(folder, say)

    def __len__(self) -> int:
        return len(self._row_of)

    def refresh(self) -> None:
        """Open the shards that other processes have added."""
        for name in sorted(entry.name for entry in os.scandir(self.folder) if entry.name.endswith(SUFFIX)):
            if name in self._shards:
                continue
            try:
                shard = Shard(self.folder / name, self.layout.record)
            except FileNotFoundError:
                continue  # another process found it damaged
            except DataError as error:
                self._remove_shard(self.folder / name, str(error))
                continue
            self._shards[name] = shard
            for row, image in enumerate(shard.images):
                self._row_of.setdefault(image, (shard, row))
        allow_open_files(len(self._shards))  # a memory map keeps its file open

    def missing(self, images: Iterable[bytes]) -> list[bytes]:
        """The images that the store lacks, each once, in order."""
        return [image for image in dict.fromkeys(images) if image not in self._row_of]

    def locate(self, images: Sequence[bytes]) -> tuple[list[Shard], np.ndarray]:
        """The shards of some images, and each image's shard (its index in that list) and row: (n, 2), int32."""
        numbers: dict[str, int] = {}
        shards: list[Shard] = []
        locations = np.empty((len(images), 2), np.int32)
        for k, image in enumerate(images):
            shard, row = self._row_of[image]
            number = numbers.setdefault(shard.path.name, len(numbers))
            if number == len(shards):
                shards.append(shard)
            locations[k] = number, row
        for shard in shards:
            _ = shard.records  # mapped now, because another process may find the shard damaged and remove it
        return shards, locations

    def check(self, images: Iterable[bytes]) -> None:
        """Read the records of these images, and remove every shard with a wrong checksum."""
        rows: dict[str, list[int]] = {}
        for image in dict.fromkeys(images):
            if image in self._row_of:
                shard, row = self._row_of[image]
                rows.setdefault(shard.path.name, []).append(row)
        with ThreadPoolExecutor(min(16, cores())) as pool:
            damaged = list(pool.map(lambda name: self._shards[name].damaged(rows[name]), rows))
        for name in (name for name, bad in zip(rows, damaged, strict=True) if bad):
            shard = self._shards.pop(name)
            self._row_of = {image: row for image, row in self._row_of.items() if row[0] is not shard}
            self._remove_shard(shard.path, "a record does not match its checksum")

    def lock_chunk(self, chunk: str) -> FileLock | None:
        """Lock a chunk of the missing images for this process; None if another process has it."""
        return FileLock.take(self.folder / f".{chunk}{_CLAIM}")

    def wait_for_chunk(self, chunk: str) -> None:
        """Wait until the process that has locked this chunk is done, or has died."""
        lock = FileLock.take(self.folder / f".{chunk}{_CLAIM}", wait=True)
        assert lock is not None
        lock.release(remove=True)

    def remove(self) -> None:
        """Remove the whole store. Processes that have it open can go on reading."""
        if self.lock is not None:
            self.lock.release()
        remove_folder(self.folder)

    def _remove_shard(self, path: Path, reason: str) -> None:
        self._say(f"{path}: {reason}; removed, its images are extracted again")
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise BrainkitError(f"{path}: {reason}, and it cannot be removed: {error.strerror}") from None

    def _remove_leftovers(self) -> None:
        """Remove incomplete files of processes that were killed."""
        for path in self.folder.glob(f".*{_CLAIM}"):
            with contextlib.suppress(OSError):
                if lock := FileLock.take(path):
                    for part in self.folder.glob(f"{path.name.removesuffix(_CLAIM)}.*.part"):
                        # On file systems without locks, only its age shows that a file is abandoned.
                        if lock.certain or time.time() - part.stat().st_mtime > _STALE:
                            part.unlink()
                    lock.release(remove=lock.certain)


def read_description(folder: Path) -> tuple[TokenSpec, np.ndarray]:
    """Read a store's specification, and the offset and s.d. of each channel: (2, 2 * channels).

    Raises
    ------
    OtherVersion
        If the store has another version of the format.
    DataError
        If the folder is not an intact store. The message has the reason, without the path.
    """
    if (folder / "tokens.json").is_file():
        raise OtherVersion(f"expected a token store of version {VERSION}, found an older one")
    try:
        description = read_json(folder / "store.json")
    except DataError:
        raise DataError("its description is missing or damaged") from None
    if not isinstance(description, dict) or description.get("format") != _FORMAT:
        raise DataError("its description is damaged")
    if description.get("version") != VERSION:
        found = description.get("version")
        raise OtherVersion(f"expected a token store of version {VERSION}, found version {found}")
    spec = TokenSpec.from_json(description.get("tokens", {}))
    if spec.key != folder.name:
        raise DataError("its description is damaged")
    try:
        channels = np.load(folder / "channels.npy", allow_pickle=False)
    except (OSError, ValueError):
        raise DataError("its offsets are missing or damaged") from None
    shape = (2, 2 * spec.layout.channels)
    if channels.shape != shape or zlib.crc32(channels.tobytes()) != description.get("channels_crc32"):
        raise DataError("its offsets are damaged")
    return spec, channels


def remove_folder(folder: Path) -> None:
    """Remove a store's folder; for other processes it disappears at once."""
    hidden = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.gone")
    try:
        os.replace(folder, hidden)
    except FileNotFoundError:
        return
    except OSError as error:
        raise BrainkitError(f"{folder}: cannot be removed: {error.strerror}") from None
    shutil.rmtree(hidden, ignore_errors=True)


def remove_leftovers(home: Path) -> None:
    """Remove stores that were only partly created or removed when their process was killed."""
    for path in home.glob(".*"):
        with contextlib.suppress(OSError):
            if path.is_dir() and time.time() - path.stat().st_mtime > _STALE:
                shutil.rmtree(path, ignore_errors=True)
