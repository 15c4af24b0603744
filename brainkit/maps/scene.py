"""What a map is drawn on: the cortex in one view at a size, the outlines and names of ROIs. Shared by many maps."""

from __future__ import annotations

import collections
import functools
from dataclasses import dataclass

import numpy as np

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.maps.canvas import Canvas
from brainkit.maps.view import View, choose_view, on_flatmap
from brainkit.utils.text import printable

_SAME = 1e-3  # mm: ends of segments that are nearer are one point


@dataclass(frozen=True, eq=False)
class Scene:
    """The cortex in one view. Lengths are in mm of the view's plane."""

    vertices: Vertices
    view: View
    canvas: Canvas
    inches: tuple[float, float]  # width and height of the map
    shown: np.ndarray  # (V,) bool; of the flatmap False on the medial wall and the cuts
    outlines: tuple[np.ndarray, ...]  # lines of shape (k, 2)
    labels: tuple[tuple[str, float, float], ...]  # ROI, x, y
    captions: tuple[tuple[str, float], ...]  # what stands above a part of the view, and the x of its middle

    @property
    def name(self) -> str:
        """Of the surface and the view."""
        return f"{self.vertices.space} flatmap"


def make_scene(
    vertices: Vertices, rois: RoiTable, *, view: str, room: tuple[float, float], dpi: float, label_size: float
) -> Scene:
    """Compute view, pixels and outlines; cached for the next figure of the same subject.

    Parameters
    ----------
    vertices : Vertices
        In an fsaverage space.
    rois : RoiTable
    view : str
        How the cortex is shown.
    room : tuple of float
        Greatest width and height of the map in inches.
    dpi : float
    label_size : float
        Of the names of ROIs, in points.
    """
    regions = tuple((" ".join(printable(name).split()), positions.tobytes()) for name, positions in rois.items())
    return _scene(vertices, regions, view, room, dpi, label_size)


@functools.lru_cache(maxsize=4)
def _scene(
    vertices: Vertices,
    regions: tuple[tuple[str, bytes], ...],
    view_name: str,
    room: tuple[float, float],
    dpi: float,
    label_size: float,
) -> Scene:
    view = choose_view(vertices)
    per_mm = min(room[0] / view.width, room[1] / view.height)
    canvas = Canvas(vertices, view, per_mm * dpi)
    outlines, anchors = [], []
    for name, raw in regions:
        positions = np.frombuffer(raw, dtype=np.int32)
        if len(positions):
            outline = canvas.outline(positions)
            outlines += _joined(outline)
            anchors += [(len(positions), name, x, y) for x, y in canvas.anchors(positions, outline)]
    anchors.sort(key=lambda item: (-item[0], item[1], item[2]))
    line = label_size / 72 / per_mm
    return Scene(
        vertices,
        view,
        canvas,
        (view.width * per_mm, view.height * per_mm),
        on_flatmap(vertices),
        tuple(outlines),
        _place_labels(anchors, view, line),
        tuple((f"{box.hemisphere} hemisphere", box.shift + (box.x0 + box.x1) / 2) for box in view.boxes),
    )


def _joined(segments: np.ndarray) -> list[np.ndarray]:
    """Segments (s, 2, 2) as lines that are as long as possible: fewer paths, and no gaps at their joints."""
    rounded = np.rint(segments.reshape(-1, 2) / _SAME).astype(np.int64)
    _, first, node = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
    points, ends = segments.reshape(-1, 2)[first], node.reshape(-1, 2)
    left: dict[int, set[int]] = collections.defaultdict(set)
    for one, other in ends.tolist():
        if one != other:
            left[one].add(other)
            left[other].add(one)
    lines = []
    # Lines that end somewhere are begun at their ends; what is left then are closed ones.
    for start in [*(n for n in sorted(left) if len(left[n]) % 2), *sorted(left)]:
        while left[start]:
            path = [start]
            while left[path[-1]]:
                following = min(left[path[-1]])
                left[path[-1]].remove(following)
                left[following].remove(path[-1])
                path.append(following)
            lines.append(points[path])
    return lines


def _place_labels(
    anchors: list[tuple[int, str, float, float]], view: View, line: float
) -> tuple[tuple[str, float, float], ...]:
    """Labels at their anchors (size, name, x, y), shifted if they would overlap; dropped if there is no room.

    `line` is the height of a line of text.
    """
    left, right, bottom, top = view.extent
    boxes: list[tuple[float, float, float, float]] = []  # x, half width, y, half height
    labels = []
    offsets = sorted(
        ((across * 0.75, up * 0.75) for across in range(-4, 5) for up in range(-4, 5)),
        key=lambda offset: offset[0] ** 2 + offset[1] ** 2,
    )
    for _, name, x, y in anchors:
        half_width, half_height = 0.30 * line * len(name) + 0.15 * line, 0.62 * line
        for across, up in offsets:
            u = min(max(x + across * line, left + half_width), right - half_width)
            w = min(max(y + up * line, bottom + half_height), top - half_height)
            if all(abs(u - a) >= half_width + b or abs(w - c) >= half_height + d for a, b, c, d in boxes):
                boxes.append((u, half_width, w, half_height))
                labels.append((name, u, w))
                break
    return tuple(labels)
