"""Values, outlines and names on views of a surface."""

from __future__ import annotations

import numpy as np
import pytest
from small_surface import small_surface

from brainkit.cortex.vertices import Vertices
from brainkit.maps.canvas import Canvas
from brainkit.maps.view import make_view

BRAIN = small_surface(3)
ALL = Vertices.custom(len(BRAIN))
HALF = len(BRAIN.left)
X, Y, Z = np.concatenate([BRAIN.left.points["sphere"], BRAIN.right.points["sphere"]]).T / 100
IS_LEFT = np.arange(len(BRAIN)) < HALF


def canvas(shape, angles=None, hemispheres=None, scale=3.0, **more):
    return Canvas(ALL, make_view(ALL, shape, angles, hemispheres, BRAIN), scale, **more)


def picture(drawn, values, valid=None):
    """Values as grey: (H, W), and which pixels are opaque."""
    valid = np.ones(len(values), bool) if valid is None else valid
    pixels, painted, alpha = drawn.paint(values, valid)
    image = drawn.compose(pixels, np.repeat(painted[:, None], 3, axis=1), alpha)
    assert image.shape == (*drawn.shape, 4)
    return image[..., 0] / 255, image[..., 3] > 250


def test_only_the_near_side_is_seen():
    front = picture(canvas("pial", ("anterior",), ("left",)), (Y > 0).astype(float))
    back = picture(canvas("pial", ("posterior",), ("left",)), (Y > 0).astype(float))
    assert front[0][front[1]].mean() > 0.7 and back[0][back[1]].mean() < 0.1


def test_up_is_up_and_left_is_left():
    grey, opaque = picture(canvas("pial", ("dorsal",), ("left",)), (Y > 0).astype(float))  # front on top
    half = len(grey) // 2
    assert grey[:half][opaque[:half]].mean() > 0.6 and grey[half:][opaque[half:]].mean() < 0.2
    grey, opaque = picture(canvas("pial", ("dorsal",)), IS_LEFT.astype(float))
    half = grey.shape[1] // 2
    assert grey[:, :half][opaque[:, :half]].mean() > 0.6 and grey[:, half:][opaque[:, half:]].mean() < 0.1


def test_unknown_vertices_show_the_curvature():
    valid = Z > 0
    drawn = canvas("pial", ("posterior",), ("left",))
    grey, opaque = picture(drawn, np.zeros(len(Z)), valid)
    rows = np.flatnonzero(opaque.any(axis=1))
    top, low = rows[len(rows) // 4], rows[3 * len(rows) // 4]
    assert grey[top][opaque[top]].max() < 0.05 and grey[low][opaque[low]].min() > 0.3


@pytest.mark.parametrize("shape", ["flat", "pial"])
def test_flat_shading_shows_the_vertices_values_alone(shape):
    values = (np.arange(len(BRAIN)) % 2).astype(float)
    at = []
    for shading in ("interpolated", "flat"):
        _, painted, _ = canvas(shape, scale=6.0, shading=shading).paint(values, np.ones(len(values), bool))
        at.append(np.minimum(painted, 1 - painted))
    assert (at[1] < 0.05).mean() > 0.75 > (at[0] < 0.05).mean()


def test_smoothing():
    drawn, valid = canvas("pial"), Z > -0.5
    noise = np.random.default_rng(0).normal(size=(len(BRAIN), 2))
    smooth = drawn.smooth(noise, valid, 4)
    assert smooth.shape == noise.shape and smooth[valid].std() < 0.5 * noise[valid].std()
    np.testing.assert_array_equal(smooth[~valid], noise[~valid])
    np.testing.assert_allclose(drawn.smooth(np.ones(len(BRAIN)), valid, 4), 1)


def test_outlines_are_hidden_behind_the_surface():
    cap = np.flatnonzero((Y < -0.8) & IS_LEFT)  # at the back
    lengths = {}
    for angle in ("posterior", "anterior", "lateral"):
        segments = canvas("inflated", (angle,), ("left",)).outline(cap)
        lengths[angle] = np.linalg.norm(segments[:, 0] - segments[:, 1], axis=1).sum()
    circle = 2 * np.pi * 24 * 0.6  # y = -0.8 of a sphere of radius 24
    assert lengths["posterior"] == pytest.approx(circle, rel=0.15)
    assert lengths["anterior"] == 0
    assert 20 < lengths["lateral"] < 45  # the near half, seen from the side


def test_names_stand_where_their_region_is_seen():
    cap = np.flatnonzero((Y < -0.8) & IS_LEFT)
    drawn = canvas("inflated", ("lateral", "posterior", "anterior"))
    anchors = drawn.anchors(cap, drawn.outline(cap))
    assert len(anchors) == 1  # where most of it is seen
    box = next(box for box in drawn.view.boxes if (box.hemisphere, box.angle) == ("left", "posterior"))
    middle = (box.x0 + box.x1) / 2 + box.shift, (box.y0 + box.y1) / 2 + box.lift
    np.testing.assert_allclose(anchors[0][:2], middle, atol=6)
    away = canvas("inflated", ("anterior",))
    assert not away.anchors(cap, away.outline(cap))


def test_each_large_piece_of_a_region_has_its_name():
    on = np.concatenate([BRAIN.left.on_flatmap, BRAIN.right.on_flatmap])
    two = np.flatnonzero((np.abs(X) > 0.5) & IS_LEFT & on)
    drawn = canvas("flat")
    anchors = drawn.anchors(two, drawn.outline(two))
    assert len(anchors) == 2
    middle = -30 * 0 + sum(anchor.x for anchor in anchors) / 2
    assert min(anchor.x for anchor in anchors) < middle < max(anchor.x for anchor in anchors)
    speck = np.append(np.flatnonzero((X > 0.3) & IS_LEFT & on), np.flatnonzero((X < -0.9) & (Y > 0) & IS_LEFT & on)[:1])
    assert len(drawn.anchors(np.sort(speck), drawn.outline(np.sort(speck)))) == 1


@pytest.mark.parametrize("shape", ["flat", "inflated"])
def test_scattered_vertices_are_points(shape):
    ids = np.arange(0, len(BRAIN), 31)
    on = np.concatenate([BRAIN.left.on_flatmap, BRAIN.right.on_flatmap])[ids]
    some = Vertices.custom(len(ids))
    drawn = Canvas(some, make_view(some, shape, surface=BRAIN, ids=ids), 4.0, ids=ids)
    assert drawn.points and not canvas(shape).points
    values = np.arange(len(ids), dtype=float)
    valid = values % 3 > 0
    pixels, painted, alpha = drawn.paint(values, valid)
    assert set(painted.tolist()) <= set(values[valid].tolist())
    if shape == "flat":
        assert set(painted.tolist()) == set(values[valid & on].tolist())
    assert 0 < len(pixels) < 0.2 * len(drawn._raster.pixels) and alpha.max() == 1
    assert drawn.outline(np.arange(5)).shape == (0, 2, 2)
    assert drawn.anchors(np.arange(len(ids)), drawn.outline(np.arange(5)))
    assert not Canvas(some, drawn.view, 4.0, ids=ids, points=False).points


def test_a_series_of_maps_with_different_vertices():
    drawn, values = canvas("flat"), np.ones(len(Z))
    for valid in (Z > 0, Z < 0, Z > 0):
        expected = picture(canvas("flat"), values, valid)[0]
        np.testing.assert_array_equal(picture(drawn, values, valid)[0], expected)


def test_the_outer_edge_of_a_flatmap_takes_the_colours_inside():
    drawn = canvas("flat")
    pixels, _, alpha = drawn.paint(np.ones(len(Z)), np.ones(len(Z), bool))
    red = np.broadcast_to([1.0, 0.0, 0.0], (len(pixels), 3))
    image = drawn.compose(pixels, red, np.ones_like(alpha))
    edge = (image[..., 3] > 0) & (image[..., 3] < 250)
    assert edge.sum() > 50
    assert (image[edge, 0] > 250).all() and (image[edge, 1] < 5).all()
