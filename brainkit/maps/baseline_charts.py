"""Charts of a run's baselines: accuracy beside the noise ceiling, and depth by two methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from brainkit.maps.chart import PALETTE, Chart, Point, dot, label_rows
from brainkit.maps.style import FAINT, INK

_RUN, _BASELINE = PALETTE[1], PALETTE[0]
_ROW = 0.25  # inches


def draw_baselines(
    path: Path,
    rows: Sequence[tuple[str, Point]],
    *,
    measure: str,
    title: str,
    detail: str = "",
    note: str | None = None,
) -> Path:
    """Draw medians with intervals, the best on top; the first row is the run.

    Parameters
    ----------
    path : path-like
        The PNG file; its folder must exist.
    rows : sequence of (model, point)
        Those without a value are left out.
    measure : {"explained", "r"}
        For ``explained`` the noise ceiling, at 1, is drawn.
    title, detail : str
    note : str, optional
        Printed in a warning colour.

    Raises
    ------
    MissingDependency
        If matplotlib is not installed.
    """
    shown = [(k, name, point) for k, (name, point) in enumerate(rows) if point["value"] is not None]
    shown.sort(key=lambda row: -row[2]["value"])
    height = _ROW * max(len(shown), 1) + 0.1
    chart = Chart(title, detail, note, width=8.6, height=height + 0.5)
    widest = max((len(name) for _, name, _ in shown), default=4) * 0.075 + 0.3
    axes = chart.axes(0.3 + widest, chart.bottom + 0.5, chart.width - 0.6 - widest, height)
    for place, (k, _, point) in enumerate(shown):
        dot(axes, place, point, _BASELINE if k else _RUN)
    label = {"explained": "r² / noise ceiling", "r": "r"}[measure]
    label_rows(axes, [name for _, name, _ in shown], f"{label}, median over vertices")
    for text, (k, _, _) in zip(axes.get_yticklabels(), shown, strict=True):
        text.set_fontweight("normal" if k else "bold")
    if measure == "explained":
        axes.axvline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(0.99, len(shown) - 0.7, "noise ceiling", ha="right", fontsize=8.5, color=INK)
        axes.set_xlim(min(-0.02, axes.get_xlim()[0]), 1.03)
    return chart.write(path)


def draw_agreement(
    path: Path,
    depth: np.ndarray,
    other: np.ndarray,
    groups: Mapping[str, Point],
    *,
    title: str,
    detail: str = "",
    note: str | None = None,
) -> Path:
    """Draw the depth of every vertex by two methods, and beside it their correlation by group of vertices.

    Parameters
    ----------
    path : path-like
        The PNG file; its folder must exist.
    depth, other : arrays of shape (k,)
        Relative depth by FactorTopy and by banded ridge, of the vertices that are compared.
    groups : mapping
        Group of vertices -> point.
    title, detail : str
    note : str, optional

    Raises
    ------
    MissingDependency
        If matplotlib is not installed.
    """
    side, rows = 3.9, max(len(groups), 1)
    height = max(side, _ROW * rows)
    chart = Chart(title, detail, note, width=10.2, height=height + 0.55)
    bottom = chart.bottom + 0.5
    scatter = chart.axes(0.85, bottom + height - side, side, side)
    scatter.plot((0, 1), (0, 1), color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    size = float(np.clip(4000 / max(len(depth), 1), 0.8, 14))
    scatter.scatter(depth, other, s=size, color=_BASELINE, alpha=0.4, linewidths=0)
    scatter.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    scatter.set_xlabel("depth by FactorTopy (0: first layer, 1: last)", fontsize=10, color=INK)
    scatter.set_ylabel("depth by banded ridge", fontsize=10, color=INK)
    widest = max((len(name) for name in groups), default=4) * 0.078 + 0.3
    left = 0.85 + side + 0.4 + widest
    tall = _ROW * rows
    dots = chart.axes(left, bottom + height - tall, chart.width - 0.3 - left, tall)
    for place, (name, point) in enumerate(groups.items()):
        dot(dots, place, point, _RUN if name == "all" else _BASELINE)
    label_rows(dots, list(groups), "correlation over vertices", size=8.5)
    dots.set_xlim(min(-0.05, dots.get_xlim()[0]), 1.02)
    return chart.write(path)
