"""A view as pixels: the triangle of each pixel that is nearest to the viewer, and how it is lit. Done once per view.

Axes: n vertices of a hemisphere, k pixels on the cortex, H and W pixels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from brainkit.cortex.cortical_surface import Hemisphere
from brainkit.cortex.geometry import vertex_normals
from brainkit.maps.panels import Box
from brainkit.maps.view import View, camera

GYRUS, SULCUS = 0.86, 0.74  # light greys, so that the data stand out
FINER = 2  # samples a pixel and axis of surfaces that hide parts of themselves, so that edges are smooth
_FADE = 5.0  # mm over which a cropped map fades out
_CANDIDATES = 1 << 20  # pixel-triangle pairs tested at once: bounds the memory
_BEHIND = 0.8  # mm that a point may lie below the surface and still be on it


@dataclass(frozen=True, eq=False)
class Raster:
    """The samples of a view: as many as pixels for flatmaps, `FINER` times as many along both axes for other shapes."""

    shape: tuple[int, int]  # H, W
    pixels: np.ndarray  # (k,) flat indices, row 0 at the top
    corners: np.ndarray  # (k, 3) vertices of the triangle, right hemisphere offset
    weights: np.ndarray  # (k, 3) barycentric
    grey: np.ndarray  # (k,) curvature as grey
    light: np.ndarray | None  # (k,) brightness; None for flatmaps
    fade: np.ndarray | None  # (H, W) 1 inside, falling to 0 at cropped sides; None if not cropped
    nearest: np.ndarray | None  # (H, W) distance towards the viewer, -inf off the cortex; None for flatmaps
    scale: float  # samples per mm
    top: float  # y of the upper edge of the common plane, in mm

    def visible(self, points: np.ndarray) -> np.ndarray:
        """Which points, (..., 3) in the common plane and towards the viewer, no other part of the surface hides."""
        if self.nearest is None:
            return np.isfinite(points).all(axis=-1)
        height, width = self.shape
        column = np.clip(np.rint(points[..., 0] * self.scale - 0.5), 0, width - 1).astype(np.intp)
        row = np.clip(np.rint((self.top - points[..., 1]) * self.scale - 0.5), 0, height - 1).astype(np.intp)
        return np.asarray(points[..., 2] >= self._farthest[row, column] - _BEHIND)

    @functools.cached_property
    def _farthest(self) -> np.ndarray:
        """The least near of 3 x 3 samples, so that steep surfaces do not hide their own points. (H, W)."""
        from scipy.ndimage import minimum_filter

        return minimum_filter(self.nearest, 3)


def interpolated(values: np.ndarray, corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Values of vertices, (n,) or (n, K), between the corners of triangles, (k, 3) both. (k,) or (k, K)."""
    if values.ndim > 1:
        weights = weights[:, :, None]
    # One corner at a time: (k, 3, K) would be large, and sums over a short axis are slow.
    first, second, third = (weights[:, corner] * values[corners[:, corner]] for corner in range(3))
    return np.asarray(first + second + third)


@functools.lru_cache(maxsize=4)
def rasterise(view: View, scale: float) -> Raster:
    """The samples of a view at `scale` pixels per mm."""
    finer = 1 if view.flat else FINER
    height, width = (finer * max(1, round(side * scale)) for side in (view.height, view.width))
    scale *= finer
    nearest = np.full(height * width, -np.inf)
    parts = [_box_samples(view, box, scale, height, width, nearest) for box in view.boxes]
    pixels, corners, weights, grey, light = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Raster(
        (height, width),
        pixels,
        corners,
        weights,
        grey,
        light=None if view.flat else light,
        fade=_fade(view, scale, height, width) if view.cropped else None,
        nearest=None if view.flat else nearest.reshape(height, width),
        scale=scale,
        top=view.extent[3],
    )


def _fade(view: View, scale: float, height: int, width: int) -> np.ndarray:
    fade = np.zeros((height, width), dtype=np.float32)
    rows = (np.arange(height) + 0.5) / scale
    down = np.minimum(rows, view.height - rows)
    for box in view.boxes:
        columns = (np.arange(width) + 0.5) / scale - (box.x0 + box.shift)
        across = np.minimum(columns, box.x1 - box.x0 - columns)
        ramp = np.clip(np.minimum(down[:, None], across[None, :]) / _FADE, 0.0, 1.0)
        fade = np.maximum(fade, ramp * ramp * (3 - 2 * ramp)).astype(np.float32)
    return fade


def _box_samples(
    view: View, box: Box, scale: float, height: int, width: int, nearest: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Samples of one panel: flat indices, corners, weights, grey, light. Fills its part of `nearest`."""
    points, faces = view.project(box), view.faces(box.hemisphere)
    # Sample coordinates with centres at whole numbers, y down.
    x = points[:, 0] * scale - 0.5
    y = (view.extent[3] - points[:, 1]) * scale - 0.5
    depth = points[:, 2]
    sides = [(side + box.shift) * scale - 0.5 for side in (box.x0, box.x1)]
    if not view.flat:  # a closed surface hides the faces that look away
        (ax, bx, cx), (ay, by, cy) = x[faces].T, y[faces].T
        faces = faces[(bx - ax) * (cy - ay) - (cx - ax) * (by - ay) < 0]
    owner, share = _nearest_faces(x, y, depth, faces, sides, height, width, nearest)
    pixels = np.flatnonzero(owner >= 0)
    corners, weights = faces[owner[pixels]], share[pixels]
    half = view.surface.hemisphere(box.hemisphere)
    curvature = interpolated(half.curvature, corners, weights)
    grey = GYRUS + (SULCUS - GYRUS) * (0.5 + 0.5 * np.tanh(curvature / 0.025))
    light = np.ones(len(pixels)) if view.flat else _light(view, box, corners, weights)
    offset = view.surface.first_id(box.hemisphere)
    return pixels, (corners + offset).astype(np.int32), weights, grey.astype(np.float32), light.astype(np.float32)


def _nearest_faces(
    x: np.ndarray,
    y: np.ndarray,
    depth: np.ndarray,
    faces: np.ndarray,
    sides: list[float],
    height: int,
    width: int,
    nearest: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Of each sample the face in front, -1 for none, and its barycentric weights. (H W,), (H W, 3)."""
    fx, fy, fz = x[faces], y[faces], depth[faces]
    low_x = np.maximum(np.ceil(_across(np.minimum, fx)), max(0, np.ceil(sides[0]))).astype(np.int64)
    high_x = np.minimum(np.floor(_across(np.maximum, fx)), min(width - 1, np.floor(sides[1]))).astype(np.int64)
    low_y = np.maximum(np.ceil(_across(np.minimum, fy)), 0).astype(np.int64)
    high_y = np.minimum(np.floor(_across(np.maximum, fy)), height - 1).astype(np.int64)
    across, tall = high_x - low_x + 1, high_y - low_y + 1
    counts = np.where((across > 0) & (tall > 0), across * tall, 0)
    used = np.flatnonzero(counts)
    owner = np.full(height * width, -1, dtype=np.int64)
    share = np.zeros((height * width, 3), dtype=np.float32)
    start = 0
    ends = np.cumsum(counts[used])
    while start < len(used):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CANDIDATES)))
        face = np.repeat(used[start:stop], counts[used[start:stop]])
        step = np.arange(len(face)) - np.repeat(
            ends[start:stop] - counts[used[start:stop]] - before, counts[used[start:stop]]
        )
        column, row = low_x[face] + step % across[face], low_y[face] + step // across[face]
        (ax, bx, cx), (ay, by, cy) = fx[face].T, fy[face].T
        area = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy)
        area = np.where(area == 0, np.inf, area)
        first = ((by - cy) * (column - cx) + (cx - bx) * (row - cy)) / area
        second = ((cy - ay) * (column - cx) + (ax - cx) * (row - cy)) / area
        third = 1 - first - second
        inside = (first >= -1e-9) & (second >= -1e-9) & (third >= -1e-9) & np.isfinite(area)
        index, face = row[inside] * width + column[inside], face[inside]
        weight = np.stack([first[inside], second[inside], third[inside]], axis=1)
        height_here = weight[:, 0] * fz[face, 0] + weight[:, 1] * fz[face, 1] + weight[:, 2] * fz[face, 2]
        # Written in the order of nearness: of several faces of one sample, the last written stays.
        order = np.argsort(height_here, kind="stable")
        order = order[height_here[order] >= nearest[index[order]]]
        index, face = index[order], face[order]
        nearest[index], owner[index], share[index] = height_here[order], face, np.clip(weight[order], 0, 1)
        start = stop
    return owner, share


def _across(smaller_or_larger: np.ufunc, corners: np.ndarray) -> np.ndarray:
    """The least or largest of three columns. Faster than a reduction over such a short axis. (m, 3) -> (m,)."""
    first, second, third = corners.T
    return np.asarray(smaller_or_larger(smaller_or_larger(first, second), third))


def _light(view: View, box: Box, corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How bright each sample is: a soft lamp at the upper left behind the viewer, and light from all around. (k,)."""
    normals = (_normals(view.surface.hemisphere(box.hemisphere), view.shape) @ camera(box).T).astype(np.float32)
    across, up, towards = (interpolated(normals[:, axis], corners, weights) for axis in range(3))
    length = np.maximum(np.sqrt(across * across + up * up + towards * towards), 1e-6)
    key = np.clip((-0.38 * across + 0.52 * up + 0.765 * towards) / length, 0.0, 1.0)
    around = 0.5 + 0.5 * up / length  # brighter from above
    facing = np.clip(towards / length, 0.0, 1.0)
    return np.asarray(0.48 + 0.13 * around + 0.13 * facing + 0.34 * key)


@functools.lru_cache(maxsize=4)
def _normals(half: Hemisphere, shape: str) -> np.ndarray:
    return vertex_normals(half.points[shape], half.faces)
