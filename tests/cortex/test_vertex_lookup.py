"""Vertices found by their coordinates on fsaverage's sphere."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.cortex.surface import mesh, sphere_coordinates
from brainkit.cortex.vertex_lookup import vertices_on_sphere
from brainkit.cortex.vertices import FSAVERAGE, SPACES, Vertices


def some_vertices(space: str = "fsaverage5", left: int = 150, right: int = 170) -> Vertices:
    draw = np.random.default_rng(2)
    size = SPACES[space]
    sides = [draw.choice(size, left, replace=False), draw.choice(size, right, replace=False) + size]
    return Vertices(space, np.sort(np.concatenate(sides)))


def test_the_right_hemisphere_is_shifted_as_published() -> None:
    vertices = some_vertices()
    left = mesh("fsaverage5", "left", "sphere")[0][vertices.left]
    right = mesh("fsaverage5", "right", "sphere")[0][vertices.right].copy()
    lowest, highest = left[:, 0].min(), left[:, 0].max()
    if right[:, 0].min() < lowest + 1.5 * (highest - lowest):
        right[:, 0] += lowest + 1.5 * (highest - lowest) - right[:, 0].min()
    np.testing.assert_allclose(sphere_coordinates(vertices), np.concatenate([left, right]), atol=1e-4)


@pytest.mark.parametrize("space", FSAVERAGE)
def test_vertices_are_found_by_their_coordinates(space: str) -> None:
    vertices = some_vertices(space)
    coordinates = sphere_coordinates(vertices)
    noise = np.random.default_rng(0).normal(0, 0.01, coordinates.shape)  # as a sphere read from elsewhere differs
    assert vertices_on_sphere(coordinates + noise) == vertices
    assert vertices_on_sphere(coordinates + [0, 1, 0]) is None


def test_coordinates_that_name_no_vertices() -> None:
    vertices = some_vertices()
    coordinates = sphere_coordinates(vertices)
    left, right = coordinates[: vertices.n_left], coordinates[vertices.n_left :]
    assert vertices_on_sphere(left) is None  # either hemisphere's
    assert vertices_on_sphere(coordinates[::-1]) is None
    assert vertices_on_sphere(np.concatenate([left, right[:5], right])) is None
    assert vertices_on_sphere(np.random.default_rng(0).uniform(-80, 80, (40, 3))) is None
    assert vertices_on_sphere(np.ones((4, 3))) is None
