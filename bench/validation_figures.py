"""The figures of docs/validation.md."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.calibration import IGNORED, RESAMPLED

AREAS = ("all", "early", "mid", "high")
BLUE, RED, GREY = "#1f5fa8", "#c0392b", "#888888"
_RECOVERY = {
    "depth_r": "layer: correlation\nwith the planted depth",
    "location_median": "location: median error\n(the image is 2 wide)",
    "accuracy_share": "accuracy: median\nr² / noise ceiling",
}
_AXES = {
    "share": ("noise ceiling, relative to the sample subject", [0.1, 0.25, 0.5, 1.0]),
    "images": ("training images", [300, 1000, 3000, 10_000]),
    "vertices": ("vertices", [100, 400, 1600]),
}


def is_control(row: dict[str, Any]) -> bool:
    """Whether an interval is a wrong one that the simulation must notice."""
    return row["measure"].endswith((IGNORED, RESAMPLED))


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of independent draws."""
    from scipy.stats import t

    reach = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - reach), float(values.mean() + reach)


def recovery(part: dict[str, Any], path: Path) -> None:
    """Each measure (rows) against what is varied (columns)."""
    varied = [name for name in _AXES if name in part["sweeps"]]
    figure, axes = plt.subplots(
        len(_RECOVERY), len(varied), figsize=(3.3 * len(varied), 6.6), sharey="row", squeeze=False
    )
    for column, name in enumerate(varied):
        others = {key: value for key, value in part["reference"].items() if key != name}
        rows = [row for row in part["rows"] if all(row[key] == value for key, value in others.items())]
        for line, (measure, label) in enumerate(_RECOVERY.items()):
            axis = axes[line, column]
            _curve(axis, rows, name, measure)
            axis.set_xscale("log")
            ticks = sorted({row[name] for row in rows})
            axis.set_xticks(ticks, [f"{tick:,}" if tick >= 1 else f"{tick:g}" for tick in ticks])
            axis.minorticks_off()
            # The worst draws have a correlation of about 0.8.
            axis.set_ylim(*{"depth_r": (0.7, 1.01), "accuracy_share": (0, 1.03)}.get(measure, (0, None)))
            if not column:
                axis.set_ylabel(label)
            if line == len(_RECOVERY) - 1:
                axis.set_xlabel(_AXES[name][0])
    _save(figure, path)


def _curve(axis: Axes, rows: list[dict[str, Any]], name: str, measure: str) -> None:
    if not rows:
        return
    at = sorted({row[name] for row in rows})
    by_value = [np.array([row[measure] for row in rows if row[name] == value]) for value in at]
    axis.plot(at, [values.mean() for values in by_value], color=BLUE, linewidth=1.5)
    ends = [(values.min(), values.max()) for values in by_value]
    axis.fill_between(at, *np.array(ends).T, color=BLUE, alpha=0.15, linewidth=0)
    for value, values in zip(at, by_value, strict=True):
        axis.plot(np.full(len(values), value), values, "o", color=BLUE, markersize=3.5, alpha=0.7)


def worlds(found: dict[str, Any], path: Path) -> None:
    """Explained share by area (panels) and variant: a point for each world, the mean with its t interval."""
    variants = list(dict.fromkeys(variant for world in found.values() for variant in world))
    figure, axes = plt.subplots(1, len(AREAS), figsize=(11, 1.4 + 0.4 * len(variants)), sharey=True)
    for axis, area in zip(axes, AREAS, strict=True):
        for place, variant in enumerate(variants):
            values = np.array([world[variant]["explained"][area] for world in found.values() if variant in world])
            colour = BLUE if variant == "default" else GREY
            axis.plot(values, np.full(len(values), place + 0.2), "o", color=colour, markersize=3, alpha=0.4)
            ends = np.array(t_interval(values) if len(values) > 2 else (values.mean(),) * 2)
            reach = np.abs(ends - values.mean())[:, None]
            axis.errorbar(values.mean(), place - 0.1, xerr=reach, fmt="o", color=colour, markersize=6, linewidth=2)
        axis.set(title=area, xlabel="r²/ceiling", yticks=range(len(variants)), xlim=(0, None))
    axes[0].set_yticklabels([textwrap.fill(variant, 34) for variant in variants])
    axes[0].invert_yaxis()
    _save(figure, path)


def coverage(part: dict[str, Any], path: Path) -> None:
    """Coverage of 95 % intervals by design and measure, and beside it coverage at other levels."""
    rows = [*part["coverage"], *part["large ROI"], *part["slopes"]]
    measures = list(dict.fromkeys(row["measure"] for row in rows if not is_control(row)))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 6.8), width_ratios=(1.8, 1))
    left.axvspan(0.93, 0.97, color=GREY, alpha=0.2, linewidth=0)
    left.axvline(0.95, color=GREY, linewidth=1)
    designs = list(dict.fromkeys(row["design"] for row in rows))
    for k, design in enumerate(designs):
        for control in (False, True):
            chosen = [row for row in rows if row["design"] == design and is_control(row) == control]
            if not chosen:
                continue
            y = [_place(row, measures) + 0.7 * (k / (len(designs) - 1) - 0.5) for row in chosen]
            x = np.array([row["rate"] for row in chosen])
            left.errorbar(
                x,
                y,
                xerr=[x - [row["low"] for row in chosen], [row["high"] for row in chosen] - x],
                fmt="x" if control else "o",
                color=plt.get_cmap("tab10")(k),
                markersize=6 if control else 4.5,
                linewidth=1.2,
                label=f"control: {chosen[0]['measure'].rsplit(', ', 1)[1]}, {design}" if control else design,
            )
    left.set_yticks(range(len(measures)), measures)
    left.invert_yaxis()
    left.set_xlabel("share of 95 % intervals that contain the truth\n(bars: 95 %, over data sets; band: 93 to 97 %)")
    for measure, colour in zip(dict.fromkeys(row["measure"] for row in part["levels"]), (BLUE, RED), strict=False):
        own = [row for row in part["levels"] if row["measure"] == measure]
        x, rate = np.array([row["level"] for row in own]), np.array([row["rate"] for row in own])
        error = [rate - [row["low"] for row in own], [row["high"] for row in own] - rate]
        right.errorbar(x, rate, yerr=error, fmt="o", color=colour, markersize=4, label=measure)
    right.plot([0.45, 1], [0.45, 1], color=GREY, linewidth=1)
    right.set_xlabel("level asked for (240 images)")
    right.set_ylabel("share that contain the truth")
    right.legend(fontsize=8, frameon=False)
    figure.legend(*left.get_legend_handles_labels(), loc="lower center", ncols=3, fontsize=8, frameon=False)
    _save(figure, path, bottom=0.17)


def _place(row: dict[str, Any], measures: list[str]) -> int:
    return measures.index(row["measure"].removesuffix(f", {IGNORED}").removesuffix(f", {RESAMPLED}"))


def p_values(part: dict[str, Any], path: Path) -> None:
    """p under the null against uniform quantiles, on logarithmic axes, with a 95 % band for each point."""
    tests: dict[str, dict[str, list[float]]] = {}
    for name, values in part["null"].items():
        test, design = name.split(", ", 1)
        tests.setdefault(test, {})[design] = values
    tests["spin test"] = part["spin"]["p"]
    figure, axes = plt.subplots(1, len(tests), figsize=(3.1 * len(tests), 3.5), sharey=True)
    for axis, (test, by_design) in zip(np.atleast_1d(axes), tests.items(), strict=True):
        _band(axis, len(next(iter(by_design.values()))))
        for k, (design, values) in enumerate(by_design.items()):
            p = np.sort(values)
            expected = (np.arange(len(p)) + 0.5) / len(p)
            wrong = design == "vertices as independent"
            colour = RED if wrong else plt.get_cmap("viridis")(k / 3)
            axis.plot(expected, p.clip(1e-4), "x" if wrong else ".", color=colour, markersize=4, label=design)
        axis.set(xscale="log", yscale="log", title=test, ylim=(5e-4, 1.3), xlabel="expected p")
        axis.legend(fontsize=6.5, frameon=False, loc="upper left")
    np.atleast_1d(axes)[0].set_ylabel("observed p under the null")
    _save(figure, path)


def _band(axis: Axes, count: int) -> None:
    from scipy.stats import beta

    rank = np.arange(1, count + 1)
    low, high = beta.ppf(0.025, rank, count + 1 - rank), beta.ppf(0.975, rank, count + 1 - rank)
    expected = (rank - 0.5) / count
    axis.fill_between(expected, low, high, color=GREY, alpha=0.3, linewidth=0)
    axis.plot(expected, expected, color=GREY, linewidth=1)


def _save(figure: Figure, path: Path, bottom: float = 0.0) -> None:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout(rect=(0, bottom, 1, 1))
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
