"""Colours: even in lightness, and told apart by the colour-blind."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.errors import UsageError
from brainkit.maps import definitions
from brainkit.maps.brain_map import Continuous
from brainkit.maps.colours import class_palette, colour_map, layer_palette, location_colours

pytest.importorskip("matplotlib")

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
CURVATURE = [0.74, 0.86]  # greys below the data


def oklab(colours, deuteranope=False):
    """sRGB to Oklab (Ottosson 2020), as someone without green cones sees it if asked. (n, 3) -> (n, 3)."""
    colours = np.asarray(colours, dtype=float)
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    if deuteranope:
        linear = np.clip(linear @ DEUTERANOPIA.T, 0, 1)
    cones = np.cbrt(
        linear
        @ np.transpose(
            [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ]
        )
    )
    return cones @ np.transpose(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )


def distances(one, other):
    return np.linalg.norm(one - other, axis=-1)


@pytest.mark.parametrize("deuteranope", [False, True])
@pytest.mark.parametrize(("count", "least"), [(3, 0.25), (7, 0.1), (12, 0.05), (24, 0.02)])
def test_layers_rise_in_lightness_and_neighbours_stay_apart(count, least, deuteranope):
    seen = oklab(layer_palette(count), deuteranope)
    assert (np.diff(seen[:, 0]) > 0).all()
    assert distances(seen[1:], seen[:-1]).min() > least


@pytest.mark.parametrize("deuteranope", [False, True])
def test_layers_are_told_from_the_cortex(deuteranope):
    greys = oklab(np.repeat(np.array(CURVATURE)[:, None], 3, axis=1), deuteranope)
    seen = oklab(layer_palette(7), deuteranope)
    assert distances(seen[:, None], greys[None]).min() > 0.08


@pytest.mark.parametrize("deuteranope", [False, True])
@pytest.mark.parametrize("name", ["SKILL", "SCALE", "ERROR"])
def test_maps_of_numbers_rise_evenly(name, deuteranope):
    """None of them has a middle that would seem special."""
    lightness = oklab(colour_map(getattr(definitions, name))(np.linspace(0, 1, 41))[:, :3], deuteranope)[:, 0]
    steps = np.diff(lightness)
    assert (steps > 0).all() and steps.max() < 4 * np.median(steps)


@pytest.mark.parametrize("deuteranope", [False, True])
@pytest.mark.parametrize("name", ["DIVERGING", "DIFFERENCE"])
def test_the_two_sides_of_diverging_maps_differ(name, deuteranope):
    low, high = oklab(colour_map(getattr(definitions, name))([0.1, 0.9])[:, :3], deuteranope)
    assert distances(low, high) > 0.2


def test_what_is_below_zero_is_not_black():
    coding = definitions.accuracy(np.array([-0.1, 0.3])).coding
    assert isinstance(coding, Continuous) and coding.extend == "min"
    from matplotlib.colors import to_rgb

    for deuteranope in (False, True):
        black, below = oklab([colour_map(coding.colours)(0.0)[:3], to_rgb(coding.below)], deuteranope)
        assert distances(black, below) > 0.3


def test_locations_are_equally_light_in_all_directions():
    angle = np.radians(np.arange(0, 360, 10))
    for radius in (0.3, 0.6, 0.95):
        lightness = oklab(location_colours(radius * np.cos(angle), radius * np.sin(angle)))[:, 0]
        assert np.ptp(lightness) < 0.02


def test_left_and_right_and_up_and_down_differ_for_the_colour_blind():
    right, left, down, up = oklab(location_colours(np.array([0.9, -0.9, 0, 0]), np.array([0, 0, 0.9, -0.9])), True)
    assert distances(left, right) > 0.1 and distances(up, down) > 0.1


def test_each_location_in_the_image_has_its_own_colour():
    x, y = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9))
    colours = location_colours(x, y)
    assert colours.shape == (9, 9, 3) and colours.min() >= 0 and colours.max() <= 1
    assert np.ptp(colours[4, 4]) < 0.02  # the middle is pale
    ring = location_colours(0.8 * np.cos(np.arange(12) * np.pi / 6), 0.8 * np.sin(np.arange(12) * np.pi / 6))
    difference = np.abs(ring[:, None] - ring[None]).max(axis=-1) + np.eye(12)
    assert difference.min() > 0.05


def test_classes_have_colours_of_their_own():
    for count in (1, 8, 20):
        assert len(np.unique(class_palette(count), axis=0)) == count
    seen = oklab(class_palette(8), True)
    apart = distances(seen[:, None], seen[None]) + np.eye(8)
    assert apart.min() > 0.04


def test_an_unknown_colour_map_is_answered_by_the_nearest():
    with pytest.raises(UsageError, match="viridis"):
        colour_map("virids")
