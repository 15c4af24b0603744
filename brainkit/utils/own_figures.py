"""Figures that brainkit draws carry its name, so that `predict` does not take them for images of the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

HEAD = 1024  # bytes; the mark is in front of the pixels
SUFFIXES = (".png", ".gif")  # of figures that could be taken for images
SHEET = "-top-"  # in the names of contact sheets
KEY, NAME = "Software", "brainkit"  # a text of PNG files; of GIF files, the name is a comment
_PNG, _GIF = b"\x89PNG\r\n\x1a\n", b"GIF89a"


def figure_mark() -> PngInfo:
    """What Pillow's ``save(..., pnginfo=...)`` takes for a figure."""
    from PIL.PngImagePlugin import PngInfo

    mark = PngInfo()
    mark.add_text(KEY, NAME)
    return mark


def is_own_figure(head: bytes) -> bool:
    """Whether a file is a figure of brainkit's, by its first `HEAD` bytes."""
    if head.startswith(_GIF):
        comment = NAME.encode()
        return b"!\xfe" + bytes([len(comment)]) + comment + b"\0" in head
    position = len(_PNG)
    while head.startswith(_PNG) and position + 8 <= len(head):
        length, kind = int.from_bytes(head[position : position + 4], "big"), head[position + 4 : position + 8]
        if kind == b"tEXt" and head[position + 8 : position + 8 + length] == f"{KEY}\0{NAME}".encode():
            return True
        if kind == b"IDAT":
            return False
        position += length + 12
    return False
