"""A map on a scene, as pixels: the one way that values become colours."""

from __future__ import annotations

import numpy as np

from brainkit.maps.brain_map import BrainMap, Categorical, Continuous
from brainkit.maps.canvas import Canvas
from brainkit.maps.colours import colour_map, location_colours
from brainkit.maps.scene import Scene

FAINTEST = 0.3  # opacity of a vertex without any preference for a class
PALE = 0.13  # opacity of a vertex whose value may be chance: the cortex shows through
_STEPS = 128  # of continuous colours: smaller files, no visible bands


def paint(scene: Scene, brain_map: BrainMap) -> np.ndarray:
    """The map over the curvature. Array of shape (H, W, 4), uint8: transparent outside the cortex."""
    known = brain_map.known
    values = np.where(known if brain_map.values.ndim == 1 else known[:, None], brain_map.values, 0.0)
    ones = np.ones(len(known))
    strength = ones if brain_map.strength is None else brain_map.strength
    reliable = ones if brain_map.reliable is None else brain_map.reliable
    if scene.smoothing and isinstance(scene.canvas, Canvas):
        values = scene.canvas.smooth(values, known, scene.smoothing)
    columns = np.column_stack([values, strength, reliable])
    rank = np.abs(values) if isinstance(brain_map.coding, Continuous) else None
    pixels, painted, alpha = scene.canvas.paint(columns, known & scene.shown, rank)
    colours = colours_of(brain_map, painted[:, :-2])
    if isinstance(brain_map.coding, Categorical):
        colours = scene.canvas.smooth_colours(pixels, colours)
    # Halfway between a reliable vertex and another, within a third of the way.
    ramp = np.clip(3 * painted[:, -1] - 1, 0, 1)
    opacity = (PALE + (1 - PALE) * ramp) * (FAINTEST + (1 - FAINTEST) * np.clip(painted[:, -2], 0, 1))
    return scene.canvas.compose(pixels, colours, alpha * opacity)


def colours_of(brain_map: BrainMap, values: np.ndarray) -> np.ndarray:
    """Colours of values in the columns that the map's have: (p, K) -> (p, 3), sRGB in [0, 1]."""
    coding = brain_map.coding
    if isinstance(coding, Categorical):
        return coding.palette[values.argmax(axis=1)]
    if isinstance(coding, Continuous):
        return continuous_colours(coding, values[:, 0])
    return location_colours(values[:, 0], values[:, 1])


def continuous_colours(coding: Continuous, values: np.ndarray) -> np.ndarray:
    """Colours of numbers. (p,) -> (p, 3)."""
    level = np.clip((values - coding.low) / (coding.high - coding.low), 0, 1)
    colours = colour_map(coding.colours)(np.rint(level * (_STEPS - 1)) / (_STEPS - 1))[:, :3]
    if coding.below:
        from matplotlib.colors import to_rgb

        colours[values < coding.low] = to_rgb(coding.below)
    return np.asarray(colours)
