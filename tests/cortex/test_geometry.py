"""Triangle meshes: normals, orientation, bending and pieces."""

from __future__ import annotations

import numpy as np
from small_surface import sphere

from brainkit.cortex import geometry


def test_normals_of_a_sphere_point_outwards():
    points, faces = sphere()
    normals = geometry.vertex_normals(30 * points, faces)
    np.testing.assert_allclose(normals, points, atol=0.1)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)


def test_faces_are_turned_outwards():
    points, faces = sphere()
    assert geometry.outward(points, faces) is faces
    np.testing.assert_array_equal(geometry.outward(points, faces[:, [0, 2, 1]]), faces)


def test_a_dent_is_a_sulcus():
    points, faces = sphere(3)
    dented = 30 * points
    dented[points[:, 2] > 0.99] *= 0.8
    bent = geometry.bending(dented, faces, passes=0)
    assert bent[4] > 0 > bent[5]  # at the bottom of the dent; at the other pole
    assert (geometry.bending(30 * points, faces) < 0).all()


def test_average_over_faces():
    faces = np.array([[0, 1, 2], [1, 2, 3]])
    np.testing.assert_allclose(geometry.average_over_faces(np.array([3.0, 0, 0, 6, 9]), faces), [1, 1.5, 1.5, 2, 0])


def test_pieces():
    points, faces = sphere()
    inside = np.abs(points[:, 2]) > 0.6
    number = geometry.pieces(inside, faces)
    assert set(number[~inside]) == {-1} and set(number[inside]) == {0, 1}
    assert len(set(number[points[:, 2] > 0.6])) == 1
    assert (geometry.pieces(np.zeros(len(points), bool), faces) == -1).all()
