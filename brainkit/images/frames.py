"""Files that hold several images: animations and files with pages. The first image is the one that is read."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from brainkit.images.tiff import read_directory

# Files of other kinds are not opened for it.
_SUFFIXES = (".gif", ".tif", ".tiff", ".webp", ".apng", ".avif")
_HEAD = 64


def holds_several(source: str | os.PathLike[str] | BinaryIO, name: str | None = None) -> bool:
    """Whether a file, by its name a kind that can, holds more images than the first.

    Parameters
    ----------
    source : path-like or binary file
    name : str, optional
        The name of an open file.
    """
    is_path = isinstance(source, (str, os.PathLike))
    if not (os.fspath(source) if is_path else name or "").lower().endswith(_SUFFIXES):  # type: ignore[arg-type]
        return False
    try:
        if not is_path:
            return _holds_several(source)  # type: ignore[arg-type]
        with Path(source).open("rb") as file:  # type: ignore[arg-type]
            return _holds_several(file)
    except (OSError, SyntaxError, ValueError, IndexError, TypeError, struct.error):
        return False  # damaged: what reads it says so


def _holds_several(file: BinaryIO) -> bool:
    file.seek(0)
    head = file.read(_HEAD)
    if head.startswith((b"II", b"MM")):
        directory = read_directory(file)
        return directory is not None and directory.following > 0
    if head.startswith(b"GIF8"):
        file.seek(0)
        Image.init()
        return bool(Image.OPEN["GIF"][0](file, "").is_animated)  # type: ignore[attr-defined]
    if head.startswith(b"\x89PNG"):
        return b"acTL" in head
    if head[8:16] == b"WEBPVP8X":
        return bool(head[20] & 2)
    return head[4:12] == b"ftypavis"
