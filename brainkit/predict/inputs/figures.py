"""Figures that brainkit drew, next to the images of a folder: they are not predicted unless they are named."""

from __future__ import annotations

import contextlib
import os

from brainkit.errors import BrainkitError
from brainkit.predict.inputs import remote
from brainkit.utils.own_figures import HEAD, SHEET, SUFFIXES, is_own_figure

# A pattern may name a pipe, which must not be waited for; on Windows, bytes must not be translated.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def is_figure(file: str) -> bool:
    """Whether an image file (a path or URL) is a figure of brainkit's own, by the mark in it.

    At URLs, where each look is a request, only files with the names of contact sheets are looked at: predict uploads no
    other figures.
    """
    if not file.lower().endswith(SUFFIXES):
        return False
    with contextlib.suppress(OSError, BrainkitError):
        if remote.is_url(file):
            return SHEET in file and is_own_figure(remote.read(file, 0, HEAD))
        opened = os.open(file, _FLAGS)  # not open(), which takes three times as long
        try:
            return is_own_figure(os.read(opened, HEAD))
        finally:
            os.close(opened)
    return False
