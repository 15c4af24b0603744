"""A figure with a flatmap: title, map, ROI names, colour bar or legend, overview of the whole cortex, note."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.cortex.cortical_surface import CorticalSurface
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.maps.canvas import Canvas
from brainkit.maps.labels import Label, place_labels
from brainkit.maps.view import View, make_view, on_view, whole_view

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

DPI = 120
INK, FAINT, WARN = "#1b1f24", "#68717d", "#a63c06"
_MAX_WIDTH, _MAX_HEIGHT = 7.4, 5.5  # of the map, in inches
_MARGIN, _HEADER, _FOOTER, _GUTTER = 0.3, 1.12, 0.52, 0.32  # inches
_OVERVIEW_WIDTH = 2.1  # inches
_LABEL_SIZE = 9.0  # points
_BOLD, _PLAIN = 0.64, 0.54  # width of a character, in units of the font size


@dataclass(frozen=True)
class Flatmap:
    """What all figures of a subject share: the part of the flatmap that is shown, its pixels and the ROI outlines."""

    vertices: Vertices
    view: View
    canvas: Canvas
    inches: tuple[float, float]  # width and height of the map
    on_flatmap: np.ndarray  # (V,) bool; False on the medial wall and the cuts
    outlines: np.ndarray  # (s, 2, 2) line segments in mm
    labels: tuple[Label, ...]


def make_flatmap(vertices: Vertices, rois: RoiTable, view: View | None = None) -> Flatmap:
    """Compute view, pixels and outlines; cached for the next figure of the same subject."""
    regions = tuple((name, positions.tobytes()) for name, positions in rois.items())
    return _flatmap(vertices, regions, make_view(vertices) if view is None else view)


@functools.lru_cache(maxsize=2)
def _flatmap(vertices: Vertices, regions: tuple[tuple[str, bytes], ...], view: View) -> Flatmap:
    per_mm = min(_MAX_WIDTH / view.width, _MAX_HEIGHT / view.height)
    canvas = Canvas(vertices, view, per_mm * DPI)
    outlines, anchors = [np.empty((0, 2, 2))], []
    for name, raw in regions:
        positions = np.frombuffer(raw, dtype=np.int32)
        if len(positions):
            outlines.append(canvas.outline(positions))
            anchors += [(name, *anchor) for anchor in canvas.anchors(positions, outlines[-1])]
    anchors.sort(key=lambda item: (-item[3], item[0], item[1]))
    labels = place_labels([anchor[:3] for anchor in anchors], view.extent, per_mm, _LABEL_SIZE)
    inches = (view.width * per_mm, view.height * per_mm)
    return Flatmap(vertices, view, canvas, inches, on_view(vertices, view), np.concatenate(outlines), labels)


class MapFigure:
    """A title, the map, a side column for its legend, and a footer. Positions and sizes are in inches.

    Parameters
    ----------
    flatmap : Flatmap
    title, subtitle : str
    note : str or None
        Printed in a warning colour, for example that the subject is simulated.
    detail : str
        What a reader should know about how the values are drawn.
    column : float
        Width of the side column in inches.
    column_left : bool
        Side column to the left of the map.
    """

    def __init__(
        self,
        flatmap: Flatmap,
        title: str,
        subtitle: str,
        *,
        note: str | None = None,
        detail: str = "",
        column: float = 2.1,
        column_left: bool = False,
    ) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.flatmap = flatmap
        width, height = flatmap.inches
        self.height = max(height, 3.9 if column_left else 3.6)
        self.column = column
        self.left = _MARGIN + (column + _GUTTER if column_left else 0.0)
        self.side = _MARGIN if column_left else _MARGIN + width + _GUTTER
        self.size = (_MARGIN + width + _GUTTER + column + _MARGIN, _HEADER + self.height + _FOOTER)
        self.figure: Figure = Figure(figsize=self.size, dpi=DPI, facecolor="white")
        self._renderer = FigureCanvasAgg(self.figure)
        self.text(_MARGIN, self.size[1] - 0.27, title, size=self._fitting(title, 15.5, _BOLD), weight="bold", va="top")
        self.text(
            _MARGIN, self.size[1] - 0.6, subtitle, size=self._fitting(subtitle, 10, _PLAIN), color=FAINT, va="top"
        )
        self._foot(note or "", detail)
        self.bottom = _FOOTER + (self.height - height) / 2
        self.map = self.axes(self.left, self.bottom, width, height)
        self.map.set_xlim(*flatmap.view.extent[:2])
        self.map.set_ylim(*flatmap.view.extent[2:])
        self.map.axis("off")
        per_mm = width / flatmap.view.width
        for box in flatmap.view.boxes:
            x, y = box.caption_place
            at = self.left + x * per_mm, self.bottom + (y - flatmap.view.extent[2]) * per_mm + 0.06
            self.text(*at, box.caption, size=9.5, color=FAINT, ha="center", va="bottom")
        if flatmap.view.cropped:
            self._overview()

    def axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Axes at a position."""
        across, up = self.size
        return self.figure.add_axes((left / across, bottom / up, width / across, height / up))

    def text(self, x: float, y: float, text: str, *, size: float, color: str = INK, **more: Any) -> None:
        """Text at a position."""
        # Names come from files and users: a dollar sign in them does not start a formula.
        more["parse_math"] = False
        self.figure.text(x / self.size[0], y / self.size[1], text, fontsize=size, color=color, **more)

    def _foot(self, note: str, detail: str) -> None:
        """The note on the left and the detail on the right; one above the other if they are too long for a line."""
        note_size, detail_size = self._fitting(note, 10, _BOLD), self._fitting(detail, 8.5, _PLAIN)
        length = (len(note) * note_size * _BOLD + len(detail) * detail_size * _PLAIN) / 72
        low, high, x, side = 0.2, 0.2, self.size[0] - _MARGIN, "right"
        if note and length + _GUTTER > self.size[0] - 2 * _MARGIN:
            low, high, x, side = 0.13, 0.33, _MARGIN, "left"
        self.text(_MARGIN, low, note, size=note_size, color=WARN, weight="bold", va="center")
        self.text(x, high, detail, size=detail_size, color=FAINT, ha=side, va="center")

    def _fitting(self, text: str, size: float, width: float) -> float:
        """`size` in points, or less if the text is too long; `width` is that of a character, in units of the size."""
        return min(size, 72 * (self.size[0] - 2 * _MARGIN) / (width * max(len(text), 1)))

    @property
    def side_top(self) -> float:
        """Top of the side column, from the bottom of the figure."""
        return _FOOTER + self.height

    @property
    def side_bottom(self) -> float:
        """Bottom of the free part of the side column, from the bottom of the figure."""
        return _FOOTER + (1.3 if self.flatmap.view.cropped else 0.1)

    def draw_map(self, pixels: np.ndarray, colours: np.ndarray, alpha: np.ndarray) -> None:
        """Draw the map: colours over curvature, then outlines and names of ROIs."""
        from matplotlib.collections import LineCollection
        from matplotlib.patheffects import withStroke

        flatmap = self.flatmap
        image = flatmap.canvas.compose(pixels, colours, alpha)
        # Nearest: the image has the resolution of the figure and must not be interpolated again.
        self.map.imshow(image, extent=flatmap.view.extent, interpolation="nearest", aspect="auto", zorder=1)
        for width, colour in ((2.4, "#20242a"), (1.1, "white")):
            lines = LineCollection(list(flatmap.outlines), colors=colour, linewidths=width, capstyle="round", zorder=2)
            self.map.add_collection(lines, autolim=False)
        halo = [withStroke(linewidth=2.4, foreground="#20242a")]
        style: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 3, "parse_math": False}
        for label in flatmap.labels:
            if label.leader is not None:
                self.map.plot(*label.leader.T, color="white", linewidth=0.9, path_effects=halo, zorder=3)
            self.map.text(label.x, label.y, label.name, fontsize=label.size, color="white", path_effects=halo, **style)

    def render(self) -> np.ndarray:
        """The figure as pixels. Array of shape (height, width, 3), uint8."""
        with warnings.catch_warnings():
            # Characters that the font lacks are drawn as boxes.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            self._renderer.draw()
        return np.asarray(self._renderer.buffer_rgba())[..., :3].copy()

    def message(self, text: str) -> None:
        """A sentence in the middle of the map, if there is nothing to show."""
        box = {"facecolor": "white", "edgecolor": FAINT, "boxstyle": "round,pad=0.6"}
        centre: dict[str, Any] = {"ha": "center", "va": "center", "transform": self.map.transAxes, "zorder": 5}
        self.map.text(0.5, 0.5, text, fontsize=14, color=INK, bbox=box, parse_math=False, **centre)

    def colour_bar(
        self,
        colours: Colormap,
        low: float,
        high: float,
        label: str,
        *,
        ends: tuple[str, str] | None = None,
        ticks: list[float] | None = None,
        pointed: str = "neither",
    ) -> None:
        """A colour bar in the side column; `ends` are labels below and above it."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        room = self.side_top - self.side_bottom
        height = min(2.9, room - (0.5 if ends else 0.25))
        top = self.side_top - (0.25 if ends else 0.0)
        axes = self.axes(self.side, top - height, 0.2, height)
        bar = self.figure.colorbar(
            ScalarMappable(Normalize(low, high), colours), cax=axes, ticks=ticks, extend=pointed, extendfrac=0.04
        )
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=10, color=FAINT, labelcolor=INK, length=3)
        bar.set_label(label, fontsize=11, color=INK, labelpad=7)
        if ends:
            self.text(self.side, top - height - 0.08, ends[0], size=9.5, color=FAINT, va="top")
            self.text(self.side, top + 0.08, ends[1], size=9.5, color=FAINT, va="bottom")

    def horizontal_colour_bar(self, colours: Colormap, low: float, high: float, label: str, top: float) -> None:
        """A horizontal colour bar in the side column, with its upper edge at `top`."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        axes = self.axes(self.side + 0.1, top - 0.17, self.column - 0.2, 0.17)
        bar = self.figure.colorbar(
            ScalarMappable(Normalize(low, high), colours),
            cax=axes,
            orientation="horizontal",
            ticks=[low, low / 2, 0, high / 2, high],
            extend="both",
            extendfrac=0.03,
        )
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=9.5, color=FAINT, labelcolor=INK, length=3)
        bar.set_label(label, fontsize=10.5, color=INK, labelpad=4, parse_math=False)

    def _overview(self) -> None:
        """The whole flatmap, small, with a frame around the part that is shown."""
        from matplotlib.patches import FancyBboxPatch

        view, image = _overview_image(self.flatmap.vertices, self.flatmap.view.surface)
        width = _OVERVIEW_WIDTH
        height = width * view.height / view.width
        left = self.side + (self.column - width) / 2
        axes = self.axes(left, _FOOTER + 0.05, width, height)
        axes.imshow(image, extent=view.extent, interpolation="lanczos", aspect="auto")
        for box in self.flatmap.view.boxes:
            shift = next(other.shift for other in view.boxes if other.hemisphere == box.hemisphere)
            corner, size = (box.x0 + shift, box.y0), (box.x1 - box.x0, box.y1 - box.y0)
            axes.add_patch(
                FancyBboxPatch(
                    corner, *size, boxstyle="round,pad=0,rounding_size=8", fill=False, edgecolor=INK, linewidth=1.0
                )
            )
        axes.set_xlim(*view.extent[:2])
        axes.set_ylim(*view.extent[2:])
        axes.axis("off")
        self.text(left + width / 2, _FOOTER + height + 0.1, "part shown", size=8.5, color=FAINT, ha="center")


@functools.lru_cache(maxsize=2)
def _overview_image(vertices: Vertices, surface: CorticalSurface) -> tuple[View, np.ndarray]:
    view = whole_view(surface)
    canvas = Canvas(vertices, view, 2 * _OVERVIEW_WIDTH * DPI / view.width)
    pixels, _, alpha = canvas.paint(np.zeros(len(vertices)), np.ones(len(vertices), dtype=bool))
    return view, canvas.compose(pixels, np.broadcast_to([0.30, 0.42, 0.58], (len(pixels), 3)), alpha)
