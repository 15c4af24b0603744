"""TIFF directories, which EXIF data are too, and the tags of a TIFF file that its pixels depend on."""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

from brainkit.errors import ImageError

BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLES = 258, 259, 262, 274, 277
PLANAR, SAMPLE_FORMAT, XMP = 284, 339, 700

# Width, height, bits, compression, photometric interpretation, fill order, strips, samples, planes, fax options,
# predictor, palette, tiles, inks, extra samples, sample format, JPEG tables, YCbCr, and Windows Media Photo's format.
_PIXEL_TAGS = frozenset(
    [256, 257, BITS, COMPRESSION, PHOTOMETRIC, 266, 273, SAMPLES, 278, 279, PLANAR, 292, 293, 317, 320]
    + [322, 323, 324, 325, 332, 334, 338, SAMPLE_FORMAT, 347, *range(512, 522), 529, 530, 531, 532, 48129]
)
_SINGLE = frozenset([256, 257, COMPRESSION, PHOTOMETRIC, 266, SAMPLES, 278, PLANAR, 317, 322, 323])  # have one value

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_MAX_SAMPLES = 6  # of a pixel, in Pillow
_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_MAX_ENTRIES = 1 << 16  # of a directory; thousands are an attack


@dataclass(frozen=True)
class _Entry:
    """A tag: the type of its values, their number, where they lie; `record` is all that the directory says of it."""

    kind: int
    count: int
    where: int
    record: bytes


@dataclass(frozen=True)
class Directory:
    """The first directory of a TIFF file.

    Attributes
    ----------
    file : BinaryIO
    order : str
        Of the bytes, for `struct`.
    big : bool
        BigTIFF.
    start : int
        Where it lies.
    entries : dict of int to _Entry
        By tag; those whose values are in the file.
    following : int
        Where the next directory lies, of the file's second image; 0 if there is none.
    """

    file: BinaryIO
    order: str
    big: bool
    start: int
    entries: dict[int, _Entry]
    following: int = 0

    def values(self, tag: int, most: int | None = None) -> bytes:
        """The bytes of a tag's values, or of the first ones; none if it is missing."""
        entry = self.entries.get(tag)
        if entry is None:
            return b""
        self.file.seek(entry.where)
        return self.file.read(_SIZES[entry.kind] * min(entry.count, most or entry.count))

    def number(self, tag: int, default: int) -> int:
        """The first value of a tag of whole numbers."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _INTEGERS:
            return default
        return int(struct.unpack(self.order + _INTEGERS[entry.kind], self.values(tag, 1))[0])


def read_directory(file: BinaryIO) -> Directory | None:
    """Read the first directory as far as it is whole; None if there is none."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    header = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(header[:2])
    if order is None:
        return None
    big = 43 in header[2:4]
    number, offset, record = (struct.Struct(order + form) for form in (("Q", "Q", "HHQ") if big else ("H", "I", "HHI")))
    size = record.size + offset.size  # short values take the place of their offset
    try:
        (start,) = offset.unpack_from(header, 8 if big else 4)
        file.seek(min(start, end))
        (count,) = number.unpack(file.read(number.size))
    except struct.error:
        return None
    listed = file.read(min(count, _MAX_ENTRIES) * size)
    (following,) = offset.unpack(file.read(offset.size).ljust(offset.size, b"\0"))
    entries: dict[int, _Entry] = {}
    for at in range(0, len(listed) - size + 1, size):
        tag, kind, values = record.unpack_from(listed, at)
        length, where = values * _SIZES.get(kind, 0), start + number.size + at + record.size
        if length > offset.size:
            (where,) = offset.unpack_from(listed, at + record.size)
        if 0 < length <= end - where:
            entries.setdefault(tag, _Entry(kind, values, where, listed[at : at + size]))
    return Directory(file, order, big, start, entries, following)


def without_metadata(directory: Directory) -> BinaryIO:
    """The file with a first directory that holds only what the pixels depend on, and no other directory.

    It says that white is high of grey values that Pillow gives as they are stored.
    """
    records = []
    for tag in sorted(_PIXEL_TAGS & directory.entries.keys()):
        entry = directory.entries[tag]
        if tag == PHOTOMETRIC and white_is_zero(directory):
            records.append(_single(directory, tag, 3, struct.pack(directory.order + "H", 1)))
        elif tag in _SINGLE and entry.count > 1:
            records.append(_single(directory, tag, entry.kind, directory.values(tag, 1)))
        else:
            records.append(entry.record)
    patch = struct.pack(directory.order + ("Q" if directory.big else "H"), len(records)) + b"".join(records)
    patch += bytes(8 if directory.big else 4)  # no next directory
    if directory.start + len(patch) > directory.file.seek(0, os.SEEK_END):
        directory.file.seek(0)
        return io.BytesIO(directory.file.read(directory.start) + patch)  # the file was cut off at its very end
    return _Patched(directory.file, directory.start, patch)  # type: ignore[return-value]


def white_is_zero(directory: Directory) -> bool:
    """Whether grey values that Pillow gives as they are stored are a negative."""
    return directory.number(PHOTOMETRIC, 0) == 0 and directory.number(BITS, 1) in (12, 16)


def check_readable(directory: Directory) -> None:
    """Refuse what Pillow would misread or complain of."""
    if directory.big and directory.order == ">":
        raise ImageError("a BigTIFF with the most significant byte first cannot be read; save it as a plain TIFF")
    if directory.number(SAMPLE_FORMAT, 1) == 2:  # of 8 bits, Pillow would take -1 for white
        raise ImageError("expected unsigned pixels, found signed ones, whose range is not known")
    samples = directory.number(SAMPLES, 1)
    if samples > _MAX_SAMPLES:  # Pillow would say so on the terminal
        raise ImageError(f"expected at most {_MAX_SAMPLES} samples a pixel, found {samples:,}; save them as 8-bit RGB")
    planes, compression = directory.number(PLANAR, 1), directory.number(COMPRESSION, 1)
    if planes == 2 and compression == 1 and directory.number(BITS, 1) == 16 and samples > 1:
        raise ImageError("16-bit colours in separate planes cannot be read; save them as 8-bit RGB")


def describe(directory: Directory) -> str:
    """Which kind of pixels the file has, for an error."""
    samples, bits = directory.number(SAMPLES, 1), directory.number(BITS, 1)
    kind = {2: "signed ", 3: "floating-point "}.get(directory.number(SAMPLE_FORMAT, 1), "")
    number = f"{samples} {kind}sample{'s' if samples > 1 else ''} of {bits} bits"
    return f"{number}, photometric interpretation {directory.number(PHOTOMETRIC, 0)}"


def _single(directory: Directory, tag: int, kind: int, value: bytes) -> bytes:
    """The record of one value."""
    head, width = ("HHQ", 8) if directory.big else ("HHI", 4)
    return struct.pack(directory.order + head, tag, kind, 1) + value.ljust(width, b"\0")


class _Patched:
    """A file some of whose bytes are others: what Pillow uses of one, and neither copied nor changed."""

    def __init__(self, file: BinaryIO, start: int, patch: bytes) -> None:
        self._file, self._start, self._patch = file, start, patch
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        at = self._file.tell()
        data = self._file.read(size)
        first, last = max(at, self._start), min(at + len(data), self._start + len(self._patch))
        if first >= last:
            return data
        view = memoryview(data)
        return b"".join((view[: first - at], self._patch[first - self._start : last - self._start], view[last - at :]))
