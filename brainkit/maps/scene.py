"""What a map is drawn on: the cortex in one view at a size, the outlines and names of ROIs. Shared by many maps."""

from __future__ import annotations

import collections
import functools
import os
from dataclasses import dataclass

import numpy as np

from brainkit.cortex.cortical_surface import CorticalSurface
from brainkit.cortex.surface_files import find_average_surface
from brainkit.cortex.vertices import CUSTOM, Vertices
from brainkit.cortex.volume import Volume
from brainkit.maps.brain_map import MapSet
from brainkit.maps.canvas import Canvas
from brainkit.maps.glass_brain import GlassBrain
from brainkit.maps.labels import Label, Place, place_labels
from brainkit.maps.panels import Box, Layout
from brainkit.maps.style import Shading, Style
from brainkit.maps.view import FLAT, View, make_view, on_view, read_view
from brainkit.utils.text import plural, printable

_SMALLER = 0.84  # names on shapes other than flatmaps, where ROIs are smaller
_PARTS = 4  # of the path of a surface that a caption says
_POINTS = 72  # an inch
_SAME = 1e-3  # mm: ends of segments that are nearer are one point


@dataclass(frozen=True, eq=False)
class Scene:
    """The cortex in one view. Lengths are in mm of the view's plane."""

    vertices: Vertices
    view: Layout
    canvas: Canvas | GlassBrain
    inches: tuple[float, float]  # width and height of the map
    shown: np.ndarray  # (V,) bool; of the flatmap False on the medial wall and the cuts
    outlines: tuple[np.ndarray, ...]  # lines of shape (k, 2)
    labels: tuple[Label, ...]
    smoothing: int = 0  # times that values are averaged over neighbours

    @property
    def name(self) -> str:
        """Of the surface and the view."""
        if not isinstance(self.view, View):
            return "projections of the volume"
        shape = {FLAT: "flatmap", "sphere": "sphere"}.get(self.view.shape, f"{self.view.shape} surface")
        smoothed = f", smoothed {plural(self.smoothing, 'time')}" if self.smoothing else ""
        return f"{self.view.surface.name} {shape}{smoothed}"


def make_scene(maps: MapSet, style: Style, *, room: tuple[float, float], dpi: float, label_size: float) -> Scene:
    """Compute view, pixels and outlines; cached for the next figure of the same subject.

    Parameters
    ----------
    maps : MapSet
        Whose vertices and ROIs are drawn; voxels without a surface as a `GlassBrain`.
    style : Style
        Of which the view is of no use for voxels without a surface.
    room : tuple of float
        Greatest width and height of the map in inches.
    dpi : float
    label_size : float
        Of the names of ROIs, in points.
    """
    surface = drawn_surface(maps, style)
    regions = tuple((" ".join(printable(name).split()), positions.tobytes()) for name, positions in maps.rois.items())
    ids = None if maps.ids is None else maps.ids.tobytes()
    look = style.view, style.shading, style.smoothing
    return _scene(maps.vertices, surface, ids, maps.volume, regions, look, room, dpi, label_size)


def drawn_surface(maps: MapSet, style: Style) -> CorticalSurface | None:
    """The maps' surface, or the average brain as it is on this machine; None for flatmaps of it, and for volumes."""
    if maps.surface is not None or maps.volume is not None or read_view(style.view)[0] == FLAT:
        return maps.surface
    return None if maps.vertices.space == CUSTOM else _average(maps.vertices.space)


_average = functools.lru_cache(maxsize=3)(find_average_surface)


def surface_source(maps: MapSet, style: Style) -> str:
    """Where the shape that a figure shows comes from, for its caption; empty for flatmaps and volumes."""
    surface = drawn_surface(maps, style)
    if surface is None or not surface.source or read_view(style.view)[0] == FLAT:
        return ""
    parts = surface.source.split(os.sep)
    short = surface.source if len(parts) <= _PARTS else os.sep.join(["…", *parts[1 - _PARTS :]])
    return f"surface: {printable(short)}"


@functools.lru_cache(maxsize=4)
def _scene(
    vertices: Vertices,
    surface: CorticalSurface | None,
    raw_ids: bytes | None,
    volume: Volume | None,
    regions: tuple[tuple[str, bytes], ...],
    look: tuple[str, Shading, int],
    room: tuple[float, float],
    dpi: float,
    label_size: float,
) -> Scene:
    canvas: Canvas | GlassBrain
    view_name, shading, smoothing = look
    shape, angles, hemispheres = read_view(view_name)
    shown = np.ones(len(vertices), dtype=bool)
    if surface is None and volume is not None:
        canvas = GlassBrain(volume, room, dpi)
        view: Layout = canvas.view
    else:
        ids = None if raw_ids is None else np.frombuffer(raw_ids, dtype=np.int32)
        view = on_surface = make_view(vertices, shape, angles, hemispheres, surface, ids)
        shown = on_view(vertices, on_surface, ids)
        per_mm = min(room[0] / view.width, room[1] / view.height)
        canvas = Canvas(vertices, on_surface, dpi * per_mm, ids=ids, shading=shading)
    per_mm = min(room[0] / view.width, room[1] / view.height)
    outlines, anchors = [], []
    for name, raw in regions:
        positions = np.frombuffer(raw, dtype=np.int32)
        if len(positions):
            outline = canvas.outline(positions)
            outlines += _joined(outline)
            anchors += [(name, *anchor) for anchor in canvas.anchors(positions, outline)]
    anchors.sort(key=lambda item: (-item[3], item[0], item[1]))
    captions = [_caption_room(box, label_size / _POINTS / per_mm) for box in view.boxes]
    if not view.flat:
        label_size *= _SMALLER
    return Scene(
        vertices,
        view,
        canvas,
        (view.width * per_mm, view.height * per_mm),
        shown,
        tuple(outlines),
        place_labels([anchor[:3] for anchor in anchors], view.extent, per_mm, label_size, captions),
        smoothing,
    )


def _caption_room(box: Box, line: float) -> Place:
    """Where the caption of a panel stands, above its edge; a line of the names of ROIs is `line` mm high."""
    x, y = box.caption_place
    return x, min(0.32 * line * len(box.caption), box.width / 2), y + 0.75 * line, 0.6 * line


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
