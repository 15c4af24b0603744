"""How a batch is divided among processes so that the mean of their gradients is the gradient of the whole batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Share(NamedTuple):
    """One process's part of a batch.

    Attributes
    ----------
    weight : float
        Factor of the process's mean loss: the mean over processes is then the mean over the batch.
    images : int
        How many of the batch's images it has; 0 if it works on one only to stay in step with the others.
    """

    weight: float
    images: int


def positions_of(batch: npt.NDArray[np.int64], rank: int, processes: int) -> npt.NDArray[np.int64]:
    """The positions of a batch that a process works on: neighbours, near-equal in number, never none."""
    own = np.array_split(batch, processes)[rank]
    return own if len(own) else batch[:1]


def share_of(images: int, rank: int, processes: int) -> Share:
    """What `positions_of` gives a process of a batch of so many images."""
    own = images // processes + (rank < images % processes)
    return Share(processes * own / images if images else 0.0, own)
