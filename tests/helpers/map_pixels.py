"""What tests read back from figures: their words, and the pixels of their maps."""

from __future__ import annotations

import numpy as np


def words(figure):
    import matplotlib.text

    return " | ".join(text.get_text() for text in figure.figure.findobj(matplotlib.text.Text))


def map_pixels(figure):
    """The colours of the cortex before outlines and names, and which pixels are opaque. (H, W, 3), (H, W)."""
    image = figure.map.images[0].get_array()
    return np.asarray(image[..., :3], dtype=float) / 255, np.asarray(image[..., 3]) > 250


def coloured(figure):
    """Pixels of the map with a hue, unlike the greys of the curvature and what is pale."""
    colours, opaque = map_pixels(figure)
    return opaque & (np.ptp(colours, axis=-1) > 0.12)


def hue_by_side(figure):
    """How much hue the left and the right half of the map have together. (2,)."""
    colours, opaque = map_pixels(figure)
    amount = np.where(opaque, np.ptp(colours, axis=-1), 0)
    middle = amount.shape[1] // 2
    return np.array([amount[:, :middle].sum(), amount[:, middle:].sum()])
