"""Which images drive a region most: the K highest and lowest mean predictions, found as rows go by."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainkit.errors import UsageError
from brainkit.metrics.moments import Moments
from brainkit.predict.outputs.csv import check_regions

MOST = 100  # images of a ranking: more make no sheet that anybody looks at


@dataclass(frozen=True)
class Ranked:
    """An image in a ranking.

    Attributes
    ----------
    rank : int
        From 1.
    row : int
        Which of the predictions' rows.
    name : str
    mean : float
        Mean prediction over the region's vertices.
    image : object
        What opens it: a path, or what was given with its row.
    """

    rank: int
    row: int
    name: str
    mean: float
    image: Any = None


@dataclass(frozen=True)
class Ranking:
    """The images that drive a region most and least.

    Attributes
    ----------
    region : str
    vertices : int
        Over which a mean was taken.
    images : int
        Ranked in all; one whose mean is not finite is not among them.
    mean, sd : float
        Over those images.
    highest : tuple of Ranked
        From the highest mean downwards; where two are equal, the earlier row first.
    lowest : tuple of Ranked
        From the lowest mean upwards; empty where it would share images with `highest`.
    """

    region: str
    vertices: int
    images: int
    mean: float
    sd: float
    highest: tuple[Ranked, ...]
    lowest: tuple[Ranked, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; without what opens the images."""

        def listed(ranked: tuple[Ranked, ...]) -> list[dict[str, Any]]:
            return [{"rank": one.rank, "image": one.name, "row": one.row, "mean": one.mean} for one in ranked]

        return {
            "vertices": self.vertices,
            "images": self.images,
            "mean": self.mean if math.isfinite(self.mean) else None,
            "sd": self.sd if math.isfinite(self.sd) else None,
            "highest": listed(self.highest),
            "lowest": listed(self.lowest),
        }


class TopImages:
    """Keep the `k` highest and lowest images of each region while mean predictions go by; memory does not grow.

    Parameters
    ----------
    regions : mapping of str to array of int
        Positions of each region among the columns of the predictions.
    k : int
        1 to 100.

    Raises
    ------
    UsageError
        If `k` is out of range, there is no region, or one has no vertices.
    """

    def __init__(self, regions: Mapping[str, np.ndarray], k: int) -> None:
        if not 1 <= k <= MOST:
            raise UsageError(f"top must be 1 to {MOST} images, got {k}")
        if not regions:
            raise UsageError("the images that drive a region most need a region: name it with roi")
        check_regions(regions)
        self._regions, self._k, self._rows = regions, k, 0
        # Smallest first, so that the one to give up is on top; rows are negated, so that of equals the later one goes.
        self._highest: list[list[tuple[float, int]]] = [[] for _ in regions]
        self._lowest: list[list[tuple[float, int]]] = [[] for _ in regions]
        self._moments = [Moments(1) for _ in regions]

    def add(self, means: np.ndarray) -> None:
        """Take the means of some images, (b, regions), see :func:`brainkit.predict.outputs.csv.region_means`."""
        for column, moments in enumerate(self._moments):
            finite = np.isfinite(means[:, column])
            moments.add(means[finite, column : column + 1])
            for at in np.flatnonzero(finite).tolist():
                mean, row = float(means[at, column]), self._rows + at
                for kept, value in ((self._highest[column], mean), (self._lowest[column], -mean)):
                    if len(kept) < self._k:
                        heapq.heappush(kept, (value, -row))
                    elif (value, -row) > kept[0]:
                        heapq.heapreplace(kept, (value, -row))
        self._rows += len(means)

    def finish(self, look_up: Callable[[int], tuple[str, Any]]) -> dict[str, Ranking]:
        """The rankings so far, by region; `look_up` gives the name of a row's image, and what opens it."""

        def ranked(kept: list[tuple[float, int]], sign: float) -> tuple[Ranked, ...]:
            ordered = sorted(kept, reverse=True)
            return tuple(
                Ranked(rank, -negated, *_named(look_up(-negated), sign * value))
                for rank, (value, negated) in enumerate(ordered, 1)
            )

        found = {}
        for column, (name, index) in enumerate(self._regions.items()):
            moments = self._moments[column]
            found[name] = Ranking(
                name,
                len(index),
                moments.count,
                float(moments.mean[0]) if moments.count else math.nan,
                math.sqrt(moments.variance[0]) if moments.count > 1 else math.nan,
                ranked(self._highest[column], 1.0),
                ranked(self._lowest[column], -1.0) if moments.count >= 2 * self._k else (),
            )
        return found


def _named(found: tuple[str, Any], mean: float) -> tuple[str, float, Any]:
    return found[0], mean, found[1]
