"""Stores of tokens on disk: what a store is, which images it holds, and how several processes share it.

A store is a folder, ``$BRAINKIT_CACHE/tokens/<key>/``. The key follows from all that the tokens of an image depend on;
the images in it are keyed by their content, so that runs, subjects and processes share them. ``store.json`` says in
words what it is, ``channels.npy`` holds the offset and the s.d. of each channel, ``*.shard`` the images' records
(:mod:`brainkit.features.shard`).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.errors import BrainkitError, DataError
from brainkit.features.shard import SUFFIX, VERSION, Shard
from brainkit.utils.files import read_json, write_beside, write_json
from brainkit.utils.locks import FileLock
from brainkit.utils.system import allow_open_files, cores

Say = Callable[[str], None]

IN_USE = "in-use"
_FORMAT = "brainkit tokens"
_CLAIM = ".claim"
_STALE = 24 * 3600  # seconds


@dataclass(frozen=True)
class Layout:
    """How the numbers of one image lie in its record: each layer's local tokens (C, H, W), then all global ones (C).

    Attributes
    ----------
    widths : tuple of (str, int)
        Layers in order of depth, and their channels C.
    grid : (int, int)
        Rows and columns of the token grid.
    """

    widths: tuple[tuple[str, int], ...]
    grid: tuple[int, int]

    @property
    def channels(self) -> int:
        """Channels of all layers together."""
        return sum(width for _, width in self.widths)

    @property
    def record(self) -> int:
        """Numbers of one image."""
        return self.channels * (self.grid[0] * self.grid[1] + 1)

    @cached_property
    def places(self) -> dict[str, tuple[slice, slice]]:
        """For each layer where its local and its global tokens lie in a record."""
        places, cells = {}, self.grid[0] * self.grid[1]
        start, whole = 0, self.channels * cells
        for layer, width in self.widths:
            places[layer] = slice(start, start + width * cells), slice(whole, whole + width)
            start, whole = start + width * cells, whole + width
        return places

    def offsets_of(self, offsets: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Each layer's (C,) offsets of local and of global tokens, out of all of them: (2 * channels,)."""
        ends = list(itertools.accumulate(width for _, width in self.widths))
        return {
            layer: (offsets[end - width : end], offsets[self.channels + end - width : self.channels + end])
            for (layer, width), end in zip(self.widths, ends, strict=True)
        }


@dataclass(frozen=True)
class TokenKind:
    """All that the tokens of an image depend on, but for the image.

    Attributes
    ----------
    backbone, weights, code : str
        Its name, and the hashes of its weights and of the file that defines it.
    layers : tuple of (str, int)
        In order of depth, with their channels.
    grid : (int, int)
    preprocessing : dict
        As :meth:`brainkit.images.Preprocessing.to_json` gives it.
    dtype : str
        What is kept: float16 or bfloat16.
    arithmetic : str
        What the network computed in.
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
    def from_json(cls, value: dict[str, Any]) -> TokenKind:
        """Read what ``store.json`` holds of it.

        Raises
        ------
        DataError
            If it does not hold that.
        """
        try:
            layers = tuple((str(layer), int(width)) for layer, width in value["layers"])
            height, width = value["grid"]
            return cls(**{**value, "layers": layers, "grid": (int(height), int(width))})
        except (TypeError, KeyError, ValueError):
            raise DataError("its description is damaged") from None


class TokenStore:
    """One store, open; other processes may fill it at the same time.

    Parameters
    ----------
    folder : Path
    say : callable
        Takes a line for every shard that is damaged; it is removed, and its images count as missing.

    Raises
    ------
    DataError
        If the folder is not a whole store of this version; says why, without the path.
    """

    def __init__(self, folder: Path, say: Say) -> None:
        self.folder, self._say = folder, say
        self.kind, (self.offsets, self.spread) = read_description(folder)
        self.layout = self.kind.layout
        # While it is held, nobody prunes the store. A folder that can only be read has no such file, and needs none.
        self.held: FileLock | None = None
        with contextlib.suppress(OSError):
            self.held = FileLock.take(folder / IN_USE, shared=True, wait=True)
            os.utime(folder / IN_USE)  # when it was last used
        if not (folder / "store.json").is_file():
            raise DataError("it was removed")
        self._shards: dict[str, Shard] = {}
        self._where: dict[bytes, tuple[Shard, int]] = {}
        self._sweep()
        self.refresh()

    @classmethod
    def create(cls, home: Path, kind: TokenKind, channels: np.ndarray, say: Say, about: dict[str, Any]) -> TokenStore:
        """Make an empty store, or open the one that another process has just made.

        Parameters
        ----------
        home : Path
            Folder of all stores; must exist.
        kind : TokenKind
        channels : float32 array of shape (2, 2 * channels)
            What is subtracted from each channel, and about how much it varies: the local tokens' of all layers, then
            the global ones'.
        say : callable
            Takes lines.
        about : dict
            Further words for ``store.json``.
        """
        folder = home / kind.key
        sweep(home)
        try:
            with write_beside(folder) as beside:
                beside.mkdir()
                np.save(beside / "channels.npy", channels)
                description = {
                    "format": _FORMAT,
                    "version": VERSION,
                    **about,
                    "tokens": asdict(kind),
                    "record": kind.layout.record,
                    "channels": "channels.npy",
                    "channels_crc32": zlib.crc32(channels.tobytes()),
                }
                write_json(beside / "store.json", description)
        except BrainkitError:
            if not folder.is_dir():
                raise
        return cls(folder, say)

    def __len__(self) -> int:
        return len(self._where)

    def refresh(self) -> None:
        """See the shards that have come since."""
        for name in sorted(entry.name for entry in os.scandir(self.folder) if entry.name.endswith(SUFFIX)):
            if name in self._shards:
                continue
            try:
                shard = Shard(self.folder / name, self.layout.record)
            except FileNotFoundError:
                continue  # another process found it damaged
            except DataError as error:
                self._drop(self.folder / name, str(error))
                continue
            self._shards[name] = shard
            for row, image in enumerate(shard.images):
                self._where.setdefault(image, (shard, row))
        allow_open_files(len(self._shards))  # a map of a file holds it open

    def missing(self, images: Iterable[bytes]) -> list[bytes]:
        """Those that are not here, each once, in their order."""
        return [image for image in dict.fromkeys(images) if image not in self._where]

    def places(self, images: Sequence[bytes]) -> tuple[list[Shard], np.ndarray]:
        """The shards that hold the images, and for each image which of these and which row: (n, 2), int32."""
        shards: dict[str, int] = {}
        used: list[Shard] = []
        where = np.empty((len(images), 2), np.int32)
        for k, image in enumerate(images):
            shard, row = self._where[image]
            number = shards.setdefault(shard.path.name, len(shards))
            if number == len(used):
                used.append(shard)
            where[k] = number, row
        for shard in used:
            _ = shard.records  # mapped now: another process may find one damaged and remove it
        return used, where

    def check(self, images: Iterable[bytes]) -> None:
        """Read these images' records, those that are here, and drop the shards with a wrong checksum."""
        rows: dict[str, list[int]] = {}
        for image in dict.fromkeys(images):
            if image in self._where:
                shard, row = self._where[image]
                rows.setdefault(shard.path.name, []).append(row)
        with ThreadPoolExecutor(min(16, cores())) as pool:
            found = list(pool.map(lambda name: self._shards[name].damaged(rows[name]), rows))
        for name, damaged in zip(rows, found, strict=True):
            if damaged:
                self._forget(name)
                self._drop(self.folder / name, "a record does not have its checksum")

    def claim(self, chunk: str) -> FileLock | None:
        """Take a piece of the work, so that no two processes do it twice; None where another process has it."""
        return FileLock.take(self.folder / f".{chunk}{_CLAIM}")

    def wait_for(self, chunk: str) -> None:
        """Wait until whoever has this piece of the work is done with it, or has died."""
        lock = FileLock.take(self.folder / f".{chunk}{_CLAIM}", wait=True)
        assert lock is not None
        lock.release(remove=True)

    def drop(self) -> None:
        """Remove the whole store. Who has it open can read on."""
        if self.held is not None:
            self.held.release()
        remove_folder(self.folder)

    def _forget(self, name: str) -> None:
        shard = self._shards.pop(name)
        self._where = {image: place for image, place in self._where.items() if place[0] is not shard}

    def _drop(self, path: Path, reason: str) -> None:
        self._say(f"{path}: {reason}; dropped, its images are run again")
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise BrainkitError(f"{path}: {reason}, and it cannot be removed: {error.strerror}") from None

    def _sweep(self) -> None:
        """Remove what processes that were killed left behind."""
        for claim in self.folder.glob(f".*{_CLAIM}"):
            with contextlib.suppress(OSError):
                if lock := FileLock.take(claim):
                    for part in self.folder.glob(f"{claim.name.removesuffix(_CLAIM)}.*.part"):
                        # Where there are no locks, only time tells that nobody is at work.
                        if lock.certain or time.time() - part.stat().st_mtime > _STALE:
                            part.unlink()
                    lock.release(remove=lock.certain)


def read_description(folder: Path) -> tuple[TokenKind, np.ndarray]:
    """What a store holds, and the offsets and s.d. of its channels: (2, 2 * channels).

    Raises
    ------
    DataError
        If the folder is not a whole store of this version; says why, without the path.
    """
    if (folder / "tokens.json").is_file():
        raise DataError(f"expected a token store of version {VERSION}, found an older one")
    try:
        held = read_json(folder / "store.json")
    except DataError:
        raise DataError("its description is missing or damaged") from None
    if not isinstance(held, dict) or held.get("format") != _FORMAT:
        raise DataError("its description is damaged")
    if held.get("version") != VERSION:
        raise DataError(f"expected a token store of version {VERSION}, found version {held.get('version')}")
    kind = TokenKind.from_json(held.get("tokens", {}))
    if kind.key != folder.name:
        raise DataError("its description is damaged")
    try:
        channels = np.load(folder / "channels.npy", allow_pickle=False)
    except (OSError, ValueError):
        raise DataError("its offsets are missing or damaged") from None
    shape = (2, 2 * kind.layout.channels)
    if channels.shape != shape or zlib.crc32(channels.tobytes()) != held.get("channels_crc32"):
        raise DataError("its offsets are damaged")
    return kind, channels


def remove_folder(folder: Path) -> None:
    """Remove a store's folder; from one moment to the next it is no longer there."""
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.gone")
    try:
        os.replace(folder, aside)
    except FileNotFoundError:
        return
    except OSError as error:
        raise BrainkitError(f"{folder}: cannot be removed: {error.strerror}") from None
    shutil.rmtree(aside, ignore_errors=True)


def sweep(home: Path) -> None:
    """Remove what was half-made or half-removed when its process was killed."""
    for place in home.glob(".*"):
        with contextlib.suppress(OSError):
            if place.is_dir() and time.time() - place.stat().st_mtime > _STALE:
                shutil.rmtree(place, ignore_errors=True)


def chunks(images: Sequence[bytes], size: int) -> Iterator[tuple[str, list[bytes]]]:
    """Cut images into pieces of work; a piece's name follows from its images."""
    for start in range(0, len(images), size):
        piece = list(images[start : start + size])
        yield hashlib.sha256(b"".join(piece)).hexdigest()[:24], piece
