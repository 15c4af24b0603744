"""The ONNX container of an encoder file: a small bounded reader of protobuf, brainkit's two entries, and the digest.

Only the top level of the message is walked, and the graph is skipped by its length; every count and length is bounded
before it is used. ``docs/encoder-file.md`` is the format.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from brainkit.encoder_file.wire import BYTES, encode_varint, fields, head
from brainkit.errors import EncoderFileError

METADATA_KEY = "brainkit"
DIGEST_KEY = "brainkit_sha256"
MAX_FILE = 2**31 - 1  # bytes; the limit of protobuf messages
MAX_METADATA = 64 << 20  # bytes of JSON; the whole fsaverage brain with 24 layers takes about 35 MB
_MAX_FIELDS = 65_536  # top-level fields; an export has about ten
_CHUNK = 1 << 20
# Field numbers and wire types of onnx.ModelProto and onnx.StringStringEntryProto.
_IR_VERSION, _GRAPH, _METADATA_PROPS = 1, 7, 14
_KEY, _VALUE = 1, 2


class ForeignFileError(EncoderFileError):
    """A file that is no encoder file at all, as far as its container shows."""


def find_metadata(stream: BinaryIO, source: Path) -> bytes:
    entries = metadata_entries(stream, source)
    if METADATA_KEY.encode() not in entries:
        raise EncoderFileError(f"{source}: an ONNX file, but not a brainkit encoder (it has no brainkit metadata)")
    return entries[METADATA_KEY.encode()]


def metadata_entries(stream: BinaryIO, source: Path) -> dict[bytes, bytes]:
    """Walk the top level of an ONNX model; brainkit's two entries, if it has them."""
    size = stream.seek(0, os.SEEK_END)
    if size == 0:
        raise EncoderFileError(f"{source}: expected an encoder file, found an empty file")
    if size > MAX_FILE:
        raise EncoderFileError(f"{source}: expected an encoder file of at most 2 GB, found {size} bytes")
    ours: dict[bytes, bytes] = {}
    seen: set[int] = set()
    try:
        for number, wire, start, length in _fields(stream, size):
            seen.add(number)
            if number != _METADATA_PROPS or wire != BYTES:
                continue
            if length > MAX_METADATA + DIGEST_BYTES:
                raise ValueError("a metadata entry is too long")
            stream.seek(start)
            key, text = _key_value(stream.read(length))
            if key not in (METADATA_KEY.encode(), DIGEST_KEY.encode()):
                continue
            if key in ours:
                raise ValueError(f"two metadata entries {key.decode()}")
            ours[key] = text
        if not {_IR_VERSION, _GRAPH} <= seen:
            raise ValueError("no graph")
    except ValueError as error:
        raise ForeignFileError(f"{source}: not an ONNX file, or truncated or damaged ({error})") from None
    return ours


def _fields(stream: BinaryIO, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Field number, wire type, start and length of the content, for each field from 0 up to `end`."""
    position = 0
    for _ in range(_MAX_FIELDS):
        if position == end:
            return
        stream.seek(position)
        beginning = stream.read(min(20, end - position))  # a tag and a length, ten bytes each at most
        number, wire, before, length = head(beginning, 0, len(beginning))
        position += before
        if length > end - position:
            raise ValueError("a field is longer than the file")
        yield number, wire, position, length
        position += length
    raise ValueError("too many fields")


def _key_value(entry: bytes) -> tuple[bytes, bytes]:
    found = {_KEY: b"", _VALUE: b""}
    for count, (number, wire, start, length) in enumerate(fields(entry, 0, len(entry))):
        if count == 16:
            raise ValueError("a metadata entry is damaged")
        if wire == BYTES and number in found:
            found[number] = entry[start : start + length]
    return found[_KEY], found[_VALUE]


def metadata_entry(key: bytes, text: bytes) -> bytes:
    """One metadata_props field of a ModelProto."""
    inner = b"".join(
        bytes([number << 3 | BYTES]) + encode_varint(len(part)) + part for number, part in ((_KEY, key), (_VALUE, text))
    )
    return bytes([_METADATA_PROPS << 3 | BYTES]) + encode_varint(len(inner)) + inner


def has_digest(path: Path) -> bool:
    """Whether a file ends as an encoder file does; it is not read any further."""
    with contextlib.suppress(OSError), path.open("rb") as stream:
        stream.seek(-min(DIGEST_BYTES, os.fstat(stream.fileno()).st_size), os.SEEK_END)
        return stream.read().startswith(_DIGEST_HEAD)
    return False


def check_digest(stream: BinaryIO, source: Path) -> str:
    size = stream.seek(0, os.SEEK_END)
    if size <= DIGEST_BYTES:
        raise EncoderFileError(f"{source}: truncated or damaged (no digest at its end)")
    stream.seek(size - DIGEST_BYTES)
    tail = stream.read(DIGEST_BYTES)
    if not tail.startswith(_DIGEST_HEAD):
        raise EncoderFileError(f"{source}: truncated, or changed by another program (no digest at its end)")
    digest = digest_of(stream, size - DIGEST_BYTES)
    if tail[len(_DIGEST_HEAD) :] != digest.encode():
        raise EncoderFileError(f"{source}: damaged or changed: its content does not match its digest")
    return digest


def digest_of(stream: BinaryIO, end: int) -> str:
    digest = hashlib.sha256()
    stream.seek(0)
    while end > 0 and (chunk := stream.read(min(_CHUNK, end))):
        digest.update(chunk)
        end -= len(chunk)
    return digest.hexdigest()


DIGEST_BYTES = len(metadata_entry(DIGEST_KEY.encode(), b"0" * 64))
_DIGEST_HEAD = metadata_entry(DIGEST_KEY.encode(), b"0" * 64)[:-64]
