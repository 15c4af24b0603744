"""The chunks of a PNG file that its pixels depend on, and its orientation."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from brainkit.images.orientation import from_text, read_orientation

_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_TEXTS = {b"Raw profile type exif": "exif", b"XML:com.adobe.xmp": "xmp"}  # keywords of the only ones that are read
_MAX_TEXT = 1 << 20  # bytes after unpacking: an attack may claim any number

_HEAD = struct.Struct(">I4s")
_GREY, _RGB = 0, 2


@dataclass
class Png:
    """A PNG file without metadata.

    Attributes
    ----------
    data : bytes
    orientation : int
    intact : bool
        The file is complete, and the checksums are right. Tested only if asked for.
    """

    data: bytes
    orientation: int
    intact: bool


def without_metadata(data: bytes, *, check: bool = False) -> Png:
    """The file with the chunks that its pixels depend on: of an animation, those of the image shown without it."""
    view = memoryview(data)
    kept: list[memoryview | bytes] = [view[:8]]
    found = {"exif": b"", "xmp": b""}
    exif_chunk, kind, intact, changed = b"", b"", True, False
    depth, colour, at = 8, _RGB, 8
    while at + 12 <= len(data) and kind != b"IEND":
        length, kind = _HEAD.unpack_from(data, at)
        chunk, body = view[at : at + 12 + length], view[at + 8 : at + 8 + length]
        if len(chunk) < 12 + length:
            break
        at += len(chunk)
        if kind not in _KEPT:
            changed = True
            if kind == b"eXIf":
                exif_chunk = bytes(body)
            elif kind in (b"tEXt", b"zTXt", b"iTXt"):
                found.update(_text(kind, body))
            continue
        kept.append(chunk)
        if check and _checksum(chunk) != chunk[-4:]:
            intact = False
        if kind == b"IHDR" and length >= 10:
            depth, colour = body[8], body[9]
        elif kind == b"tRNS" and _checksum(chunk) == chunk[-4:]:  # if it is wrong, Pillow refuses the file
            kept[-1] = _transparency(bytes(chunk), depth, colour)
            changed = changed or kept[-1] != chunk
    if kind != b"IEND":
        kept.append(view[at:])  # it is cut off, or damaged: decoding shows whether its pixels are there
        intact = False
    orientation = read_orientation(exif_chunk or from_text(found["exif"].decode("latin-1")), found["xmp"])
    return Png(b"".join(kept) if changed else data, orientation, intact)


def _transparency(chunk: bytes, depth: int, colour: int) -> bytes:
    """The chunk with its grey or colour on the scale of what Pillow decodes: 8 bits, but 16 of 16-bit grey values."""
    length = (len(chunk) - 12) // 2
    if 12 + 2 * length != len(chunk):
        return chunk
    values = struct.unpack_from(f">{length}H", chunk, 8)
    most = (1 << depth) - 1
    if colour == _GREY:
        values = tuple((value & most) * (255 // most if depth in (2, 4) else 1) for value in values)
    elif colour == _RGB:
        values = tuple(value >> 8 if depth == 16 else value & most for value in values)
    else:
        return chunk
    chunk = chunk[:8] + struct.pack(f">{length}H", *values) + chunk[-4:]
    return chunk[:-4] + _checksum(chunk)


def _text(kind: bytes, body: memoryview) -> dict[str, bytes]:
    """A text that may hold the orientation, by what it holds; nothing of another, or of a damaged one."""
    keyword, _, text = bytes(body[:80]).partition(b"\0")
    name = _TEXTS.get(keyword)
    if name is None:
        return {}
    text = bytes(body[len(keyword) + 1 :])
    packed = kind == b"zTXt"
    if packed:
        text = text[1:]
    elif kind == b"iTXt":
        packed = text[:1] == b"\1"
        *_, text = text[2:].split(b"\0", 2)
    if packed:
        try:
            text = zlib.decompressobj().decompress(text, _MAX_TEXT)
        except zlib.error:
            return {}
    return {name: text}


def _checksum(chunk: memoryview | bytes) -> bytes:
    """The checksum that a whole chunk should end with."""
    return zlib.crc32(chunk[4:-4]).to_bytes(4, "big")
