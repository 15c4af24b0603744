"""The linear bottleneck of each layer: token statistics, and the gauge that makes layer weights comparable."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

_ONEDNN = torch.backends.mkldnn.is_available()


class TokenStatistics(nn.Module):
    """Mean, s.d. and correlation of one layer's tokens over the training images: constants of the model.

    Buffers: ``mean`` (C,), ``std`` (C,) and ``moment`` (C, C).
    """

    mean: Tensor
    std: Tensor
    moment: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("moment", torch.eye(channels))

    def set(self, mean: np.ndarray, std: np.ndarray, moment: np.ndarray) -> None:
        """Set the mean (C,), s.d. (C,) and second moment (C, C) of the centred, scaled tokens."""
        for name, value in (("mean", mean), ("std", std), ("moment", moment)):
            getattr(self, name).copy_(torch.from_numpy(np.ascontiguousarray(value)))

    @torch.no_grad()
    def leave_raw(self) -> None:
        """Use raw tokens: mean 0, s.d. 1, and the second moment of the raw tokens."""
        self.moment.copy_(self.moment * torch.outer(self.std, self.std) + torch.outer(self.mean, self.mean))
        self.mean.zero_()
        self.std.fill_(1.0)

    def inverse_std(self) -> Tensor:
        """1 / s.d. (C,); 0 for a constant channel, which is thereby ignored."""
        return torch.where(self.std > 0, 1 / self.std.clamp(min=torch.finfo(self.std.dtype).tiny), 0.0)

    def gain(self, weight: Tensor) -> Tensor:
        """The factor () that gives the bottleneck's output unit RMS over the training tokens: sqrt(D / tr(P S P^T))."""
        power, _ = _Power.apply(weight, self.moment)
        # A bottleneck whose output is always zero has no such factor: 0, not NaN.
        return torch.where(power > 0, power.clamp(min=torch.finfo(power.dtype).tiny).rsqrt(), 0.0)

    def affine_map(self, weight: Tensor, *, gauge: bool) -> tuple[Tensor, Tensor]:
        """The bottleneck as an affine map (D, C), (D,) of raw tokens: centring, scaling, optionally the gauge."""
        if gauge:
            weight = weight * self.gain(weight)
        weight = weight * self.inverse_std()
        return weight, -(weight @ self.mean)


def pointwise(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply the affine map ``weight`` (D, C), ``bias`` (D,) to tokens (B, C, H, W) in every cell: (B, D, H, W)."""
    if _convolves(tokens):
        return F.conv2d(tokens, weight[:, :, None, None], bias)
    return (torch.matmul(weight, tokens.flatten(2)) + bias[:, None]).unflatten(2, tokens.shape[2:])


class _Power(torch.autograd.Function):
    """tr(P S P^T) / D for symmetric S. The gradient is 2 P S / D, so forward and backward share one product."""

    @staticmethod
    def forward(weight: Tensor, moment: Tensor) -> tuple[Tensor, Tensor]:
        product = _times_symmetric(weight, moment)
        return (product * weight).sum() / weight.shape[0], product

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None]:
        (product,) = ctx.saved_tensors
        return product * (grad * (2 / product.shape[0])), None


def _times_symmetric(weight: Tensor, moment: Tensor) -> Tensor:
    """weight (D, C) @ moment (C, C)."""
    if not _convolves(weight):
        return weight @ moment
    rows = moment[None, :, None].permute(0, 3, 1, 2)  # (1, C, C, 1), channels last: a view
    return F.conv2d(rows, weight[:, :, None, None])[0, :, :, 0]


def _convolves(tensor: Tensor) -> bool:
    """Whether to compute a product as a pointwise convolution.

    On CPUs PyTorch runs convolutions in oneDNN and products in MKL, which is half as fast on AMD processors. On GPUs
    convolutions may be rounded to TF32.
    """
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and _ONEDNN
