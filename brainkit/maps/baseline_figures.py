"""Figures without a cortex: a run beside its baselines, and depth by two methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.errors import require
from brainkit.maps.figure import DPI, FAINT, INK
from brainkit.utils.files import atomic_write
from brainkit.utils.own_figures import figure_mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RUN, _BASELINE = "#b2182b", "#2166ac"
Point = tuple[str, "float | None", "float | None", "float | None"]  # name, value, ends of its interval


def draw_baselines(path: Path, points: Sequence[Point], *, measure: str, note: str | None = None) -> None:
    """Draw medians with intervals, the best on top; the first one is the run.

    Parameters
    ----------
    path : Path
        A ``.png`` file.
    points : sequence of (name, median, low, high)
        Those without a median are left out.
    measure : {"explained", "r"}
        For ``explained`` the noise ceiling is at 1, and drawn.
    note : str, optional
        Written below the figure.
    """
    shown = [(k, point) for k, point in enumerate(points) if point[1] is not None]
    shown.sort(key=lambda item: item[1][1] or 0)
    figure, axes = _figure(8.6, 1.3 + 0.27 * max(len(shown), 1))
    for height, (k, (_, value, low, high)) in enumerate(shown):
        colour = _BASELINE if k else _RUN
        if low is not None and high is not None:
            axes.plot((low, high), (height, height), color=colour, linewidth=2, alpha=0.45, solid_capstyle="butt")
        axes.plot(value, height, "o", color=colour, markersize=5)
    axes.set_yticks(range(len(shown)), [name for _, (name, *_) in shown], fontsize=8.5)
    for label, (k, _) in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_color(INK if k else _RUN)
        label.set_fontweight("normal" if k else "bold")
    axes.axvline(0, color=FAINT, linewidth=0.8)
    if measure == "explained":
        axes.axvline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(0.99, 0.02, "noise ceiling", transform=axes.get_xaxis_transform(), ha="right", color=INK, fontsize=8)
        axes.set_xlim(min(-0.02, axes.get_xlim()[0]), 1.03)
    label = {"explained": "r2 / noise ceiling", "r": "r"}[measure]
    axes.set_xlabel(f"{label}: median over vertices, with its 95 % interval over test stimuli", fontsize=9)
    axes.grid(axis="x", color="#e6e8eb", linewidth=0.7)
    _save(figure, path, note)


def draw_agreement(
    path: Path,
    depth: np.ndarray,
    other: np.ndarray,
    groups: Mapping[str, Mapping[str, Any]],
    *,
    note: str | None = None,
) -> None:
    """Draw the depth of every vertex by two methods, and their correlation by group of vertices.

    Parameters
    ----------
    path : Path
        A ``.png`` file.
    depth, other : arrays of shape (k,)
        Relative depth by FactorTopy and by banded ridge, of the vertices that are compared.
    groups : mapping
        Group -> ``r``, ``low``, ``high`` (None where there is none), ``n``.
    note : str, optional
    """
    shown = [(name, row) for name, row in groups.items() if row["r"] is not None]
    figure, axes = _figure(9.6, max(4.4, 1.3 + 0.24 * len(shown)), columns=(1.25, 1))
    scatter, dots = axes
    size = float(np.clip(3000 / max(len(depth), 1), 0.8, 14))
    scatter.plot((0, 1), (0, 1), color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    scatter.scatter(depth, other, s=size, color=_BASELINE, alpha=0.45, linewidths=0, rasterized=True)
    scatter.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    scatter.set_xlabel("depth by FactorTopy (0 first layer, 1 last)", fontsize=9)
    scatter.set_ylabel("depth by banded ridge's layer shares", fontsize=9)
    for height, (name, row) in enumerate(reversed(shown)):
        colour = _RUN if name == "all" else _BASELINE
        if row["low"] is not None:
            dots.plot((row["low"], row["high"]), (height, height), color=colour, linewidth=2, alpha=0.45)
        dots.plot(row["r"], height, "o", color=colour, markersize=5)
    dots.set_yticks(range(len(shown)), [f"{name} ({row['n']:,})" for name, row in reversed(shown)], fontsize=8)
    dots.axvline(0, color=FAINT, linewidth=0.8)
    dots.set_xlim(min(-0.05, dots.get_xlim()[0]), 1.02)
    dots.grid(axis="x", color="#e6e8eb", linewidth=0.7)
    dots.set_xlabel("correlation over vertices (their number),\nwith its 95 % interval over test stimuli", fontsize=9)
    _save(figure, path, note)


def _figure(width: float, height: float, columns: tuple[float, ...] = (1,)) -> tuple[Figure, Any]:
    require("matplotlib", extra="maps", purpose="figures")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(columns), width_ratios=columns)
    for each in np.atleast_1d(axes):
        _plain(each)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=8.5, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)


def _save(figure: Figure, path: Path, note: str | None) -> None:
    if note:
        figure.supxlabel(note, fontsize=8.5, color=FAINT)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, pil_kwargs={"pnginfo": figure_mark()})
