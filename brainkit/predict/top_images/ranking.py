"""Which images drive a region most: the K highest and lowest mean predictions, kept while rows stream by."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from brainkit.errors import UsageError
from brainkit.metrics.moments import Moments
from brainkit.predict.regions import check_have_vertices

MAX_IMAGES = 100  # of a ranking: nobody looks at a sheet of more


@dataclass(frozen=True)
class Ranked:
    """An image in a ranking.

    Attributes
    ----------
    rank : int
        From 1.
    row : int
        Row of the predictions.
    name : str
    mean : float
        Mean prediction over the region's vertices.
    image : object
        What opens it: a path, or whatever `TopImages.finish` looked up.
    """

    rank: int
    row: int
    name: str
    mean: float
    image: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class Ranking:
    """The images that drive a region most and least.

    Attributes
    ----------
    region : str
    vertices : int
        How many the mean is over.
    images : int
        How many were ranked; those whose mean is not finite are left out.
    mean, sd : float
        Over those images.
    highest : tuple of Ranked
        From the highest mean downwards; of equal ones the earlier row first.
    lowest : tuple of Ranked
        From the lowest mean upwards; empty if it would share images with `highest`.
    """

    region: str
    vertices: int
    images: int
    mean: float
    sd: float
    highest: tuple[Ranked, ...] = field(repr=False)
    lowest: tuple[Ranked, ...] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain values, without what opens the images."""

        def to_list(ranked: tuple[Ranked, ...]) -> list[dict[str, Any]]:
            return [{"rank": one.rank, "image": one.name, "row": one.row, "mean": one.mean} for one in ranked]

        return {
            "vertices": self.vertices,
            "images": self.images,
            "mean": self.mean if math.isfinite(self.mean) else None,
            "sd": self.sd if math.isfinite(self.sd) else None,
            "highest": to_list(self.highest),
            "lowest": to_list(self.lowest),
        }


class TopImages:
    """Keeps the `k` highest and lowest images of each region while mean predictions stream by, in constant memory.

    Parameters
    ----------
    regions : mapping of str to array of int
        Positions of each region among the columns of the predictions.
    k : int
        1 to 100.

    Attributes
    ----------
    rows : int
        Rows added so far.

    Raises
    ------
    UsageError
        If `k` is out of range, there is no region, or one has no vertices.
    """

    def __init__(self, regions: Mapping[str, np.ndarray], k: int) -> None:
        check_count(k)
        if not regions:
            raise UsageError("top needs regions to rank images by, got none")
        check_have_vertices(regions)
        self._regions, self._k, self.rows = regions, k, 0
        # Heaps, the smallest on top, which is dropped first; rows are negated, so that of equals the later one goes.
        self._highest: list[list[tuple[float, int]]] = [[] for _ in regions]
        self._lowest: list[list[tuple[float, int]]] = [[] for _ in regions]
        self._moments = [Moments(1) for _ in regions]

    def add(self, means: np.ndarray) -> None:
        """Add the means of some images, (b, regions), see :func:`brainkit.predict.regions.region_means`."""
        for column, moments in enumerate(self._moments):
            finite = np.isfinite(means[:, column])
            moments.add(means[finite, column : column + 1])
            for at in np.flatnonzero(finite).tolist():
                mean, row = float(means[at, column]), self.rows + at
                for kept, value in ((self._highest[column], mean), (self._lowest[column], -mean)):
                    if len(kept) < self._k:
                        heapq.heappush(kept, (value, -row))
                    elif (value, -row) > kept[0]:
                        heapq.heapreplace(kept, (value, -row))
        self.rows += len(means)

    def finish(self, look_up: Callable[[int], tuple[str, Any]]) -> dict[str, Ranking]:
        """The rankings so far, by region; `look_up` returns the name of a row's image, and what opens it."""

        def ranked(kept: list[tuple[float, int]], sign: float) -> tuple[Ranked, ...]:
            found = []
            for rank, (value, negated) in enumerate(sorted(kept, reverse=True), 1):
                name, image = look_up(-negated)
                found.append(Ranked(rank, -negated, name, sign * value, image))
            return tuple(found)

        rankings = {}
        for column, (name, index) in enumerate(self._regions.items()):
            moments = self._moments[column]
            rankings[name] = Ranking(
                name,
                len(index),
                moments.count,
                float(moments.mean[0]) if moments.count else math.nan,
                math.sqrt(moments.variance[0]) if moments.count > 1 else math.nan,
                ranked(self._highest[column], 1.0),
                ranked(self._lowest[column], -1.0) if moments.count >= 2 * self._k else (),
            )
        return rankings


def check_count(k: int) -> None:
    """Refuse a number of images that a ranking cannot have."""
    if not 1 <= k <= MAX_IMAGES:
        raise UsageError(f"top must be 1 to {MAX_IMAGES} images, got {k}")
