"""Panels of a picture: a part of a projected hemisphere or volume each, laid out in a common plane, in mm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

PICTURE = (7.4, 5.5)  # inches that panels are laid out for
GAP = 8.0  # mm between the hemispheres
_CAPTION = 0.29  # inches above each row of panels
_LARGEST = 0.0135  # inches per mm, about that of four angles


@dataclass(frozen=True)
class Box:
    """A panel: a part of a projected hemisphere, in its own mm, and its shift to the right and up in the common plane.

    `angle` is one of `ANGLES`, or empty for a flatmap. Of projections of voxels, `hemisphere` is empty.
    """

    hemisphere: str
    x0: float
    x1: float
    y0: float
    y1: float
    shift: float
    lift: float = 0.0
    angle: str = ""

    @property
    def width(self) -> float:
        """In mm."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """In mm."""
        return self.y1 - self.y0

    @property
    def caption(self) -> str:
        """What the panel shows."""
        return f"{self.hemisphere} {self.angle}".strip() if self.angle else f"{self.hemisphere} hemisphere"

    @property
    def caption_place(self) -> tuple[float, float]:
        """Middle of the panel's upper edge, in the common plane; the caption stands on it."""
        return self.shift + (self.x0 + self.x1) / 2, self.y1 + self.lift


@dataclass(frozen=True)
class Layout:
    """Panels in a common plane, which starts at x = 0."""

    boxes: tuple[Box, ...]
    cropped: bool

    @property
    def flat(self) -> bool:
        """Whether it shows flatmaps."""
        return False

    @property
    def width(self) -> float:
        """In mm."""
        return max(box.x1 + box.shift for box in self.boxes)

    @property
    def height(self) -> float:
        """In mm."""
        return self.extent[3] - self.extent[2]

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """(left, right, bottom, top) of the common plane, in mm."""
        low, high = min(box.y0 + box.lift for box in self.boxes), max(box.y1 + box.lift for box in self.boxes)
        return 0.0, self.width, low, high


Boxes = list[Box]
"""A group of panels, whose lower left corner is at the origin of the common plane."""


def rows(pairs: list[Boxes], ends: Sequence[bool]) -> Boxes:
    """Place the pairs in rows from the top; `ends` says after which pairs a row ends."""
    placed: list[list[Boxes]] = [[pairs[0]]]
    for pair, new in zip(pairs[1:], ends, strict=True):
        if new:
            placed.append([])
        placed[-1].append(pair)
    return _stacked([beside(*row, gap=2 * GAP) for row in placed])


def columns(groups: list[list[Boxes]]) -> Boxes:
    """Place the groups of each column below each other, and the columns side by side."""
    return beside(*(_stacked(column) for column in groups), gap=2 * GAP)


def beside(*groups: Boxes, gap: float = GAP) -> Boxes:
    """Side by side, their middles at one height, the lowest at 0."""
    height, edge, placed = max(_size(group)[1] for group in groups), 0.0, []
    for group in groups:
        across, up = _size(group)
        placed += _moved(group, edge, (height - up) / 2)
        edge += across + gap
    return placed


def _stacked(groups: list[Boxes]) -> Boxes:
    """One below the other with room for captions, their middles at one x, the leftmost at 0."""
    sizes = [_size(group) for group in groups]
    width, height = max(across for across, _ in sizes), sum(up for _, up in sizes)
    # What the captions' height is in mm depends on the scale, to which this column alone is a good guide.
    per_mm = min(PICTURE[0] / width, (PICTURE[1] - _CAPTION * (len(groups) - 1)) / height)
    gap = _CAPTION / min(per_mm, _LARGEST)
    top, placed = height + gap * (len(groups) - 1), []
    for group, (across, up) in zip(groups, sizes, strict=True):
        placed += _moved(group, (width - across) / 2, top - up)
        top -= up + gap
    return placed


def _size(group: Boxes) -> tuple[float, float]:
    return max(box.x1 + box.shift for box in group), max(box.y1 + box.lift for box in group)


def _moved(group: Boxes, across: float, up: float) -> Boxes:
    return [replace(box, shift=box.shift + across, lift=box.lift + up) for box in group]


def scale(boxes: Iterable[Box]) -> float:
    """Inches per mm in `PICTURE`."""
    layout = Layout(tuple(boxes), False)
    return min(PICTURE[0] / layout.width, PICTURE[1] / layout.height)
