"""Limits of a map's colours: round numbers that cover nearly all values, and the same for maps to be compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
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
    """The map with limits of its own; other maps than continuous ones have none and stay as they are."""
    coding = brain_map.coding
    if not isinstance(coding, Continuous):
        return brain_map
    low, high = coding.low if low is None else low, coding.high if high is None else high
    extend = beyond(brain_map.values, low, high)
    return replace(brain_map, coding=replace(coding, low=low, high=high, extend=extend, shared=0))


def same_limits(maps: Sequence[BrainMap]) -> list[BrainMap]:
    """The maps with the limits and colours of all together, as their bars say; others than continuous stay as they are.

    Colours around 0 stay around 0: if one of the maps has them, all do.
    """
    codings = [each.coding for each in maps if isinstance(each.coding, Continuous)]
    if len(codings) < 2:
        return list(maps)
    lowest = min(codings, key=lambda coding: coding.low)
    low, high = lowest.low, max(each.high for each in codings)
    if lowest.low == -lowest.high:
        low = -high
    return [_shared(each, lowest, low, high, len(codings)) for each in maps]


def _shared(brain_map: BrainMap, like: Continuous, low: float, high: float, count: int) -> BrainMap:
    limited = with_limits(brain_map, low, high)
    if not isinstance(limited.coding, Continuous):
        return limited
    coding = replace(limited.coding, colours=like.colours, below=like.below, shared=count)
    return replace(limited, coding=coding)


def share_limits(
    sets: Sequence[MapSet], kind: Callable[[BrainMap], Hashable] = lambda brain_map: brain_map.name
) -> list[MapSet]:
    """Sets whose maps of the same kind, by default of the same name, have the same limits: they can be compared."""
    found: dict[Hashable, list[BrainMap]] = {}
    for each in (brain_map for one in sets for brain_map in one.maps):
        found.setdefault(kind(each), []).append(each)
    shared = {key: iter(same_limits(maps)) for key, maps in found.items()}
    return [replace(one, maps=tuple(next(shared[kind(each)]) for each in one.maps)) for one in sets]
