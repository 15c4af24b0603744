"""Voxels projected on a surface."""

from __future__ import annotations

import numpy as np
import pytest
from small_surface import small_surface

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.volume import Volume
from brainkit.cortex.voxel_projection import project_voxels
from brainkit.errors import DataError, UsageError

AFFINE = np.array([[2.0, 0, 0, -60], [0, 2.0, 0, -30], [0, 0, 2.0, -30], [0, 0, 0, 1]])
SHAPE = (61, 31, 31)


def volume(keep=lambda mm: mm[:, 0] < 1e9, affine=AFFINE):
    voxels = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1).reshape(-1, 3)
    mm = voxels @ affine[:3, :3].T + affine[:3, 3]
    return Volume(SHAPE, affine, voxels[keep(mm)]), mm[keep(mm)]


@pytest.mark.parametrize("how", ["nearest", "linear"])
def test_values_follow_the_coordinates(how):
    surface = small_surface()
    whole, mm = volume()
    projection = project_voxels(whole, surface, depths=(0.5,), how=how)
    np.testing.assert_array_equal(projection.ids, np.arange(len(surface)))
    middle = np.concatenate(
        [(half.points["pial"] + half.points["white"]) / 2 for half in (surface.left, surface.right)]
    )
    np.testing.assert_allclose(projection.values(mm), middle, atol=1.001 if how == "nearest" else 1e-4)


def test_one_depth_is_that_of_a_brute_force_search():
    surface = small_surface(1)
    some, mm = volume(lambda mm: (mm[:, 0] < 0) & (mm[:, 2] > 0))
    values = np.random.default_rng(0).normal(size=len(mm))
    projection = project_voxels(some, surface, depths=(1.0,))
    known = dict(zip(projection.ids.tolist(), projection.values(values), strict=True))
    points = np.concatenate([half.points["pial"] for half in (surface.left, surface.right)])
    for vertex, point in enumerate(points):
        within = np.flatnonzero((np.abs(mm - point) <= 1 - 1e-3).all(axis=1))
        if len(within):
            assert known[vertex] == pytest.approx(values[within[0]])
        elif (np.abs(np.abs((point - AFFINE[:3, 3]) / 2 % 1 - 0.5)) > 1e-3).all():
            assert vertex not in known


def test_unknown_voxels_and_regions():
    surface = small_surface()
    left, mm = volume(lambda mm: mm[:, 0] < 0)
    projection = project_voxels(left, surface)
    assert projection.ids.max() < 66 and projection.vertices.space == "custom"
    values = np.where(mm[:, 2] > 0, 1.0, np.nan)
    found = projection.values(values)
    z = surface.left.points["pial"][projection.ids, 2]
    assert np.isnan(found[z < -3]).all() and (found[z > 3] == 1).all()
    rois = projection.rois(RoiTable({"top": np.flatnonzero(mm[:, 2] > 0), "none": np.empty(0, int)}, len(mm)))
    assert set(np.flatnonzero(z > 3)) <= set(rois["top"].tolist()) and not len(rois["none"])
    assert not set(rois["top"].tolist()) & set(np.flatnonzero(z < -3))
    with pytest.raises(UsageError, match="expected"):
        projection.values(values[:5])


def test_voxels_elsewhere():
    far = AFFINE.copy()
    far[0, 3] = 500
    with pytest.raises(DataError, match="same coordinates"):
        project_voxels(volume(affine=far)[0], small_surface())
