"""Pictures inside a report: maps of one subject, and charts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from brainkit.cortex.cortical_surface import CorticalSurface
from brainkit.maps.brain_map import BrainMap, MapSet
from brainkit.maps.chart import Chart
from brainkit.maps.draw import check_drawable_set
from brainkit.maps.figure import MapFigure
from brainkit.maps.frame import Frame
from brainkit.maps.grid import MapGrid
from brainkit.maps.projected import on_surface
from brainkit.maps.style import FORMATS, Style
from brainkit.maps.view import plainest_shape
from brainkit.page import blocks
from brainkit.page.blocks import Block
from brainkit.utils.data_uri import data_uri

_SMALL = 5.0  # inches: of two maps side by side
_DPI = FORMATS["png"]
CHART = Style(width=9.2, dpi=_DPI)
"""Of charts whose panels fill a width."""


@dataclass(frozen=True, eq=False)
class MapPictures:
    """Draws maps of one subject: voxels on the surface if there is one, else as projections of their volume.

    Parameters
    ----------
    maps : MapSet
        Of the subject.
    surface : CorticalSurface, optional
        Of the subject's own; by default the average one of the vertices' space.
    """

    maps: MapSet
    surface: CorticalSurface | None = None

    @property
    def possible(self) -> bool:
        """Whether there is anything to draw on."""
        return self.maps.is_drawable or self.surface is not None

    @property
    def has_cortex(self) -> bool:
        """Whether that is a surface."""
        return self.possible and (self.maps.volume is None or self.surface is not None)

    def source(self, shown: BrainMap, *, small: bool = False) -> str:
        """A map as the address of an ``<img>``; `small` for one of two side by side."""
        drawn, style = self._drawn([shown]), self._style(_SMALL if small else None)
        return figure_source(MapFigure(drawn, drawn.maps[0], style, _DPI))

    def figures(self, *names: str) -> list[Block]:
        """The subject's maps of these names, as far as they exist and can be drawn."""
        return [self.figure(self.maps[name]) for name in names if self.possible and name in self.maps.names]

    def figure(self, shown: BrainMap, caption: str = "") -> Block:
        """A map as a block of the report."""
        return blocks.figure(self.source(shown), f"Map: {shown.title}", caption)

    def grid(self, shown: Sequence[BrainMap], alt: str, caption: str = "") -> Block:
        """Several maps with one legend as a block of the report."""
        grid = MapGrid(self._drawn(shown), self._style(None), _DPI)
        return blocks.figure(figure_source(grid), alt, caption)

    def _drawn(self, shown: Sequence[BrainMap]) -> MapSet:
        maps = replace(self.maps, maps=tuple(shown))
        maps = maps if self.surface is None else on_surface(maps, self.surface)
        check_drawable_set(maps)
        return maps

    def _style(self, width: float | None) -> Style:
        return Style(width=width, view=plainest_shape(self.surface))


def figure_source(figure: Frame) -> str:
    """A figure as the address of an ``<img>``: a chart as an SVG, which is sharp in print; a map as pixels."""
    if isinstance(figure, Chart):
        return data_uri(figure.encode("svg"))
    file = io.BytesIO()
    # WebP: a quarter of a PNG, which the eye does not tell from it.
    Image.fromarray(figure.render()).save(file, "WEBP", quality=90)
    return data_uri(file.getvalue())
