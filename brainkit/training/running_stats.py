"""Running sums that stay on the device, so that no step waits to read a number."""

from __future__ import annotations

import torch
from torch import Tensor


def sum_dtype(device: torch.device) -> torch.dtype:
    """The dtype of sums: float64, and float32 on Apple's GPUs, which have no other."""
    return torch.float32 if device.type == "mps" else torch.float64


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


class DeviceScore:
    """Correlation per vertex over batches, as :class:`brainkit.metrics.scores.StreamingScore` computes it, on a device.

    Values are taken relative to the first row, and batches are merged by their means, so that large offsets do no harm
    in float32 either. A NaN makes its own vertex NaN and no other.

    Parameters
    ----------
    n_vertices : int
        V.
    device : torch.device
    """

    def __init__(self, n_vertices: int, device: torch.device) -> None:
        self.n = 0
        self._first: tuple[Tensor, Tensor] | None = None
        zero = torch.zeros(n_vertices, dtype=sum_dtype(device), device=device)
        self._mean_p, self._mean_y = zero.clone(), zero.clone()
        self._pp, self._yy, self._py = zero.clone(), zero.clone(), zero.clone()

    @torch.no_grad()
    def update(self, prediction: Tensor, response: Tensor) -> None:
        """Add a batch of predictions and responses, (b, V) each."""
        p, y = prediction.to(self._pp.dtype), response.to(self._pp.dtype)
        if self._first is None:
            self._first = p[0], y[0]
        p, y = p - self._first[0], y - self._first[1]
        mean_p, mean_y = p.mean(0), y.mean(0)
        p, y = p - mean_p, y - mean_y
        self._join(len(p), mean_p, mean_y, (p * p).sum(0), (y * y).sum(0), (p * y).sum(0))

    def _join(self, b: int, mean_p: Tensor, mean_y: Tensor, pp: Tensor, yy: Tensor, py: Tensor) -> None:
        """Take in `b` images by their means, relative to the first row here, and sums about them."""
        total = self.n + b
        step_p, step_y = mean_p - self._mean_p, mean_y - self._mean_y
        weight = self.n * b / total
        self._pp += pp + weight * step_p * step_p
        self._yy += yy + weight * step_y * step_y
        self._py += py + weight * step_p * step_y
        self._mean_p += step_p * (b / total)
        self._mean_y += step_y * (b / total)
        self.n = total

    def to_tensor(self) -> Tensor:
        """All that is held, (8, V): what another process needs, see `merge`."""
        count = torch.full_like(self._mean_p, self.n)
        first = self._first if self._first is not None else (count, count)
        return torch.stack([count, *first, self._mean_p, self._mean_y, self._pp, self._yy, self._py])

    def merge(self, held: Tensor) -> None:
        """Take in the images that another score has seen, which gave `held` by its `to_tensor`."""
        b = int(held[0, 0])
        if not b:
            return
        first_p, first_y, mean_p, mean_y, pp, yy, py = held[1:]
        if self._first is None:
            self._first = first_p, first_y
        # Its means are relative to its own first row.
        self._join(b, mean_p + (first_p - self._first[0]), mean_y + (first_y - self._first[1]), pp, yy, py)

    @property
    def r(self) -> Tensor:
        """Pearson correlation, (V,), in [-1, 1]; NaN where prediction or response is constant."""
        r = self._py / (self._pp.sqrt() * self._yy.sqrt())
        constant = (self._pp == 0) | (self._yy == 0)
        return torch.where(constant, torch.nan, r).clamp(-1.0, 1.0)
