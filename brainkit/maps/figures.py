"""One page a map: what each shows, in which colours, with which legend."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from brainkit.maps.figure import DPI, FAINT, INK, Page, Scene
from brainkit.metrics.scores import LEAST_CEILING, explained_share

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from PIL.Image import Image

_LANCZOS = 1  # PIL.Image.Resampling.LANCZOS, named here to leave PIL unimported
_DIMMEST = 0.35  # brightness of a vertex that prefers no layer at all


def accuracy_page(scene: Scene, R2: np.ndarray, title: str, note: str | None) -> Page:
    """The share of each vertex's variance that is predicted."""
    values = np.asarray(R2, dtype=np.float64)
    subtitle = _summary(scene, values, "median {:.2f}", "best tenth over {:.2f}")
    page = Page(scene, _titled(title, "prediction accuracy"), subtitle, note=note, detail="R² below 0 is drawn as 0")
    top = _round_up(_robust_top(values, 99.0), 0.1)
    colours = _colour_map("magma")
    _draw_scalar(page, values, colours, 0.0, top)
    page.colour_bar(colours, 0.0, top, "R² on test images", pointed="max")
    return page


def explained_page(scene: Scene, r: np.ndarray, noise_ceiling: np.ndarray, title: str, note: str | None) -> Page:
    """The share of each vertex's explainable variance that is predicted: r^2 over the noise ceiling."""
    share = explained_share(r, noise_ceiling)
    detail = f"left out: noise ceiling under {LEAST_CEILING:.0%}".replace("%", " %")
    subtitle = _summary(scene, share, "median {:.2f}", "best tenth over {:.2f}")
    page = Page(scene, _titled(title, "share of the explainable variance"), subtitle, note=note, detail=detail)
    colours = _colour_map("viridis")
    _draw_scalar(page, share, colours, 0.0, 1.0)
    page.colour_bar(colours, 0.0, 1.0, "r² / noise ceiling, test images")
    return page


def layer_page(
    scene: Scene, layers: Sequence[str], layer_weights: np.ndarray, title: str, note: str | None, layer_note: str | None
) -> Page:
    """Which layer each vertex prefers, the brighter the more it prefers it."""
    weights = np.asarray(layer_weights, dtype=np.float64)
    valid = np.asarray(np.isfinite(weights).all(axis=1))
    safe = np.where(valid[:, None], weights, 0.0)
    entropy = -(safe * np.log(np.maximum(safe, 1e-12))).sum(axis=1)
    confidence = 1 - entropy / math.log(len(layers)) if len(layers) > 1 else np.ones(len(safe))
    subtitle = _summary(scene, np.where(valid, confidence, np.nan), "median confidence {:.2f}")
    page = Page(scene, _titled(title, "preferred layer"), subtitle, note=note, detail=layer_note or "")
    palette = _layer_palette(len(layers))
    pixels, painted, alpha = scene.canvas.paint(np.column_stack([safe, confidence]), valid & scene.shown)
    bright = _DIMMEST + (1 - _DIMMEST) * np.clip(painted[:, -1:], 0, 1)
    page.show(pixels, scene.canvas.smooth_colours(pixels, palette[painted[:, :-1].argmax(axis=1)]) * bright, alpha)
    _empty(page, valid)
    _layer_legend(page, layers, palette)
    return page


def location_page(scene: Scene, locations: np.ndarray, title: str, note: str | None) -> Page:
    """Where in the image each vertex looks: hue is direction, strength is distance from the middle."""
    where = np.asarray(locations, dtype=np.float64)
    valid = np.asarray(np.isfinite(where).all(axis=1))
    distance = np.where(valid, np.hypot(*np.nan_to_num(where).T), np.nan)
    subtitle = _summary(scene, distance, "median distance from the middle {:.2f}")
    page = Page(scene, _titled(title, "location in the image"), subtitle, note=note)
    pixels, painted, alpha = scene.canvas.paint(np.nan_to_num(where), valid & scene.shown)
    page.show(pixels, location_colours(painted[:, 0], painted[:, 1]), alpha)
    _empty(page, valid)
    wide = 1.55
    axes = page.axes(page.side + 0.3, page.side_top - wide - 0.25, wide, wide)
    axes.imshow(_location_table(), extent=(-1, 1, 1, -1), interpolation="bilinear")
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
    return page


def scale_page(scene: Scene, scale: np.ndarray, title: str, note: str | None, layer_note: str | None) -> Page:
    """Whether each vertex reads the tokens at its location or the global token."""
    values = np.asarray(scale, dtype=np.float64)
    subtitle = _summary(scene, values, "median {:.2f}")
    page = Page(scene, _titled(title, "local or global"), subtitle, note=note, detail=layer_note or "")
    colours = _colour_map("PuOr_r")
    _draw_scalar(page, values, colours, 0.0, 1.0)
    page.colour_bar(colours, 0.0, 1.0, "scale", ends=("local", "global"))
    return page


def response_page(
    scene: Scene,
    response: np.ndarray,
    image: Image,
    title: str,
    note: str | None,
    units: str,
    limit: float | None,
) -> Page:
    """A response beside its photograph."""
    values = np.asarray(response, dtype=np.float64)
    page = Page(scene, title, _summary(scene, values), note=note, column=3.0, column_left=True)
    room = page.side_top - page.side_bottom - 0.95
    fit = min(page.column / image.width, room / image.height)
    wide, tall = image.width * fit, image.height * fit
    photograph = image.convert("RGB").resize((max(1, round(wide * DPI)), max(1, round(tall * DPI))), _LANCZOS)
    axes = page.axes(page.side + (page.column - wide) / 2, page.side_top - tall, wide, tall)
    axes.imshow(np.asarray(photograph), aspect="auto", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if limit is None:
        limit = _round_up(_robust_top(np.abs(values), 99.0), 1e-3)
    colours = _colour_map("RdBu_r")
    _draw_scalar(page, values, colours, -limit, limit)
    label = f"response ({units})" if units else "response"
    page.colour_strip(colours, -limit, limit, label, page.side_top - tall - 0.25)
    return page


def effect_page(
    scene: Scene,
    effect: np.ndarray,
    q: np.ndarray,
    names: tuple[str, str],
    counts: tuple[int, int],
    note: str | None,
    max_q: float | None,
) -> Page:
    """How much more one set of images drives each vertex than another."""
    values = np.asarray(effect, dtype=np.float64)
    tested = np.isfinite(q)
    under = 0.05 if max_q is None else max_q
    share = float((q[tested] < under).mean()) if tested.any() else 0.0
    words = [f"{scene.vertices.space} flatmap", f"{counts[0]:,} and {counts[1]:,} images"]
    words += [f"{share:.0%}".replace("%", " %") + f" of {int(tested.sum()):,} vertices at q < {under:g}"]
    page = Page(
        scene,
        f"{_clipped(names[0])} against {_clipped(names[1])}: effect size",
        "  ·  ".join(words),
        note=note,
        detail="q over images for one model, not over subjects"
        + ("" if max_q is None else f"; drawn where q < {max_q:g}"),
    )
    limit = _round_up(_robust_top(np.abs(values), 99.0), 0.1)
    colours = _colour_map("RdBu_r")
    shown = values if max_q is None else np.where(tested & (q < max_q), values, np.nan)
    _draw_scalar(page, shown, colours, -limit, limit)
    ends = (f"{_clipped(names[1], 16)} more", f"{_clipped(names[0], 16)} more")
    page.colour_bar(colours, -limit, limit, "Hedges' g (pooled s.d.)", ends=ends, pointed="both")
    return page


def _clipped(name: str, most: int = 28) -> str:
    clean = " ".join(name.split())
    return clean if len(clean) <= most else f"{clean[: most - 1]}…"


def location_colours(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Colour of a place in the image: pale in the middle, one hue a direction.

    Parameters
    ----------
    x, y : array of shape (...)
        In [-1, 1], x right, y down.

    Returns
    -------
    array of shape (..., 3)
        sRGB in [0, 1].
    """
    table = _location_table()
    step = (len(table) - 1) / 2
    column, row = (np.rint((np.clip(at, -1, 1) + 1) * step).astype(np.intp) for at in (x, y))
    return table[row, column]


@functools.cache
def _location_table() -> np.ndarray:
    """Colours of the image's places, rows downwards. (201, 201, 3)."""
    x, y = np.meshgrid(np.linspace(-1, 1, 201), np.linspace(-1, 1, 201))
    strength = np.minimum(np.hypot(x, y), 1.0) ** 0.8
    angle = np.arctan2(-y, x) + math.radians(30)
    lightness, chroma = 0.95 - 0.25 * strength, 0.16 * strength
    low, high = np.zeros_like(chroma), np.ones_like(chroma)
    for _ in range(8):  # take as much of the chroma as sRGB can show; clipping would bend the hues
        share = (low + high) / 2
        linear = _oklab_to_linear(lightness, share * chroma * np.cos(angle), share * chroma * np.sin(angle))
        fits = ((linear >= 0) & (linear <= 1)).all(axis=-1)
        low, high = np.where(fits, share, low), np.where(fits, high, share)
    linear = np.clip(_oklab_to_linear(lightness, low * chroma * np.cos(angle), low * chroma * np.sin(angle)), 1e-9, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _draw_scalar(page: Page, values: np.ndarray, colours: Colormap, low: float, high: float) -> None:
    scene = page.scene
    valid = np.isfinite(values)
    pixels, painted, alpha = scene.canvas.paint(np.where(valid, values, 0.0), valid & scene.shown)
    share = np.clip((painted - low) / (high - low), 0, 1)
    page.show(pixels, colours(np.rint(share * 127) / 127)[:, :3], alpha)  # 128 steps: smaller files, no visible bands
    _empty(page, valid)


def _empty(page: Page, valid: np.ndarray) -> None:
    if not valid.any():
        page.say("no vertex has a value to show")
    elif not (valid & page.scene.shown).any():
        page.say("no vertex with a value lies on the flatmap")


def _layer_legend(page: Page, layers: Sequence[str], palette: np.ndarray) -> None:
    """A swatch a layer, deepest on top, fading to the brightness of no preference at the left."""
    top, room = page.side_top, page.side_top - page.side_bottom - 0.35
    row = min(0.27, room / len(layers))
    tall = row * len(layers)
    axes = page.axes(page.side, top - tall, 0.62, tall)
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
    page.text(page.side, top - tall - 0.08, "confidence 0 to 1", size=8.5, color=FAINT, va="top")


def _layer_palette(count: int) -> np.ndarray:
    """One colour a layer, blue for shallow to red for deep. (L, 3)."""
    return _colour_map("Spectral_r")(np.linspace(0.0, 1.0, count) if count > 1 else [0.0])[:, :3]


def _short(names: Sequence[str], most: int = 14) -> list[str]:
    """Names that fit the legend: where one is too long, only what tells it from the others, then its end."""
    if all(len(name) <= most for name in names):
        return list(names)
    if len(names) > 1:
        first = _shared([*names])
        last = _shared([name[first:][::-1] for name in names])
        names = [name[first : len(name) - last] for name in names]
    return [name if len(name) <= most else f"…{name[1 - most :]}" for name in names]


def _shared(names: list[str]) -> int:
    """How many characters all names begin with."""
    return next(
        (i for i, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), min(map(len, names))
    )


def _summary(scene: Scene, values: np.ndarray, *parts: str) -> str:
    """Where the vertices lie, how many have a value, and figures over them: the median, then the 90th percentile."""
    finite = values[np.isfinite(values)]
    words = [f"{scene.vertices.space} flatmap", f"{len(finite):,} of {len(values):,} vertices"]
    if len(finite):
        words += [part.format(np.percentile(finite, at)) for part, at in zip(parts, (50, 90), strict=False)]
    return "  ·  ".join(words)


def _titled(title: str, own: str) -> str:
    return f"{title}: {own}" if title else own[:1].upper() + own[1:]


def _robust_top(values: np.ndarray, percentile: float) -> float:
    finite = values[np.isfinite(values)]
    return max(float(np.percentile(finite, percentile)), 0.0) if len(finite) else 0.0


def _round_up(value: float, least: float) -> float:
    """The next round number (1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten), at least `least`."""
    value = max(value, least)
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9))


def _colour_map(name: str) -> Colormap:
    from matplotlib import colormaps

    return colormaps[name]


def _oklab_to_linear(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Oklab (Ottosson 2020), where equal steps look equal, to linear sRGB, unclipped. (...) -> (..., 3)."""
    cone = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ],
        axis=-1,
    )
    to_linear = [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097572011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
    return cone**3 @ np.transpose(to_linear)
