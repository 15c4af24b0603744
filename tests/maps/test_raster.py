"""What is seen of a folded surface, compared with a search through all its faces."""

from __future__ import annotations

import numpy as np
import pytest
from small_surface import small_surface

from brainkit.cortex.vertices import Vertices
from brainkit.maps.raster import FINER, interpolated, rasterise
from brainkit.maps.view import make_view

BRAIN = small_surface(3, bumpy=0.5)
ALL = Vertices.custom(len(BRAIN))


def in_front(points, faces, place):
    """The faces over a place of the plane, and how near each is to the viewer."""
    corner = points[faces]
    (ax, ay), (bx, by), (cx, cy) = (corner[:, i, :2].T for i in range(3))
    area = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy)
    with np.errstate(divide="ignore", invalid="ignore"):
        first = ((by - cy) * (place[0] - cx) + (cx - bx) * (place[1] - cy)) / area
        second = ((cy - ay) * (place[0] - cx) + (ax - cx) * (place[1] - cy)) / area
    weights = np.stack([first, second, 1 - first - second], axis=1)
    over = np.flatnonzero((weights >= 0).all(axis=1) & (area != 0))
    return over, (weights[over] * corner[over, :, 2]).sum(axis=1)


@pytest.mark.parametrize("angle", ["lateral", "ventral"])
def test_the_nearest_face_is_drawn(angle):
    view = make_view(ALL, "pial", (angle,), ("right",), BRAIN)
    raster = rasterise(view, 1.0)
    height, width = raster.shape
    assert (height % FINER, width % FINER) == (0, 0)
    points, faces = view.project(view.boxes[0]), BRAIN.right.faces
    nearest = interpolated(points[:, 2], raster.corners - len(BRAIN.left), raster.weights)
    np.testing.assert_allclose(nearest, raster.nearest.ravel()[raster.pixels], atol=1e-4)
    drawn = np.zeros(height * width, dtype=bool)
    drawn[raster.pixels] = True
    folded = 0
    for index in np.random.default_rng(0).choice(height * width, 400, replace=False):
        row, column = divmod(int(index), width)
        place = (column + 0.5) / raster.scale, raster.top - (row + 0.5) / raster.scale
        over, depths = in_front(points, faces, place)
        assert drawn[index] == (len(over) > 0)
        if len(over):
            assert raster.nearest[row, column] == pytest.approx(depths.max(), abs=1e-4)
        folded += len(over) > 2
    assert folded > 10  # the surface does hide parts of itself that look at the viewer


@pytest.mark.parametrize("angle", ["lateral", "dorsal"])
def test_hidden_points_are_told(angle):
    view = make_view(ALL, "pial", (angle,), ("left",), BRAIN)
    raster = rasterise(view, 4.0)
    points, faces = view.project(view.boxes[0]), BRAIN.left.faces
    said = raster.visible(points)

    def below(point, step):
        return max(in_front(points, faces, point[:2] + step)[1], default=-np.inf) - point[2]

    clear = np.array([below(point, 0.0) < 0.1 for point in points])
    # A sample beside an edge of what hides a point, it may be told to be visible.
    around = [np.array(step) for step in ((0, 0), (0.3, 0.3), (0.3, -0.3), (-0.3, 0.3), (-0.3, -0.3))]
    hidden = np.array([min(below(point, step) for step in around) > 2.0 for point in points])
    assert said[clear].mean() > 0.97 and not said[hidden].any()  # at the bottom of a steep fold, none is sure
    assert clear.sum() > 40 and hidden.sum() > 80


def test_light_stays_within_bounds_and_flatmaps_have_none():
    raster = rasterise(make_view(ALL, "pial", surface=BRAIN), 1.0)
    assert 0.3 < raster.light.min() < 0.8 < raster.light.max() < 1.1
    flat = rasterise(make_view(ALL, surface=BRAIN), 1.0)
    assert flat.light is None and flat.nearest is None and flat.fade is None
