"""Limits of a map's colours: round numbers that cover nearly all values, and the same for maps to be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from brainkit.maps.brain_map import BrainMap, Continuous, MapSet

Extend = Literal["neither", "min", "max", "both"]
_COVERED = 99.0  # percent of the vertices within the limits


def robust_top(values: np.ndarray) -> float:
    """The value that 99 % of the finite values do not exceed; at least 0."""
    finite = values[np.isfinite(values)]
    return max(float(np.percentile(finite, _COVERED)), 0.0) if finite.size else 0.0


def symmetric(values: np.ndarray, least: float) -> float:
    """A round limit on the absolute values, for colours around 0."""
    return round_up(robust_top(np.abs(values)), least)


def round_up(value: float, least: float) -> float:
    """The next round number (1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten), at least `least`."""
    value = max(value, least)
    power = 10.0 ** math.floor(math.log10(value))
    steps = (float(f"{step * power:.3g}") for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10))
    return next(step for step in steps if step >= value * (1 - 1e-9))


def beyond(values: np.ndarray, low: float, high: float) -> Extend:
    """The ends of the colour bar beyond which there are values."""
    finite = values[np.isfinite(values)]
    below, above = bool((finite < low).any()), bool((finite > high).any())
    if below and above:
        return "both"
    return "min" if below else "max" if above else "neither"


def with_limits(brain_map: BrainMap, low: float | None, high: float | None) -> BrainMap:
    """The map with other limits of its colours; other maps than continuous ones have none and stay as they are."""
    coding = brain_map.coding
    if not isinstance(coding, Continuous):
        return brain_map
    low, high = coding.low if low is None else low, coding.high if high is None else high
    extend = beyond(brain_map.values, low, high)
    return replace(brain_map, coding=replace(coding, low=low, high=high, extend=extend))


def same_limits(maps: Sequence[BrainMap]) -> list[BrainMap]:
    """The maps with the limits of all of them together; those that are not continuous stay as they are."""
    codings = [each.coding for each in maps if isinstance(each.coding, Continuous)]
    low, high = min((each.low for each in codings), default=None), max((each.high for each in codings), default=None)
    return [with_limits(each, low, high) for each in maps]


def share_limits(sets: Sequence[MapSet]) -> list[MapSet]:
    """Sets whose maps of the same name have the same limits, so that they can be compared."""
    named: dict[str, list[BrainMap]] = {}
    for each in (brain_map for one in sets for brain_map in one.maps):
        named.setdefault(each.name, []).append(each)
    shared = {name: iter(same_limits(maps)) for name, maps in named.items()}
    return [replace(one, maps=tuple(next(shared[each.name]) for each in one.maps)) for one in sets]
