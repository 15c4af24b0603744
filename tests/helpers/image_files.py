"""Image files put together byte by byte, for kinds that Pillow reads and does not write."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
from PIL import Image

# Grey values of 12 bits, and white in three colours of 12 bits, as JPEG 2000; written by OpenJPEG.
GREY_12 = np.array([[0, 1, 1000, 2048], [3000, 4000, 4094, 4095]])
JPEG_2000_GREY_12 = base64.b64decode(
    "/0//UQApAAAAAAAEAAAAAgAAAAAAAAAAAAAABAAAAAIAAAAAAAAAAAABCwEB/1IADAAAAAEAAAQEAAH/XAAEQGD/ZAAlAAFDcmVhdGVkIGJ5IE9w"
    "ZW5KUEVHIHZlcnNpb24gMi41LjT/kAAKAAAAAAAfAAH/k9/gOAfBiU30gK9KHiTKznAP/9k="
)
JPEG_2000_COLOUR_12 = base64.b64decode(
    "/0//UQAvAAAAAAABAAAAAQAAAAAAAAAAAAAAAQAAAAEAAAAAAAAAAAADCwEBCwEBCwEB/1IADAAAAAEAAAQEAAH/XAAEQGD/ZAAlAAFDcmVhdGVk"
    "IGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjT/kAAKAAAAAAAaAAH/k8/kBADP5AQAz+QEAP/Z"
)
# Greys 0, 256, 512 and 1023 of 10 bits, as AVIF; written by libavif.
AVIF_10 = base64.b64decode(
    "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUEAAADrbWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAAAAAAAOcGl0"
    "bQAAAAAAAQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAETAAAAOQAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEAAGF2MDFDb2xvcgAAAABqaXBy"
    "cAAAAEtpcGNvAAAAFGlzcGUAAAAAAAAABAAAAAQAAAAQcGl4aQAAAAADCgoKAAAADGF2MUOBIEAAAAAAE2NvbHJuY2x4AAIAAgAAgAAAABdpcG1h"
    "AAAAAAAAAAEAAQQBAoMEAAAAQW1kYXQSAAoIOAR/nAgIAkAyKxAAAPYA2xs7crYVx8TXgYWUEsgCv7/1JRTOd+Fz6md72Gj3SRarcU+SqzU="
)


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int,
    rows: list[bytes],
    *,
    depth: int = 8,
    colour: int = 2,
    before: bytes = b"",
    after: bytes = b"",
    end: bytes = chunk(b"IEND", b""),
) -> bytes:
    """A PNG file of these rows, with chunks before and after its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + after + end


def png_of(image: Image.Image, **chunks: bytes) -> bytes:
    """An RGB image as a PNG file, with chunks before and after its pixels."""
    return png(image.width, [row.tobytes() for row in np.asarray(image)], **chunks)


def tiff(pixels: bytes, tags: dict[int, tuple[int, list[int]]], order: str = "<", extra: bytes = b"") -> bytes:
    """An uncompressed TIFF file of one strip. `tags`: number -> (type, values); `extra`: records as they are."""
    letters = {1: "B", 3: "H", 4: "I"}
    data = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4)) + pixels
    records = []
    strip = {259: (3, [1]), 273: (4, [8]), 279: (4, [len(pixels)])}
    for tag, (kind, values) in sorted({**strip, **tags}.items()):
        packed = struct.pack(f"{order}{len(values)}{letters[kind]}", *values)
        if len(packed) > 4:
            packed, place = struct.pack(order + "I", len(data)), packed
            data += place + b"\0" * (len(place) % 2)
        records.append(struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0"))
    data[4:8] = struct.pack(order + "I", len(data))
    count = len(records) + len(extra) // 12
    return bytes(data) + struct.pack(order + "H", count) + b"".join(records) + extra + bytes(4)


def grey_tiff(
    pixels: bytes, size: tuple[int, int], bits: int, *, order: str = "<", photometric: int = 1, **more: int
) -> bytes:
    """A grey TIFF file; `more`: values of further tags, ``t339=2``."""
    tags = {256: size[0], 257: size[1], 258: bits, 262: photometric, 277: 1, 278: size[1]}
    tags |= {int(name[1:]): value for name, value in more.items()}
    return tiff(pixels, {tag: (3, [value]) for tag, value in tags.items()}, order)


def exif(orientation: int, order: str = "<") -> bytes:
    """EXIF data with an orientation, as PNG and WebP files hold them."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    record = struct.pack(order + "HHIHH", 274, 3, 1, orientation, 0)
    return start + struct.pack(order + "IH", 8, 1) + record + bytes(4)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    """An image as Pillow writes it."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def writes(form: str) -> bool:
    """Whether this build of Pillow writes a format; then it reads it too."""
    Image.init()
    return form in Image.SAVE
