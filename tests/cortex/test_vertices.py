"""Vertices of the cortical spaces: ids, hemispheres, masks."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.cortex.vertices import SPACES, Vertices, space_of_mask
from brainkit.errors import DataError, UsageError


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
    with pytest.raises(UsageError, match="custom"):
        vertices.to_surface(np.ones(5))


def test_space_of_mask():
    assert [space_of_mask(n) for n in SPACES.values()] == list(SPACES)
    with pytest.raises(DataError, match="40962"):
        space_of_mask(19004)
    with pytest.raises(DataError, match=r"10242 .* 40962"):
        Vertices.from_masks(np.ones(10242), np.ones(40962))
