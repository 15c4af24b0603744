"""The linear bottlenecks of each layer: what the tokens are measured by, and the gauge that gives layers a meaning."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

_ONEDNN = torch.backends.mkldnn.is_available()


class TokenStatistics(nn.Module):
    """Mean, s.d. and correlation of one layer's tokens over the training images: constants of the model."""

    mean: Tensor
    std: Tensor
    moment: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("moment", torch.eye(channels))

    def set(self, mean: np.ndarray, std: np.ndarray, moment: np.ndarray) -> None:
        """Take mean (C,), s.d. (C,) and the second moment (C, C) of the centred, scaled tokens."""
        for name, value in (("mean", mean), ("std", std), ("moment", moment)):
            getattr(self, name).copy_(torch.from_numpy(np.ascontiguousarray(value)))

    @torch.no_grad()
    def leave_raw(self) -> None:
        """Take tokens as they are: no mean, no s.d., and the second moment of the tokens themselves."""
        self.moment.copy_(self.moment * torch.outer(self.std, self.std) + torch.outer(self.mean, self.mean))
        self.mean.zero_()
        self.std.fill_(1.0)

    def inverse_std(self) -> Tensor:
        """1 / s.d.; zero for a channel that never varied, which has nothing to tell."""
        return torch.where(self.std > 0, 1 / self.std.clamp(min=torch.finfo(self.std.dtype).tiny), 0.0)

    def gain(self, weight: Tensor) -> Tensor:
        """Brings the bottleneck's output to unit RMS over the training tokens: sqrt(D / tr(P S P^T)). ()"""
        power, _ = _Power.apply(weight, self.moment)
        # A bottleneck with no output at all has no gauge; it stays at zero rather than becoming NaN.
        return torch.where(power > 0, power.clamp(min=torch.finfo(power.dtype).tiny).rsqrt(), 0.0)

    def mapped(self, weight: Tensor, *, gauge: bool) -> tuple[Tensor, Tensor]:
        """The affine map of raw tokens, (D, C) and (D,): centring, scaling and, if asked for, the gauge folded in."""
        if gauge:
            weight = weight * self.gain(weight)
        weight = weight * self.inverse_std()
        return weight, -(weight @ self.mean)


def pointwise(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply the affine map ``weight`` (D, C), ``bias`` (D,) to tokens (B, C, H, W) at every place: (B, D, H, W)."""
    if _convolves(tokens):
        return F.conv2d(tokens, weight[:, :, None, None], bias)
    return (torch.matmul(weight, tokens.flatten(2)) + bias[:, None]).unflatten(2, tokens.shape[2:])


class _Power(torch.autograd.Function):
    """tr(P S P^T) / D for a symmetric S. Its gradient is 2 P S / D, so that one product serves both ways."""

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
    rows = moment[None, :, None].permute(0, 3, 1, 2)  # (1, C, C, 1) with the channels last: a view
    return F.conv2d(rows, weight[:, :, None, None])[0, :, :, 0]


def _convolves(tensor: Tensor) -> bool:
    """Whether a pointwise convolution is the faster product here.

    On a CPU PyTorch gives convolutions to oneDNN and products to MKL, which on AMD's processors is half as fast. On a
    GPU a convolution would be rounded to TF32 unless forbidden.
    """
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and _ONEDNN
