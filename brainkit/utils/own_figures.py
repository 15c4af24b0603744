"""Figures that brainkit draws carry its name, so that `predict` does not take them for images of the user's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

HEAD = 1024  # bytes; the mark is in front of the pixels
# Names that brainkit gives to figures: of a million files only those with such a name are opened to look for the mark.
NUMBERED = re.compile(r"\d{4,}-.+\.png")  # the map of one image: row and name
SHEET = "-top-"  # in the names of contact sheets
DIFFERENCE = "difference-"  # begins the names of maps of two models' difference
_MAPS = ("accuracy", "explained", "layer", "location", "scale", "effect-size", "difference")
_ERRORS = ("depth-se", "location-se", "scale-se")
_SCORES = ("correlation", "significance")
_CHARTS = ("baselines", "agreement", "accuracy-by-roi", "hierarchy", "layers-by-roi", "leaderboard")
_METHOD = ("clusters", "coverage", "top-channels", "cluster-images")
_NAMES = {f"{name}.png" for name in (*_MAPS, *_ERRORS, *_SCORES, *_CHARTS, *_METHOD)}
WEIGHT = "weight-"  # begins the names of maps of a layer's weight
_KEY, _NAME = "Software", "brainkit"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def figure_mark() -> PngInfo:
    """What Pillow's ``save(..., pnginfo=...)`` takes for a figure."""
    from PIL.PngImagePlugin import PngInfo

    mark = PngInfo()
    mark.add_text(_KEY, _NAME)
    return mark


def may_be_own_figure(name: str) -> bool:
    """Whether brainkit gives such a file name to a figure."""
    return name.endswith(".png") and (
        SHEET in name or name in _NAMES or name.startswith((DIFFERENCE, WEIGHT)) or NUMBERED.fullmatch(name) is not None
    )


def is_own_figure(head: bytes) -> bool:
    """Whether a file is a figure of brainkit's, by its first `HEAD` bytes."""
    position = len(_SIGNATURE)
    while head.startswith(_SIGNATURE) and position + 8 <= len(head):
        length, kind = int.from_bytes(head[position : position + 4], "big"), head[position + 4 : position + 8]
        if kind == b"tEXt" and head[position + 8 : position + 8 + length] == f"{_KEY}\0{_NAME}".encode():
            return True
        if kind == b"IDAT":
            return False
        position += length + 12
    return False
