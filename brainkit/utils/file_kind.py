"""What kind of file it is, by its first bytes: for errors about a file whose content is not what its name says."""

from __future__ import annotations

import codecs
import contextlib
import os
from pathlib import Path
from typing import BinaryIO

_LENGTH = 512  # enough for every signature below
NPY = "a .npy array"
TEXT = "text"
ZIP = "a zip archive"
TORCH = "a file of torch.save"

# (position, bytes, what it is); the first match counts.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x93NUMPY", NPY),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"MATLAB 7.3", "a MATLAB 7.3 file, which is HDF5"),
    (0, b"MATLAB 5.0", "a MATLAB file"),
    (344, b"n+1\0", "a NIfTI file"),
    (344, b"ni1\0", "a NIfTI header"),
    (4, b"n+2\0", "a NIfTI file"),
    (0, b"PK\x03\x04", ZIP),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"BZh", "a bzip2 file"),
    (0, b"\xfd7zXZ\0", "an xz file"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"II*\0", "a TIFF image"),
    (0, b"MM\0*", "a TIFF image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript file"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"v/1\x01", "an OpenEXR image"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (4, b"ftypavi", "an AVIF image"),
    (4, b"ftyphe", "a HEIC photograph"),
    (4, b"ftypmif1", "a HEIC photograph"),
    (4, b"ftyp", "a video"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (128, b"DICM", "a DICOM file"),
    (0, b"version https://git-lfs.github.com/spec", "a Git LFS pointer (git lfs pull fetches the file)"),
    (0, b"\xff\xfe", "UTF-16 text"),
    (0, b"\xfe\xff", "UTF-16 text"),
)
_PICKLES = tuple(bytes([0x80, version]) for version in range(2, 6))


def describe_kind(content: bytes, size: int) -> str | None:
    """What a file is by its first bytes, in words: ``an HDF5 file``, ``text``; None if they say nothing.

    Parameters
    ----------
    content : bytes
        The first 512 bytes; all, if there are fewer.
    size : int
        Of the whole file, in bytes.
    """
    if not size:
        return "an empty file (0 bytes)"
    for position, signature, kind in _SIGNATURES:
        if content.startswith(signature, position):
            return _kind_of_zip(content) if kind == ZIP else kind
    if content.startswith(_PICKLES):
        return "a Python pickle"
    if not any(content):
        return "zero bytes, as of an unfinished copy"
    return _kind_of_text(content[:_LENGTH])


def file_kind(path: str | os.PathLike[str] | BinaryIO) -> str | None:
    """`describe_kind` of a file, which may be open; None also if it cannot be read."""
    try:
        with Path(path).open("rb") if isinstance(path, (str, os.PathLike)) else contextlib.nullcontext(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            return describe_kind(file.read(_LENGTH), size)
    except OSError:
        return None


def _kind_of_zip(content: bytes) -> str:
    """By the name of its first member."""
    name = content[30:]
    return "an .npz archive" if b".npy" in name else TORCH if b"data.pkl" in name else ZIP


def _kind_of_text(content: bytes) -> str | None:
    try:
        # The last character may be cut off.
        text = codecs.getincrementaldecoder("utf-8")().decode(content, final=len(content) < _LENGTH)
    except UnicodeDecodeError:
        return None
    text = text.removeprefix("\ufeff").lstrip()
    if not all(letter.isprintable() or letter.isspace() for letter in text):
        return None
    low = text[:200].lower()
    if low.startswith(("<!doctype html", "<html")):
        return "a web page (HTML)"
    if low.startswith(("<?xml", "<gifti", "<svg")):
        return "a GIFTI file" if "<gifti" in text.lower() else "an SVG drawing" if "<svg" in text.lower() else "XML"
    return TEXT
