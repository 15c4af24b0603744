"""Names of regions: near their anchors, never on each other."""

from __future__ import annotations

import itertools

import numpy as np

from brainkit.maps.labels import place_labels

EXTENT = (0.0, 100.0, 0.0, 60.0)
PER_MM = 0.05


def box(label):
    line = label.size / 72 / PER_MM
    half = 0.3 * line * len(label.name) + 0.15 * line, 0.62 * line
    return label.x - half[0], label.x + half[0], label.y - half[1], label.y + half[1]


def test_a_name_stands_on_its_anchor():
    (label,) = place_labels([("V1", 50, 30)], EXTENT, PER_MM, 9.0)
    assert (label.name, label.x, label.y, label.size, label.leader) == ("V1", 50, 30, 9.0, None)


def test_names_keep_off_other_texts():
    caption = 50.0, 8.0, 30.0, 2.0
    (label,) = place_labels([("V1", 50, 30)], EXTENT, PER_MM, 9.0, [caption])
    left, right, bottom, top = box(label)
    assert right <= 42 + 1e-9 or left >= 58 - 1e-9 or top <= 28 + 1e-9 or bottom >= 32 - 1e-9


def test_crowded_names_give_way_and_stay_inside():
    draw = np.random.default_rng(0)
    anchors = [(f"region {i}", *draw.uniform([0, 0], [100, 60])) for i in range(160)]
    labels = place_labels(anchors, EXTENT, PER_MM, 9.0)
    assert 40 < len(labels) < 160  # those without room are left out
    assert {label.size for label in labels} == {9.0, 9.0 * 0.78}
    for one, other in itertools.combinations(map(box, labels), 2):
        apart = one[1] <= other[0] + 1e-9 or other[1] <= one[0] + 1e-9
        assert apart or one[3] <= other[2] + 1e-9 or other[3] <= one[2] + 1e-9
    places = {name: (x, y) for name, x, y in anchors}
    for label in labels:
        left, right, bottom, top = box(label)
        assert left >= -1e-9 and right <= 100 + 1e-9 and bottom >= -1e-9 and top <= 60 + 1e-9
        x, y = places[label.name]
        if label.leader is None:
            assert left - 3 < x < right + 3 and bottom - 3 < y < top + 3
        else:
            np.testing.assert_allclose(label.leader[0], [x, y])
            assert not (left < x < right and bottom < y < top)
    assert any(label.leader is not None for label in labels)
