"""What a view shows: its panels, where they are, and which surface they are of."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from small_surface import small_surface

from brainkit.cortex.vertices import Vertices
from brainkit.errors import UsageError
from brainkit.maps.view import ANGLES, DEFAULT_ANGLES, camera, make_view, on_view, read_view, whole_view

BRAIN = small_surface()
ALL = Vertices.custom(len(BRAIN))
LEFT = Vertices.custom(66), np.arange(66)


def overlap(one, other):
    sides = [(box.x0 + box.shift, box.x1 + box.shift, box.y0 + box.lift, box.y1 + box.lift) for box in (one, other)]
    (a0, a1, b0, b1), (c0, c1, d0, d1) = sides
    return min(a1, c1) - max(a0, c0) > 1e-9 and min(b1, d1) - max(b0, d0) > 1e-9


@pytest.mark.parametrize("angles", [None, *((angle,) for angle in ANGLES), ANGLES, ("dorsal", "lateral", "ventral")])
@pytest.mark.parametrize("hemispheres", [None, ("left",), ("right",)])
def test_panels_do_not_overlap_and_show_the_whole_hemisphere(angles, hemispheres):
    view = make_view(ALL, "pial", angles, hemispheres, BRAIN)
    shown = [(box.hemisphere, box.angle) for box in view.boxes]
    assert sorted(shown) == sorted(itertools.product(hemispheres or ("left", "right"), angles or DEFAULT_ANGLES))
    assert not any(overlap(one, other) for one, other in itertools.combinations(view.boxes, 2))
    left, right, bottom, top = view.extent
    for box in view.boxes:
        points = view.project(box)
        low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        assert (low > [box.x0 + box.shift, box.y0 + box.lift]).all()
        assert (high < [box.x1 + box.shift, box.y1 + box.lift]).all()
        assert (low >= [left, bottom]).all() and (high <= [right, top]).all()
        x, y = box.caption_place
        assert left <= x <= right and high[1] <= y <= top and box.angle in box.caption


def test_panels_are_seen_from_where_they_say():
    view = make_view(ALL, "pial", ANGLES, surface=BRAIN)
    towards = {(box.hemisphere, box.angle): camera(box)[2] for box in view.boxes}
    assert towards["left", "lateral"][0] < 0 < towards["right", "lateral"][0]
    assert towards["left", "medial"][0] > 0 > towards["right", "medial"][0]
    for angle, axis, sign in (("dorsal", 2, 1), ("ventral", 2, -1), ("posterior", 1, -1), ("anterior", 1, 1)):
        assert towards["left", angle][axis] == sign
    for box in view.boxes:  # not mirrored
        assert np.linalg.det(camera(box)) == pytest.approx(1)
    across = {(box.hemisphere, box.angle): box.caption_place[0] for box in view.boxes}
    for angle, left_first in (("dorsal", True), ("posterior", True), ("ventral", False), ("anterior", False)):
        assert (across["left", angle] < across["right", angle]) == left_first


def test_hemispheres_without_data_are_left_out():
    for shape in ("flat", "inflated"):
        assert make_view(LEFT[0], shape, surface=BRAIN, ids=LEFT[1]).hemispheres == ("left",)
        assert make_view(LEFT[0], shape, None, ("right",), BRAIN, LEFT[1]).hemispheres == ("right",)
        assert make_view(Vertices.custom(0), shape, surface=BRAIN, ids=np.empty(0, int)).hemispheres == (
            "left",
            "right",
        )


def test_equal_requests_give_equal_views():
    assert make_view(ALL, "pial", surface=BRAIN) == make_view(ALL, "pial", surface=BRAIN)
    assert make_view(ALL, surface=BRAIN) == whole_view(BRAIN)


def test_vertices_on_a_view():
    on = BRAIN.left.on_flatmap
    assert 0 < on.sum() < len(on)
    np.testing.assert_array_equal(on_view(ALL, make_view(ALL, surface=BRAIN)), np.tile(on, 2))
    assert on_view(ALL, make_view(ALL, "pial", surface=BRAIN)).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flat", ("flat", None, None)),
        ("Inflated", ("inflated", None, None)),
        ("pial-lateral-medial", ("pial", ("lateral", "medial"), None)),
        ("left, ventral", ("inflated", ("ventral",), ("left",))),
        ("right", ("flat", None, ("right",))),
    ],
)
def test_names_of_views(text, expected):
    assert read_view(text) == expected


@pytest.mark.parametrize("text", ["", "inflatd", "pial-sphere", "lateral-x"])
def test_names_of_no_view(text):
    with pytest.raises(UsageError, match="view"):
        read_view(text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"shape": "smoothwm"}, "pial, white"),
        ({"shape": "pial", "angles": ("top",)}, "dorsal"),
        ({"shape": "pial", "hemispheres": ("lh",)}, "left, right"),
        ({"shape": "flat", "angles": ("lateral",)}, "inflated"),
        ({"surface": None}, "surface"),
    ],
)
def test_refusals(arguments, said):
    with pytest.raises(UsageError, match=said):
        make_view(ALL, **{"surface": BRAIN, **arguments})
