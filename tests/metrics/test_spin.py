"""Rotations of maps on the sphere."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.cortex.vertices import SPACES, Vertices
from brainkit.errors import UsageError
from brainkit.metrics.spin import Spins, fit_sphere, fsaverage_sphere, smoothed_p, spin, spun_values

SIZE = SPACES["fsaverage5"]
MIRROR = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def whole() -> Vertices:
    return Vertices("fsaverage5", np.arange(2 * SIZE))


def test_each_hemisphere_is_rotated_as_a_whole_and_the_right_one_mirrored(whole: Vertices) -> None:
    sphere = fsaverage_sphere(whole)
    asked = np.r_[np.arange(0, SIZE, 50), np.arange(SIZE, 2 * SIZE, 50)]
    spins = spin(sphere, asked, draws=3, seed=0)
    assert (spins.sources >= 0).all() and spins.overlap == 1
    rotations = []
    for sources in spins.sources:
        sides = []
        for right in (False, True):
            of_side = (asked >= SIZE) == right
            assert ((sources[of_side] >= SIZE) == right).all()
            points = sphere.points * (MIRROR if right else 1)
            # The rotation that takes the vertices to their sources, but for the distance to the nearest vertex.
            moment = points[asked[of_side]].T @ points[sources[of_side]]
            u, _, vt = np.linalg.svd(moment)
            rotation = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
            error = np.linalg.norm(points[asked[of_side]] @ rotation - points[sources[of_side]], axis=1)
            assert error.max() < 0.05
            sides.append(rotation)
        np.testing.assert_allclose(sides[0], sides[1], atol=0.01)
        rotations.append(sides[0])
    assert np.abs(rotations[0] - rotations[1]).max() > 0.1


def test_what_comes_from_outside_the_data_has_no_value(whole: Vertices) -> None:
    sphere = fsaverage_sphere(whole)
    back = np.flatnonzero(sphere.points[:, 1] < -0.2)
    vertices = Vertices("fsaverage5", back)
    spins = spin(fsaverage_sphere(vertices), np.arange(len(back)), draws=40, seed=1)
    assert (spins.sources < 0).any() and spins.drawn >= 40
    assert ((spins.sources >= 0).mean(1) >= 0.1).all()
    values = spun_values(np.arange(len(back), dtype=float), spins)
    np.testing.assert_array_equal(np.isnan(values), spins.sources < 0)
    again = spin(fsaverage_sphere(vertices), np.arange(len(back)), draws=40, seed=1)
    np.testing.assert_array_equal(spins.sources, again.sources)


def test_a_few_vertices_cannot_be_rotated(whole: Vertices) -> None:
    points = fsaverage_sphere(whole).points[:SIZE]
    few = Vertices("fsaverage5", np.sort(np.argsort(-points @ points[5000])[:12]))
    with pytest.raises(UsageError):
        spin(fsaverage_sphere(few), np.arange(12), draws=50)


def test_coordinates_on_a_sphere_are_found_whatever_its_centre() -> None:
    rng = np.random.default_rng(0)
    unit = rng.standard_normal((400, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    sphere = fit_sphere(50 * unit + [10, -80, 3])
    assert sphere is not None
    np.testing.assert_allclose(sphere.points, unit, atol=1e-6)
    spins = spin(sphere, np.arange(400), draws=5)
    assert 0.5 < spins.overlap <= 1
    assert fit_sphere(50 * unit * rng.uniform(0.9, 1.1, (400, 1))) is None
    assert fit_sphere(rng.uniform(-1, 1, (400, 3)) * [1, 1, 0]) is None


def test_p_is_two_sided_and_smoothed() -> None:
    assert smoothed_p(0.5, np.array([0.1, -0.6, np.nan, 0.2])) == 2 / 4
    assert np.isnan(smoothed_p(np.nan, np.zeros(3)))


def test_values_follow_their_sources() -> None:
    spins = Spins(np.array([[2, -1], [0, 1]], np.int32), 2)
    np.testing.assert_array_equal(spun_values(np.array([5.0, 6.0, 7.0]), spins), [[7, np.nan], [5, 6]])
