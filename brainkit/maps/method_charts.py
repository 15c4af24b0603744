"""Charts of the method by ROI: which part of the image, and which layers its vertices read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from brainkit.maps.chart import Chart
from brainkit.maps.colours import layer_palette
from brainkit.maps.frame import matplotlib_settings
from brainkit.maps.legend import short_names
from brainkit.maps.limits import round_up
from brainkit.maps.style import DEFAULT, Style
from brainkit.metrics.layer_profile import LayerProfile
from brainkit.utils.text import plural

_COLUMNS = 7
_LEAST_WIDTH = 6.5  # inches, if the width is not given


def coverage_chart(
    coverage: Mapping[str, np.ndarray],
    vertices: Mapping[str, int],
    *,
    title: str,
    detail: str = "",
    note: str | None = None,
    style: Style = DEFAULT,
) -> Chart:
    """Which part of the image each ROI reads, with one scale for all.

    Parameters
    ----------
    coverage : mapping of str to array of shape (side, side)
        ROI -> density, 1 where it is that of an even spread, see
        :func:`brainkit.metrics.coverage.image_coverage`; ROIs without any are left out.
    vertices : mapping of str to int
        ROI -> its vertices.
    title, detail : str
    note : str, optional
        Printed in a warning colour.
    style : Style
        Its width decides how many ROIs stand side by side.

    Raises
    ------
    MissingDependency
        If matplotlib is not installed.
    """
    shown = {name: density for name, density in coverage.items() if np.isfinite(density).all()}
    side, gap, head, bar_room = 1.35, 0.18, 0.42, 0.9
    columns = _columns(len(shown), 0.75 + gap, None if style.width is None else style.width - 0.6 - bar_room)
    rows = math.ceil(max(len(shown), 1) / columns)
    if style.width is not None:
        side = min(side, (style.width - 0.6 - bar_room) / columns - gap)
    width = style.width or max(0.6 + columns * (side + gap) + bar_room, _LEAST_WIDTH)
    chart = Chart(title, detail, note, width=width, height=rows * (side + head) + 0.1, style=style)
    every = np.concatenate([np.ones(1), *(density.ravel() for density in shown.values())])
    top = round_up(float(np.percentile(every, 99.5)), 2)
    picture = None
    for place, (name, density) in enumerate(shown.items()):
        row, column = divmod(place, columns)
        left = 0.3 + column * (side + gap)
        bottom = chart.bottom + 0.1 + (rows - 1 - row) * (side + head)
        axes = chart.axes(left, bottom, side, side)
        with matplotlib_settings():
            box = (-1, 1, 1, -1)
            picture = axes.imshow(density, "magma", vmin=0, vmax=top, extent=box, interpolation="bilinear")
            axes.axhline(0, color="white", linewidth=0.5, alpha=0.5)
            axes.axvline(0, color="white", linewidth=0.5, alpha=0.5)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        _head(chart, left, bottom + side, side, name, vertices[name])
    if picture is not None:
        height = min(rows * (side + head) - head, 2 * side)
        bar = chart.axes(0.3 + columns * (side + gap) + 0.05, chart.bottom + 0.1, 0.14, height)
        with matplotlib_settings():
            scale = chart.figure.colorbar(picture, cax=bar, extend="max")
            scale.set_label("density / even spread", fontsize=9, color=chart.theme.ink)
            scale.outline.set_edgecolor(chart.theme.faint)
        bar.tick_params(labelsize=8.5)
    return chart


def layer_profile_chart(
    profiles: Mapping[str, LayerProfile],
    layers: Sequence[str],
    *,
    title: str,
    detail: str = "",
    note: str | None = None,
    style: Style = DEFAULT,
) -> Chart:
    """How much each ROI reads each layer, with intervals, ROIs in the order given.

    Parameters
    ----------
    profiles : mapping of str to LayerProfile
        ROI -> its profile; those without vertices are left out.
    layers : sequence of L names, shallow first
    title, detail : str
    note : str, optional
        Printed in a warning colour.
    style : Style
        Its width decides how many ROIs stand side by side.

    Raises
    ------
    MissingDependency
        If matplotlib is not installed.
    """
    shown = {name: profile for name, profile in profiles.items() if profile.vertices}
    panel, gap, tall, head, start = 1.45, 0.16, 1.15, 0.45, 0.75
    columns = _columns(len(shown), 0.9 + gap, None if style.width is None else style.width - start - 0.3)
    rows = math.ceil(max(len(shown), 1) / columns)
    if style.width is not None:
        panel = min(panel, (style.width - start - 0.3) / columns - gap)
    names = short_names(layers)
    labels = 0.068 * max(map(len, names), default=1) + 0.2  # turned
    width = style.width or max(start + 0.3 + columns * (panel + gap), _LEAST_WIDTH)
    chart = Chart(title, detail, note, width=width, height=rows * (tall + head) + labels, style=style)
    top = max((float(profile.high.max()) for profile in shown.values()), default=1.0) * 1.05
    place = np.arange(len(layers))
    palette = layer_palette(len(layers))
    for number, (name, profile) in enumerate(shown.items()):
        row, column = divmod(number, columns)
        left = start + column * (panel + gap)
        bottom = chart.bottom + labels + (rows - 1 - row) * (tall + head)
        axes = chart.axes(left, bottom, panel, tall)
        with matplotlib_settings():
            error = np.stack([profile.mean - profile.low, profile.high - profile.mean])
            error = np.maximum(error, 0)
            axes.bar(place, profile.mean, width=0.82, color=palette, edgecolor=chart.theme.faint, linewidth=0.4)
            axes.errorbar(place, profile.mean, error, fmt="none", ecolor=chart.theme.ink, elinewidth=1.0)
        axes.set_xlim(-0.6, len(layers) - 0.4)
        axes.set_ylim(0, top)
        lowest = number + columns >= len(shown)
        axes.set_xticks(place, names if lowest else [""] * len(layers), rotation=90, fontsize=7.5, parse_math=False)
        axes.tick_params(axis="x", length=2)
        axes.tick_params(axis="y", labelsize=8, labelleft=column == 0)
        axes.locator_params(axis="y", nbins=4)
        if column == 0:
            axes.set_ylabel("mean weight", fontsize=8.5, color=chart.theme.ink)
        _head(chart, left, bottom + tall, panel, name, profile.vertices)
    return chart


def _columns(panels: int, least: float, room: float | None) -> int:
    """Panels side by side, the rows as equal as they can be; in a given room, each takes at `least` so much."""
    most = _COLUMNS if room is None else min(max(int(room / least + 1e-6), 1), _COLUMNS)
    rows = math.ceil(max(panels, 1) / most)
    return math.ceil(max(panels, 1) / rows)


def _head(chart: Chart, left: float, top: float, room: float, name: str, vertices: int) -> None:
    """Name and size of an ROI over its panel."""
    size = chart.fitting(name, 10, room)
    chart.text(left, top + 0.19, name, size=size, weight="bold", va="bottom")
    count = plural(vertices, "vertex", "vertices")
    chart.text(left, top + 0.05, count, size=7.5, color=chart.theme.faint, va="bottom")
