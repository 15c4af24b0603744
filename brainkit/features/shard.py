"""One shard of a token store: a file of many images' token records, each with its image's hash and a checksum.

Layout, little-endian::

    magic "BKTOKENS" | version u32 | count u32 | bytes of a record u64 | start u64 | checksum u32
    count times: SHA-256 of the image file (32 bytes) | CRC-32 of the record u32
    at `start`: the records, one after another

The checksum in the head is the CRC-32 of all that comes before it and of the table. A shard is written beside under a
hidden name and renamed when it is complete, by plain writes: a disk that fills up is an error, never a signal.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.errors import DataError

VERSION = 3
SUFFIX = ".shard"
_MAGIC = b"BKTOKENS"
_HEAD = struct.Struct("<8sIIQQ")
_SUM = struct.Struct("<I")
_ENTRY = np.dtype([("image", np.uint8, 32), ("checksum", "<u4")])


class ShardWriter:
    """Writes one shard.

    Parameters
    ----------
    folder : Path
        Of the store.
    stem : str
        Begins the hidden name that the file has until it is complete.
    record : int
        Numbers (16 bits each) of a record.
    capacity : int
        Records it may hold at most.
    """

    def __init__(self, folder: Path, stem: str, record: int, capacity: int) -> None:
        self.folder, self.record = folder, record
        self._entries: list[tuple[bytes, int]] = []
        self._start = -(-(_HEAD.size + _SUM.size + capacity * _ENTRY.itemsize) // 4096) * 4096
        self._beside = folder / f".{stem}.{secrets.token_hex(4)}.part"
        self._file = self._beside.open("wb")
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
        """Complete the shard and give it its name, which follows from its images; None where it has none."""
        if not self._entries:
            self.abandon()
            return None
        table = np.array([(list(image), checksum) for image, checksum in self._entries], _ENTRY).tobytes()
        head = _HEAD.pack(_MAGIC, VERSION, len(self), 2 * self.record, self._start)
        path = self.folder / (hashlib.sha256(b"".join(image for image, _ in self._entries)).hexdigest()[:24] + SUFFIX)
        try:
            self._file.truncate(self._start + self.nbytes)  # a record that was interrupted half-way
            self._file.seek(0)
            self._file.write(head + _SUM.pack(zlib.crc32(table, zlib.crc32(head))) + table)
            self._file.close()
            os.replace(self._beside, path)
        finally:
            self.abandon()
        return path

    def abandon(self) -> None:
        """Remove what is not complete."""
        with contextlib.suppress(OSError):  # what is still in the buffer of a full disk
            self._file.close()
        self._beside.unlink(missing_ok=True)


class Shard:
    """A complete shard, memory-mapped when its records are first asked for.

    Parameters
    ----------
    path : Path
    record : int
        Numbers of a record, as the store has it.

    Raises
    ------
    DataError
        If the file is not a whole shard of that kind; says why, without the path.
    FileNotFoundError
        If it has gone.
    """

    def __init__(self, path: Path, record: int) -> None:
        self.path, self.record = path, record
        with path.open("rb") as file:
            head = file.read(_HEAD.size + _SUM.size)
            if len(head) < _HEAD.size + _SUM.size or head[:8] != _MAGIC:
                raise DataError("expected a shard of tokens, found something else")
            _, version, count, nbytes, self._start = _HEAD.unpack_from(head)
            if version != VERSION:
                raise DataError(f"expected version {VERSION}, found version {version}")
            # A damaged count must not become a demand for memory.
            if count * _ENTRY.itemsize + len(head) > self._start:
                raise DataError("its head is damaged")
            table = file.read(count * _ENTRY.itemsize)
            size = os.fstat(file.fileno()).st_size
        if _SUM.unpack_from(head, _HEAD.size)[0] != zlib.crc32(table, zlib.crc32(head[: _HEAD.size])):
            raise DataError("its head is damaged")
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
        """(count, record), int16: the bits of half-precision numbers; a read-only map of the file."""
        if self._records is None:
            shape = (len(self), self.record)
            # As a plain array: every view of a memmap costs microseconds.
            self._records = np.asarray(np.memmap(self.path, np.int16, "r", offset=self._start, shape=shape))
        return self._records

    def damaged(self, rows: Sequence[int]) -> bool:
        """Whether one of these records does not have its checksum."""
        return any(zlib.crc32(self.records[row].data) != int(self.checksums[row]) for row in rows)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_records": None}  # another process maps the file itself
