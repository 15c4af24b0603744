"""A figure of one map: title, map with names of ROIs, legend, the part of the cortex that is shown, note and detail."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.maps.brain_map import BrainMap, MapSet
from brainkit.maps.canvas import Canvas
from brainkit.maps.definitions import SEPARATOR
from brainkit.maps.foot import Foot
from brainkit.maps.frame import BOLD, Frame, matplotlib_settings
from brainkit.maps.legend import draw_legend, height_below
from brainkit.maps.paint import paint
from brainkit.maps.scene import Scene, make_scene, surface_source
from brainkit.maps.style import FORMATS, Style
from brainkit.maps.view import View, whole_view

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

# Inches in a figure of scale 1.
_MAP = (7.4, 5.5)  # greatest width and height of the map, if the figure may be as large as it needs
_MARGIN, _HEADER, _GUTTER = 0.3, 1.2, 0.32
_COLUMN, _PICTURE_COLUMN = 2.1, 3.0
_LEAST_HEIGHT = 3.6  # of the map's room: the legend beside it needs that
_NARROW = 4.6  # below this width the legend is below the map
_OVERVIEW_WIDTH = 2.1
_FULL_WIDTH, _LEAST_SCALE = 9.0, 0.62
LABEL_SIZE = 9.0  # points
_BETWEEN = 4.0  # mm beside a panel that its caption may take
_HALO = "#20242a"
_FINER_LINES = 0.75  # on shapes other than flatmaps, where ROIs are smaller
_LANCZOS = 1  # PIL.Image.Resampling.LANCZOS, without importing PIL


class MapFigure(Frame):
    """A figure of one map.

    Parameters
    ----------
    maps : MapSet
        Of vertices with a surface.
    brain_map : BrainMap
        One of its maps, or another of the same vertices.
    style : Style
    dpi : float
        Of the map.
    picture : PIL.Image, optional
        Shown beside the map, above its colour bar.

    Attributes
    ----------
    figure : matplotlib.figure.Figure
    map : matplotlib.axes.Axes
        Of the cortex.
    scene : Scene
    """

    def __init__(
        self, maps: MapSet, brain_map: BrainMap, style: Style, dpi: float, picture: Image | None = None
    ) -> None:
        scale = 1.0 if style.width is None else min(max(style.width / _FULL_WIDTH, _LEAST_SCALE), 1.0)
        margin, gutter = _MARGIN * scale, _GUTTER * scale
        narrow = style.width is not None and style.width < _NARROW and picture is None
        column = (_COLUMN if picture is None else _PICTURE_COLUMN) * scale
        if style.width is not None:
            column = min(column, 0.34 * style.width)
        beside = 0.0 if narrow else column + gutter
        across = _MAP[0] if style.width is None else style.width - 2 * margin - beside
        inner = (style.width or across + 2 * margin + beside) - 2 * margin
        detail = "; ".join(filter(None, (brain_map.detail, surface_source(maps, style))))
        foot = Foot(maps.note or "", detail, inner, scale)
        legend = height_below(brain_map, scale, inner) if narrow else 0.0
        around = _HEADER * scale + legend + foot.height
        up = _MAP[1] if style.height is None else max(style.height - around, 0.5)
        self.scene = make_scene(maps, style, room=(across, up), dpi=dpi, label_size=LABEL_SIZE * scale)
        width, height = self.scene.inches
        tall = height if narrow else max(height, _LEAST_HEIGHT * scale)
        if style.width is None:
            across, inner = width, width + beside
            foot = Foot(maps.note or "", detail, inner, scale)
        super().__init__(inner + 2 * margin, style.height or tall + around, style, scale)
        tall = self.height - around if style.height is not None else tall
        self._title(maps.title, brain_map, margin, inner)
        foot.draw(self, margin)
        low = foot.height + legend
        left = margin + (beside if picture is not None else 0.0) + (across - width) / 2
        self.map = self.axes(left, low + (tall - height) / 2, width, height)
        draw_map(self.map, self.scene, brain_map, scale)
        self._captions(left, low + (tall - height) / 2, width)
        side, top = (margin if picture is not None else margin + across + gutter), low + tall
        if picture is not None:
            used = self._picture(picture, (side, top, column, tall), dpi)
            box, below = (side, top - used, column, tall - used), True
        elif narrow:
            box, below = (margin, low, inner, legend), True
        else:
            overview = _COLUMN * scale * 0.62 if self.scene.view.cropped else 0.0
            box, below = (side, top, column, tall - overview), False
            if overview:
                self._overview(side, low + 0.05 * scale, column)
        if brain_map.empty:
            message(self.map, brain_map.empty, 14 * scale)
        else:
            draw_legend(self, brain_map, box, below=below)

    def _title(self, start: str, brain_map: BrainMap, margin: float, room: float) -> None:
        title = " ".join((f"{start}: {brain_map.title}" if start else brain_map.title).split())
        summary = brain_map.summary
        if not isinstance(self.scene.view, View):
            summary = summary.replace(" vertices", " voxels")
        subtitle = SEPARATOR.join(text for text in (self.scene.name, summary) if text)
        scale, top = self.scale, self.height
        size = self.fitting(title, 15.5 * scale, room, BOLD)
        self.text(margin, top - 0.27 * scale, title, size=size, weight="bold", va="top")
        size = self.fitting(subtitle, 10 * scale, room)
        self.text(margin, top - 0.6 * scale, subtitle, size=size, color=self.theme.faint, va="top")

    def _captions(self, left: float, bottom: float, width: float) -> None:
        view = self.scene.view
        per_mm = width / view.width
        rooms = ((box.caption, (box.width + _BETWEEN) * per_mm) for box in view.boxes)
        size = min(self.fitting(caption, 9.5 * self.scale, room) for caption, room in rooms)
        for box in view.boxes:
            x, y = box.caption_place
            at = left + x * per_mm, bottom + (y - view.extent[2]) * per_mm + 0.06 * self.scale
            self.text(*at, box.caption, size=size, ha="center", va="bottom", color=self.theme.faint)

    def _picture(self, picture: Image, box: tuple[float, float, float, float], dpi: float) -> float:
        """Draw a picture in the box; the height that it takes, with the space below it."""
        left, top, column, height = box
        inches = min(column / picture.width, (height - 0.95 * self.scale) / picture.height)  # per pixel
        width, tall = picture.width * inches, picture.height * inches
        shown = picture.convert("RGB").resize((max(1, round(width * dpi)), max(1, round(tall * dpi))), _LANCZOS)
        axes = self.axes(left + (column - width) / 2, top - tall, width, tall)
        axes.imshow(np.asarray(shown), aspect="auto", interpolation="none")
        axes.axis("off")
        return tall + 0.25 * self.scale

    def _overview(self, left: float, bottom: float, column: float) -> None:
        """The whole flatmap, small, with a frame around the part that is shown."""
        from matplotlib.patches import FancyBboxPatch

        view, image = _overview_image(self.scene)
        width = min(_OVERVIEW_WIDTH * self.scale, column)
        height = width * view.height / view.width
        left += (column - width) / 2
        axes = self.axes(left, bottom, width, height)
        axes.imshow(image, extent=view.extent, interpolation="none", aspect="auto")
        for box in self.scene.view.boxes:
            shift = next(other.shift for other in view.boxes if other.hemisphere == box.hemisphere)
            corner, size = (box.x0 + shift, box.y0), (box.x1 - box.x0, box.y1 - box.y0)
            look: dict[str, Any] = {"fill": False, "edgecolor": self.theme.ink, "linewidth": 1.0 * self.scale}
            axes.add_patch(FancyBboxPatch(corner, *size, boxstyle="round,pad=0,rounding_size=8", **look))
        axes.set_xlim(*view.extent[:2])
        axes.set_ylim(*view.extent[2:])
        axes.axis("off")
        place = left + width / 2, bottom + height + 0.05 * self.scale
        self.text(*place, "part shown", size=8.5 * self.scale, color=self.theme.faint, ha="center")


def draw_map(axes: Axes, scene: Scene, brain_map: BrainMap, scale: float) -> None:
    """Draw a map in axes: colours over curvature, then outlines and names of ROIs."""
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import Stroke

    view = scene.view
    with matplotlib_settings():
        # Not interpolated: the image has the resolution of the figure.
        axes.imshow(paint(scene, brain_map), extent=view.extent, interpolation="none", aspect="auto", zorder=1)
        fine = 1.0 if view.flat else _FINER_LINES
        for width, colour in ((2.4, _HALO), (1.1, "white")):
            style: dict[str, Any] = {"linewidths": width * scale * fine, "capstyle": "round", "joinstyle": "round"}
            axes.add_collection(LineCollection(scene.outlines, colors=colour, zorder=2, **style), autolim=False)
        leaders = [label.leader for label in scene.labels if label.leader is not None]
        for width, colour in ((2.0, _HALO), (0.8, "white")):
            axes.add_collection(LineCollection(leaders, colors=colour, linewidths=width * scale, zorder=2.5), False)
        if leaders:  # a dot says where a line begins
            x, y = np.array([leader[0] for leader in leaders]).T
            dot: dict[str, Any] = {"s": (3.2 * scale) ** 2, "edgecolors": _HALO, "linewidths": 0.6 * scale}
            axes.scatter(x, y, c="white", zorder=2.6, **dot)
        for label in scene.labels:
            look: dict[str, Any] = {"ha": "center", "va": "center", "parse_math": False, "fontsize": label.size}
            # Two texts, as one with an outline would not stay text in PDF and SVG.
            halo = [Stroke(linewidth=2.4 * scale, foreground=_HALO)]
            axes.text(label.x, label.y, label.name, color=_HALO, path_effects=halo, zorder=3, **look)
            axes.text(label.x, label.y, label.name, color="white", zorder=4, **look)
    axes.set_xlim(*view.extent[:2])
    axes.set_ylim(*view.extent[2:])
    axes.axis("off")


def message(axes: Axes, text: str, size: float) -> None:
    """A sentence in the middle of a map, if there is nothing to show."""
    box = {"facecolor": "white", "edgecolor": "#68717d", "boxstyle": "round,pad=0.6"}
    place: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes, "zorder": 5}
    with matplotlib_settings():
        axes.text(0.5, 0.5, text, fontsize=size, color="#1b1f24", bbox=box, parse_math=False, **place)


@functools.lru_cache(maxsize=2)
def _overview_image(scene: Scene) -> tuple[View, np.ndarray]:
    assert isinstance(scene.view, View) and isinstance(scene.canvas, Canvas)
    view, count = whole_view(scene.view.surface), len(scene.vertices)
    scale = 2 * _OVERVIEW_WIDTH * FORMATS["png"] / view.width
    canvas = Canvas(scene.vertices, view, scale, ids=scene.canvas.ids)
    pixels, _, alpha = canvas.paint(np.zeros(count), np.ones(count, dtype=bool))
    return view, canvas.compose(pixels, np.broadcast_to([0.30, 0.42, 0.58], (len(pixels), 3)), alpha)
