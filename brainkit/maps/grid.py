"""Several maps in one figure, with one legend; and a map in axes of the user's own figure."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from brainkit.errors import UsageError
from brainkit.maps.brain_map import BrainMap, Categorical, Continuous, MapSet
from brainkit.maps.colours import colour_map, location_table
from brainkit.maps.figure import LABEL_SIZE, draw_map, message
from brainkit.maps.foot import Foot
from brainkit.maps.frame import Frame, matplotlib_settings
from brainkit.maps.legend import draw_legend, height_below, listed
from brainkit.maps.scene import make_scene, surface_source
from brainkit.maps.style import Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PANELS = 64
_ROOM_FOR_NAMES = 4.2  # inches: of a panel of a turned cortex
_WIDTH, _MARGIN, _TITLE, _GAP = 9.0, 0.25, 0.3, 0.12  # inches


class MapGrid(Frame):
    """Several maps that are coloured alike, each with its title, and one legend.

    Parameters
    ----------
    maps : MapSet
        Of one or more maps.
    style : Style
    dpi : float
    title : str
    """

    def __init__(self, maps: MapSet, style: Style, dpi: float, title: str = "") -> None:
        count = len(maps.maps)
        if not 1 <= count <= MOST_PANELS:
            raise UsageError(f"values: a grid has 1 to {MOST_PANELS} maps, got {count}")
        wide = maps.volume is not None and maps.surface is None  # three projections beside each other
        columns = math.ceil(math.sqrt(count / (2 if wide else 1)))
        rows = math.ceil(count / columns)
        width = style.width or _WIDTH
        scale = min(max(width / _WIDTH, 0.62), 1.0)
        inner = width - 2 * _MARGIN
        panel = (inner - (columns - 1) * _GAP) / columns
        small = min(max(panel / 4.5, 0.55), 1.0) * scale
        legend, head = height_below(maps.maps[0], scale, inner), (0.5 if title else 0.1) * scale
        foot = Foot(maps.note or "", surface_source(maps, style), inner, scale)
        room = math.inf
        if style.height is not None:
            room = max((style.height - legend - head - foot.height) / rows - _TITLE * scale, 0.3)
        scene = make_scene(maps, style, room=(panel, room), dpi=dpi, label_size=LABEL_SIZE * small)
        if not scene.view.flat and panel < _ROOM_FOR_NAMES:
            scene = replace(scene, labels=())  # they would hide the values
        across, up = scene.inches
        step = up + _TITLE * scale + _GAP
        super().__init__(width, style.height or head + rows * step + legend + foot.height, style, scale)
        room_for_text = inner - 0.1
        self.text(
            _MARGIN,
            self.height - 0.15 * scale,
            title,
            size=self.fitting(title, 14 * scale, room_for_text),
            weight="bold",
            va="top",
        )
        for index, brain_map in enumerate(maps.maps):
            row, column = divmod(index, columns)
            left = _MARGIN + column * (panel + _GAP) + (panel - across) / 2
            top = self.height - head - row * step
            name = " ".join(brain_map.title.split())
            size = self.fitting(name, 10.5 * scale, panel)
            self.text(left + across / 2, top - 0.06 * scale, name, size=size, ha="center", va="top")
            axes = self.axes(left, top - _TITLE * scale - up, across, up)
            draw_map(axes, scene, brain_map, small)
            if brain_map.empty:
                message(axes, brain_map.empty, 9 * small)
        draw_legend(self, _said_once(maps.maps[0]), (_MARGIN, foot.height + legend, inner, legend), below=True)
        foot.draw(self, _MARGIN)


def _said_once(brain_map: BrainMap) -> BrainMap:
    """Without the words that other maps have the same limits: one legend is for all."""
    coding = brain_map.coding
    return replace(brain_map, coding=replace(coding, shared=0)) if isinstance(coding, Continuous) else brain_map


def draw_in_axes(axes: Axes, maps: MapSet, brain_map: BrainMap, style: Style, *, colorbar: bool = True) -> None:
    """Draw a map in axes that exist, with its legend beside it if it is wanted."""
    figure: Any = axes.get_figure()
    dpi = style.dpi or figure.dpi
    box = axes.get_window_extent()
    inches = box.width / figure.dpi, box.height / figure.dpi
    scale = min(max(inches[0] / 6, 0.5), 1.0)
    # Twice as fine as the axes now are: they may grow.
    scene = make_scene(maps, style, room=inches, dpi=2 * dpi, label_size=LABEL_SIZE * scale)
    draw_map(axes, scene, brain_map, scale)
    axes.set_aspect("equal")
    if brain_map.empty:
        message(axes, brain_map.empty, 12 * scale)
    elif colorbar:
        _legend_beside(axes, brain_map)


def _legend_beside(axes: Axes, brain_map: BrainMap) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Patch

    coding = brain_map.coding
    figure: Any = axes.get_figure()
    with matplotlib_settings():
        if isinstance(coding, Continuous):
            colours = colour_map(coding.colours)
            colours = colours.with_extremes(under=coding.below) if coding.below else colours
            shown = ScalarMappable(Normalize(coding.low, coding.high), colours)
            bar = figure.colorbar(shown, ax=axes, extend=coding.extend, shrink=0.7, label=coding.label)
            bar.outline.set_visible(False)
        elif isinstance(coding, Categorical):
            label, names, palette = listed(brain_map)
            pairs = list(zip(names, palette, strict=True))
            patches = [Patch(color=tuple(colour), label=name) for name, colour in reversed(pairs)]
            place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "frameon": False}
            axes.legend(handles=patches, title=label, **place)
        else:
            key = axes.inset_axes((1.02, 0.35, 0.22, 0.3))
            key.imshow(location_table(), extent=(-1, 1, 1, -1), interpolation="none")
            key.set(xticks=[-1, 0, 1], yticks=[-1, 0, 1], title="the image")
