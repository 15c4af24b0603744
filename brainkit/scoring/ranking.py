"""Which images drive a region most: the K highest and lowest mean predictions, found as rows go by."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainkit.errors import UsageError
from brainkit.scoring.moments import Moments
from brainkit.scoring.tables import region_means

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
    """Keep the `k` highest and lowest images of each region while predictions go by; memory does not grow.

    Parameters
    ----------
    regions : mapping of str to array of int
        Positions of each region among the columns of the rows.
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
        for name, index in regions.items():
            if not len(index):
                raise UsageError(f"ROI {name}: has no vertices in this encoder, so no image drives it")
        self._regions, self._k, self._rows = regions, k, 0
        # Smallest first, so that the one to give up is on top; rows are negated, so that of equals the later one goes.
        self._highest: list[list[tuple[float, int, str, Any]]] = [[] for _ in regions]
        self._lowest: list[list[tuple[float, int, str, Any]]] = [[] for _ in regions]
        self._moments = [Moments(1) for _ in regions]

    def add(self, names: Sequence[str], fmri: np.ndarray, images: Sequence[Any] | None = None) -> None:
        """Take the rows of some images.

        Parameters
        ----------
        names : sequence of str
        fmri : array of shape (b, columns)
        images : sequence, optional
            What opens each image again; by default its name.
        """
        opened = names if images is None else images
        means = region_means(fmri, self._regions)
        for column, moments in enumerate(self._moments):
            finite = np.isfinite(means[:, column])
            moments.add(means[finite, column : column + 1])
            for at in np.flatnonzero(finite).tolist():
                mean, row = float(means[at, column]), self._rows + at
                for kept, value in ((self._highest[column], mean), (self._lowest[column], -mean)):
                    if len(kept) < self._k:
                        heapq.heappush(kept, (value, -row, names[at], opened[at]))
                    elif (value, -row) > kept[0][:2]:
                        heapq.heapreplace(kept, (value, -row, names[at], opened[at]))
        self._rows += len(fmri)

    def finish(self) -> dict[str, Ranking]:
        """The rankings so far, by region."""
        return {
            name: Ranking(
                name,
                len(index),
                moments.count,
                float(moments.mean[0]) if moments.count else math.nan,
                math.sqrt(moments.variance[0]) if moments.count > 1 else math.nan,
                _ranked(self._highest[column], 1.0),
                _ranked(self._lowest[column], -1.0) if moments.count >= 2 * self._k else (),
            )
            for column, ((name, index), moments) in enumerate(zip(self._regions.items(), self._moments, strict=True))
        }


def _ranked(kept: list[tuple[float, int, str, Any]], sign: float) -> tuple[Ranked, ...]:
    ordered = sorted(kept, key=lambda entry: (-entry[0], -entry[1]))
    return tuple(
        Ranked(rank, -row, name, sign * value, image) for rank, (value, row, name, image) in enumerate(ordered, 1)
    )
