"""Pictures inside a report."""

from __future__ import annotations

import tempfile
from pathlib import Path

from brainkit.maps.brain_map import BrainMap, MapSet
from brainkit.maps.chart import Chart
from brainkit.maps.draw import draw_map_file
from brainkit.maps.style import Style
from brainkit.page.document import picture

_SMALL = 5.0  # inches: of two maps side by side


def map_picture(maps: MapSet, shown: BrainMap, *, small: bool = False) -> str:
    """A map as the address of an ``<img>``; `small` for one of two side by side."""
    style = Style(width=_SMALL) if small else Style()
    with tempfile.TemporaryDirectory() as folder:
        (path,) = draw_map_file(Path(folder) / shown.name, maps, shown, style=style)
        return picture(path.read_bytes(), "png")


def chart_picture(chart: Chart) -> str:
    """A chart as the address of an ``<img>``: an SVG, sharp in print."""
    with tempfile.TemporaryDirectory() as folder:
        return picture(chart.write(Path(folder) / "chart.svg").read_bytes(), "svg+xml")
