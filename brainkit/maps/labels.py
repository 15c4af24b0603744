"""Where the names of ROIs stand: near their anchors, none on another, with a line to the anchor if it is far."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

_SMALLER = 0.78  # of the size, tried where there is no room for the full one
_STEP = 0.75  # lines of text between positions that are tried
_NEAR, _FAR = 4, 9  # steps to all sides: without a line to the anchor, and with one
_POINTS = 72  # an inch

Place = tuple[float, float, float, float]
"""Middle and half the width of a text, middle and half the height, in mm of the common plane."""


@dataclass(frozen=True)
class Label:
    """An ROI's name on a figure.

    Parameters
    ----------
    name : str
    x, y : float
        Its middle, in mm of the common plane.
    size : float
        Of the font, in points.
    leader : array of shape (2, 2), optional
        A line from the ROI to the edge of the name, where the name is not on the ROI.
    """

    name: str
    x: float
    y: float
    size: float
    leader: np.ndarray | None = None


def place_labels(
    anchors: Iterable[tuple[str, float, float]],
    extent: tuple[float, float, float, float],
    per_mm: float,
    size: float,
    taken: Iterable[Place] = (),
) -> tuple[Label, ...]:
    """Place names at or near their anchors, within the plane; those without room are left out.

    Parameters
    ----------
    anchors : iterable of (name, x, y)
        The most important first.
    extent : tuple of float
        Left, right, bottom and top of the plane, in mm.
    per_mm : float
        Inches per mm.
    size : float
        Of the font, in points.
    taken : iterable of (x, half width, y, half height)
        Where other texts stand, in mm.
    """
    placed: list[Label] = []
    taken = list(taken)
    for name, x, y in anchors:
        for points, steps in ((size, _NEAR), (size * _SMALLER, _NEAR), (size * _SMALLER, _FAR)):
            line = points / _POINTS / per_mm
            half = 0.30 * line * len(name) + 0.15 * line, 0.62 * line
            found = next((at for at in _near(x, y, half, line, steps, extent) if _free(at, half, taken)), None)
            if found is not None:
                taken.append((found[0], half[0], found[1], half[1]))
                placed.append(Label(name, *found, points, _leader((x, y), found, half)))
                break
    return tuple(placed)


def _near(
    x: float,
    y: float,
    half: tuple[float, float],
    line: float,
    steps: int,
    extent: tuple[float, float, float, float],
) -> Iterator[tuple[float, float]]:
    """Positions around an anchor, the nearest first, moved into the plane."""
    left, right, bottom, top = extent
    offsets = [(across * _STEP, up * _STEP) for across in range(-steps, steps + 1) for up in range(-steps, steps + 1)]
    for across, up in sorted(offsets, key=lambda offset: offset[0] ** 2 + offset[1] ** 2):
        u = min(max(x + across * line, left + half[0]), right - half[0])
        yield u, min(max(y + up * line, bottom + half[1]), top - half[1])


def _free(at: tuple[float, float], half: tuple[float, float], taken: list[Place]) -> bool:
    return all(abs(at[0] - a) >= half[0] + b or abs(at[1] - c) >= half[1] + d for a, b, c, d in taken)


def _leader(anchor: tuple[float, float], at: tuple[float, float], half: tuple[float, float]) -> np.ndarray | None:
    """A line from the anchor to the nearest point of the name's box, if the anchor is well outside of it."""
    edge = np.clip(anchor, np.subtract(at, half), np.add(at, half))
    away = np.hypot(*np.subtract(edge, anchor))
    return None if away < half[1] else np.array([anchor, edge])
