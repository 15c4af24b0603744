"""Values and ROIs of a subject's vertices on a view: colours of its pixels, outlines, places for names.

Axes: V vertices of the data, n vertices of both hemispheres of the surface, k samples on the cortex (see `raster`),
p samples with data, H and W pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from brainkit.cortex.geometry import average_over_faces
from brainkit.cortex.vertices import Vertices
from brainkit.maps.outlines import Anchor, Outlines
from brainkit.maps.raster import FINER, interpolated, rasterise
from brainkit.maps.view import View

_SHARP = 24  # power of the weights when each vertex has a flat colour: its border is about a pixel wide
_ALONE = 0.5  # share of vertices without neighbours from which on they are drawn as points
_POINT = (1.0, 2.6)  # mm: smallest and largest radius of a point
_UNSHADED = 0.7  # share of a shadow that values are spared: their colours are read off the bar
_Samples = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Canvas:
    """A view of some vertices at a resolution.

    Parameters
    ----------
    vertices : Vertices
    view : View
    scale : float
        Pixels per mm.
    ids : array of shape (V,), optional
        Where vertices of the custom space lie, see `CorticalSurface.ids_of`.
    shading : {"interpolated", "flat"}
        Values between vertices: interpolated, or that of the nearest vertex, which shows noise as noise.
    points : bool, optional
        Draw each vertex as a point, without outlines of ROIs. By default if most have no neighbour with data.

    Attributes
    ----------
    shape : tuple of two int
        H and W, of the picture.
    ids : array of shape (V,)
        Where the vertices lie on the surface.
    """

    def __init__(
        self,
        vertices: Vertices,
        view: View,
        scale: float,
        *,
        ids: np.ndarray | None = None,
        shading: Literal["interpolated", "flat"] = "interpolated",
        points: bool | None = None,
    ) -> None:
        self.vertices, self.view = vertices, view
        self.ids = view.surface.ids_of(vertices, ids)
        self._raster = rasterise(view, round(scale, 4))
        self._finer = 1 if view.flat else FINER
        height, width = self._raster.shape
        self.shape = (height // self._finer, width // self._finer)
        self._outlines = Outlines(view, self._raster, self.ids)
        self.points = self._outlines.alone > _ALONE if points is None else points
        if shading == "flat":
            self._weights = self._raster.weights**_SHARP
            self._weights /= self._weights.sum(axis=1, keepdims=True)
        else:
            self._weights = self._raster.weights
        self._last: tuple[np.ndarray, _Samples] | None = None  # valid vertices and their samples

    def paint(
        self, values: np.ndarray, valid: np.ndarray, rank: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The values of the samples.

        Parameters
        ----------
        values : array of shape (V,) or (V, K)
        valid : array of shape (V,), bool
        rank : array of shape (V,), optional
            Not used: on a surface, vertices do not lie behind each other as voxels do, see `GlassBrain.paint`.

        Returns
        -------
        pixels : array of shape (p,)
            Indices of the samples with data, among the k.
        painted : array of shape (p,) or (p, K), float32
        alpha : array of shape (p,), float32
            0 .. 1; the edge is a pixel wide, about halfway between vertices with and without data.
        """
        valid = np.asarray(valid, dtype=bool)
        if self.points:
            pixels, position, alpha = self._discs
            known = valid[position]
            return pixels[known], np.asarray(values, dtype=np.float32)[position[known]], alpha[known]
        if self._last is None or not np.array_equal(valid, self._last[0]):  # the maps of a series have the same
            self._last = valid.copy(), self._samples_of(valid)
        pixels, corners, weights, alpha = self._last[1]
        full = np.zeros((len(self.view.surface), *np.shape(values)[1:]), dtype=np.float32)
        full[self.ids[valid]] = np.asarray(values, dtype=np.float32)[valid]
        return pixels, interpolated(full, corners, weights), alpha

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
        cortex = np.repeat(raster.grey[:, None], 3, axis=1)
        cortex[pixels] += alpha[:, None] * (colours.astype(np.float32) - cortex[pixels])
        height, width = raster.shape
        if self.view.flat:
            outside, mean, opacity = self._outer_edge
            flat = np.zeros((height * width, 4), dtype=np.uint8)
            flat[raster.pixels, :3] = _bytes(cortex)
            flat[outside, :3] = _bytes(mean @ cortex)
            flat[:, 3] = opacity.ravel()
            return flat.reshape(height, width, 4)
        assert raster.light is not None
        filled = np.zeros((height * width, 4), dtype=np.float32)
        light = raster.light.copy()
        light[pixels] += _UNSHADED * alpha * (1.0 - light[pixels])
        filled[raster.pixels, :3] = cortex * light[:, None]
        filled[raster.pixels, 3] = 1.0
        image = _halved(filled.reshape(height, width, 4))
        image[..., :3] /= np.maximum(image[..., 3:], 1e-6)
        return _bytes(image)

    def smooth_colours(self, pixels: np.ndarray, colours: np.ndarray) -> np.ndarray:
        """Soften the borders between uniform areas by about a pixel. (p, 3) -> (p, 3)."""
        height, width = self._raster.shape
        image = np.zeros((height * width, 4), dtype=np.float32)
        index = self._raster.pixels[pixels]
        image[index, :3], image[index, 3] = colours, 1.0
        blurred = _blur(image.reshape(height, width, 4)).reshape(-1, 4)[index]
        return blurred[:, :3] / blurred[:, 3:]

    def smooth(self, values: np.ndarray, valid: np.ndarray, passes: int) -> np.ndarray:
        """Average the valid vertices' values over the faces around them, `passes` times. (V,) or (V, K), as given."""
        known = np.zeros(len(self.view.surface))
        known[self.ids[valid]] = 1.0
        near = average_over_faces(known, self._outlines.faces)
        columns = np.asarray(values, dtype=np.float64).reshape(len(values), -1).T.copy()
        for column in columns:
            for _ in range(passes):
                full = np.zeros(len(known))
                full[self.ids[valid]] = column[valid]
                mean = average_over_faces(full, self._outlines.faces)[self.ids] / np.maximum(near[self.ids], 1e-12)
                column[valid & (near[self.ids] > 0)] = mean[valid & (near[self.ids] > 0)]
        return columns.T.reshape(np.shape(values))

    def outline(self, positions: np.ndarray) -> np.ndarray:
        """Visible border of an ROI as segments of shape (s, 2, 2) in the common plane; none around points."""
        return np.empty((0, 2, 2)) if self.points else self._outlines.border(positions)

    def anchors(self, positions: np.ndarray, outline: np.ndarray) -> Sequence[Anchor]:
        """Where an ROI's name may stand: on each of its larger pieces that are visible, far from their borders."""
        return self._outlines.anchors(positions, outline, scattered=self.points)

    def _samples_of(self, valid: np.ndarray) -> _Samples:
        """The samples with data, among the k; their corners and weights, (p, 3); how much they cover, (p,)."""
        known = np.zeros(len(self.view.surface), dtype=np.float32)
        known[self.ids[valid]] = 1.0
        pixels = np.flatnonzero(interpolated(known, self._raster.corners, self._weights) > 0)
        corners = self._raster.corners[pixels]
        weights = self._weights[pixels] * known[corners]
        weights /= weights.sum(axis=1, keepdims=True)
        return pixels, corners, weights, self._soft_edge(self._covered(valid))[pixels]

    @functools.cached_property
    def _outer_edge(self) -> tuple[np.ndarray, Any, np.ndarray]:
        """The edge of a flatmap, softened over three pixels: those outside that take colours of the samples inside.

        Flat indices (e,); the weights of the samples, a sparse array (e, k); the opacity of all pixels, uint8 (H, W).
        """
        from scipy.sparse import csr_array

        raster = self._raster
        height, width = raster.shape
        inside = np.zeros((height, width), dtype=np.float32)
        inside.ravel()[raster.pixels] = 1.0
        opacity = _blur(inside)
        outside = np.flatnonzero((inside == 0) & (opacity > 0))
        sample = np.full((height + 2, width + 2), -1)  # with a margin, so that all pixels have eight neighbours
        sample[1 + raster.pixels // width, 1 + raster.pixels % width] = np.arange(len(raster.pixels))
        steps = np.arange(3)
        near = sample[(outside // width)[:, None, None] + steps[:, None], (outside % width)[:, None, None] + steps]
        weights = np.where(near >= 0, np.outer([1, 2, 1], [1, 2, 1]), 0).astype(np.float32)
        weights /= weights.sum(axis=(1, 2), keepdims=True)
        edge, row, column = np.nonzero(weights)
        places = edge, near[edge, row, column]
        mean = csr_array((weights[edge, row, column], places), shape=(len(outside), len(raster.pixels)))
        return outside, mean, _bytes(opacity if raster.fade is None else opacity * raster.fade)

    @functools.cached_property
    def _discs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Samples near a vertex of the data, the nearest one's position among the V, and how much it covers. (p,) each.

        Near in the brain's space, so that points lie on the surface and none shows through it.
        """
        from scipy.spatial import cKDTree

        raster, surface = self._raster, self.view.surface
        halves = [surface.hemisphere(name).points[self.view.shape].astype(np.float64) for name in ("left", "right")]
        halves[1] = halves[1] + [1e4, 0.0, 0.0]  # never near the other hemisphere
        places = np.concatenate(halves)
        if self.view.flat:
            places[:, 2] = 0.0
        drawn = self._outlines.drawn[self.ids]
        positions = np.flatnonzero(drawn)
        tree = cKDTree(places[self.ids[positions]])
        spacing = tree.query(places[self.ids[positions]], k=2)[0][:, 1] if len(positions) > 1 else np.array([np.inf])
        radius = max(float(np.clip(0.45 * np.median(spacing), *_POINT)), 2.2 * self._finer / raster.scale)
        at = interpolated(places, raster.corners, raster.weights)
        distance, found = tree.query(at, distance_upper_bound=radius + 1 / raster.scale)
        pixels = np.flatnonzero(np.isfinite(distance))
        cover = np.clip((radius - distance[pixels]) * raster.scale + 0.5, 0.0, 1.0)
        return pixels, positions[found[pixels]], cover.astype(np.float32)

    def _covered(self, valid: np.ndarray) -> np.ndarray:
        """A field over the samples that crosses 0.5 at the edge of the data, without the zigzag of the mesh. (k,).

        Vertices with data stay inside, and vertices of the subject without data outside: smoothing may round the outer
        edge, but must neither hide data nor fill holes.
        """
        data, gaps = self.ids[valid], self.ids[~valid]
        field = self._outlines.smoothed(data)
        # A single vertex among the other kind would shrink to a dot, so it is reset to 0 or 1.
        field[data] = np.where(field[data] < 0.35, 1.0, np.maximum(field[data], 0.52))
        field[gaps] = np.where(field[gaps] > 0.65, 0.0, np.minimum(field[gaps], 0.48))
        return interpolated(field, self._raster.corners, self._raster.weights)

    def _soft_edge(self, field: np.ndarray) -> np.ndarray:
        """Turn a field that crosses 0.5 at an edge into an edge one sample wide. (k,) -> (k,)."""
        image = np.zeros(self._raster.shape, dtype=np.float32)
        image.ravel()[self._raster.pixels] = field
        down, across = np.gradient(image)
        slope = np.maximum(np.hypot(down, across), 1e-3)
        edge = np.clip((image - 0.5) / slope + 0.5, 0.0, 1.0)
        edge[image > 0.95] = 1.0  # flat inside, where the slope means nothing
        return edge.ravel()[self._raster.pixels]


def _bytes(levels: np.ndarray) -> np.ndarray:
    """Levels in [0, 1] as uint8."""
    return np.rint(np.clip(levels, 0, 1) * 255).astype(np.uint8)


def _blur(image: np.ndarray) -> np.ndarray:
    """A [1 2 1] / 4 filter along both axes, zero beyond the border."""
    for axis in (0, 1):
        padded = np.moveaxis(_padded(image, axis), axis, 0)
        image = 0.25 * np.moveaxis(padded[:-2] + padded[2:], 0, axis) + 0.5 * image
    return image


def _halved(image: np.ndarray) -> np.ndarray:
    """Half as many rows and columns, each from four by [1 3 3 1] / 8; zero beyond the border."""
    for axis in (0, 1):
        padded = np.moveaxis(_padded(image, axis), axis, 0)
        mean = (padded[:-2:2] + 3 * padded[1:-1:2] + 3 * padded[2::2] + padded[3::2]) / 8
        image = np.moveaxis(mean, 0, axis)
    return image


def _padded(image: np.ndarray, axis: int) -> np.ndarray:
    """With a zero before and after along an axis."""
    return np.pad(image, [(1, 1) if i == axis else (0, 0) for i in range(image.ndim)])
