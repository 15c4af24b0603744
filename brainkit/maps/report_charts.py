"""Charts of a report: accuracy by ROI, training, recovery of planted maps, one vertex's predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.maps.chart import GRID, PALETTE, Chart, Point, dot, label_rows
from brainkit.maps.style import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW = 0.27  # inches for each ROI


def accuracy_by_roi(points: Mapping[str, Point], largest: Mapping[str, float], detail: str) -> Chart:
    """Median r of each ROI with its interval, and the largest that noise allows.

    Parameters
    ----------
    points : mapping
        ROI -> point.
    largest : mapping
        ROI -> median over its vertices of the square root of the noise ceiling; ROIs without one are missing.
    detail : str
        Printed at the foot.
    """
    names = list(points)
    height = _ROW * len(names)
    chart = Chart("", detail, None, width=8.6, height=height + 0.75)
    widest = max(map(len, names), default=4) * 0.085 + 0.3
    axes = chart.axes(0.3 + widest, chart.bottom + 0.5, chart.width - widest - 0.7, height)
    for row, name in enumerate(names):
        dot(axes, row, points[name], PALETTE[0])
        if name in largest:
            axes.plot([largest[name]] * 2, [row - 0.3, row + 0.3], color=PALETTE[1], linewidth=2)
    label_rows(axes, names, "r on test images, median over vertices")
    lowest = [point["value"] if point["low"] is None else point["low"] for point in points.values()]
    axes.set_xlim(left=min([0.0, *(each for each in lowest if each is not None)]))
    if largest:
        axes.plot([], [], "|", color=PALETTE[1], markersize=9, markeredgewidth=2, label="the largest that noise allows")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), fontsize=9, frameon=False, borderpad=0)
    return chart


def training(epochs: Sequence[float], loss: Sequence[float], r: Sequence[float], chosen: int) -> Chart:
    """Loss on training images and mean r on validation images by epoch; `chosen` is the epoch that is kept."""
    chart = Chart("", "dot: the epoch that is kept", None, width=8.6, height=2.75)
    half = (chart.width - 0.6 - 1.5) / 2
    texts = ("loss, training images", "mean r, validation images")
    for index, (values, text) in enumerate(zip((loss, r), texts, strict=True)):
        axes = chart.axes(0.75 + index * (half + 0.85), chart.bottom + 0.5, half, 1.9)
        axes.plot(epochs, values, color=PALETTE[index], linewidth=1.6)
        axes.plot(epochs[chosen], values[chosen], "o", color=PALETTE[index], markersize=5)
        axes.set_xlabel("epoch", fontsize=10, color=INK)
        axes.set_title(text, fontsize=10, color=INK, loc="left")
        axes.locator_params(axis="x", integer=True)
        axes.grid(color=GRID, linewidth=0.7)
    return chart


def recovery(pairs: Mapping[str, tuple[np.ndarray, np.ndarray, float, float]], detail: str) -> Chart:
    """Found against planted values, a panel for each selector.

    Parameters
    ----------
    pairs : mapping
        Label -> planted values (n,), found values (n,), lowest and highest value of the axes.
    detail : str
    """
    side, step = 2.0, 2.55
    chart = Chart("", detail, None, width=0.6 + step * len(pairs), height=side + 0.8)
    for index, (label, (planted, found, low, high)) in enumerate(pairs.items()):
        axes = chart.axes(0.65 + step * index, chart.bottom + 0.5, side, side)
        axes.plot([low, high], [low, high], color=FAINT, linewidth=0.9)
        # A picture: thousands of points as paths would make a large file.
        axes.plot(planted, found, "o", color=PALETTE[0], alpha=0.25, markersize=2, markeredgewidth=0, rasterized=True)
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.locator_params(nbins=5)
        axes.set_title(label, fontsize=10, color=INK, loc="left")
        axes.set_xlabel("planted", fontsize=9, color=INK)
        if index == 0:
            axes.set_ylabel("found", fontsize=9, color=INK)
    return chart


def vertex(measured: np.ndarray, predicted: np.ndarray) -> Chart:
    """Measured against predicted responses of one vertex to the test images, (n,) each."""
    chart = Chart("", "", None, width=2.6, height=1.9)
    axes = chart.axes(0.6, 0.5, 1.9, 1.9)
    for line in (axes.axhline, axes.axvline):
        line(0, color=GRID, linewidth=0.8, zorder=0)
    axes.plot(predicted, measured, "o", color=PALETTE[0], alpha=0.45, markersize=3, markeredgewidth=0)
    _same_limits(axes, measured, predicted)
    axes.set_xlabel("predicted", fontsize=9, color=INK)
    axes.set_ylabel("measured", fontsize=9, color=INK)
    axes.locator_params(nbins=5)
    return chart


def _same_limits(axes: Axes, *values: np.ndarray) -> None:
    limit = 1.05 * max(float(np.nanmax(np.abs(each), initial=0.0)) for each in values) or 1.0
    options: dict[str, Any] = {"left": -limit, "right": limit}
    axes.set_xlim(**options)
    axes.set_ylim(-limit, limit)
