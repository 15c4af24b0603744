"""Colours of the maps: matplotlib's colour maps, one colour per layer, one per location in the image.

All are even in lightness or rise evenly, and stay apart for the colour-blind as far as that is possible.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from brainkit.errors import UsageError
from brainkit.utils.text import nearest_names

if TYPE_CHECKING:
    from matplotlib.colors import Colormap


OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#1b1f24")
_TURN = 48.0  # degrees from the hue of Oklab's first axis to that of the right of the image


def colour_map(name: str) -> Colormap:
    """One of matplotlib's, by name."""
    from matplotlib import colormaps

    if name not in colormaps:
        near = nearest_names(name, colormaps, most=3, cutoff=0.6)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"colours {name!r}: matplotlib has no such colour map{hint}")
    return colormaps[name]


def layer_palette(count: int) -> np.ndarray:
    """One colour per layer, dark violet for early to yellow for late: lightness rises evenly. (L, 3)."""
    return sequence("viridis", count)


def class_palette(count: int) -> np.ndarray:
    """One colour per class, in no order: those of Okabe and Ito (2008), told apart with any colour vision. (n, 3)."""
    from matplotlib.colors import to_rgb

    if count <= len(OKABE_ITO):
        return np.array([to_rgb(colour) for colour in OKABE_ITO[:count]]).reshape(-1, 3)
    return np.asarray(colour_map("tab20")(np.arange(count) % 20)[:, :3])


def sequence(name: str, count: int) -> np.ndarray:
    """`count` colours of a colour map at equal steps, without its very end. (count, 3)."""
    return colour_map(name)(np.linspace(0.0, 0.97, count) if count > 1 else [0.0])[:, :3]


def location_colours(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Colour of a location in the image: hue is direction, strength is distance from the centre.

    Parameters
    ----------
    x, y : array of shape (...)
        In [-1, 1], x right, y down.

    Returns
    -------
    array of shape (..., 3)
        sRGB in [0, 1].
    """
    table = location_table()
    step = (len(table) - 1) / 2
    column, row = (np.rint((np.clip(axis, -1, 1) + 1) * step).astype(np.intp) for axis in (x, y))
    return table[row, column]


@functools.cache
def location_table() -> np.ndarray:
    """Colours of the whole image, rows from top to bottom. (201, 201, 3)."""
    x, y = np.meshgrid(np.linspace(-1, 1, 201), np.linspace(-1, 1, 201))
    strength = np.minimum(np.hypot(x, y), 1.0) ** 0.8
    # Turned so that left and right, and up and down, differ without red and green too.
    angle = np.arctan2(-y, x) + math.radians(_TURN)
    chroma = 0.16 * strength
    return oklab_colours(0.95 - 0.25 * strength, chroma * np.cos(angle), chroma * np.sin(angle))


def position_palette(positions: np.ndarray) -> np.ndarray:
    """Colours of classes that are near where the classes are near.

    Parameters
    ----------
    positions : array of shape (n, 3)
        In [-1, 1]: the first two decide hue and strength, the third lightness.

    Returns
    -------
    array of shape (n, 3)
        sRGB in [0, 1].
    """
    across, up, light = np.asarray(positions, np.float64).T
    return oklab_colours(0.68 + 0.2 * light, 0.19 * across, 0.19 * up)


def oklab_colours(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """sRGB of colours in Oklab; where sRGB lacks one, the strongest of its hue and lightness. (...) -> (..., 3)."""
    low, high = np.zeros_like(a), np.ones_like(a)
    for _ in range(8):  # clipping would change the hue
        share = (low + high) / 2
        linear = _oklab_to_linear(lightness, share * a, share * b)
        fits = ((linear >= 0) & (linear <= 1)).all(axis=-1)
        low, high = np.where(fits, share, low), np.where(fits, high, share)
    linear = np.clip(_oklab_to_linear(lightness, low * a, low * b), 1e-9, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _oklab_to_linear(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """From Oklab (Ottosson 2020), a perceptually uniform space, to linear sRGB, unclipped. (...) -> (..., 3)."""
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
