"""What of an image file decides its pixels; Pillow is given nothing else.

Text, profiles, previews and damaged EXIF data then neither make an image unreadable nor cause one of Pillow's warnings,
which cannot be silenced for one thread alone. Of the metadata, only the orientation is used, and it is read here.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import BinaryIO

from brainkit.errors import ImageError
from brainkit.images import png, tiff
from brainkit.images.orientation import read_orientation

_SCAN = 0xDA  # the marker of a JPEG file's pixels
_HEADER = 1 << 16  # bytes: as long as a JPEG segment can be, and longer than AVIF's description of its parts


@dataclass
class Content:
    """What Pillow is given of a file.

    Attributes
    ----------
    file : BinaryIO
    orientation : int, optional
        As in EXIF; None if Pillow says it.
    intact : bool
        No checksum that was tested is wrong.
    white_is_zero : bool
        Grey values are stored as a negative, and Pillow does not know.
    kind : str
        What kind of pixels it has, for an error.
    """

    file: BinaryIO
    orientation: int | None = None
    intact: bool = True
    white_is_zero: bool = False
    kind: str = ""


def pixels_only(file: BinaryIO, form: str, *, header_only: bool = False) -> Content:
    """What of a file decides its pixels.

    Parameters
    ----------
    file : BinaryIO
        Seekable.
    form : str
        Its format, in Pillow's words.
    header_only : bool
        Enough to open it, not to decode it; checksums are tested.

    Raises
    ------
    ImageError
        If Pillow would misread its pixels.
    """
    file.seek(0)
    if form == "PNG":
        found = png.without_metadata(file.read(), check=header_only)
        return Content(io.BytesIO(found.data), found.orientation, found.intact)
    if form == "JPEG":
        return _jpeg(file, header_only)
    if form == "TIFF":
        return _tiff(file)
    if form == "JPEG2000":
        _check_jpeg_2000(file.read())
    if form == "AVIF":
        return _avif(file.read())
    return Content(file)


def _jpeg(file: BinaryIO, header_only: bool) -> Content:
    """The segments but for application data and comments; of an MPO file, the first image."""
    kept = [file.read(2)]
    exif = xmp = b""
    while (marker := _next_marker(file)) is not None:
        if marker == 0x01 or 0xD0 <= marker <= 0xD9:  # these stand alone
            kept.append(bytes([0xFF, marker]))
            continue
        length = file.read(2)
        if marker == _SCAN or len(length) < 2:
            kept += [bytes([0xFF, marker]), length, file.read(_HEADER if header_only else -1)]
            break
        segment = file.read(max(0, int.from_bytes(length, "big") - 2))
        if marker == 0xE1 and segment.startswith(b"Exif\0\0"):
            exif = exif or segment
        elif marker == 0xE1 and segment.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            xmp = segment
        # Of application data, JFIF and Adobe's say which colours the components are.
        if (not 0xE0 <= marker <= 0xEF and marker != 0xFE) or segment.startswith((b"JFIF\0", b"Adobe")):
            kept += [bytes([0xFF, marker]), length, segment]
    return Content(io.BytesIO(b"".join(kept)), read_orientation(exif, xmp))


def _next_marker(file: BinaryIO) -> int | None:
    """The next segment's, with what precedes it skipped, as decoders do; None at the end."""
    before = b""
    while byte := file.read(1):
        if before == b"\xff" and byte not in b"\x00\xff":
            return byte[0]
        before = byte
    return None


def _tiff(file: BinaryIO) -> Content:
    directory = tiff.read_directory(file)
    if directory is None:
        return Content(file)
    tiff.check_readable(directory)
    orientation = directory.number(tiff.ORIENTATION, 0) or read_orientation(b"", directory.values(tiff.XMP))
    return Content(
        tiff.without_metadata(directory),
        orientation,
        white_is_zero=tiff.white_is_zero(directory),
        kind=tiff.describe(directory),
    )


def _check_jpeg_2000(data: bytes) -> None:
    """Refuse colours of more than 8 bits: Pillow rounds the highest of them up to 256, which is 0."""
    start = data.find(b"\xff\x4f\xff\x51")  # the beginning of the code stream, and of what describes its components
    if start >= 0:
        bits = [(code & 0x7F) + 1 for code in data[start + 42 : start + 42 + 3 * data[start + 41] : 3]]
        if len(bits) > 1 and max(bits) > 8:
            raise ImageError(f"JPEG 2000 with {max(bits)} bits for each colour cannot be read; save it with 8")


def _avif(data: bytes) -> Content:
    """The file without EXIF data: AVIF is turned by properties of its own, which Pillow tells like EXIF."""
    head = re.sub(rb"(infe[\2\3].{3}(?:.{2}|.{4}).{2})Exif", rb"\1skip", data[:_HEADER], flags=re.DOTALL)
    return Content(io.BytesIO(head + data[_HEADER:]))
