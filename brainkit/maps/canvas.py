"""The flatmap as pixels: the triangle of each pixel, computed once per view, and values interpolated in it.

Axes: V vertices of the data, n vertices of both hemispheres of the space, k pixels on the cortex, H and W pixels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from brainkit.cortex.surface import mesh, scalar
from brainkit.cortex.vertices import SPACES, Vertices
from brainkit.maps.view import Box, View, hemisphere_on_flatmap

GYRUS, SULCUS = 0.86, 0.74  # light greys, so that the data stand out
_FADE = 5.0  # mm over which a cropped map fades out
_CANDIDATES = 1 << 20  # pixel-triangle pairs tested at once: bounds the memory
_SMOOTHING = {"fsaverage5": 1, "fsaverage6": 3, "fsaverage": 8}  # passes; outlines are equally smooth in mm


class Canvas:
    """A view of some vertices at a resolution.

    Parameters
    ----------
    vertices : Vertices
        In an fsaverage space.
    view : View
    scale : float
        Pixels per mm.
    """

    def __init__(self, vertices: Vertices, view: View, scale: float) -> None:
        self.vertices, self.view = vertices, view
        self._raster = _rasterise(view, round(scale, 4))
        self.shape = self._raster.shape
        self._count = 2 * SPACES[vertices.space]

    def paint(self, values: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Interpolate values between the valid vertices.

        Parameters
        ----------
        values : array of shape (V,) or (V, K)
        valid : array of shape (V,), bool

        Returns
        -------
        pixels : array of shape (p,)
            Indices of the pixels with data, among the k.
        painted : array of shape (p,) or (p, K), float32
        alpha : array of shape (p,), float32
            0 .. 1; the edge is a pixel wide, about halfway between vertices with and without data.
        """
        raster, valid = self._raster, np.asarray(valid, dtype=bool)
        known = np.zeros(self._count, dtype=np.float32)
        known[self.vertices.ids[valid]] = 1.0
        share = (raster.weights * known[raster.corners]).sum(axis=1)
        pixels = np.flatnonzero(share > 0)
        corners = raster.corners[pixels]
        weights = raster.weights[pixels] * known[corners]
        weights /= weights.sum(axis=1, keepdims=True)
        full = np.zeros((self._count, *np.shape(values)[1:]), dtype=np.float32)
        full[self.vertices.ids[valid]] = np.asarray(values, dtype=np.float32)[valid]
        if full.ndim == 1:
            painted = (weights * full[corners]).sum(axis=1)
        else:  # one corner at a time: (p, 3, K) would be large
            painted = sum(weights[:, i, None] * full[corners[:, i]] for i in range(3))
        return pixels, painted, self._soft_edge(self._covered(valid))[pixels]

    def compose(self, pixels: np.ndarray, colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        """Blend colours with the curvature.

        Parameters
        ----------
        pixels : array of shape (p,)
        colours : array of shape (p, 3), in [0, 1]
        alpha : array of shape (p,), in [0, 1]

        Returns
        -------
        array of shape (H, W, 4), uint8
            RGBA, transparent outside the cortex.
        """
        raster = self._raster
        flat = np.repeat(raster.grey[:, None], 3, axis=1)
        flat[pixels] += alpha[:, None] * (colours - flat[pixels])
        height, width = self.shape
        filled = np.zeros((height * width, 4), dtype=np.float32)
        filled[raster.pixels, :3] = flat
        filled[raster.pixels, 3] = 1.0
        image = filled.reshape(height, width, 4)
        # The outer edge is softened over three pixels; the pixels outside take the colours of those inside.
        blurred = _blur(image)
        outside = (image[..., 3] == 0) & (blurred[..., 3] > 0)
        image[outside, :3] = blurred[outside, :3] / blurred[outside, 3:]
        image[..., 3] = blurred[..., 3] * raster.fade
        return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)

    def smooth_colours(self, pixels: np.ndarray, colours: np.ndarray) -> np.ndarray:
        """Soften the borders between uniform areas by about a pixel. (p, 3) -> (p, 3)."""
        height, width = self.shape
        image = np.zeros((height * width, 4), dtype=np.float32)
        index = self._raster.pixels[pixels]
        image[index, :3], image[index, 3] = colours, 1.0
        blurred = _blur(image.reshape(height, width, 4)).reshape(-1, 4)[index]
        return blurred[:, :3] / blurred[:, 3:]

    def outline(self, positions: np.ndarray) -> np.ndarray:
        """Border of a region as line segments of shape (s, 2, 2) in the common plane (mm)."""
        faces, points = self._near_faces, self._plane
        smooth = self._smoothed(self.vertices.ids[positions])
        if smooth.max(initial=0.0) <= 0.55:  # a region of a few vertices would vanish
            smooth = np.zeros(self._count)
            smooth[self.vertices.ids[positions]] = 1.0
        inside = smooth[faces] > 0.5
        mixed = inside.any(axis=1) & ~inside.all(axis=1)
        faces, inside = faces[mixed], inside[mixed]
        # The corner that differs from the other two is put first; the border crosses its two edges.
        odd = np.where(inside.sum(axis=1) == 1, inside.argmax(axis=1), inside.argmin(axis=1))
        rolled = faces[np.arange(len(faces))[:, None], (odd[:, None] + np.arange(3)) % 3]
        start = rolled[:, :1].repeat(2, axis=1)
        end = rolled[:, 1:]
        along = ((0.5 - smooth[start]) / (smooth[end] - smooth[start]))[..., None]
        return points[start] + along * (points[end] - points[start])

    def anchors(self, positions: np.ndarray, outline: np.ndarray) -> list[tuple[float, float]]:
        """Positions of a region's name: in each hemisphere shown, its vertex in view that is farthest from a border."""
        found = []
        ids = self.vertices.ids[positions]
        border = outline.mean(axis=1)
        border = np.concatenate([border[:: len(border) // 400 + 1], self._rim])
        for box in self.view.boxes:
            points = self._plane[_of_hemisphere(ids, self.view.space, box.hemisphere)]
            points = points[np.isfinite(points).all(axis=1)]
            points = points[:: len(points) // 400 + 1]
            if not len(points):
                continue
            # Names are wide, so horizontal distance counts half.
            squares = np.square((points[:, None] - border[None]) * [0.5, 1.0]).sum(axis=2).min(axis=1, initial=np.inf)
            distance = np.minimum(np.sqrt(squares), 1e3)
            from_centre = np.hypot(*(points - points.mean(axis=0)).T)
            best = points[(distance - 0.1 * from_centre).argmax()]
            found.append((float(best[0]), float(best[1])))
        return found

    @functools.cached_property
    def _plane(self) -> np.ndarray:
        """Vertices of both hemispheres in the common plane; NaN if not in view. (n, 2)."""
        half = self._count // 2
        plane = np.full((self._count, 2), np.nan)
        for box in self.view.boxes:
            points = mesh(self.view.space, box.hemisphere, "flat")[0][:, :2]
            x, y = points.T
            in_view = (
                hemisphere_on_flatmap(self.view.space, box.hemisphere)
                & (x > box.x0)
                & (x < box.x1)
                & (y > box.y0)
                & (y < box.y1)
            )
            start = 0 if box.hemisphere == "left" else half
            plane[start : start + half][in_view] = points[in_view] + [box.shift, 0.0]
        return plane

    @functools.cached_property
    def _near_faces(self) -> np.ndarray:
        """Faces in view at and around the vertices with data. (m, 3)."""
        parts = []
        for box in self.view.boxes:
            faces = mesh(self.view.space, box.hemisphere, "flat")[1]
            parts.append(faces + (0 if box.hemisphere == "left" else self._count // 2))
        faces = np.concatenate(parts)
        faces = faces[np.isfinite(self._plane[faces, 0]).all(axis=1)]
        near = np.zeros(self._count, dtype=bool)
        near[self.vertices.ids] = True
        for _ in range(_SMOOTHING[self.view.space]):  # as far as smoothing reaches
            near[faces[near[faces].any(axis=1)]] = True
        return faces[near[faces].any(axis=1)]

    @functools.cached_property
    def _rim(self) -> np.ndarray:
        """Points on the edge of the flatmap itself, at most 400 per hemisphere. (p, 2)."""
        found = []
        for box in self.view.boxes:
            faces = mesh(self.view.space, box.hemisphere, "flat")[1]
            edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
            count = SPACES[self.view.space]
            code, times = np.unique(edges[:, 0].astype(np.int64) * count + edges[:, 1], return_counts=True)
            start = 0 if box.hemisphere == "left" else count
            first, second = (self._plane[ends + start] for ends in np.divmod(code[times == 1], count))
            # Some edges along the cuts are long, so there are several points on each.
            points = np.concatenate([first + along * (second - first) for along in (0.0, 0.25, 0.5, 0.75)])
            points = points[np.isfinite(points[:, 0])]
            found.append(points[:: len(points) // 400 + 1])
        return np.concatenate(found)

    def _smoothed(self, ids: np.ndarray) -> np.ndarray:
        """1 at these vertices and 0 elsewhere, averaged over neighbours a few times. (n,)."""
        smooth = np.zeros(self._count)
        smooth[ids] = 1.0
        faces = self._near_faces
        weight = np.maximum(np.bincount(faces.ravel(), minlength=self._count), 1)
        for _ in range(_SMOOTHING[self.view.space]):
            mean = np.repeat(smooth[faces].mean(axis=1), 3)
            smooth = np.bincount(faces.ravel(), weights=mean, minlength=self._count) / weight
        return smooth

    def _covered(self, valid: np.ndarray) -> np.ndarray:
        """A field over the pixels that crosses 0.5 at the edge of the data, without the zigzag of the mesh. (k,).

        Vertices with data stay inside, and vertices of the subject without data outside: smoothing may round the outer
        edge, but must neither hide data nor fill holes.
        """
        data, gaps = self.vertices.ids[valid], self.vertices.ids[~valid]
        field = self._smoothed(data)
        # A single vertex among the other kind would shrink to a dot, so it is reset to 0 or 1.
        field[data] = np.where(field[data] < 0.35, 1.0, np.maximum(field[data], 0.52))
        field[gaps] = np.where(field[gaps] > 0.65, 0.0, np.minimum(field[gaps], 0.48))
        return (self._raster.weights * field[self._raster.corners]).sum(axis=1)

    def _soft_edge(self, field: np.ndarray) -> np.ndarray:
        """Turn a field that crosses 0.5 at an edge into an edge one pixel wide. (k,) -> (k,)."""
        image = np.zeros(self.shape, dtype=np.float32)
        image.ravel()[self._raster.pixels] = field
        down, across = np.gradient(image)
        slope = np.maximum(np.hypot(down, across), 1e-3)
        edge = np.clip((image - 0.5) / slope + 0.5, 0.0, 1.0)
        edge[image > 0.95] = 1.0  # flat inside, where the slope means nothing
        return edge.ravel()[self._raster.pixels]


@dataclass(frozen=True)
class _Raster:
    shape: tuple[int, int]
    pixels: np.ndarray  # (k,) flat indices, row 0 at the top
    corners: np.ndarray  # (k, 3) vertices of the triangle, right hemisphere offset
    weights: np.ndarray  # (k, 3) barycentric
    grey: np.ndarray  # (k,) curvature as grey
    fade: np.ndarray  # (H, W) 1 inside, falling to 0 at cropped sides


@functools.lru_cache(maxsize=6)
def _rasterise(view: View, scale: float) -> _Raster:
    height, width = max(1, round(view.height * scale)), max(1, round(view.width * scale))
    parts = [_box_pixels(view, box, scale, height, width) for box in view.boxes]
    pixels, corners, weights, grey = (np.concatenate(column) for column in zip(*parts, strict=True))
    fade = np.ones((height, width), dtype=np.float32)
    if view.cropped:
        fade[:] = 0.0
        rows = (np.arange(height) + 0.5) / scale
        down = np.minimum(rows, view.height - rows)
        for box in view.boxes:
            columns = (np.arange(width) + 0.5) / scale - (box.x0 + box.shift)
            across = np.minimum(columns, box.x1 - box.x0 - columns)
            ramp = np.clip(np.minimum(down[:, None], across[None, :]) / _FADE, 0.0, 1.0)
            fade = np.maximum(fade, ramp * ramp * (3 - 2 * ramp)).astype(np.float32)
    return _Raster((height, width), pixels, corners, weights, grey, fade)


def _box_pixels(view: View, box: Box, scale: float, height: int, width: int) -> tuple[np.ndarray, ...]:
    """Pixels of one hemisphere: flat indices, corners, weights, grey."""
    points, faces = mesh(view.space, box.hemisphere, "flat")
    # Pixel coordinates with centres at whole numbers, y down.
    x = (points[:, 0] + box.shift) * scale - 0.5
    y = (box.y1 - points[:, 1]) * scale - 0.5
    left, right = (box.x0 + box.shift) * scale - 0.5, (box.x1 + box.shift) * scale - 0.5
    fx, fy = x[faces], y[faces]
    low_x = np.maximum(np.ceil(fx.min(axis=1)), max(0, np.ceil(left))).astype(np.int64)
    high_x = np.minimum(np.floor(fx.max(axis=1)), min(width - 1, np.floor(right))).astype(np.int64)
    low_y = np.maximum(np.ceil(fy.min(axis=1)), 0).astype(np.int64)
    high_y = np.minimum(np.floor(fy.max(axis=1)), height - 1).astype(np.int64)
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
        weight = np.stack([first, second, 1 - first - second], axis=1)
        inside = (weight >= -1e-9).all(axis=1) & np.isfinite(area)
        index = row[inside] * width + column[inside]
        owner[index], share[index] = face[inside], np.clip(weight[inside], 0, 1)
        start = stop
    pixels = np.flatnonzero(owner >= 0)
    corners, weights = faces[owner[pixels]], share[pixels]
    curvature = (scalar(view.space, box.hemisphere, "curv")[corners] * weights).sum(axis=1)
    grey = GYRUS + (SULCUS - GYRUS) * (0.5 + 0.5 * np.tanh(curvature / 0.025))
    offset = 0 if box.hemisphere == "left" else SPACES[view.space]
    return pixels, (corners + offset).astype(np.int32), weights, grey.astype(np.float32)


def _of_hemisphere(ids: np.ndarray, space: str, hemisphere: str) -> np.ndarray:
    return ids[(ids < SPACES[space]) == (hemisphere == "left")]


def _blur(image: np.ndarray) -> np.ndarray:
    """A [1 2 1] / 4 filter along both axes, zero beyond the border."""
    for axis in (0, 1):
        padded = np.pad(image, [(1, 1) if i == axis else (0, 0) for i in range(image.ndim)])
        size = image.shape[axis]
        before, after = (padded.take(range(start, start + size), axis=axis) for start in (0, 2))
        image = 0.25 * (before + after) + 0.5 * image
    return image
