"""Charts of the method by region: which part of the image, and which layers its vertices read."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from brainkit.maps.chart import Chart
from brainkit.maps.colours import layer_palette
from brainkit.maps.frame import matplotlib_settings
from brainkit.maps.limits import round_up
from brainkit.maps.style import FAINT, INK
from brainkit.metrics.layer_profile import LayerProfile
from brainkit.utils.text import plural

_COLUMNS = 7


def draw_coverage(
    path: str | os.PathLike[str],
    coverage: Mapping[str, np.ndarray],
    vertices: Mapping[str, int],
    *,
    title: str,
    detail: str = "",
    note: str | None = None,
) -> Path:
    """Draw which part of the image each region reads, with one scale for all.

    Parameters
    ----------
    path : path-like
        The PNG file; its folder must exist.
    coverage : mapping of str to array of shape (side, side)
        Region -> density, 1 where it is that of an even spread, see
        :func:`brainkit.metrics.coverage.image_coverage`; regions without any are left out.
    vertices : mapping of str to int
        Region -> its vertices.
    title, detail : str
    note : str, optional
        Printed in a warning colour.

    Raises
    ------
    MissingDependency
        If matplotlib is not installed.
    """
    shown = {name: density for name, density in coverage.items() if np.isfinite(density).all()}
    columns = min(_COLUMNS, max(len(shown), 1))
    rows = math.ceil(max(len(shown), 1) / columns)
    side, gap, head = 1.35, 0.18, 0.42
    width = max(0.6 + columns * (side + gap) + 0.9, 6.5)
    chart = Chart(title, detail, note, width=width, height=rows * (side + head) + 0.1)
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
        count = plural(vertices[name], "vertex", "vertices")
        chart.text(left, bottom + side + 0.19, name, size=chart.fitting(name, 10, side), weight="bold", va="bottom")
        chart.text(left, bottom + side + 0.05, count, size=7.5, color=FAINT, va="bottom")
    if picture is not None:
        height = min(rows * (side + head) - head, 2 * side)
        bar = chart.axes(0.3 + columns * (side + gap) + 0.1, chart.bottom + 0.1, 0.14, height)
        with matplotlib_settings():
            chart.figure.colorbar(picture, cax=bar, extend="max").set_label("density / even spread", fontsize=9)
        bar.tick_params(labelsize=8.5)
    return chart.write(path)


def draw_layer_profiles(
    path: str | os.PathLike[str],
    profiles: Mapping[str, LayerProfile],
    layers: Sequence[str],
    *,
    title: str,
    detail: str = "",
    note: str | None = None,
) -> Path:
    """Draw how much each region reads each layer, with intervals, regions in the order given.

    Parameters
    ----------
    path : path-like
        The PNG file; its folder must exist.
    profiles : mapping of str to LayerProfile
        Region -> its profile; those without vertices are left out.
    layers : sequence of L names, shallow first
    title, detail : str
    note : str, optional

    Raises
    ------
    MissingDependency
        If matplotlib is not installed.
    """
    shown = {name: profile for name, profile in profiles.items() if profile.vertices}
    columns = min(_COLUMNS, max(len(shown), 1))
    rows = math.ceil(max(len(shown), 1) / columns)
    panel, gap, tall, head = 1.45, 0.16, 1.15, 0.45
    labels = 0.11 * max(map(len, layers), default=1) * 0.62 + 0.2  # names of layers, turned
    width = max(0.85 + columns * (panel + gap) + 0.2, 6.5)
    chart = Chart(title, detail, note, width=width, height=rows * (tall + head) + labels)
    top = max((float(profile.high.max()) for profile in shown.values()), default=1.0) * 1.05
    place = np.arange(len(layers))
    palette = layer_palette(len(layers))
    for number, (name, profile) in enumerate(shown.items()):
        row, column = divmod(number, columns)
        left = 0.75 + column * (panel + gap)
        bottom = chart.bottom + labels + (rows - 1 - row) * (tall + head)
        axes = chart.axes(left, bottom, panel, tall)
        with matplotlib_settings():
            error = np.stack([profile.mean - profile.low, profile.high - profile.mean])
            error = np.maximum(error, 0)
            axes.bar(place, profile.mean, width=0.82, color=palette)
            axes.errorbar(place, profile.mean, error, fmt="none", ecolor=INK, elinewidth=1.0)
        axes.set_xlim(-0.6, len(layers) - 0.4)
        axes.set_ylim(0, top)
        lowest = number + columns >= len(shown)
        axes.set_xticks(place, layers if lowest else [""] * len(layers), rotation=90, fontsize=7.5, parse_math=False)
        axes.tick_params(axis="x", length=2)
        axes.tick_params(axis="y", labelsize=8, labelleft=column == 0)
        axes.locator_params(axis="y", nbins=4)
        if column == 0:
            axes.set_ylabel("mean weight", fontsize=8.5, color=INK)
        count = plural(profile.vertices, "vertex", "vertices")
        chart.text(left, bottom + tall + 0.19, name, size=chart.fitting(name, 10, panel), weight="bold", va="bottom")
        chart.text(left, bottom + tall + 0.06, count, size=7.5, color=FAINT, va="bottom")
    return chart.write(path)
