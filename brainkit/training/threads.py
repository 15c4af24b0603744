"""The threads of a training or an export, torch's among them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from brainkit.utils.system import cores, use_threads


@contextlib.contextmanager
def limit_threads(count: int = 0) -> Iterator[None]:
    """Work with `count` threads within the block; 0: at most as many as :func:`brainkit.utils.system.cores` allows.

    torch alone knows neither a container's quota nor SLURM's variables. It starts fewer threads than that where it
    prefers one for each physical core.
    """
    before = torch.get_num_threads()
    with use_threads(count or None):
        torch.set_num_threads(count or min(before, cores()))
        try:
            yield
        finally:
            torch.set_num_threads(before)
