"""The part of the cortex that a figure shows: the flatmaps of both hemispheres side by side, in mm."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from brainkit.cortex.surface import HEMISPHERES, mesh
from brainkit.cortex.vertices import SPACES, Vertices

_GAP = 8.0  # mm between the hemispheres


@dataclass(frozen=True)
class Box:
    """The part of one hemisphere's flatmap that is shown, in its own mm, and its shift into the common plane."""

    hemisphere: str
    x0: float
    x1: float
    y0: float
    y1: float
    shift: float


@dataclass(frozen=True)
class View:
    """One box per hemisphere, side by side. The common plane starts at x = 0 and y = `y0`."""

    space: str
    boxes: tuple[Box, ...]
    cropped: bool

    @property
    def width(self) -> float:
        """In mm."""
        return self.boxes[-1].x1 + self.boxes[-1].shift

    @property
    def height(self) -> float:
        """In mm."""
        return self.boxes[0].y1 - self.boxes[0].y0

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """(left, right, bottom, top) of the common plane, in mm."""
        return 0.0, self.width, self.boxes[0].y0, self.boxes[0].y1


def choose_view(vertices: Vertices) -> View:
    """The hemispheres that have vertices, cropped to them if they cover only a part of the cortex."""
    full_bounds, near_bounds = {}, {}
    for hemisphere, ids in zip(HEMISPHERES, (vertices.left, vertices.right), strict=True):
        points, _ = mesh(vertices.space, hemisphere, "flat")
        on = hemisphere_on_flatmap(vertices.space, hemisphere)
        full_bounds[hemisphere] = _bounds(points[on], 2.0)
        ids = ids[on[ids]]
        if len(ids):
            box = _bounds(points[ids], 0.0)
            margin = max(9.0, 0.08 * max(box[1] - box[0], box[3] - box[2]))
            near_bounds[hemisphere] = _bounds(points[ids], margin)
    if not near_bounds:
        return _side_by_side(vertices.space, full_bounds, cropped=False)
    full = _side_by_side(vertices.space, {name: full_bounds[name] for name in near_bounds}, cropped=False)
    tight = {name: _inside(bounds, full_bounds[name]) for name, bounds in near_bounds.items()}
    cropped = _side_by_side(vertices.space, tight, cropped=True)
    return cropped if cropped.width * cropped.height < 0.6 * full.width * full.height else full


def whole_view(space: str) -> View:
    """Both hemispheres, uncropped."""
    boxes = {}
    for hemisphere in HEMISPHERES:
        boxes[hemisphere] = _bounds(mesh(space, hemisphere, "flat")[0][hemisphere_on_flatmap(space, hemisphere)], 2.0)
    return _side_by_side(space, boxes, cropped=False)


def on_flatmap(vertices: Vertices) -> np.ndarray:
    """Which vertices are on the flatmap; those of the medial wall and the cuts are not. (V,) bool."""
    return np.concatenate(
        [
            hemisphere_on_flatmap(vertices.space, "left")[vertices.left],
            hemisphere_on_flatmap(vertices.space, "right")[vertices.right],
        ]
    )


@functools.cache
def hemisphere_on_flatmap(space: str, hemisphere: str) -> np.ndarray:
    """Which vertices of a hemisphere are on the flatmap. (n,) bool."""
    on = np.zeros(SPACES[space], dtype=bool)
    on[mesh(space, hemisphere, "flat")[1]] = True
    return on


def _side_by_side(space: str, bounds: dict[str, tuple[float, float, float, float]], cropped: bool) -> View:
    low, high = min(box[2] for box in bounds.values()), max(box[3] for box in bounds.values())
    boxes, edge = [], 0.0
    for hemisphere in HEMISPHERES:
        if hemisphere in bounds:
            x0, x1 = bounds[hemisphere][:2]
            boxes.append(Box(hemisphere, x0, x1, low, high, edge - x0))
            edge += x1 - x0 + _GAP
    return View(space, tuple(boxes), cropped)


def _bounds(points: np.ndarray, margin: float) -> tuple[float, float, float, float]:
    (x0, y0), (x1, y1) = points[:, :2].min(axis=0) - margin, points[:, :2].max(axis=0) + margin
    return float(x0), float(x1), float(y0), float(y1)


def _inside(
    box: tuple[float, float, float, float], limit: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    return max(box[0], limit[0]), min(box[1], limit[1]), max(box[2], limit[2]), min(box[3], limit[3])
