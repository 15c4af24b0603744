"""Running sums that stay on the device, so that no step waits to read a number."""

from __future__ import annotations

import torch
from torch import Tensor

from brainkit.metrics.correlation import StreamingCorrelation


def sum_dtype(device: torch.device) -> torch.dtype:
    """The dtype of sums: float64, and float32 on Apple's GPUs, which have no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def streaming_correlation(n_vertices: int, device: torch.device) -> StreamingCorrelation:
    """Correlation per vertex over batches on a device."""
    return StreamingCorrelation(n_vertices, torch.zeros(n_vertices, dtype=sum_dtype(device), device=device))


class LossWatch:
    """The mean loss of an epoch, and the first step whose loss was not finite.

    The host reads only `mean` of a finished epoch and `first_bad`; `add` works on tensors in place, so it may be part
    of a captured graph.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        self.total = torch.zeros((), dtype=sum_dtype(device), device=device)
        self.images = torch.zeros((), dtype=torch.int64, device=device)
        self.steps = torch.zeros((), dtype=torch.int64, device=device)
        self.bad = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, loss: Tensor, images: int) -> None:
        """Count a step: the mean loss over its images, a scalar, and their number."""
        self.total += loss * images
        self.images += images
        self.steps += 1
        self.bad += torch.where((self.bad == 0) & ~loss.isfinite(), self.steps, 0)

    def mean(self) -> Tensor:
        """The mean loss over all images so far. ()"""
        return (self.total / self.images).float()

    def first_bad(self) -> int:
        """The number of the first step, from 1, whose loss was not finite; 0 if all were. Waits for the device."""
        return int(self.bad.item())

    def next_epoch(self) -> None:
        """Start a new mean; the count of steps continues."""
        self.total.zero_()
        self.images.zero_()

    def state_dict(self) -> dict[str, float | int]:
        """What a resumed epoch needs. Waits for the device."""
        return {"total": self.total.item(), "images": int(self.images.item()), "steps": int(self.steps.item())}

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        """Continue from a `state_dict`."""
        for name, value in state.items():
            getattr(self, name).fill_(value)
        self.bad.zero_()
