"""One function per map: its values, colours and legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from brainkit.maps.colours import colour_map, layer_palette, location_colours, location_table
from brainkit.maps.figure import DPI, FAINT, INK, Flatmap, MapFigure
from brainkit.metrics.scores import LEAST_CEILING, explained_share
from brainkit.metrics.significance import describe_passing
from brainkit.utils.text import plural

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from PIL.Image import Image

_LANCZOS = 1  # PIL.Image.Resampling.LANCZOS, without importing PIL
_SEPARATOR = "  ·  "
_DIMMEST = 0.35  # brightness of a vertex without any preference for a layer
_PALE = 0.13  # opacity of a vertex whose value may be chance: the cortex shows through
MAX_Q = 0.05  # vertices with a larger false discovery rate are pale


@dataclass(frozen=True)
class Predicted:
    """Which vertices the encoder predicts better than chance; the others are pale, whatever a map shows of them.

    Parameters
    ----------
    q : array of shape (V,)
        False discovery rate of the test correlation being above 0.
    images : int
        How many test images it is over.
    """

    q: np.ndarray
    images: int

    @property
    def reliable(self) -> np.ndarray:
        """(V,) bool."""
        return np.asarray(self.q < MAX_Q)

    def detail(self) -> str:
        """What pale means, for the foot of the figure."""
        return f"pale: no better than chance on {plural(self.images, 'test image')} (q of {MAX_Q:g} or more)"


@dataclass(frozen=True)
class Sure:
    """Which vertices select something that other images or seeds would have them select too; the others are pale.

    Parameters
    ----------
    se : array of shape (V,)
        Standard error, as a share of the selector's range.
    max_se : float
        The largest that is drawn in full.
    predicted : Predicted, optional
        Vertices that are pale anyway.
    """

    se: np.ndarray
    max_se: float
    predicted: Predicted | None = None

    @property
    def reliable(self) -> np.ndarray:
        """(V,) bool."""
        sure = np.asarray(self.se <= self.max_se)
        return sure if self.predicted is None else sure & self.predicted.reliable

    def detail(self) -> str:
        """What pale means, for the foot of the figure."""
        text = f"standard error above {100 * self.max_se:g} % of the range"
        return f"pale: {text}" if self.predicted is None else f"{self.predicted.detail()}, or {text}"


Fading = Predicted | Sure


def accuracy_figure(
    flatmap: Flatmap, R2: np.ndarray, title: str, note: str | None, predicted: Fading | None = None
) -> MapFigure:
    """R2 on test images."""
    return _skill_figure(flatmap, R2, "R²", _titled(title, "prediction accuracy"), note, predicted)


def correlation_figure(
    flatmap: Flatmap, r: np.ndarray, title: str, note: str | None, predicted: Predicted | None = None
) -> MapFigure:
    """Pearson correlation on test images."""
    return _skill_figure(flatmap, r, "r", _titled(title, "correlation"), note, predicted)


def _skill_figure(
    flatmap: Flatmap, skill: np.ndarray, symbol: str, title: str, note: str | None, predicted: Fading | None
) -> MapFigure:
    values = np.asarray(skill, dtype=np.float64)
    subtitle = _summary(flatmap, values, "median {:.2f}", "90th percentile {:.2f}")
    detail = _joined(f"{symbol} below 0 is drawn as 0", _detail(predicted))
    figure = MapFigure(flatmap, title, subtitle, note=note, detail=detail)
    top = _round_up(_robust_top(values, 99.0), 0.1)
    colours = colour_map("magma")
    _draw_scalar(figure, values, colours, 0.0, top, _reliable(predicted))
    figure.colour_bar(colours, 0.0, top, f"{symbol} on test images", pointed="max")
    return figure


def significance_figure(
    flatmap: Flatmap, p: np.ndarray, predicted: Predicted, title: str, note: str | None
) -> MapFigure:
    """How unlikely the correlation is without any relation between predictions and responses: -log10 of p."""
    with np.errstate(divide="ignore"):
        values = -np.log10(np.asarray(p, dtype=np.float64))
    passing = f"{int(predicted.reliable.sum()):,} with q below {MAX_Q:g}"
    figure = MapFigure(
        flatmap,
        _titled(title, "significance of r > 0"),
        _SEPARATOR.join([_summary(flatmap, values), passing]),
        note=note,
        detail=predicted.detail(),
    )
    top = max(float(np.nanmax(values, initial=0.0)), 1.0)
    colours = colour_map("magma")
    _draw_scalar(figure, values, colours, 0.0, top, predicted.reliable)
    figure.colour_bar(colours, 0.0, top, "-log10 p, permutation of stimuli")
    return figure


def explained_figure(
    flatmap: Flatmap,
    r: np.ndarray,
    noise_ceiling: np.ndarray,
    title: str,
    note: str | None,
    predicted: Fading | None = None,
) -> MapFigure:
    """r^2 over the noise ceiling: the share of each vertex's explainable variance that is predicted."""
    share = explained_share(r, noise_ceiling)
    limits = f"above 1 drawn as 1; not drawn: noise ceiling below {100 * LEAST_CEILING:.0f} %"
    detail = _joined(limits, _detail(predicted))
    subtitle = _summary(flatmap, share, "median {:.2f}", "90th percentile {:.2f}")
    figure = MapFigure(flatmap, _titled(title, "share of explainable variance"), subtitle, note=note, detail=detail)
    colours = colour_map("viridis")
    _draw_scalar(figure, share, colours, 0.0, 1.0, _reliable(predicted))
    figure.colour_bar(colours, 0.0, 1.0, "r² / noise ceiling, test images", pointed="max")
    return figure


def layer_figure(
    flatmap: Flatmap,
    layers: Sequence[str],
    layer_weights: np.ndarray,
    title: str,
    note: str | None,
    layer_note: str | None,
    predicted: Fading | None = None,
) -> MapFigure:
    """The layer with the largest weight; brightness is how clear the preference is."""
    weights = np.asarray(layer_weights, dtype=np.float64)
    valid = np.asarray(np.isfinite(weights).all(axis=1))
    safe = np.where(valid[:, None], weights, 0.0)
    entropy = -(safe * np.log(np.maximum(safe, 1e-12))).sum(axis=1)
    confidence = 1 - entropy / math.log(len(layers)) if len(layers) > 1 else np.ones(len(safe))
    subtitle = _summary(flatmap, np.where(valid, confidence, np.nan), "median confidence {:.2f}")
    detail = _joined(layer_note, _detail(predicted))
    figure = MapFigure(flatmap, _titled(title, "preferred layer"), subtitle, note=note, detail=detail)
    palette = layer_palette(len(layers))
    pixels, painted, alpha = _paint(flatmap, np.column_stack([safe, confidence]), valid, _reliable(predicted))
    brightness = _DIMMEST + (1 - _DIMMEST) * np.clip(painted[:, -1:], 0, 1)
    colours = flatmap.canvas.smooth_colours(pixels, palette[painted[:, :-1].argmax(axis=1)])
    figure.draw_map(pixels, colours * brightness, alpha)
    _message_if_empty(figure, valid)
    _layer_legend(figure, layers, palette)
    return figure


def location_figure(
    flatmap: Flatmap, locations: np.ndarray, title: str, note: str | None, predicted: Fading | None = None
) -> MapFigure:
    """Each vertex's location in the image: hue is direction, strength is distance from the centre."""
    values = np.asarray(locations, dtype=np.float64)
    valid = np.asarray(np.isfinite(values).all(axis=1))
    distance = np.where(valid, np.hypot(*np.nan_to_num(values).T), np.nan)
    subtitle = _summary(flatmap, distance, "median distance from the centre {:.2f}")
    detail = _detail(predicted)
    figure = MapFigure(flatmap, _titled(title, "location in the image"), subtitle, note=note, detail=detail)
    pixels, painted, alpha = _paint(flatmap, np.nan_to_num(values), valid, _reliable(predicted))
    figure.draw_map(pixels, location_colours(painted[:, 0], painted[:, 1]), alpha)
    _message_if_empty(figure, valid)
    _location_legend(figure)
    return figure


def scale_figure(
    flatmap: Flatmap,
    scale: np.ndarray,
    title: str,
    note: str | None,
    layer_note: str | None,
    predicted: Fading | None = None,
) -> MapFigure:
    """Whether each vertex reads the tokens at its location or the global token."""
    values = np.asarray(scale, dtype=np.float64)
    subtitle = _summary(flatmap, values, "median {:.2f}")
    detail = _joined(layer_note, _detail(predicted))
    figure = MapFigure(flatmap, _titled(title, "local or global"), subtitle, note=note, detail=detail)
    colours = colour_map("PuOr_r")
    _draw_scalar(figure, values, colours, 0.0, 1.0, _reliable(predicted))
    figure.colour_bar(colours, 0.0, 1.0, "scale", ends=("local", "global"))
    return figure


def depth_error_figure(
    flatmap: Flatmap, se: np.ndarray, basis: str, title: str, note: str | None, predicted: Fading | None = None
) -> MapFigure:
    """The standard error of each vertex's expected depth."""
    values = np.asarray(se, dtype=np.float64)
    subtitle = _summary(flatmap, values, "median {:.3f}", "90th percentile {:.3f}")
    detail = _joined(basis, _detail(predicted))
    figure = MapFigure(flatmap, _titled(title, "standard error of depth"), subtitle, note=note, detail=detail)
    colours, top = colour_map("cividis"), _round_up(_robust_top(values, 99.0), 0.01)
    _draw_scalar(figure, values, colours, 0.0, top, _reliable(predicted))
    figure.colour_bar(colours, 0.0, top, "s.e. of depth (0 first layer, 1 last)", pointed="max")
    return figure


def response_figure(
    flatmap: Flatmap,
    response: np.ndarray,
    image: Image,
    title: str,
    note: str | None,
    units: str,
    limit: float | None,
) -> MapFigure:
    """A response next to the image that evokes it."""
    values = np.asarray(response, dtype=np.float64)
    figure = MapFigure(flatmap, title, _summary(flatmap, values), note=note, column=3.0, column_left=True)
    room = figure.side_top - figure.side_bottom - 0.95
    inches = min(figure.column / image.width, room / image.height)  # per pixel
    width, height = image.width * inches, image.height * inches
    resized = image.convert("RGB").resize((max(1, round(width * DPI)), max(1, round(height * DPI))), _LANCZOS)
    axes = figure.axes(figure.side + (figure.column - width) / 2, figure.side_top - height, width, height)
    axes.imshow(np.asarray(resized), aspect="auto", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if limit is None:
        limit = _round_up(_robust_top(np.abs(values), 99.0), 1e-3)
    colours = colour_map("RdBu_r")
    _draw_scalar(figure, values, colours, -limit, limit)
    label = f"response ({units})" if units else "response"
    figure.horizontal_colour_bar(colours, -limit, limit, label, figure.side_top - height - 0.25)
    return figure


def effect_figure(
    flatmap: Flatmap,
    effect: np.ndarray,
    q: np.ndarray,
    names: tuple[str, str],
    counts: tuple[int, int],
    note: str | None,
    max_q: float,
) -> MapFigure:
    """Effect size of the difference between the responses to two sets of images."""
    values, passing = np.asarray(effect, dtype=np.float64), np.asarray(q) < max_q
    result = describe_passing(q, max_q)
    title = f"{_clipped(names[0])} vs {_clipped(names[1])}: {result}"
    parts = ["effect size", f"{flatmap.vertices.space} flatmap", f"{counts[0]:,} and {plural(counts[1], 'image')}"]
    detail = f"pale: q of {max_q:g} or more; q is over images for one model, not over subjects"
    figure = MapFigure(flatmap, title, _SEPARATOR.join(parts), note=note, detail=detail)
    limit = _round_up(_robust_top(np.abs(values), 99.0), 0.1)
    colours = colour_map("RdBu_r")
    _draw_scalar(figure, values, colours, -limit, limit, passing)
    if not passing.any() and np.isfinite(values).any():
        figure.message(result)
    ends = (f"stronger for {_clipped(names[1], 16)}", f"stronger for {_clipped(names[0], 16)}")
    figure.colour_bar(colours, -limit, limit, "Hedges' g (pooled s.d.)", ends=ends, pointed="both")
    return figure


def difference_figure(
    flatmap: Flatmap,
    difference: np.ndarray,
    q: np.ndarray,
    names: tuple[str, str],
    images: int,
    note: str | None,
) -> MapFigure:
    """Difference of two models' correlations with the responses."""
    values, passing = np.asarray(difference, dtype=np.float64), np.asarray(q) < MAX_Q
    result = describe_passing(q, MAX_Q)
    title = f"{_clipped(names[0])} minus {_clipped(names[1])}: {result}"
    parts = ["difference in r", _summary(flatmap, values, "median {:+.3f}"), plural(images, "test image")]
    detail = f"pale: q of {MAX_Q:g} or more, by exchange of the two models' predictions"
    figure = MapFigure(flatmap, title, _SEPARATOR.join(parts), note=note, detail=detail)
    limit = _round_up(_robust_top(np.abs(values), 99.0), 0.01)
    colours = colour_map("PuOr_r")
    _draw_scalar(figure, values, colours, -limit, limit, passing)
    if not passing.any() and np.isfinite(values).any():
        figure.message(result)
    ends = (f"better: {_clipped(names[1], 18)}", f"better: {_clipped(names[0], 18)}")
    figure.colour_bar(colours, -limit, limit, "difference in r, test images", ends=ends, pointed="both")
    return figure


def _reliable(predicted: Fading | None) -> np.ndarray | None:
    return None if predicted is None else predicted.reliable


def _detail(predicted: Fading | None) -> str:
    return "" if predicted is None else predicted.detail()


def _joined(*parts: str | None) -> str:
    return "; ".join(part for part in parts if part)


def _draw_scalar(
    figure: MapFigure,
    values: np.ndarray,
    colours: Colormap,
    low: float,
    high: float,
    reliable: np.ndarray | None = None,
) -> None:
    valid = np.isfinite(values)
    pixels, painted, alpha = _paint(figure.flatmap, np.where(valid, values, 0.0), valid, reliable)
    level = np.clip((painted[:, 0] - low) / (high - low), 0, 1)
    level = np.rint(level * 127) / 127  # 128 steps: smaller files, no visible bands
    figure.draw_map(pixels, colours(level)[:, :3], alpha)
    _message_if_empty(figure, valid)


def _paint(
    flatmap: Flatmap, values: np.ndarray, valid: np.ndarray, reliable: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`Canvas.paint`, with vertices that are not reliable pale; by default all are reliable. Painted is (p, K)."""
    strength = np.ones(len(values)) if reliable is None else reliable
    pixels, painted, alpha = flatmap.canvas.paint(np.column_stack([values, strength]), valid & flatmap.on_flatmap)
    # Halfway between a reliable vertex and another, within a third of the way.
    ramp = np.clip(3 * painted[:, -1] - 1, 0, 1)
    return pixels, painted[:, :-1], alpha * (_PALE + (1 - _PALE) * ramp)


def _message_if_empty(figure: MapFigure, valid: np.ndarray) -> None:
    if not valid.any():
        figure.message("no vertex has a value to show")
    elif not (valid & figure.flatmap.on_flatmap).any():
        figure.message("no vertex with a value is on the flatmap")


def _location_legend(figure: MapFigure) -> None:
    """The image in the colours of its locations."""
    size = 1.55
    axes = figure.axes(figure.side + 0.3, figure.side_top - size - 0.25, size, size)
    axes.imshow(location_table(), extent=(-1, 1, 1, -1), interpolation="bilinear")
    axes.axhline(0, color="white", linewidth=0.8)
    axes.axvline(0, color="white", linewidth=0.8)
    axes.set_xticks([-1, 0, 1])
    axes.set_yticks([-1, 0, 1])
    axes.tick_params(labelsize=9.5, color=FAINT, labelcolor=INK, length=3)
    axes.set_xlabel("x, to the right", fontsize=10, color=INK, labelpad=2)
    axes.set_ylabel("y, downwards", fontsize=10, color=INK, labelpad=0)
    axes.set_title("the image", fontsize=10.5, color=INK, pad=5)
    for spine in axes.spines.values():
        spine.set_color(FAINT)


def _layer_legend(figure: MapFigure, layers: Sequence[str], palette: np.ndarray) -> None:
    """One row per layer, deepest on top, fading to the left to the brightness of no preference."""
    top, room = figure.side_top, figure.side_top - figure.side_bottom - 0.65
    row = min(0.27, room / len(layers))
    height = row * len(layers)
    axes = figure.axes(figure.side, top - height, 0.62, height)
    dim = np.linspace(_DIMMEST, 1, 64)[None, :, None]
    axes.imshow(palette[::-1, None] * dim, aspect="auto", interpolation="nearest")
    for line in np.arange(len(layers) - 1) + 0.5:
        axes.axhline(line, color="white", linewidth=1.2)
    axes.set_xlim(-0.5, 63.5)
    axes.set_yticks(range(len(layers)), _short(layers)[::-1], parse_math=False)
    axes.yaxis.tick_right()
    axes.tick_params(labelsize=min(10.0, row * 72 * 0.62), labelcolor=INK, length=0, pad=4)
    axes.set_xticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    meaning = "confidence, dark to bright:\n0 = all layers have the same weight\n1 = one layer has all the weight"
    figure.text(figure.side, top - height - 0.08, meaning, size=8.5, color=FAINT, va="top")


def _short(names: Sequence[str], longest: int = 14) -> list[str]:
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


def _summary(flatmap: Flatmap, values: np.ndarray, *parts: str) -> str:
    """Space, number of vertices with a value, and `parts` with the median and the 90th percentile over them."""
    finite = values[np.isfinite(values)]
    texts = [f"{flatmap.vertices.space} flatmap", f"{len(finite):,} of {plural(len(values), 'vertex', 'vertices')}"]
    if len(finite):
        texts += [part.format(np.percentile(finite, rank)) for part, rank in zip(parts, (50, 90), strict=False)]
    return _SEPARATOR.join(texts)


def _clipped(name: str, longest: int = 28) -> str:
    clean = " ".join(name.split())
    return clean if len(clean) <= longest else f"{clean[: longest - 1]}…"


def _titled(title: str, map_title: str) -> str:
    return f"{title}: {map_title}" if title else map_title[:1].upper() + map_title[1:]


def _robust_top(values: np.ndarray, percentile: float) -> float:
    finite = values[np.isfinite(values)]
    return max(float(np.percentile(finite, percentile)), 0.0) if len(finite) else 0.0


def _round_up(value: float, least: float) -> float:
    """The next round number (1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten), at least `least`."""
    value = max(value, least)
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9))
