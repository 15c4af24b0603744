"""A chart: its figure, and the rows of points with intervals that charts of comparisons and of baselines share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from brainkit.errors import require
from brainkit.maps.colours import OKABE_ITO
from brainkit.maps.foot import Foot
from brainkit.maps.frame import BOLD, Frame
from brainkit.maps.style import DEFAULT, FAINT, INK, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE = (*OKABE_ITO[:6], "#7f7f7f", OKABE_ITO[7])  # their yellow is too light for lines on white
GRID = "#e4e7eb"

Point = Mapping[str, Any]
"""A value with its interval: ``value``, ``low``, ``high`` (None where unknown), and ``q`` or ``p`` if it is tested."""


class Chart(Frame):
    """A figure with a title on top, and a note and a detail at the foot. Sizes are in inches.

    Parameters
    ----------
    title, detail : str
    note : str or None
        Printed in a warning colour.
    width, height : float
        Of the figure, and of what is drawn between title and foot, which starts at `bottom`.
    style : Style
        Of which the theme and the dots per inch are used.
    """

    def __init__(
        self, title: str, detail: str, note: str | None, *, width: float, height: float, style: Style = DEFAULT
    ) -> None:
        require("matplotlib", extra="maps", purpose="drawing charts")
        room = width - 0.6
        foot = Foot(note or "", detail, room, 1.0)
        self.bottom = max(foot.height + 0.08, 0.5)
        super().__init__(width, self.bottom + height + (0.55 if title else 0.2), style)
        head = {"weight": "bold", "va": "top"}
        self.text(0.3, self.height - 0.2, title, size=self.fitting(title, 13, room, BOLD), **head)
        foot.draw(self, 0.3)

    def axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        axes = super().axes(left, bottom, width, height)
        axes.tick_params(labelsize=9, color=self.theme.faint, labelcolor=self.theme.ink, length=3)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(self.theme.faint)
        return axes


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
