"""Surfaces: geometry without downloads, vertices, ROI tables."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from brainkit.cortex.surface import (
    HEMISPHERES,
    SPACES,
    RoiTable,
    Vertices,
    mesh,
    scalar,
    space_of_mask,
    sphere_coordinates,
)
from brainkit.errors import DataError, MissingDependency, UsageError

pytest.importorskip("nilearn", reason="the meshes come with nilearn")


def edges_of(faces):
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    return np.unique(edges, axis=0, return_counts=True)


@pytest.mark.parametrize("hemisphere", HEMISPHERES)
@pytest.mark.parametrize("space", SPACES)
def test_sphere_is_a_closed_sphere_of_radius_100(space, hemisphere):
    points, faces = mesh(space, hemisphere, "sphere")
    edges, times = edges_of(faces)
    assert points.shape == (SPACES[space], 3) and points.dtype == np.float64 and faces.dtype == np.int32
    assert len(points) - len(edges) + len(faces) == 2  # Euler's formula for a sphere
    assert (times == 2).all()
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 100, atol=1e-9)
    corner = points[faces]
    outward = np.einsum("fi,fi->f", np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), corner[:, 0])
    assert (outward > 0).mean() > 0.999  # subdivision keeps the orientation


@pytest.mark.parametrize("hemisphere", HEMISPHERES)
@pytest.mark.parametrize("kind", ["sphere", "pial", "white", "infl", "flat"])
def test_spaces_nest(hemisphere, kind):
    fine = mesh("fsaverage", hemisphere, kind)[0]
    for space in ("fsaverage5", "fsaverage6"):
        np.testing.assert_array_equal(fine[: SPACES[space]], mesh(space, hemisphere, kind)[0])


@pytest.mark.parametrize("hemisphere", HEMISPHERES)
def test_flatmap_and_scalars_refine(hemisphere):
    coarse = mesh("fsaverage5", hemisphere, "flat")[1]
    closed = mesh("fsaverage5", hemisphere, "sphere")[1]
    assert len(coarse) < len(closed)
    points, faces = mesh("fsaverage6", hemisphere, "flat")
    assert len(faces) == 4 * len(coarse)
    span = np.ptp(points[np.unique(faces)], axis=0)
    np.testing.assert_allclose(span, np.ptp(mesh("fsaverage5", hemisphere, "flat")[0][np.unique(coarse)], axis=0))
    for kind in ("curv", "sulc"):
        values = scalar("fsaverage6", hemisphere, kind)
        assert values.shape == (SPACES["fsaverage6"],)
        np.testing.assert_array_equal(values[:10242], scalar("fsaverage5", hemisphere, kind))


def test_meshes_are_shared_and_read_only():
    points, faces = mesh("fsaverage6", "left", "pial")
    assert mesh("fsaverage6", "left", "pial")[0] is points
    for array in (points, faces, scalar("fsaverage5", "left", "curv")):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fsaverage4", "left", "flat"), "fsaverage4"),
        (("custom", "left", "flat"), "custom"),
        (("fsaverage5", "lh", "flat"), "left, right"),
        (("fsaverage5", "left", "smoothwm"), "smoothwm"),
    ],
)
def test_mesh_refuses(arguments, said):
    with pytest.raises(UsageError, match=said):
        mesh(*arguments)


def test_without_nilearn(monkeypatch):
    from brainkit.cortex import surface

    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(MissingDependency, match=r"brainkit\[maps\]"):
        surface._read("left", "pial")


def test_vertices_from_masks_and_hemispheres():
    left, right = np.zeros(10242), np.zeros(10242, dtype=np.int64)
    left[[3, 8]], right[[0, 10241]] = 1, 1
    vertices = Vertices.from_masks(left, right)
    assert vertices.space == "fsaverage5" and len(vertices) == 4 and vertices.n_left == 2
    assert vertices.ids.dtype == np.int32
    np.testing.assert_array_equal(vertices.ids, [3, 8, 10242, 20483])
    np.testing.assert_array_equal(vertices.left, [3, 8])
    np.testing.assert_array_equal(vertices.right, [0, 10241])
    np.testing.assert_array_equal(vertices.select(np.array([1, 2])).ids, [8, 10242])
    assert vertices.select(np.array([False, True, True, False])) == vertices.select(np.array([1, 2]))
    assert vertices != Vertices("fsaverage6", vertices.ids)
    with pytest.raises(ValueError, match="read-only"):
        vertices.ids[0] = 1


def test_to_surface_round_trip():
    vertices = Vertices("fsaverage5", np.array([0, 7, 10242, 20483]))
    left, right = vertices.to_surface(np.array([1.0, 2, 3, 4]))
    assert left.shape == right.shape == (10242,) and left.dtype == np.float32
    np.testing.assert_array_equal(np.concatenate([left[vertices.left], right[vertices.right]]), [1, 2, 3, 4])
    assert np.isnan(left).sum() == np.isnan(right).sum() == 10240
    assert vertices.to_surface(np.ones(4), fill=0)[0].sum() == 2
    with pytest.raises(UsageError, match=r"\(4,\)"):
        vertices.to_surface(np.ones(3))


@pytest.mark.parametrize(
    ("space", "ids", "said"),
    [
        ("fsaverage5", [3, 3], "3 then 3"),
        ("fsaverage5", [5, 2], "5 then 2"),
        ("fsaverage5", [-1, 2], "-1"),
        ("fsaverage5", [0, 20484], "20484"),
        ("fsaverage5", [0, 2**32], "4294967296"),
        ("fsaverage5", [0.0, 1.0], "integers"),
        ("fsaverage5", [[0, 1]], "shape"),
        ("fsaverage3", [0], "fsaverage3"),
        ("custom", [0, 2], r"0 \.\. 1"),
    ],
)
def test_vertices_refuse(space, ids, said):
    with pytest.raises(DataError, match=said) as caught:
        Vertices(space, np.array(ids))
    assert "\n" not in str(caught.value)


def test_custom_vertices_have_no_surface():
    vertices = Vertices.custom(5)
    assert len(vertices) == vertices.n_left == 5 and len(vertices.right) == 0
    for attempt in (lambda: vertices.to_surface(np.ones(5)), lambda: sphere_coordinates(vertices)):
        with pytest.raises(UsageError, match="custom"):
            attempt()


def test_empty_vertices():
    vertices = Vertices("fsaverage5", np.array([], dtype=int))
    assert len(vertices) == 0 and sphere_coordinates(vertices).shape == (0, 3)


def test_space_of_mask():
    assert [space_of_mask(n) for n in SPACES.values()] == list(SPACES)
    with pytest.raises(DataError, match="40962"):
        space_of_mask(19004)
    with pytest.raises(DataError, match="one length"):
        Vertices.from_masks(np.ones(10242), np.ones(40962))


def test_right_hemisphere_is_shifted_only_if_it_must():
    left = mesh("fsaverage5", "left", "sphere")[0]
    right = mesh("fsaverage5", "right", "sphere")[0]
    both = Vertices("fsaverage5", np.arange(20484))
    placed = sphere_coordinates(both)
    low, high = left[:, 0].min(), left[:, 0].max()
    assert placed.dtype == np.float32
    np.testing.assert_allclose(placed[:10242], left, atol=1e-4)
    assert placed[10242:, 0].min() == pytest.approx(low + 1.5 * (high - low), abs=1e-3)
    np.testing.assert_allclose(placed[10242:, 1:], right[:, 1:], atol=1e-4)
    alone = sphere_coordinates(Vertices("fsaverage5", np.arange(10242, 20484)))
    np.testing.assert_allclose(alone, right, atol=1e-4)
    # A few vertices of which the right ones lie far to the right already.
    low_left = np.argsort(left[:, 0])[:2]
    far_right = np.argsort(right[:, 0])[-2:]
    apart = Vertices("fsaverage5", np.sort(np.concatenate([low_left, far_right + 10242])))
    np.testing.assert_allclose(sphere_coordinates(apart)[2:], right[np.sort(far_right)], atol=1e-4)


@pytest.fixture
def table():
    rois = {"V1v": [0, 1], "V1d": [2], "FFA-1": [5, 4], "FFA-2": [4, 6], "OVWFA": [9], "mTL-words": [], "PPA": [7]}
    return RoiTable({name: np.array(at, dtype=int) for name, at in rois.items()}, 10)


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("V1v", [0, 1]),
        ("v1", [0, 1, 2]),
        ("FFA", [4, 5, 6]),
        ("ffa-1", [4, 5]),
        ("OWFA", [9]),
        ("ovwfa", [9]),
        ("MTL-words", []),
        ("floc-places", [7]),
    ],
)
def test_roi_members(table, name, members):
    found = table.members(name)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, members)


@pytest.mark.parametrize(("name", "offered"), [("FAA", "FFA"), ("PPPA", "PPA"), ("v1x", "V1"), ("qqqq", "mTL-words")])
def test_unknown_roi_names_the_nearest(table, name, offered):
    with pytest.raises(UsageError, match=offered) as caught:
        table.members(name)
    assert "\n" not in str(caught.value)


def test_roi_of_an_empty_table():
    with pytest.raises(UsageError, match="no ROI table"):
        RoiTable({}, 3).members("V1")


def test_a_name_of_its_own_beats_an_alias():
    table = RoiTable({"V1": np.array([3]), "V1v": np.array([0])}, 4)
    np.testing.assert_array_equal(table.members("V1"), [3])


def test_roi_table_is_a_mapping(table):
    assert table.names == tuple(table) == ("V1v", "V1d", "FFA-1", "FFA-2", "OVWFA", "mTL-words", "PPA")
    assert table.empty == ("mTL-words",) and len(table) == 7 and "PPA" in table
    np.testing.assert_array_equal(table["FFA-1"], [4, 5])


def test_roi_subset_renumbers(table):
    for index in (np.array([1, 4, 6, 9]), np.isin(np.arange(10), [1, 4, 6, 9])):
        part = table.subset(index)
        assert part.n_vertices == 4
        expected = {"V1v": [0], "V1d": [], "FFA-1": [1], "FFA-2": [1, 2], "OVWFA": [3], "mTL-words": [], "PPA": []}
        assert part.to_json() == expected
        assert set(part.empty) == {"V1d", "mTL-words", "PPA"}


def test_roi_json_round_trip(table):
    again = RoiTable.from_json(table.to_json(), 10)
    assert again.to_json() == table.to_json() and again.names == table.names


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1, 2], "object"),
        ({"V1": 3}, "whole numbers"),
        ({"V1": [0.5]}, "whole numbers"),
        ({"V1": [True]}, "whole numbers"),
        ({"V1": [10]}, r"0 \.\. 9"),
        ({"V1": [-1]}, r"0 \.\. 9"),
        ({"V1": [1], "v1": [2]}, "ignore case"),
    ],
)
def test_roi_json_refuses(value, said):
    with pytest.raises(DataError, match=said):
        RoiTable.from_json(value, 10)
