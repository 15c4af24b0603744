"""How many images at once: by the input's size, and never more than the memory takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from brainkit.utils.system import PeakMemory, free_memory, memory_now

if TYPE_CHECKING:
    from brainkit.predict.encoder import Encoder

_SHARE = 0.5  # of the free memory: others want some too, and images are decoded beside
_ENOUGH = 1_000_000_000  # bytes an image: no network of these input sizes takes as much


def choose_batch_size(encoder: Encoder, asked: int | None, images: int) -> int:
    """How many images are run at once.

    Parameters
    ----------
    encoder : Encoder
    asked : int, optional
        What the user wants: taken as it is.
    images : int
        How many there are.

    Returns
    -------
    int
        What `Encoder.batch_size_for` gives for the input's size, less where memory is short: then one image is run to
        see what it takes. On a GPU, whose memory is its own, no image is run.

    Raises
    ------
    UsageError
        If `asked` is less than 1.
    """
    size = encoder.batch_size_for(asked)
    if asked is not None:
        return size
    size = max(1, min(size, images))
    if size == 1 or encoder.device != "cpu":
        return size
    room = int(free_memory() * _SHARE)
    if room >= size * _ENOUGH:
        return size
    return max(1, min(size, room // max(1, _bytes_for_one(encoder))))


def _bytes_for_one(encoder: Encoder) -> int:
    """By how much the process grows when it runs one image; 0 where the system does not tell.

    An encoder that has run before has taken its memory already, and grows no more.
    """
    side = encoder.info.preprocessing.size
    with PeakMemory() as watched:
        before = memory_now()["anonymous"]
        encoder.run(np.zeros((1, side, side, 3), np.uint8))
        after = watched.lap()["anonymous"]
    return 0 if before is None or after is None else max(0, after - before)
