"""The wire format of protobuf: fields one after another, every length bounded before it is used.

Only the parts that ONNX files use: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Buffer = bytes | mmap.mmap


def fields(data: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Field number, wire type, start and length of the content, for each field from `start` up to `end`.

    Raises
    ------
    ValueError
        If a field is damaged, of an unknown wire type, or longer than the message that holds it.
    """
    position = start
    while position < end:
        number, wire, before, length = head(data, position, end)
        position += before
        if length > end - position:
            raise ValueError("a field is longer than its message")
        yield number, wire, position, length
        position += length


def head(data: Buffer, position: int, end: int) -> tuple[int, int, int, int]:
    """Field number, wire type, bytes before the content, and the content's length.

    Raises
    ------
    ValueError
        As `fields`.
    """
    tag, first = varint(data, position, end)
    number, wire = tag >> 3, tag & 7
    if not 1 <= number < 1 << 29:
        raise ValueError("a field number out of range")
    before = first - position
    if wire == BYTES:
        length, content = varint(data, first, end)
        return number, wire, content - position, length
    if wire == VARINT:
        return number, wire, before, varint(data, first, end)[1] - first
    if wire == FIXED64:
        return number, wire, before, 8
    if wire == FIXED32:
        return number, wire, before, 4
    raise ValueError("a field of an unknown wire type")


def varint(data: Buffer, position: int, end: int) -> tuple[int, int]:
    """A number of up to 64 bits, and the position after it.

    Raises
    ------
    ValueError
        If it is truncated or too long.
    """
    value = shift = 0
    while shift < 70:
        if position >= end:
            raise ValueError("it ends within a field")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a number is too long")


def varints(data: Buffer, wire: int, start: int, length: int) -> list[int]:
    """The numbers of a repeated integer field: one, or several packed.

    Raises
    ------
    ValueError
        If the field has another wire type, or is damaged.
    """
    if wire not in (VARINT, BYTES):
        raise ValueError("a number of an unexpected wire type")
    found, position, end = [], start, start + length
    while position < end:
        value, position = varint(data, position, end)
        found.append(value)
    return found


def encode_varint(value: int) -> bytes:
    """A number of up to 64 bits as bytes."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
