"""A chart: its figure, and the rows of points with intervals that charts of comparisons and of baselines share."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.errors import require
from brainkit.maps.figure import DPI, FAINT, INK, WARN
from brainkit.utils.files import atomic_write
from brainkit.utils.own_figures import figure_mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart by people with any colour vision.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#1b1f24")
GRID = "#e4e7eb"

Point = Mapping[str, Any]
"""A value with its interval: ``value``, ``low``, ``high`` (None where unknown), and ``q`` or ``p`` if it is tested."""


class Chart:
    """A white figure with a title on top, and a note and a detail at the foot. Sizes are in inches."""

    bottom = 0.5

    def __init__(self, title: str, detail: str, note: str | None, *, width: float, height: float) -> None:
        require("matplotlib", extra="maps", purpose="drawing charts")
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width = width
        self.height = self.bottom + height + (0.55 if title else 0.2)
        self.figure: Figure = Figure(figsize=(width, self.height), dpi=DPI, facecolor="white")
        self._canvas = FigureCanvasAgg(self.figure)
        self._text(0.3, self.height - 0.2, title, self._fitting(title, 13), INK, "bold", "top")
        self._text(0.3, 0.32 if note else 0.2, detail, self._fitting(detail, 8.5), FAINT, "normal", "center")
        self._text(0.3, 0.13, note or "", self._fitting(note or "", 9), WARN, "bold", "center")

    def axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        axes = self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))
        axes.tick_params(labelsize=9, color=FAINT, labelcolor=INK, length=3)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(FAINT)
        return axes

    def write(self, path: str | os.PathLike[str]) -> Path:
        from PIL import Image

        with warnings.catch_warnings():
            # Characters that the font lacks are drawn as boxes.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            self._canvas.draw()
        picture = Image.fromarray(np.asarray(self._canvas.buffer_rgba())[..., :3].copy())
        with atomic_write(path) as temporary:
            picture.save(temporary, format="PNG", compress_level=9, dpi=(DPI, DPI), pnginfo=figure_mark())
        return Path(path)

    def svg(self) -> bytes:
        """The chart as an SVG file; two equal charts give equal bytes."""
        import io

        from matplotlib import rc_context

        buffer = io.BytesIO()
        with warnings.catch_warnings(), rc_context({"svg.hashsalt": "brainkit"}):
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            self.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, dpi=2 * DPI)
        return buffer.getvalue()

    def _text(self, x: float, y: float, text: str, size: float, colour: str, weight: str, va: str) -> None:
        place = x / self.width, y / self.height
        self.figure.text(*place, text, fontsize=size, color=colour, weight=weight, va=va, parse_math=False)

    def _fitting(self, text: str, size: float) -> float:
        return min(size, 72 * (self.width - 0.6) / (0.6 * max(len(text), 1)))


def dot(axes: Axes, row: float, point: Point, colour: str, *, filled: bool = True) -> None:
    """Draw a point and its interval in a row; open if it is not `filled`."""
    if point["value"] is None:
        return
    if point["low"] is not None and point["high"] is not None:
        axes.plot([point["low"], point["high"]], [row, row], color=colour, linewidth=1.4, solid_capstyle="round")
    face = colour if filled else "white"
    axes.plot([point["value"]], [row], "o", markersize=5, markeredgecolor=colour, markerfacecolor=face)


def label_rows(axes: Axes, names: Sequence[str], xlabel: str, *, zero: bool = True, size: float = 9) -> None:
    """Name the rows of a chart, the first on top, and draw its grid; `zero` draws a line there."""
    axes.set_yticks(range(len(names)), names, fontsize=size, parse_math=False)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    if zero:
        axes.axvline(0, color=FAINT, linewidth=0.9, zorder=0)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(xlabel, fontsize=10, color=INK)
    axes.grid(axis="x", color=GRID, linewidth=0.7)
