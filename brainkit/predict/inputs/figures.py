"""Figures that brainkit drew, next to the images of a folder: they are not predicted unless they are named."""

from __future__ import annotations

import contextlib
import os

from brainkit.errors import BrainkitError
from brainkit.predict.inputs import remote
from brainkit.utils.own_figures import HEAD, NUMBERED, is_own_figure

_TRIES = 8  # numbered files of a folder that are opened; maps are numbered from 0, and so among the first


class FigureCheck:
    """Tells figures from images with such names, which come in sorted order; hardly any file is opened."""

    def __init__(self) -> None:
        self._folder, self._images, self._figures = "", 0, 0  # numbered ones in the current folder

    def __call__(self, file: str) -> bool:
        """Whether a file (a path or URL), which `may_be_own_figure` by its name, is one."""
        folder, name = os.path.split(file)
        if NUMBERED.fullmatch(name) is None:
            return _is_figure(file)
        if folder != self._folder:
            self._folder, self._images, self._figures = folder, 0, 0
        if not self._figures and self._images >= _TRIES:
            return False
        found = _is_figure(file)
        self._figures += found
        self._images += not found
        return found


def _is_figure(file: str) -> bool:
    with contextlib.suppress(OSError, BrainkitError):
        if remote.is_url(file):
            return is_own_figure(remote.read(file, 0, HEAD))
        with open(file, "rb", buffering=0) as stream:
            return is_own_figure(stream.read(HEAD))
    return False
