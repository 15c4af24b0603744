"""Borders of ROIs on a view, where the surface does not hide them, and places for the ROIs' names."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from brainkit.cortex.geometry import average_over_faces, pieces
from brainkit.maps.panels import Box
from brainkit.maps.raster import Raster
from brainkit.maps.view import View

_LARGE = 0.1  # of an ROI's largest piece: smaller pieces get no name, but for
_STRIP = 0.025, 50.0  # those of this share and as many mm²: they look like other ROIs
_SUBDIVIDED = 4  # parts of a segment that are tested for being visible
_FEW = 400  # points that a distance is taken to, at most


class Anchor(NamedTuple):
    """A place for a name, in mm of the common plane, and the area of its piece of the ROI in mm²."""

    x: float
    y: float
    area: float


class Outlines:
    """The ROIs of some vertices on a view.

    Parameters
    ----------
    view : View
    raster : Raster
        Of this view.
    ids : array of shape (V,)
        Vertices of the data, numbered over both hemispheres of the surface.
    """

    def __init__(self, view: View, raster: Raster, ids: np.ndarray) -> None:
        self._view, self._raster, self._ids = view, raster, ids
        self._count = len(view.surface)
        self._rims: dict[Box, np.ndarray] = {}
        per_hemisphere = self._count // 2
        # Passes of averaging over neighbours, so that outlines are equally smooth in mm.
        self._passes = 1 if per_hemisphere < 20_000 else 3 if per_hemisphere < 80_000 else 8

    @functools.cached_property
    def drawn(self) -> np.ndarray:
        """Which vertices are on a panel, visible or not. (n,) bool."""
        on = np.zeros(self._count, dtype=bool)
        on[self._shown_faces] = True
        return on

    @functools.cached_property
    def alone(self) -> float:
        """The share of vertices with data that have no neighbour with data."""
        drawn = self._ids[self.drawn[self._ids]]
        if not len(drawn):
            return 0.0
        of_data = np.zeros(self._count, dtype=bool)
        of_data[drawn] = True
        together = np.zeros(self._count, dtype=bool)
        faces = self._shown_faces
        first, second, third = of_data[faces.T]
        together[faces[(first & second) | (second & third) | (third & first)]] = True
        return float((~together[drawn]).mean())

    def border(self, positions: np.ndarray) -> np.ndarray:
        """Visible border of an ROI, as line segments of shape (s, 2, 2) in the common plane (mm)."""
        smooth = self.smoothed(self._ids[positions])
        if smooth.max(initial=0.0) <= 0.55:  # an ROI of a few vertices would vanish
            smooth = np.zeros(self._count)
            smooth[self._ids[positions]] = 1.0
        faces = self.faces
        inside = smooth[faces] > 0.5
        mixed = inside.any(axis=1) & ~inside.all(axis=1)
        faces, inside = faces[mixed], inside[mixed]
        # The corner that differs from the other two is put first; the border crosses its two edges.
        odd = np.where(inside.sum(axis=1) == 1, inside.argmax(axis=1), inside.argmin(axis=1))
        rolled = faces[np.arange(len(faces))[:, None], (odd[:, None] + np.arange(3)) % 3]
        start = rolled[:, :1].repeat(2, axis=1)
        end = rolled[:, 1:]
        along = ((0.5 - smooth[start]) / (smooth[end] - smooth[start]))[..., None]
        found = [np.empty((0, 2, 2))]
        for box, points, mine in self._panels(start[:, 0]):
            first, second = (points[ends[mine] - self._view.surface.first_id(box.hemisphere)] for ends in (start, end))
            found.append(self._visible_parts(first + along[mine] * (second - first)))
        return np.concatenate(found)

    def anchors(self, positions: np.ndarray, outline: np.ndarray, *, scattered: bool) -> list[Anchor]:
        """Of each hemisphere, in the panel that shows most of the ROI, the vertices farthest from a border.

        One on each of its large pieces; on shapes other than flatmaps, on the largest visible piece.

        Parameters
        ----------
        positions : array of shape (v,)
            Of the ROI, among the V.
        outline : array of shape (s, 2, 2)
            Its border.
        scattered : bool
            Vertices are points without neighbours, so that the ROI has one piece in each panel.
        """
        ids = self._ids[positions]
        found: dict[str, list[list[tuple[float, Box, np.ndarray]]]] = {name: [] for name in self._view.hemispheres}
        for box, _, mine in self._panels(ids):
            here = ids[mine] - self._view.surface.first_id(box.hemisphere)
            visible, area = self._visible_vertices[box]
            here = here[visible[here]]
            shown = [here] if scattered else self._pieces(box, here)
            sized = [(float(area[piece].sum()), box, piece) for piece in shown if len(piece)]
            found[box.hemisphere].append(sorted(sized, key=lambda piece: -piece[0]))
        border = outline.mean(axis=1)
        border = border[:: len(border) // _FEW + 1]
        anchors = []
        for panels in found.values():
            best = max((shown for shown in panels if shown), key=lambda shown: shown[0][0], default=[])
            # A surface that hides parts of itself breaks ROIs into pieces that are none.
            for size, box, piece in best[: None if self._view.flat else 1]:
                if size >= _LARGE * best[0][0] or (size >= _STRIP[0] * best[0][0] and size >= _STRIP[1]):
                    edges = np.concatenate([border, self._rim(box)])
                    anchors.append(Anchor(*_innermost(self._planes[box][piece, :2], edges), size))
        return anchors

    def smoothed(self, ids: np.ndarray) -> np.ndarray:
        """1 at these vertices and 0 elsewhere, averaged over neighbours a few times. (n,)."""
        smooth = np.zeros(self._count)
        smooth[ids] = 1.0
        for _ in range(self._passes):
            smooth = average_over_faces(smooth, self.faces)
        return smooth

    @functools.cached_property
    def faces(self) -> np.ndarray:
        """Faces shown at and around the vertices with data. (m, 3)."""
        faces = self._shown_faces
        near = np.zeros(self._count, dtype=bool)
        near[self._ids] = True
        for _ in range(self._passes):  # as far as smoothing reaches
            near[faces[_any(near, faces)]] = True
        return faces[_any(near, faces)]

    @functools.cached_property
    def _shown_faces(self) -> np.ndarray:
        """Faces of the hemispheres shown; of cropped flatmaps those in the part shown. (m, 3)."""
        parts = [self._view.faces(name) + self._view.surface.first_id(name) for name in self._view.hemispheres]
        faces = np.concatenate(parts)
        if self._view.flat:
            in_view = np.zeros(self._count, dtype=bool)
            for box in self._view.boxes:
                start, points = self._view.surface.first_id(box.hemisphere), self._planes[box]
                in_view[start : start + len(points)] = np.isfinite(points[:, 0])
            faces = faces[in_view[faces].all(axis=1)]
        return faces

    @functools.cached_property
    def _planes(self) -> dict[Box, np.ndarray]:
        """Each panel's hemisphere in the common plane and towards the viewer, NaN if not in view. (n, 3)."""
        planes = {}
        for box in self._view.boxes:
            points = self._view.project(box)
            if self._view.flat:
                x, y = points[:, 0] - box.shift, points[:, 1] - box.lift
                inside = (x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)
                points[~(inside & self._view.surface.hemisphere(box.hemisphere).on_flatmap)] = np.nan
            planes[box] = points
        return planes

    def _panels(self, ids: np.ndarray) -> Iterator[tuple[Box, np.ndarray, np.ndarray]]:
        """Each panel, its points in the common plane, and which of the ids are of its hemisphere."""
        for box in self._view.boxes:
            yield box, self._planes[box], (ids < len(self._view.surface.left)) == (box.hemisphere == "left")

    def _visible_parts(self, segments: np.ndarray) -> np.ndarray:
        """Segments (s, 2, 3), or those parts of them that are visible. (s, 2, 2)."""
        if self._view.flat:
            return segments[..., :2]
        steps = np.linspace(0.0, 1.0, _SUBDIVIDED + 1)[None, :, None]
        points = segments[:, :1] + steps * (segments[:, 1:] - segments[:, :1])  # (s, parts + 1, 3)
        visible = self._raster.visible((points[:, :-1] + points[:, 1:]) / 2)
        whole, part = visible.all(axis=1), visible & ~visible.all(axis=1, keepdims=True)
        parts = np.stack([points[:, :-1], points[:, 1:]], axis=2)[part]
        return np.concatenate([segments[whole], parts])[..., :2]

    @functools.cached_property
    def _visible_vertices(self) -> dict[Box, tuple[np.ndarray, np.ndarray]]:
        """Of each panel, which vertices of its hemisphere are visible, and the area of each in the plane, in mm²."""
        found = {}
        for box, points in self._planes.items():
            faces = self._view.faces(box.hemisphere)
            first, second, third = (points[faces[:, corner], :2] for corner in range(3))
            (ax, ay), (bx, by) = (second - first).T, (third - first).T
            area = (ax * by - ay * bx) / 2
            area = np.abs(area) if self._view.flat else np.maximum(area, 0.0)  # others look away
            area = np.nan_to_num(np.bincount(faces.ravel(), np.repeat(np.nan_to_num(area), 3) / 3, len(points)))
            found[box] = (self._raster.visible(points) & ((area > 0) | self._view.flat), area)
        return found

    def _pieces(self, box: Box, here: np.ndarray) -> list[np.ndarray]:
        """The connected pieces of some vertices of a panel's hemisphere."""
        inside = np.zeros(len(self._planes[box]), dtype=bool)
        inside[here] = True
        faces = self._view.faces(box.hemisphere)
        number = pieces(inside, faces[_any(inside, faces)])[here]
        return [here[number == piece] for piece in range(number.max(initial=-1) + 1)]

    def _rim(self, box: Box) -> np.ndarray:
        """Points on the edge of what a panel shows, at most `_FEW` or so. (p, 2)."""
        if box not in self._rims:
            self._rims[box] = self._find_rim(box)
        return self._rims[box]

    def _find_rim(self, box: Box) -> np.ndarray:
        faces, points = self._view.faces(box.hemisphere), self._planes[box]
        if not self._view.flat:
            visible = self._visible_vertices[box][0]
            faces = faces[visible[faces].all(axis=1)]
        edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
        code, times = np.unique(edges[:, 0].astype(np.int64) * len(points) + edges[:, 1], return_counts=True)
        first, second = (points[ends, :2] for ends in np.divmod(code[times == 1], len(points)))
        # Some edges along the cuts are long, so there are several points on each.
        found = np.concatenate([first + along * (second - first) for along in (0.0, 0.25, 0.5, 0.75)])
        found = found[np.isfinite(found[:, 0])]
        return found[:: len(found) // _FEW + 1]


def _any(inside: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Which faces have a corner inside. (m,) bool."""
    first, second, third = inside[faces.T]
    return np.asarray(first | second | third)


def _innermost(points: np.ndarray, edges: np.ndarray) -> tuple[float, float]:
    """The point, of (v, 2), that is far from the edges and not far from the middle."""
    points = points[:: len(points) // _FEW + 1]
    # Names are wide, so horizontal distance counts half.
    squares = np.square((points[:, None] - edges[None]) * [0.5, 1.0]).sum(axis=2).min(axis=1, initial=np.inf)
    distance = np.minimum(np.sqrt(squares), 1e3)
    from_centre = np.hypot(*(points - points.mean(axis=0)).T)
    x, y = points[(distance - 0.1 * from_centre).argmax()]
    return float(x), float(y)
