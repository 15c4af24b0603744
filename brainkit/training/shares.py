"""How a batch is divided among processes so that the mean of their gradients is the gradient of the whole batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Share(NamedTuple):
    """What one process does of a batch.

    Attributes
    ----------
    weight : float
        By which the process multiplies its mean loss: the mean over processes is then the mean over the batch.
    images : int
        How many of the batch's images are its own; 0 where it works on one only to keep step with the others.
    """

    weight: float
    images: int


def share_of(batch: npt.NDArray[np.int64], rank: int, processes: int) -> npt.NDArray[np.int64]:
    """The positions of a batch that a process works on: neighbours, near-equal numbers, never none."""
    own = np.array_split(batch, processes)[rank]
    return own if len(own) else batch[:1]


def weight_of(images: int, rank: int, processes: int) -> Share:
    """How much the share that `share_of` gives counts, for a batch of so many images."""
    own = images // processes + (rank < images % processes)
    return Share(processes * own / images if images else 0.0, own)
