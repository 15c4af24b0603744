"""Charts of comparisons: accuracy by group of vertices, depth along the cortex, layers by ROI, the leaderboard."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.errors import require
from brainkit.maps.figure import DPI, FAINT, INK, WARN
from brainkit.utils.files import atomic_write
from brainkit.utils.own_figures import figure_mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart by people with any colour vision.
_PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#1b1f24")
_ROW = 0.27  # inches for each group of vertices
_MAX_Q = 0.05

Point = Mapping[str, Any]
"""A value with its interval: ``value``, ``low``, ``high`` (None where unknown), and ``q`` or ``p`` if it is tested."""


def draw_by_group(
    path: str | os.PathLike[str],
    *,
    accuracy: Mapping[str, Mapping[str, Point]],
    differences: Mapping[str, Mapping[str, Point]],
    measure: str,
    title: str,
    detail: str = "",
    note: str | None = None,
) -> Path:
    """Draw each model's accuracy by group of vertices, and beside it how pairs of models differ.

    Parameters
    ----------
    path : path-like
        The PNG file; its folder must exist.
    accuracy : mapping
        Model -> group of vertices -> point.
    differences : mapping
        Pair of models, for example ``"a - b"`` -> group -> point with ``q``: filled below 0.05, else open.
    measure : str
        What is drawn, with its unit.
    title, detail : str
    note : str, optional
        Printed in a warning colour.

    Returns
    -------
    Path

    Raises
    ------
    MissingDependency
        If matplotlib is not installed.
    """
    groups = list(dict.fromkeys(group for points in accuracy.values() for group in points))
    lanes = max(len(accuracy), len(differences))
    height = max(_ROW, 0.1 * lanes + 0.12) * len(groups)
    legend = 0.22 * lanes
    figure = _Chart(title, detail, note, width=9.6, height=height + legend + 0.55)
    widest = max((len(group) for group in groups), default=4) * 0.085 + 0.25
    half = (figure.width - 0.6 - widest - 0.45) / 2
    bottom = figure.bottom + 0.5
    left, right = (figure.axes(0.3 + widest + index * (half + 0.45), bottom, half, height) for index in range(2))
    _dots(left, groups, accuracy)
    _dots(right, groups, differences, dark=True)
    left.set_yticks(range(len(groups)), groups, parse_math=False)
    right.set_yticks(range(len(groups)), [""] * len(groups))
    right.axvline(0, color=FAINT, linewidth=0.9, zorder=0)
    left.set_xlabel(f"{measure}, mean over vertices", fontsize=10, color=INK)
    right.set_xlabel("difference (filled: q < 0.05)", fontsize=10, color=INK)
    for axes in (left, right):
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.grid(axis="x", color="#e4e7eb", linewidth=0.7)
        _legend(axes, height, legend)
    return figure.write(path)


def draw_hierarchy(
    path: str | os.PathLike[str],
    *,
    hierarchies: Mapping[str, Mapping[str, Any]],
    title: str,
    detail: str = "",
    note: str | None = None,
) -> Path:
    """Draw preferred depth by area for several models, each with its line, its interval and its null.

    Parameters
    ----------
    path : path-like
        The PNG file; its folder must exist.
    hierarchies : mapping
        Model -> what :func:`brainkit.evaluation.hierarchy.analyse_hierarchy` returns.
    title, detail : str
    note : str, optional

    Returns
    -------
    Path

    Raises
    ------
    MissingDependency
        If matplotlib is not installed.
    """
    columns = min(len(hierarchies), 3)
    rows = -(-len(hierarchies) // columns)
    figure = _Chart(title, detail, note, width=max(0.9 + 3.1 * columns, 5.2), height=3.1 * rows)
    for index, (model, found) in enumerate(hierarchies.items()):
        row, column = divmod(index, columns)
        bottom = figure.bottom + 3.1 * (rows - 1 - row) + 0.45
        axes = figure.axes(0.8 + 3.1 * column, bottom, 2.75, 2.05)
        _depth_by_area(axes, found, _PALETTE[index % len(_PALETTE)])
        axes.set_title(f"{model}\n{_slope_text(found)}", fontsize=9, color=INK, loc="left", parse_math=False)
        if column:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel("preferred depth", fontsize=10, color=INK)
    return figure.write(path)


def draw_layers_by_roi(
    path: str | os.PathLike[str],
    *,
    shares: Mapping[str, np.ndarray],
    layers: Mapping[str, Sequence[str]],
    rois: Sequence[str],
    title: str,
    detail: str = "",
    note: str | None = None,
) -> Path:
    """Draw the mean weight of each layer in each ROI, one panel per model.

    Parameters
    ----------
    path : path-like
        The PNG file; its folder must exist.
    shares : mapping of str to array of shape (L, R)
        Model -> weights, each column summing to 1; NaN where an ROI has no vertices.
    layers : mapping of str to sequence of L names
    rois : sequence of R names
    title, detail : str
    note : str, optional

    Returns
    -------
    Path

    Raises
    ------
    MissingDependency
        If matplotlib is not installed.
    """
    from matplotlib import colormaps

    names = max((len(name) for each in layers.values() for name in each), default=4) * 0.068 + 0.25
    panel = max(2.4, 0.21 * len(rois))
    columns = max(1, min(len(shares), int(11 // (panel + names))))
    rows = -(-len(shares) // columns)
    tall = max(1.6, 0.17 * max(len(each) for each in layers.values()))
    step = tall + 0.075 * max(map(len, rois), default=0) + 0.75
    figure = _Chart(title, detail, note, width=0.25 + columns * (panel + names) + 1.1, height=step * rows - 0.3)
    top = max(float(np.nanmax(each, initial=0)) for each in shares.values()) or 1.0
    image = None
    for index, (model, values) in enumerate(shares.items()):
        row, column = divmod(index, columns)
        bottom = figure.bottom + step * (rows - row) - tall - 0.6
        axes = figure.axes(0.25 + names + column * (panel + names), bottom, panel, tall)
        # The first layer is at the bottom, as on the maps.
        image = axes.imshow(values, aspect="auto", origin="lower", cmap=colormaps["magma"], vmin=0, vmax=top)
        axes.set_yticks(range(len(layers[model])), layers[model], fontsize=7.5, parse_math=False)
        axes.set_xticks(range(len(rois)), rois, fontsize=8, rotation=90, parse_math=False)
        axes.tick_params(length=0)
        axes.set_title(model, fontsize=10, color=INK, loc="left", parse_math=False)
    if image is not None:
        bar = figure.figure.colorbar(
            image,
            cax=figure.axes(figure.width - 0.8, figure.height - 0.55 - 0.3 - min(tall, 1.6), 0.13, min(tall, 1.6)),
        )
        bar.ax.tick_params(labelsize=8)
        bar.set_label("weight", fontsize=9)
    return figure.write(path)


def draw_leaderboard(
    path: str | os.PathLike[str],
    *,
    rows: Sequence[tuple[str, Point, Point | None]],
    measure: str,
    title: str,
    detail: str = "",
    note: str | None = None,
) -> Path:
    """Draw models from best to worst with their intervals, and their differences from the best.

    Parameters
    ----------
    path : path-like
        The PNG file; its folder must exist.
    rows : sequence of (model, accuracy, difference)
        Best first; the difference has ``p``, and is None for the best.
    measure, title, detail : str
    note : str, optional

    Returns
    -------
    Path

    Raises
    ------
    MissingDependency
        If matplotlib is not installed.
    """
    height = 0.34 * len(rows) + 0.1
    figure = _Chart(title, detail, note, width=9.0, height=height + 0.55)
    widest = min(max(len(name) for name, _, _ in rows) * 0.085 + 0.3, 3.2)
    half = (figure.width - 0.6 - widest - 0.4) / 2
    bottom = figure.bottom + 0.5
    left, right = (figure.axes(0.3 + widest + index * (half + 0.4), bottom, half, height) for index in range(2))
    for place, (_, accuracy, difference) in enumerate(rows):
        _dot(left, place, accuracy, _PALETTE[0], filled=True)
        if difference is not None:
            p = difference.get("p")
            _dot(right, place, difference, INK, filled=p is not None and p < _MAX_Q)
    left.set_yticks(range(len(rows)), [name for name, _, _ in rows], parse_math=False)
    right.set_yticks(range(len(rows)), [""] * len(rows))
    right.axvline(0, color=FAINT, linewidth=0.9, zorder=0)
    left.set_xlabel(f"{measure}, mean over vertices", fontsize=10, color=INK)
    right.set_xlabel("difference from the best (filled: p < 0.05)", fontsize=10, color=INK)
    for axes in (left, right):
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="x", color="#e4e7eb", linewidth=0.7)
    return figure.write(path)


class _Chart:
    """A white figure with a title on top, and a note and a detail at the foot. Sizes are in inches."""

    bottom = 0.5

    def __init__(self, title: str, detail: str, note: str | None, *, width: float, height: float) -> None:
        require("matplotlib", extra="maps", purpose="drawing charts")
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width = width
        self.height = self.bottom + height + 0.55
        self.figure: Figure = Figure(figsize=(width, self.height), dpi=DPI, facecolor="white")
        self._canvas = FigureCanvasAgg(self.figure)
        self._text(0.3, self.height - 0.2, title, self._fitting(title, 13), INK, "bold", "top")
        self._text(0.3, 0.32 if note else 0.2, detail, self._fitting(detail, 8.5), FAINT, "normal", "center")
        self._text(0.3, 0.13, note or "", self._fitting(note or "", 9), WARN, "bold", "center")

    def axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        axes = self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))
        axes.tick_params(labelsize=9, color=FAINT, labelcolor=INK, length=3)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(FAINT)
        return axes

    def write(self, path: str | os.PathLike[str]) -> Path:
        from PIL import Image

        with warnings.catch_warnings():
            # Characters that the font lacks are drawn as boxes.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            self._canvas.draw()
        picture = Image.fromarray(np.asarray(self._canvas.buffer_rgba())[..., :3].copy())
        with atomic_write(path) as temporary:
            picture.save(temporary, format="PNG", compress_level=9, dpi=(DPI, DPI), pnginfo=figure_mark())
        return Path(path)

    def _text(self, x: float, y: float, text: str, size: float, colour: str, weight: str, va: str) -> None:
        place = x / self.width, y / self.height
        self.figure.text(*place, text, fontsize=size, color=colour, weight=weight, va=va, parse_math=False)

    def _fitting(self, text: str, size: float) -> float:
        return min(size, 72 * (self.width - 0.6) / (0.6 * max(len(text), 1)))


def _dots(axes: Axes, groups: list[str], points: Mapping[str, Mapping[str, Point]], *, dark: bool = False) -> None:
    """One lane per series within the row of each group."""
    spread = (np.arange(len(points)) - (len(points) - 1) / 2) * min(0.24, 0.62 / len(points))
    for index, (name, of_group) in enumerate(points.items()):
        colour = INK if dark and len(points) == 1 else _PALETTE[index % len(_PALETTE)]
        for row, group in enumerate(groups):
            if group in of_group:
                point = of_group[group]
                filled = "q" not in point or (point["q"] is not None and point["q"] < _MAX_Q)
                _dot(axes, row + spread[index], point, colour, filled=filled)
        axes.plot([], [], "o", color=colour, markersize=5, label=name)


def _dot(axes: Axes, row: float, point: Point, colour: str, *, filled: bool) -> None:
    if point["value"] is None:
        return
    if point["low"] is not None and point["high"] is not None:
        axes.plot([point["low"], point["high"]], [row, row], color=colour, linewidth=1.4, solid_capstyle="round")
    face = colour if filled else "white"
    axes.plot([point["value"]], [row], "o", markersize=5, markeredgecolor=colour, markerfacecolor=face)


def _legend(axes: Axes, height: float, room: float) -> None:
    box: dict[str, Any] = {
        "loc": "lower left",
        "bbox_to_anchor": (0, 1 + 0.03 / height),
        "borderaxespad": 0,
        "frameon": False,
    }
    legend = axes.legend(fontsize=9, handletextpad=0.2, labelspacing=0.25, **box)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _depth_by_area(axes: Axes, found: Mapping[str, Any], colour: str) -> None:
    areas = found["areas"]
    x = np.arange(len(areas))
    column = {
        key: np.array([np.nan if area[key] is None else area[key] for area in areas.values()], float)
        for key in ("depth", "low", "high", "null_low", "null_high")
    }
    if np.isfinite(column["null_low"]).any():
        axes.fill_between(x, column["null_low"], column["null_high"], color="#d9dde2", linewidth=0, zorder=0)
    slope, intercept = found["slope"]["value"], found["intercept"]["value"]
    if slope is not None and intercept is not None:
        axes.plot(x, intercept + slope * x, color=colour, linewidth=1.2, linestyle="--")
    axes.vlines(x, column["low"], column["high"], color=colour, linewidth=1.8)
    axes.plot(x, column["depth"], "o", color=colour, markersize=5)
    axes.set_xticks(x, list(areas), parse_math=False)
    axes.set_xlim(-0.4, len(areas) - 0.6)
    axes.set_ylim(-0.03, 1.03)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.7)


def _slope_text(found: Mapping[str, Any]) -> str:
    slope, r2 = found["slope"], found["r2"]
    if slope["value"] is None:
        return "no line can be fitted"
    ends = "" if slope["low"] is None else f" [{slope['low']:+.3f}, {slope['high']:+.3f}]"
    p = "" if slope["p"] is None else f", p {slope['p']:.3g}"
    return f"slope {slope['value']:+.3f}{ends}, r² {r2['value']:.2f}{p}"
