"""Rows as ``.npz``, written as they come: a zip archive whose first member is a ``.npy`` that grows.

The archive's own writer wants a member's length before the next one, and its checksum with it; here the first member is
written behind a header of a fixed size, which is filled in at the end. So no copy is made and nothing is held.
"""

from __future__ import annotations

import itertools
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from brainkit.predict.outputs.npy import NpyRows

_NAME = b"fmri.npy"
_DATA = 64  # bytes before the array, which is then aligned as a .npy file by itself
_CHUNK = 1 << 22
_ZIP64 = 45  # version needed to extract: sizes of 8 bytes
_DAY = (1980 - 1980) << 9 | 1 << 5 | 1  # the format's first day: the bytes do not depend on the clock
_FULL = 0xFFFFFFFF


class NpzRows:
    """A ``.npz`` file with ``fmri`` (n, columns) float32, what came before it in `facts`, and ``images``.

    Parameters
    ----------
    path : Path
    columns : int
    facts : mapping of str to array
        Written beside the rows, such as the vertices' ids.
    resume_rows : int
        The file is there, unfinished, and keeps so many rows.
    """

    def __init__(self, path: Path, columns: int, facts: Mapping[str, np.ndarray], resume_rows: int = 0) -> None:
        self._rows = NpyRows(path, columns, resume_rows, offset=_DATA)
        self._path, self._facts = path, facts
        self.append, self.checkpoint, self.close = self._rows.append, self._rows.checkpoint, self._rows.close

    def finish(self, names: Collection[str] = ()) -> None:
        """Fill in the archive's headers, and add the small members."""
        self._rows.finish()
        with self._path.open("r+b") as stream:
            _wrap(stream)
        with zipfile.ZipFile(self._path, "a", zipfile.ZIP_DEFLATED) as archive:
            for name, values in self._facts.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                    np.lib.format.write_array(member, np.asanyarray(values), allow_pickle=False)
            if len(names):
                info = zipfile.ZipInfo("images.npy")
                info.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(info, "w", force_zip64=True) as member:
                    _write_names(member, names)


def _write_names(member: IO[bytes], names: Collection[str]) -> None:
    """A .npy array of text, some names at a time: each takes the room of the longest."""
    width = max(1, max(map(len, names)))
    header = {"descr": f"<U{width}", "fortran_order": False, "shape": (len(names),)}
    np.lib.format.write_array_header_1_0(member, header)
    left = iter(names)
    while some := list(itertools.islice(left, 1024)):
        member.write(np.array(some, dtype=f"<U{width}").tobytes())


def _wrap(stream: BinaryIO) -> None:
    """Make a file of `_DATA` free bytes and an array a zip archive with that one member."""
    stream.seek(_DATA)
    checksum = 0
    while chunk := stream.read(_CHUNK):
        checksum = zlib.crc32(chunk, checksum)
    end = stream.tell()
    size = end - _DATA
    common = (_ZIP64, 0, zipfile.ZIP_STORED, 0, _DAY, checksum, _FULL, _FULL, len(_NAME))
    sizes = struct.pack("<HHQQ", 1, 16, size, size)
    free = _DATA - 30 - len(_NAME) - len(sizes)  # taken by a field that readers pass over
    padding = struct.pack("<HH", 0xBB0B, free - 4) + bytes(free - 4)
    stream.seek(0)
    stream.write(struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", *common, len(sizes) + free) + _NAME + sizes + padding)
    stream.seek(end)
    entry = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", _ZIP64, *common, len(sizes), 0, 0, 0, 0, 0)
    entry += _NAME + sizes
    ending = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, _ZIP64, _ZIP64, 0, 0, 1, 1, len(entry), end)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end + len(entry), 1)
    last = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, len(entry), _FULL, 0)
    stream.write(entry + ending + locator + last)
