"""Voxels without a surface: three projections through the volume, each over the silhouette of its own voxels.

There is no brain around it but that of the voxels themselves: where the brain's surface would be is not known.

Axes: V voxels, k pixels within a silhouette, p pixels with data, H and W pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from brainkit.cortex.vertices import Vertices
from brainkit.cortex.volume import Volume
from brainkit.maps.outlines import Anchor
from brainkit.maps.panels import Box, Layout

GREY = 0.86  # of a silhouette
_GAP = 10.0  # mm between the panels
_MARGIN = 4.0  # mm
_RIM = 0.62  # grey of a silhouette's edge


@dataclass(frozen=True)
class _Plane:
    """A projection: the axes of the volume, once turned to right, front and up, that are across and up."""

    across: int
    up: int
    caption: str


_PLANES = (
    _Plane(1, 2, "P   sagittal   A"),
    _Plane(0, 2, "L   coronal   R"),
    _Plane(0, 1, "L   axial   R"),
)


class GlassBrain:
    """Three projections of voxels at a resolution; painted and composed as a `Canvas` is.

    Parameters
    ----------
    volume : Volume
        Of oblique volumes, the projections are along their own axes.
    inches : tuple of two float
        Room for the picture, which chooses the scale.
    dpi : float

    Attributes
    ----------
    vertices : Vertices
        The V voxels.
    view : Layout
    shape : tuple of two int
        H and W.
    """

    points = False

    def __init__(self, volume: Volume, inches: tuple[float, float], dpi: float) -> None:
        self.vertices = Vertices.custom(len(volume.voxels))
        self._turned, self._size = _turned(volume)
        self.view = self._layout()
        per_mm = dpi * min(inches[0] / self.view.width, inches[1] / self.view.height)
        self._per_mm = per_mm
        self.shape = (max(1, round(self.view.height * per_mm)), max(1, round(self.view.width * per_mm)))

    def paint(
        self, values: np.ndarray, valid: np.ndarray, rank: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The values of the pixels: of the voxels along a line, that with the largest rank.

        Parameters
        ----------
        values : array of shape (V,) or (V, K)
        valid : array of shape (V,), bool
        rank : array of shape (V,), optional
            By default the absolute value of (V,), so that the extreme of a line is seen; the mean of a line is drawn of
            (V, K), where no column says which voxel matters.

        Returns
        -------
        pixels : array of shape (p,)
            Indices of the pixels with data, among the k.
        painted : array of shape (p,) or (p, K), float32
        alpha : array of shape (p,), float32
            All 1.
        """
        values, valid = np.asarray(values, dtype=np.float32), np.asarray(valid, dtype=bool)
        if rank is None and values.ndim == 1:
            rank = np.abs(values)
        cells, cell_of_pixel = self._cells
        count = int(cells.max(initial=-1)) + 1
        seen = np.bincount(cells[:, valid].ravel(), minlength=count)
        if rank is None:
            columns = values.reshape(len(values), -1)[valid]
            sums = [np.bincount(cells[:, valid].ravel(), np.tile(column, len(cells)), count) for column in columns.T]
            means = np.stack(sums, axis=1) / np.maximum(seen, 1)[:, None]
            drawn = means.astype(np.float32).reshape(count, *values.shape[1:])
        else:
            order = np.flatnonzero(valid)[np.argsort(np.asarray(rank)[valid], kind="stable")]
            winner = np.zeros(count, dtype=np.intp)
            for row in cells:
                winner[row[order]] = order  # the last written has the largest rank
            drawn = values[winner]
        pixels = np.flatnonzero(seen[cell_of_pixel] > 0)
        return pixels, drawn[cell_of_pixel[pixels]], np.ones(len(pixels), dtype=np.float32)

    def compose(self, pixels: np.ndarray, colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        """Blend colours with the silhouettes: as `Canvas.compose`, (H, W, 4), uint8."""
        from scipy.ndimage import binary_erosion

        at = self._silhouette
        image = np.zeros((self.shape[0] * self.shape[1], 4), dtype=np.float32)
        image[at] = [GREY, GREY, GREY, 1.0]
        image[at[pixels], :3] += alpha[:, None] * (colours - GREY)
        inside = (image[:, 3] > 0).reshape(self.shape)
        image[(inside & ~binary_erosion(inside)).ravel(), :3] = _RIM  # values near white have an edge too
        return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8).reshape(*self.shape, 4)

    def smooth_colours(self, pixels: np.ndarray, colours: np.ndarray) -> np.ndarray:
        """As given: voxels have edges. (p, 3)."""
        return colours

    def outline(self, positions: np.ndarray) -> np.ndarray:
        """Border of an ROI's projections as segments of shape (s, 2, 2) in the common plane."""
        found = [np.empty((0, 2, 2))]
        for plane, box in zip(_PLANES, self.view.boxes, strict=True):
            axes = [plane.across, plane.up]
            filled = np.zeros(self._turned.max(axis=0, initial=0)[axes] + 1, dtype=bool)
            filled[tuple(self._turned[positions][:, axes].T)] = True
            found.append(_borders(filled) * self._size[axes] + [box.shift, box.lift])
        return np.concatenate(found)

    def anchors(self, positions: np.ndarray, outline: np.ndarray) -> Sequence[Anchor]:
        """The voxel nearest to the ROI's middle, in the projection that shows most of it."""
        if not len(positions):
            return []
        best = []
        for plane, box in zip(_PLANES, self.view.boxes, strict=True):
            axes = [plane.across, plane.up]
            cells = np.unique(self._turned[positions][:, axes], axis=0)
            places = (cells + 0.5) * self._size[axes] + [box.shift, box.lift]
            x, y = places[np.square(places - places.mean(axis=0)).sum(axis=1).argmin()]
            best.append(Anchor(float(x), float(y), float(len(cells) * np.prod(self._size[axes]))))
        return [max(best, key=lambda anchor: anchor.area)]

    def _layout(self) -> Layout:
        boxes, edge = [], 0.0
        extent = (self._turned.max(axis=0, initial=0) + 1) * self._size
        height = max(extent[plane.up] for plane in _PLANES)
        for plane in _PLANES:
            width, tall = float(extent[plane.across]), float(extent[plane.up])
            lift = (height - tall) / 2
            # A box starts at the first voxel's edge, so that shift and lift place the voxels.
            bounds = -_MARGIN, width + _MARGIN, -_MARGIN, tall + _MARGIN
            boxes.append(Box("", *bounds, edge + _MARGIN, float(lift), plane.caption))
            edge += width + 2 * _MARGIN + _GAP
        return Layout(tuple(boxes), False)

    @functools.cached_property
    def _cells(self) -> tuple[np.ndarray, np.ndarray]:
        """The cell of each voxel in each projection, (3, V), and that of each of the k pixels."""
        return self._rastered[:2]

    @functools.cached_property
    def _silhouette(self) -> np.ndarray:
        """Flat indices of the k pixels."""
        return self._rastered[2]

    @functools.cached_property
    def _rastered(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        height, width = self.shape
        left, _, _, top = self.view.extent
        x = left + (np.arange(width) + 0.5) / self._per_mm
        y = top - (np.arange(height) + 0.5) / self._per_mm
        cells, of_pixel, flat, first = [], [], [], 0
        for plane, box in zip(_PLANES, self.view.boxes, strict=True):
            axes = [plane.across, plane.up]
            across, up = self._turned.max(axis=0, initial=0)[axes] + 1
            cell = self._turned[:, plane.across] * up + self._turned[:, plane.up]
            filled = np.zeros(across * up, dtype=bool)
            filled[cell] = True
            column = np.floor((x - box.shift) / self._size[plane.across]).astype(np.intp)
            row = np.floor((y - box.lift) / self._size[plane.up]).astype(np.intp)
            columns, rows = np.flatnonzero((column >= 0) & (column < across)), np.flatnonzero((row >= 0) & (row < up))
            here = column[columns][None, :] * up + row[rows][:, None]
            index = rows[:, None] * width + columns[None, :]
            cells.append(first + cell)
            of_pixel.append(first + here[filled[here]])
            flat.append(index[filled[here]])
            first += across * up
        return np.stack(cells), np.concatenate(of_pixel), np.concatenate(flat)


def _turned(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Voxels along axes that run most nearly right, front and up, from 0, and the voxels' size along them in mm."""
    from nibabel.orientations import io_orientation

    voxels = np.empty((len(volume.voxels), 3), dtype=np.intp)
    size = np.empty(3)
    for axis, (to, sign) in enumerate(io_orientation(volume.affine)):
        along = volume.voxels[:, axis].astype(np.intp)
        voxels[:, int(to)] = along if sign > 0 else volume.shape[axis] - 1 - along
        size[int(to)] = np.linalg.norm(volume.affine[:3, axis])
    return voxels - voxels.min(axis=0, initial=max(volume.shape)) if len(voxels) else voxels, size


def _borders(filled: np.ndarray) -> np.ndarray:
    """Sides of the cells of a grid, (a, u) bool, between those filled and the others. (s, 2, 2), in cells."""
    padded = np.pad(filled, 1)
    upright = np.argwhere(padded[1:] != padded[:-1]) - [0, 1]
    level = np.argwhere(padded[:, 1:] != padded[:, :-1]) - [1, 0]
    return np.concatenate([np.stack([upright, upright + [0, 1]], axis=1), np.stack([level, level + [1, 0]], axis=1)])
