"""Which side of an image is up, the only metadata that matters. Read here, because Pillow warns about damaged ones."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

from PIL import Image

from brainkit.images.tiff import ORIENTATION, read_directory

_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """The image upright; itself if it is. A value that EXIF does not know, as damage leaves it, turns nothing."""
    transpose = _TRANSPOSES.get(orientation)
    return image if transpose is None else image.transpose(transpose)


def read_orientation(exif: bytes, xmp: bytes) -> int:
    """The orientation, 1 to 8, that EXIF or, if they have none, XMP data give; 1 where both are damaged or missing."""
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    directory = read_directory(io.BytesIO(exif))
    if directory is not None and ORIENTATION in directory.entries:
        return directory.number(ORIENTATION, 1)
    match = re.search(rb'tiff:Orientation(?:="|>)([0-9])', xmp)
    return int(match[1]) if match else 1


def of_pillow(info: Mapping[Any, Any]) -> int:
    """The orientation that Pillow's ``image.info`` gives."""
    exif, xmp = info.get("exif"), info.get("xmp") or info.get("XML:com.adobe.xmp")
    if not isinstance(exif, bytes):
        exif = from_text(info.get("Raw profile type exif") or "")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    return read_orientation(exif, xmp if isinstance(xmp, bytes) else b"")


def from_text(text: str) -> bytes:
    """EXIF data from the text, in hexadecimal after three lines, that ImageMagick writes into PNG files."""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return b""
