"""The page around a flatmap: title, map, region names, colour bar or legend, the small finder, the note."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.cortex.surface import RoiTable, Vertices
from brainkit.maps.canvas import Canvas
from brainkit.maps.view import View, choose_view, on_flatmap, whole_view

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

DPI = 120
INK, FAINT, WARN = "#1b1f24", "#68717d", "#a63c06"
_WIDE, _TALL = 7.4, 5.5  # inches that the map may take
_EDGE, _HEAD, _FOOT, _GUTTER = 0.3, 1.12, 0.52, 0.32  # inches
_FINDER = 2.1  # inches


@dataclass(frozen=True)
class Scene:
    """What all figures of a subject share."""

    vertices: Vertices
    view: View
    canvas: Canvas
    inches: tuple[float, float]  # width and height of the map
    shown: np.ndarray  # (V,) bool: on the flatmap
    outlines: np.ndarray  # (s, 2, 2) mm
    names: tuple[tuple[str, float, float], ...]  # region, x, y in mm


def make_scene(vertices: Vertices, rois: RoiTable) -> Scene:
    """Work out view, pixels and outlines; kept in the process for the next figure of the same subject."""
    return _scene(vertices, tuple((name, positions.tobytes()) for name, positions in rois.items()))


@functools.lru_cache(maxsize=2)
def _scene(vertices: Vertices, regions: tuple[tuple[str, bytes], ...]) -> Scene:
    view = choose_view(vertices)
    per_mm = min(_WIDE / view.width, _TALL / view.height)
    canvas = Canvas(vertices, view, per_mm * DPI)
    pieces, wanted = [np.empty((0, 2, 2))], []
    for name, raw in regions:
        positions = np.frombuffer(raw, dtype=np.int32)
        if len(positions):
            pieces.append(canvas.outline(positions))
            wanted += [(len(positions), name, x, y) for x, y in canvas.anchors(positions, pieces[-1])]
    names = _place(sorted(wanted, key=lambda item: (-item[0], item[1], item[2])), view, per_mm)
    inches = (view.width * per_mm, view.height * per_mm)
    return Scene(vertices, view, canvas, inches, on_flatmap(vertices), np.concatenate(pieces), names)


class Page:
    """One figure: a title, the map, a side column for its legend, and a footer.

    Parameters
    ----------
    scene : Scene
    title, subtitle : str
    note : str or None
        Printed on the figure in a colour that is seen, for example that the subject is simulated.
    detail : str
        What a reader should know about how values are drawn.
    column : float
        Width of the side column in inches.
    column_left : bool
        Put the side column at the left of the map.
    """

    def __init__(
        self,
        scene: Scene,
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

        self.scene = scene
        wide, tall = scene.inches
        self.tall = max(tall, 3.9 if column_left else 3.6)
        self.column = column
        self.left = _EDGE + (column + _GUTTER if column_left else 0.0)
        self.side = _EDGE if column_left else _EDGE + wide + _GUTTER
        self.size = (_EDGE + wide + _GUTTER + column + _EDGE, _HEAD + self.tall + _FOOT)
        fit = 72 * (self.size[0] - 2 * _EDGE) / (0.64 * max(len(title), 1))
        self.figure: Figure = Figure(figsize=self.size, dpi=DPI, facecolor="white")
        self._pixels = FigureCanvasAgg(self.figure)
        self.text(_EDGE, self.size[1] - 0.27, title, size=min(15.5, fit), weight="bold", va="top")
        self.text(_EDGE, self.size[1] - 0.6, subtitle, size=10, color=FAINT, va="top")
        low = 0.2
        if note:
            self.text(_EDGE, low, note, size=10, color=WARN, weight="bold", va="center")
        if detail:
            self.text(self.size[0] - _EDGE, low, detail, size=8.5, color=FAINT, ha="right", va="center")
        self.bottom = _FOOT + (self.tall - tall) / 2
        self.map = self.axes(self.left, self.bottom, wide, tall)
        self.map.set_xlim(*scene.view.extent[:2])
        self.map.set_ylim(*scene.view.extent[2:])
        self.map.axis("off")
        per_mm = wide / scene.view.width
        for box in scene.view.boxes:
            middle = self.left + (box.shift + (box.x0 + box.x1) / 2) * per_mm
            label = f"{box.hemisphere} hemisphere"
            self.text(middle, self.bottom + tall + 0.06, label, size=9.5, color=FAINT, ha="center", va="bottom")
        if scene.view.cropped:
            self._finder()

    def axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Axes at a place given in inches."""
        wide, tall = self.size
        return self.figure.add_axes((left / wide, bottom / tall, width / wide, height / tall))

    def text(self, x: float, y: float, words: str, *, size: float, color: str = INK, **more: Any) -> None:
        """Text at a place given in inches."""
        # Names come from files and users: a dollar sign in them is no formula.
        more["parse_math"] = False
        self.figure.text(x / self.size[0], y / self.size[1], words, fontsize=size, color=color, **more)

    @property
    def side_top(self) -> float:
        """Inches from the bottom of the page to the top of the side column."""
        return _FOOT + self.tall

    @property
    def side_bottom(self) -> float:
        """Inches from the bottom of the page to the part of the side column that is free."""
        return _FOOT + (1.3 if self.scene.view.cropped else 0.1)

    def show(self, pixels: np.ndarray, colours: np.ndarray, alpha: np.ndarray) -> None:
        """Draw the map: colours over curvature, then outlines and names of regions."""
        from matplotlib.collections import LineCollection
        from matplotlib.patheffects import withStroke

        scene = self.scene
        image = scene.canvas.compose(pixels, colours, alpha)
        # Nearest: the picture has the page's own resolution, and must not be smoothed again.
        self.map.imshow(image, extent=scene.view.extent, interpolation="nearest", aspect="auto", zorder=1)
        for width, colour in ((2.4, "#20242a"), (1.1, "white")):
            lines = LineCollection(list(scene.outlines), colors=colour, linewidths=width, capstyle="round", zorder=2)
            self.map.add_collection(lines, autolim=False)
        halo = [withStroke(linewidth=2.4, foreground="#20242a")]
        style: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 3, "parse_math": False}
        for name, x, y in scene.names:
            self.map.text(x, y, name, fontsize=_NAME, color="white", path_effects=halo, **style)

    def picture(self) -> np.ndarray:
        """The page as pixels. Array of shape (height, width, 3), uint8."""
        with warnings.catch_warnings():
            # A file name in a script that the font lacks is drawn as boxes; nobody can do anything about it.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            self._pixels.draw()
        return np.asarray(self._pixels.buffer_rgba())[..., :3].copy()

    def say(self, words: str) -> None:
        """Put a sentence in the middle of the map, for a map with nothing to show."""
        plain = {"facecolor": "white", "edgecolor": FAINT, "boxstyle": "round,pad=0.6"}
        centre: dict[str, Any] = {"ha": "center", "va": "center", "transform": self.map.transAxes, "zorder": 5}
        self.map.text(0.5, 0.5, words, fontsize=12, color=INK, bbox=plain, **centre)

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
        """A colour bar in the side column; `ends` are words at its bottom and top."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        room = self.side_top - self.side_bottom
        tall = min(2.9, room - (0.5 if ends else 0.25))
        top = self.side_top - (0.25 if ends else 0.0)
        axes = self.axes(self.side, top - tall, 0.2, tall)
        bar = self.figure.colorbar(
            ScalarMappable(Normalize(low, high), colours), cax=axes, ticks=ticks, extend=pointed, extendfrac=0.04
        )
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=10, color=FAINT, labelcolor=INK, length=3)
        bar.set_label(label, fontsize=11, color=INK, labelpad=7)
        if ends:
            self.text(self.side, top - tall - 0.08, ends[0], size=9.5, color=FAINT, va="top")
            self.text(self.side, top + 0.08, ends[1], size=9.5, color=FAINT, va="bottom")

    def colour_strip(self, colours: Colormap, low: float, high: float, label: str, top: float) -> None:
        """A lying colour bar across the side column, its upper edge `top` inches from the bottom of the page."""
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

    def _finder(self) -> None:
        """The whole flatmap, small, with the part shown drawn in."""
        from matplotlib.patches import FancyBboxPatch

        scene = self.scene
        view, image = _finder_image(scene.vertices)
        wide = _FINDER
        tall = wide * view.height / view.width
        left = self.side + (self.column - wide) / 2
        axes = self.axes(left, _FOOT + 0.05, wide, tall)
        axes.imshow(image, extent=view.extent, interpolation="lanczos", aspect="auto")
        for box in scene.view.boxes:
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
        self.text(left + wide / 2, _FOOT + tall + 0.1, "part shown", size=8.5, color=FAINT, ha="center")


_NAME = 9.0  # points


@functools.lru_cache(maxsize=2)
def _finder_image(vertices: Vertices) -> tuple[View, np.ndarray]:
    view = whole_view(vertices.space)
    canvas = Canvas(vertices, view, 2 * _FINDER * DPI / view.width)
    pixels, _, alpha = canvas.paint(np.zeros(len(vertices)), np.ones(len(vertices), dtype=bool))
    return view, canvas.compose(pixels, np.broadcast_to([0.30, 0.42, 0.58], (len(pixels), 3)), alpha)


def _place(
    wanted: list[tuple[int, str, float, float]], view: View, per_mm: float
) -> tuple[tuple[str, float, float], ...]:
    """Put names at their anchors, moved a little where they would collide; one that finds no room is left out."""
    line = _NAME / 72 / per_mm  # a line of text, in mm
    left, right, bottom, top = view.extent
    taken: list[tuple[float, float, float, float]] = []
    placed = []
    offsets = sorted(
        ((across * 0.75, up * 0.75) for across in range(-4, 5) for up in range(-4, 5)),
        key=lambda at: at[0] ** 2 + at[1] ** 2,
    )
    for _, name, x, y in wanted:
        half, tall = 0.30 * line * len(name) + 0.15 * line, 0.62 * line
        for across, up in offsets:
            u = min(max(x + across * line, left + half), right - half)
            w = min(max(y + up * line, bottom + tall), top - tall)
            if all(abs(u - a) >= half + b or abs(w - c) >= tall + d for a, b, c, d in taken):
                taken.append((u, half, w, tall))
                placed.append((name, u, w))
                break
    return tuple(placed)
