"""The legend of a map: a colour bar, one row per class, or the image in the colours of its locations.

A box is left, top, width and height in inches. Each function fills it from its top.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.maps.brain_map import BrainMap, Categorical, Continuous
from brainkit.maps.colours import colour_map, location_table
from brainkit.maps.paint import FAINTEST
from brainkit.maps.raster import GYRUS, SULCUS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from brainkit.maps.frame import Frame

Box = tuple[float, float, float, float]
_CORTEX = (GYRUS + SULCUS) / 2
_ROW, _COLUMN = 0.27, 1.6  # inches, of a class
_LEAST_LETTERS = 6.5  # points; of classes with an order, of which not all need a name
_LEAST_ROW = 0.112  # inches; of others: letters of 5 points
_ABOVE = 0.1  # inches between a map and the legend below it
_SHORT = 4  # rows that need no second column
_MOST, _LARGEST = 30, 12  # classes that are all listed; listed of more


def height_below(brain_map: BrainMap, scale: float, width: float) -> float:
    """Height that a legend below the map needs, in inches; `width` is that of its room."""
    coding = brain_map.coding
    if isinstance(coding, Categorical):
        count = len(listed(brain_map)[1])
        lines = 1 + coding.strength_label.count("\n") if brain_map.strength is not None else 0
        return (_ROW * -(-count // _columns(count, width, scale)) + _ABOVE + 0.35 + 0.16 * lines) * scale
    if isinstance(coding, Continuous):
        # Bar, numbers and label; above it, what its ends mean.
        return (0.92 if any(_ends(coding)) or _shared(coding) else 0.75) * scale
    return 2.3 * scale


def draw_legend(frame: Frame, brain_map: BrainMap, box: Box, *, below: bool = False) -> None:
    """Draw the legend of a map; a colour bar lies down, and classes have columns, if the box is `below` the map."""
    coding = brain_map.coding
    if isinstance(coding, Categorical):
        _classes(frame, brain_map, coding, box, below=below)
    elif isinstance(coding, Continuous):
        (_lying_bar if below else _standing_bar)(frame, coding, box)
    else:
        _location(frame, box)


def listed(brain_map: BrainMap, most: int = _MOST) -> tuple[str, tuple[str, ...], np.ndarray]:
    """Label, names and colours of a legend's classes, the last on top; the largest of more than `most`."""
    coding = brain_map.coding
    assert isinstance(coding, Categorical)
    count = len(coding.names)
    if coding.ordered or count <= most:
        return coding.label, coding.names, coding.palette
    sizes = np.bincount(brain_map.values[brain_map.known].argmax(axis=1), minlength=count)
    largest = np.argsort(-sizes, kind="stable")[:_LARGEST][::-1]
    label = f"{coding.label}: " if coding.label else ""
    names = tuple(coding.names[number] for number in largest)
    return f"{label}{count} classes, largest {_LARGEST}", names, coding.palette[largest]


def _standing_bar(frame: Frame, coding: Continuous, box: Box) -> None:
    left, top, _, height = box
    scale = frame.scale
    ends = _ends(coding)
    top, bar = top - (0.25 * scale if ends[1] else 0.0), min(2.9 * scale, height - 0.5 * scale)
    axes = frame.axes(left, top - bar, 0.2 * scale, bar)
    _bar(frame, axes, coding, "vertical").set_label(
        frame.plain(coding.label), fontsize=11 * scale, color=frame.theme.ink, labelpad=7 * scale
    )
    small: dict[str, Any] = {"size": 9.5 * scale, "color": frame.theme.faint}
    low = top - bar - 0.08 * scale
    frame.text(left, low, ends[0], va="top", **small)
    frame.text(left, low - (0.24 if ends[0] else 0.1) * scale, _shared(coding), va="top", **small)
    frame.text(left, top + 0.08 * scale, ends[1], va="bottom", **small)


def _lying_bar(frame: Frame, coding: Continuous, box: Box) -> None:
    left, top, width, _ = box
    scale, ends = frame.scale, _ends(coding)
    shared = _shared(coding)
    top -= 0.22 * scale if any(ends) or shared else 0.05 * scale
    inset = 0.16 * scale
    axes = frame.axes(left + inset, top - 0.17 * scale, width - 2 * inset, 0.17 * scale)
    # The label is centred on the box and never wider than it.
    size = frame.fitting(coding.label, 10.5 * scale, width)
    _bar(frame, axes, coding, "horizontal").set_label(
        frame.plain(coding.label), fontsize=size, color=frame.theme.ink, labelpad=4 * scale
    )
    small: dict[str, Any] = {"size": 9 * scale, "color": frame.theme.faint, "va": "bottom"}
    frame.text(left + inset, top + 0.04 * scale, ends[0], ha="left", **small)
    frame.text(left + width - inset, top + 0.04 * scale, ends[1], ha="right", **small)
    frame.text(left + width / 2, top + 0.04 * scale, shared, ha="center", **small)


def _bar(frame: Frame, axes: Axes, coding: Continuous, orientation: str) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colours = colour_map(coding.colours)
    if coding.below:
        colours = colours.with_extremes(under=coding.below)
    options: dict[str, Any] = {"orientation": orientation, "extend": coding.extend, "extendfrac": 0.05}
    bar = frame.figure.colorbar(ScalarMappable(Normalize(coding.low, coding.high), colours), cax=axes, **options)
    bar.set_ticks(_ticks(coding.low, coding.high))
    bar.outline.set_visible(False)
    faint, ink = frame.theme.faint, frame.theme.ink
    bar.ax.tick_params(labelsize=10 * frame.scale, color=faint, labelcolor=ink, length=3 * frame.scale)
    return bar


def _ends(coding: Continuous) -> tuple[str, str]:
    """Texts at the low and the high end of the bar."""
    if coding.ends is not None:
        return coding.ends
    return (f"below {coding.low:g}" if coding.below and coding.extend in ("min", "both") else ""), ""


def _shared(coding: Continuous) -> str:
    return f"limits shared by {coding.shared} maps" if coding.shared > 1 else ""


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, and both limits."""
    from matplotlib.ticker import MaxNLocator

    room = 0.09 * (high - low)
    inner = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [low, *(float(tick) for tick in inner if low + room < tick < high - room), high]


def _classes(frame: Frame, brain_map: BrainMap, coding: Categorical, box: Box, *, below: bool) -> None:
    """One row per class, the last on top; from pale to full if the map is graded by its strength."""
    left, top, width, height = box
    scale, graded = frame.scale, brain_map.strength is not None
    room = height - (0.9 if graded else 0.4) * scale
    most = _MOST if below else min(_MOST, max(int(room / (_LEAST_ROW * scale)), _LARGEST))
    label, names, palette = listed(brain_map, most)
    top -= _ABOVE * scale if below else 0.0
    frame.text(left, top, label, size=frame.fitting(label, 10 * scale, width), va="top")
    top -= 0.24 * scale
    columns = _columns(len(names), width, scale) if below else 1
    rows = -(-len(names) // columns)
    row = _ROW * scale if below else min(_ROW * scale, room / rows)
    least = _LEAST_LETTERS * scale if coding.ordered else 0.0
    opacity = np.linspace(FAINTEST, 1, 64)[None, :, None] if graded else np.ones((1, 64, 1))
    texts = short_names(names)
    for column in range(columns):
        part = slice(max(len(names) - (column + 1) * rows, 0), len(names) - column * rows)
        if (part.stop - part.start) > 0:
            tall = row * (part.stop - part.start)
            axes = frame.axes(left + column * width / columns, top - tall, 0.62 * scale, tall)
            _rows(frame, axes, texts[part], palette[part], opacity, row, least)
    if graded:
        small: dict[str, Any] = {"size": 8.5 * scale, "color": frame.theme.faint}
        frame.text(left, top - row * rows - 0.08 * scale, coding.strength_label, va="top", **small)


def _rows(
    frame: Frame, axes: Axes, names: Sequence[str], palette: np.ndarray, opacity: np.ndarray, row: float, least: float
) -> None:
    """Rows of classes, the last on top, each named; some only, if the `least` letters are too large."""
    scale, count = frame.scale, len(names)
    colours = np.repeat(_CORTEX + opacity * (palette[::-1, None] - _CORTEX), 16, axis=0)  # viewers blur few pixels
    axes.imshow(np.clip(colours, 0, 1), extent=(0, 1, count - 0.5, -0.5), aspect="auto", interpolation="none")
    for line in np.arange(count - 1) + 0.5:
        axes.axhline(line, color=frame.paper, linewidth=min(1.2 * scale, 10 * row))
    size = min(10.0 * scale, max(row * 72 * 0.62, least))
    fitting = max(int(row * count * 72 * 0.62 / size + 1e-6), 2)
    shown = np.arange(count) if fitting >= count else np.linspace(0, count - 1, fitting).round().astype(int)
    axes.set_yticks(shown, [frame.plain(names[count - 1 - place]) for place in shown], parse_math=False)
    axes.yaxis.tick_right()
    axes.tick_params(labelsize=size, labelcolor=frame.theme.ink, length=0, pad=4 * scale)
    axes.set_xticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _columns(count: int, width: float, scale: float) -> int:
    """Columns of a legend below the map."""
    return 1 if count <= _SHORT else max(1, min(int(width / (_COLUMN * scale)), -(-count // _SHORT)))


def _location(frame: Frame, box: Box) -> None:
    """The image in the colours of its locations."""
    left, top, width, _ = box
    scale, theme = frame.scale, frame.theme
    size = 1.55 * scale
    left = left + 0.3 * scale if width < 3 * size else left + (width - size) / 2
    axes = frame.axes(left, top - size - 0.25 * scale, size, size)
    axes.imshow(location_table(), extent=(-1, 1, 1, -1), interpolation="none")
    axes.axhline(0, color="white", linewidth=0.8 * scale)
    axes.axvline(0, color="white", linewidth=0.8 * scale)
    axes.set_xticks([-1, 0, 1])
    axes.set_yticks([-1, 0, 1])
    axes.tick_params(labelsize=9.5 * scale, color=theme.faint, labelcolor=theme.ink, length=3 * scale)
    axes.set_xlabel("x, to the right", fontsize=10 * scale, color=theme.ink, labelpad=2 * scale)
    axes.set_ylabel("y, downwards", fontsize=10 * scale, color=theme.ink, labelpad=0)
    axes.set_title("the image", fontsize=10.5 * scale, color=theme.ink, pad=5 * scale)
    for spine in axes.spines.values():
        spine.set_color(theme.faint)


def short_names(names: Sequence[str], longest: int = 14) -> list[str]:
    """Names that fit the legend: if one is too long, without what all begin and end with, then only its end."""
    if all(len(name) <= longest for name in names):
        return list(names)
    if len(names) > 1:
        prefix = _common_prefix(names)
        suffix = _common_prefix([name[prefix:][::-1] for name in names])
        names = [name[prefix : len(name) - suffix] for name in names]
    return [name if len(name) <= longest else f"…{name[1 - longest :]}" for name in names]


def _common_prefix(names: Sequence[str]) -> int:
    """Number of characters that all names begin with."""
    columns = enumerate(zip(*names, strict=False))
    return next((i for i, letters in columns if len(set(letters)) > 1), min(map(len, names)))
