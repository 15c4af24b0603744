"""The records of a token store: their layout, and the files (shards) that hold many of them.

A shard, little-endian::

    magic "BKTOKENS" | version u32 | count u32 | bytes per record u64 | start u64 | checksum u32
    count times: SHA-256 of the image file (32 bytes) | CRC-32 of the record u32
    at `start`: the records, one after another

The checksum in the header is the CRC-32 of everything before it and of the table. A shard is written under a hidden
name and renamed once complete. It is written with plain writes, not through a memory map, so that a full disk raises
an error instead of ending the process with a signal.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import secrets
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.errors import DataError

VERSION = 3
SUFFIX = ".shard"
_MAGIC = b"BKTOKENS"
_HEADER = struct.Struct("<8sIIQQ")
_CHECKSUM = struct.Struct("<I")
_ENTRY = np.dtype([("image", np.uint8, 32), ("checksum", "<u4")])


@dataclass(frozen=True)
class Layout:
    """Order of the numbers in an image's record: each layer's local tokens (C, H, W), then all global tokens (C).

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
        """Numbers in a record."""
        return self.channels * (self.grid[0] * self.grid[1] + 1)

    @cached_property
    def slices(self) -> dict[str, tuple[slice, slice]]:
        """For each layer the slices of a record that hold its local and its global tokens."""
        slices, cells = {}, self.grid[0] * self.grid[1]
        local_start, global_start = 0, self.channels * cells
        for layer, width in self.widths:
            local_stop, global_stop = local_start + width * cells, global_start + width
            slices[layer] = slice(local_start, local_stop), slice(global_start, global_stop)
            local_start, global_start = local_stop, global_stop
        return slices

    def by_layer(self, channels: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Split one value per channel (2 * channels,) into each layer's local (C,) and global (C,) values."""
        ends = list(itertools.accumulate(width for _, width in self.widths))
        return {
            layer: (channels[end - width : end], channels[self.channels + end - width : self.channels + end])
            for (layer, width), end in zip(self.widths, ends, strict=True)
        }


class ShardWriter:
    """Writes one shard.

    Parameters
    ----------
    folder : Path
        Of the store.
    stem : str
        Start of the hidden name that the file has until it is complete.
    record : int
        Numbers (16 bits each) in a record.
    capacity : int
        Largest number of records.
    """

    def __init__(self, folder: Path, stem: str, record: int, capacity: int) -> None:
        self.folder, self.record = folder, record
        self._entries: list[tuple[bytes, int]] = []
        self._start = -(-(_HEADER.size + _CHECKSUM.size + capacity * _ENTRY.itemsize) // 4096) * 4096
        self._temporary = folder / f".{stem}.{secrets.token_hex(4)}.part"
        self._file = self._temporary.open("wb")
        self._file.write(bytes(self._start))

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes of the records so far."""
        return 2 * self.record * len(self)

    def add(self, images: Sequence[bytes], records: np.ndarray, checksums: Sequence[int]) -> None:
        """Append the records (k, record), 16-bit numbers, of k images."""
        self._file.write(np.ascontiguousarray(records).data.cast("B"))
        self._entries += zip(images, checksums, strict=True)

    def finish(self) -> Path | None:
        """Complete the shard and rename it by a hash of its images; None if it has no images."""
        if not self._entries:
            self.abandon()
            return None
        table = np.array([(list(image), checksum) for image, checksum in self._entries], _ENTRY).tobytes()
        header = _HEADER.pack(_MAGIC, VERSION, len(self), 2 * self.record, self._start)
        path = self.folder / (hashlib.sha256(b"".join(image for image, _ in self._entries)).hexdigest()[:24] + SUFFIX)
        try:
            self._file.truncate(self._start + self.nbytes)  # without a record whose writing was interrupted
            self._file.seek(0)
            self._file.write(header + _CHECKSUM.pack(zlib.crc32(table, zlib.crc32(header))) + table)
            self._file.close()
            os.replace(self._temporary, path)
        finally:
            self.abandon()
        return path

    def abandon(self) -> None:
        """Remove the incomplete file."""
        with contextlib.suppress(OSError):  # closing flushes the buffer, which fails on a full disk
            self._file.close()
        self._temporary.unlink(missing_ok=True)


class Shard:
    """A complete shard, memory-mapped when its records are first read.

    Parameters
    ----------
    path : Path
    record : int
        Numbers in a record of the store.

    Raises
    ------
    DataError
        If the file is damaged or has records of another size. The message has the reason, without the path.
    FileNotFoundError
        If it no longer exists.
    """

    def __init__(self, path: Path, record: int) -> None:
        self.path, self.record = path, record
        with path.open("rb") as file:
            header = file.read(_HEADER.size + _CHECKSUM.size)
            if len(header) < _HEADER.size + _CHECKSUM.size or header[:8] != _MAGIC:
                raise DataError("expected a shard of tokens, found another kind of file")
            _, version, count, nbytes, self._start = _HEADER.unpack_from(header)
            if version != VERSION:
                raise DataError(f"expected version {VERSION}, found version {version}")
            # A damaged count must not make us read a table of any size.
            if count * _ENTRY.itemsize + len(header) > self._start:
                raise DataError("its header is damaged")
            table = file.read(count * _ENTRY.itemsize)
            size = os.fstat(file.fileno()).st_size
        if _CHECKSUM.unpack_from(header, _HEADER.size)[0] != zlib.crc32(table, zlib.crc32(header[: _HEADER.size])):
            raise DataError("its header is damaged")
        if nbytes != 2 * record or size != self._start + count * nbytes:
            raise DataError(f"expected {self._start + count * 2 * record} bytes, found {size}")
        entries = np.frombuffer(table, _ENTRY)
        self.images = [image.tobytes() for image in entries["image"]]
        self.checksums = entries["checksum"]
        self._records: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def records(self) -> np.ndarray:
        """(count, record), int16: the bits of half-precision numbers; a read-only memory map."""
        if self._records is None:
            shape = (len(self), self.record)
            # As a plain array: every view of a memmap costs microseconds.
            self._records = np.asarray(np.memmap(self.path, np.int16, "r", offset=self._start, shape=shape))
        return self._records

    def damaged(self, rows: Sequence[int]) -> list[int]:
        """Those of the rows whose records do not match their checksums."""
        return [row for row in rows if zlib.crc32(self.records[row].data) != int(self.checksums[row])]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_records": None}  # another process maps the file itself
