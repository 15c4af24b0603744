"""Photographs with what channels show in them: a row per ROI or cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from brainkit.maps.chart import Chart
from brainkit.maps.frame import matplotlib_settings
from brainkit.maps.style import DEFAULT, Style

_SIDE, _GAP, _NAME = 1.15, 0.06, 1.25  # inches
_LEAST_SIDE, _LEAST_STEP = 0.45, 0.34  # inches


@dataclass(frozen=True, eq=False)
class Row:
    """A row of pictures.

    Parameters
    ----------
    name, detail : str
        At its left.
    pictures : sequence of array of shape (S, S, 3), uint8
    colour : array of shape (3,), optional
        sRGB in [0, 1], of a patch beside the name.
    """

    name: str
    pictures: Sequence[np.ndarray]
    detail: str = ""
    colour: np.ndarray | None = None


def picture_rows(
    rows: Sequence[Row],
    *,
    title: str,
    detail: str = "",
    note: str | None = None,
    blocks: int = 1,
    style: Style = DEFAULT,
) -> Chart:
    """Rows of pictures under each other.

    Parameters
    ----------
    rows : sequence of Row
    title, detail : str
    note : str, optional
        Printed in a warning colour.
    blocks : int
        Columns of rows, for many short ones; fewer if the pictures would be too small in the style's width.
    style : Style

    Raises
    ------
    MissingDependency
        If matplotlib is not installed.
    """
    across = max((len(row.pictures) for row in rows), default=1)
    side = _SIDE
    if style.width is not None:
        blocks = min(blocks, max(int((style.width - 0.45) / (_NAME + across * (_LEAST_SIDE + _GAP) + 0.25)), 1))
        side = min(side, max(((style.width - 0.45) / blocks - _NAME - 0.25) / across - _GAP, 0.1))
    down = -(-len(rows) // blocks) or 1
    block = _NAME + across * (side + _GAP) + 0.25
    step = max(side + _GAP, _LEAST_STEP)
    width = style.width or max(0.45 + blocks * block, 6.0)
    chart = Chart(title, detail, note, width=width, height=down * step + 0.05, style=style)
    for number, row in enumerate(rows):
        column, place = divmod(number, down)
        left = 0.3 + column * block
        bottom = chart.bottom + 0.05 + (down - 1 - place) * step
        middle, start = bottom + side / 2, left
        if row.colour is not None:
            patch = chart.axes(left, bottom, 0.12, side)
            patch.axis("off")
            patch.imshow(np.asarray(row.colour)[None, None], aspect="auto", interpolation="none")
            start += 0.22
        size = chart.fitting(row.name, 10.5, left + _NAME - start - 0.1)
        chart.text(start, middle + 0.03, row.name, size=size, weight="bold", va="bottom")
        chart.text(start, middle - 0.03, row.detail, size=7.5, color=chart.theme.faint, va="top")
        for k, picture in enumerate(row.pictures):
            axes = chart.axes(left + _NAME + k * (side + _GAP), bottom, side, side)
            axes.axis("off")
            with matplotlib_settings():
                axes.imshow(picture, interpolation="antialiased")
    return chart


def coloured(photo: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """A photograph in grey, tinted by colours on a coarse grid: (S, S, 3) uint8 and (H, W, 3) -> (S, S, 3) uint8."""
    tint = _enlarge(colours, photo.shape[:2])
    grey = (photo @ np.array([0.299, 0.587, 0.114]) / 255)[..., None]
    return _bytes(tint * (0.65 + 0.35 * grey))


def spotlit(photo: np.ndarray, light: np.ndarray) -> np.ndarray:
    """A photograph, dark and grey where a coarse grid (H, W) is 0, and as it is where that is 1: (S, S, 3) uint8."""
    share = _enlarge(light, photo.shape[:2])[..., None]
    grey = (photo @ np.array([0.299, 0.587, 0.114]) / 255)[..., None]
    return _bytes(share * photo / 255 + (1 - share) * (0.12 + 0.4 * grey))


def _enlarge(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    channels = [grid] if grid.ndim == 2 else list(np.moveaxis(grid, -1, 0))
    bicubic = 3  # PIL.Image.Resampling.BICUBIC
    large = [
        np.asarray(Image.fromarray(np.asarray(channel, np.float32)).resize(size[::-1], bicubic)) for channel in channels
    ]
    return np.clip(large[0] if grid.ndim == 2 else np.stack(large, axis=-1), 0, 1)


def _bytes(picture: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)
