"""Three projections of voxels."""

from __future__ import annotations

import numpy as np
import pytest
from map_pixels import words

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.cortex.volume import Volume
from brainkit.maps import definitions
from brainkit.maps.brain_map import MapSet
from brainkit.maps.figure import MapFigure
from brainkit.maps.glass_brain import GlassBrain
from brainkit.maps.style import DEFAULT

SHAPE = (10, 12, 8)


def ball(affine=None):
    """Voxels of an ellipsoid, and their mm."""
    affine = np.diag([2.0, 2, 2, 1]) if affine is None else affine
    voxels = np.argwhere(np.ones(SHAPE))
    middle = (np.array(SHAPE) - 1) / 2
    voxels = voxels[(np.square((voxels - middle) / middle)).sum(axis=1) < 1]
    return Volume(SHAPE, affine, voxels), voxels @ affine[:3, :3].T + affine[:3, 3]


def panels(glass, values, valid=None, rank=None):
    """The three projections as grey pictures, NaN where no voxel has a value."""
    valid = np.ones(len(values), bool) if valid is None else valid
    pixels, painted, _ = glass.paint(values, valid, rank)
    image = np.full(glass.shape[0] * glass.shape[1], np.nan)
    image[glass._silhouette[pixels]] = painted if painted.ndim == 1 else painted[:, 0]
    image = image.reshape(glass.shape)
    per_mm = glass.shape[1] / glass.view.width
    edges = [(round((box.x0 + box.shift) * per_mm), round((box.x1 + box.shift) * per_mm)) for box in glass.view.boxes]
    return [image[:, start:stop] for start, stop in edges]


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_right_front_and_up_are_where_the_captions_say(flips):
    affine = np.diag([2.0 * flips[0], 2.0 * flips[1], 2.0 * flips[2], 1])
    volume, mm = ball(affine)
    glass = GlassBrain(volume, (6.0, 3.0), 100)
    assert [box.caption.split() for box in glass.view.boxes] == [
        ["P", "sagittal", "A"],
        ["L", "coronal", "R"],
        ["L", "axial", "R"],
    ]
    for axis, across, up in ((0, (1, 2), None), (1, (0,), (2,)), (2, (), (0, 1))):
        middle = np.median(mm[:, axis])
        values = (mm[:, axis] > middle).astype(float)
        drawn = panels(glass, values)
        for index in across:
            picture = drawn[index]
            half = picture.shape[1] // 2
            assert np.nanmean(picture[:, half:]) > 0.8 > 0.3 > np.nanmean(picture[:, :half])
        for index in up or ():
            rows = np.flatnonzero(np.isfinite(drawn[index]).any(axis=1))
            half = int(rows.mean())
            assert np.nanmean(drawn[index][:half]) > 0.8 > 0.3 > np.nanmean(drawn[index][half + 1 :])


def test_the_extreme_of_a_line_is_seen_and_several_columns_are_averaged():
    volume, _ = ball()
    glass = GlassBrain(volume, (6.0, 3.0), 100)
    values = np.full(len(volume.voxels), 0.1)
    inner = np.flatnonzero((volume.voxels == [5, 6, 4]).all(axis=1))
    values[inner] = -3.0
    assert all(np.nanmin(picture) == -3 for picture in panels(glass, values))
    assert all(np.nanmin(picture) > -1 for picture in panels(glass, values[:, None]))
    assert all(np.nanmin(picture) == -3 for picture in panels(glass, values[:, None], rank=np.abs(values)))
    valid = values > 0
    assert all(np.nanmin(picture) == pytest.approx(0.1) for picture in panels(glass, values, valid))


def test_what_is_unknown_is_a_silhouette():
    volume, _ = ball()
    glass = GlassBrain(volume, (6.0, 3.0), 100)
    pixels, _, alpha = glass.paint(np.zeros(len(volume.voxels)), np.zeros(len(volume.voxels), bool))
    assert len(pixels) == 0
    image = glass.compose(pixels, np.empty((0, 3)), alpha)
    assert image.shape == (*glass.shape, 4) and 0.2 < (image[..., 3] > 0).mean() < 0.9
    assert len(np.unique(image[image[..., 3] > 0], axis=0)) == 2  # the silhouette and its edge


def test_outlines_and_names():
    volume, _ = ball()
    glass = GlassBrain(volume, (6.0, 3.0), 100)
    one = np.flatnonzero((volume.voxels == [5, 6, 4]).all(axis=1))
    segments = glass.outline(one)
    assert segments.shape == (4, 2, 2)  # a square in one projection
    np.testing.assert_allclose(np.linalg.norm(segments[:, 0] - segments[:, 1], axis=1), 2)
    (anchor,) = glass.anchors(one, segments)
    box = glass.view.boxes[0]
    assert box.x0 + box.shift < anchor.x < box.x1 + box.shift
    assert not glass.anchors(np.empty(0, int), segments) and not len(glass.outline(np.empty(0, int)))


def test_gaps_and_holes_of_an_roi_have_no_outline():
    across, up = np.meshgrid(np.arange(1, 8), np.arange(1, 8), indexing="ij")
    edge = (across == 1) | (across == 7) | (up == 1) | (up == 7)
    ring = np.stack([across[edge], np.zeros(edge.sum(), int), up[edge]], axis=1)  # as a ribbon of cortex
    kept = ring[~(ring == [1, 0, 4]).all(axis=1)]
    glass = GlassBrain(Volume((9, 1, 9), np.diag([2.0, 2, 2, 1]), kept), (6.0, 3.0), 100)
    segments = glass.outline(np.arange(len(kept)))
    assert len(segments) == 4 * 7
    (anchor,) = glass.anchors(np.arange(len(kept)), segments)
    assert anchor.area == 49 * 4


def test_a_figure_of_voxels_speaks_of_voxels():
    volume, _ = ball()
    count = len(volume.voxels)
    shown = definitions.scale(np.linspace(0, 1, count))
    maps = MapSet("", Vertices.custom(count), RoiTable({}, count), (shown,), None, volume)
    found = words(MapFigure(maps, shown, DEFAULT, 60))
    assert f"{count:,} of {count:,} voxels" in found and "vertices" not in found


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_voxels(count):
    volume = Volume(SHAPE, np.eye(4), np.zeros((count, 3), int))
    glass = GlassBrain(volume, (6.0, 3.0), 50)
    pixels, _, alpha = glass.paint(np.ones(count), np.ones(count, bool))
    assert glass.compose(pixels, np.zeros((len(pixels), 3)), alpha).shape == (*glass.shape, 4)
