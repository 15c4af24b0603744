"""Charts of comparisons: accuracy by group of vertices, depth along the cortex, layers by ROI, the leaderboard."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.maps.chart import GRID, PALETTE, Chart, Point, dot, label_rows
from brainkit.maps.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW = 0.27  # inches for each group of vertices
_SHADE = "#f4f6f8"
_MAX_Q = 0.05
_LONGEST_TITLE = 32  # characters over a panel of depth by area
_PLAIN: dict[str, Any] = {"color": INK, "va": "bottom", "parse_math": False}


def group_chart(
    *,
    accuracy: Mapping[str, Mapping[str, Point]],
    differences: Mapping[str, Mapping[str, Point]],
    difference: str,
    measure: str,
    title: str,
    detail: str = "",
    note: str | None = None,
) -> Chart:
    """Draw each model's accuracy by group of vertices, and beside it how one of them differs from the others.

    Parameters
    ----------
    accuracy : mapping
        Model -> group of vertices -> point.
    differences : mapping
        Model -> group of vertices -> point with ``q`` (filled below 0.05, else open), for each model but one.
    difference : str
        What is subtracted from what.
    measure : str
        What is drawn, with its unit.
    title, detail : str
    note : str, optional
        Printed in a warning colour.

    Raises
    ------
    MissingDependency
        If matplotlib is not installed.
    """
    groups = list(dict.fromkeys(group for points in accuracy.values() for group in points))
    lanes = len(accuracy)
    colours = _colours(accuracy)
    height = max(_ROW, 0.1 * lanes + 0.12) * len(groups)
    legend = 0.2 * lanes
    figure = Chart(title, detail, note, width=9.6, height=height + legend + 0.55)
    widest = max((len(group) for group in groups), default=4) * 0.085 + 0.25
    half = (figure.width - 0.6 - widest - 0.45) / 2
    bottom = figure.bottom + 0.5
    left, right = (figure.axes(0.3 + widest + index * (half + 0.45), bottom, half, height) for index in range(2))
    _dots(left, groups, accuracy, colours)
    _dots(right, groups, differences, colours if len(differences) > 1 else dict.fromkeys(differences, INK))
    label_rows(left, groups, f"{measure}, mean over vertices", zero=False)
    label_rows(right, [""] * len(groups), "difference")
    right.set_title(difference, fontsize=9, color=INK, loc="left", parse_math=False)
    _legend(left, height)
    return figure


def hierarchy_chart(
    *,
    hierarchies: Mapping[str, Mapping[str, Any]],
    title: str,
    detail: str = "",
    note: str | None = None,
) -> Chart:
    """Draw preferred depth by area for several models, each with its line, its interval and its null.

    Parameters
    ----------
    hierarchies : mapping
        Model -> what :func:`brainkit.evaluation.hierarchy.analyse_hierarchy` returns.
    title, detail : str
    note : str, optional

    Raises
    ------
    MissingDependency
        If matplotlib is not installed.
    """
    rows, columns = _rows_and_columns(len(hierarchies), 3)
    figure = Chart(title, detail, note, width=max(0.9 + 3.1 * columns, 5.2), height=3.1 * rows)
    colours = _colours(hierarchies)
    for index, (model, found) in enumerate(hierarchies.items()):
        row, column = divmod(index, columns)
        bottom = figure.bottom + 3.1 * (rows - 1 - row) + 0.35
        axes = figure.axes(0.8 + 3.1 * column, bottom, 2.75, 2.05)
        _depth_by_area(axes, found, colours[model])
        title_size = min(9.5, 9.5 * _LONGEST_TITLE / max(len(model), 1))
        axes.text(0, 1.19, model, transform=axes.transAxes, fontsize=title_size, weight="bold", **_PLAIN)
        axes.text(0, 1.04, _slope_text(found), transform=axes.transAxes, fontsize=8.5, **_PLAIN)
        if column:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel("preferred depth", fontsize=10, color=INK)
    return figure


def layers_by_roi_chart(
    *,
    shares: Mapping[str, np.ndarray],
    layers: Mapping[str, Sequence[str]],
    rois: Sequence[str],
    title: str,
    detail: str = "",
    note: str | None = None,
) -> Chart:
    """Draw the mean weight of each layer in each ROI, one panel per model.

    Parameters
    ----------
    shares : mapping of str to array of shape (L, R)
        Model -> weights, each column summing to 1; NaN where an ROI has no vertices.
    layers : mapping of str to sequence of L names
    rois : sequence of R names
    title, detail : str
    note : str, optional

    Raises
    ------
    MissingDependency
        If matplotlib is not installed.
    """
    from matplotlib import colormaps

    names = max((len(name) for each in layers.values() for name in each), default=4) * 0.068 + 0.25
    panel = max(2.4, 0.21 * len(rois))
    rows, columns = _rows_and_columns(len(shares), max(1, int(11 // (panel + names))))
    tall = max(1.6, 0.17 * max(len(each) for each in layers.values()))
    step = tall + 0.066 * max(map(len, rois), default=0) + 0.7
    figure = Chart(title, detail, note, width=0.25 + columns * (panel + names) + 1.1, height=step * rows - 0.3)
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
    return figure


def leaderboard_chart(
    *,
    rows: Sequence[tuple[str, Point, Point | None]],
    measure: str,
    title: str,
    detail: str = "",
    note: str | None = None,
) -> Chart:
    """Draw models from best to worst with their intervals, and their differences from the best.

    Parameters
    ----------
    rows : sequence of (model, accuracy, difference)
        Best first; the difference has ``p``, and is None for the best.
    measure, title, detail : str
    note : str, optional

    Raises
    ------
    MissingDependency
        If matplotlib is not installed.
    """
    height = 0.34 * len(rows) + 0.1
    widest = min(max(len(name) for name, _, _ in rows) * 0.085 + 0.3, 3.2)
    half = 3.1
    figure = Chart(title, detail, note, width=1.0 + widest + 2 * half, height=height + 0.55)
    bottom = figure.bottom + 0.5
    left, right = (figure.axes(0.3 + widest + index * (half + 0.4), bottom, half, height) for index in range(2))
    for place, (_, accuracy, difference) in enumerate(rows):
        dot(left, place, accuracy, PALETTE[0])
        if difference is not None:
            p = difference.get("p")
            dot(right, place, difference, INK, filled=p is not None and p < _MAX_Q)
    label_rows(left, [name for name, _, _ in rows], f"{measure}, mean over vertices", zero=False)
    label_rows(right, [""] * len(rows), "difference from the best")
    return figure


def _rows_and_columns(panels: int, widest: int) -> tuple[int, int]:
    """At most `widest` panels side by side, the rows as equal as they can be."""
    rows = -(-panels // widest)
    return rows, -(-panels // rows)


def _colours(models: Iterable[str]) -> dict[str, str]:
    return dict(zip(models, itertools.cycle(PALETTE), strict=False))


def _dots(axes: Axes, groups: list[str], points: Mapping[str, Mapping[str, Point]], colours: Mapping[str, str]) -> None:
    """One lane per model within the row of each group; every other row is shaded."""
    for row in range(1, len(groups), 2):
        axes.axhspan(row - 0.5, row + 0.5, color=_SHADE, linewidth=0, zorder=-1)
    spread = (np.arange(len(points)) - (len(points) - 1) / 2) * min(0.24, 0.62 / len(points))
    for index, (name, of_group) in enumerate(points.items()):
        colour = colours[name]
        for row, group in enumerate(groups):
            if group in of_group:
                point = of_group[group]
                filled = "q" not in point or (point["q"] is not None and point["q"] < _MAX_Q)
                dot(axes, row + spread[index], point, colour, filled=filled)
        axes.plot([], [], "o", color=colour, markersize=5, label=name)


def _legend(axes: Axes, height: float) -> None:
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
    axes.grid(axis="y", color=GRID, linewidth=0.7)


def _slope_text(found: Mapping[str, Any]) -> str:
    slope, r2 = found["slope"], found["r2"]
    if slope["value"] is None:
        return "no line can be fitted"
    ends = "" if slope["low"] is None else f" [{slope['low']:+.3f}, {slope['high']:+.3f}]"
    p = "" if slope["p"] is None else f", p {slope['p']:.2g}"
    return f"slope {slope['value']:+.3f}{ends}\nr² {r2['value']:.2f}{p}"
