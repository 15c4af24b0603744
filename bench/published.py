"""The model as formulated in the paper (Yang, Gee, Shi: Brain Decodes Deep Nets, arXiv 2312.01280), for comparison.

Every layer's local and global features (B, V, D) are computed, weighted by the vertices' layer weights, and summed; the
scale blends the two, and the channel weights read out the blend.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def factor_readout(
    local_tokens: Tensor,  # (B, L, D, H, W)
    global_tokens: Tensor,  # (B, L, D)
    locations: Tensor,  # (V, 2)
    layer_weights: Tensor,  # (V, L)
    scale: Tensor,  # (V,)
    weight: Tensor,  # (V, D)
    bias: Tensor,  # (V,)
) -> Tensor:  # (B, V)
    """Same arguments and result as :func:`brainkit.ops.factor_readout`, for finite locations."""
    n_images, n_layers = global_tokens.shape[:2]
    grid = locations.expand(n_images, 1, -1, 2)  # (B, 1, V, 2)
    local: Tensor | float = 0.0
    whole: Tensor | float = 0.0
    for layer in range(n_layers):
        selected = layer_weights[None, :, layer, None]  # (1, V, 1)
        sampled = F.grid_sample(
            local_tokens[:, layer], grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )
        local = local + sampled[:, :, 0].transpose(1, 2) * selected  # (B, V, D)
        whole = whole + global_tokens[:, layer, None] * selected
    share = scale[None, :, None]
    features = (1 - share) * local + share * whole
    return (features * weight).mean(-1) + bias


class FactorTopy(nn.Module):
    """The whole model as published: bottlenecks, three selector networks of the encoded coordinates, the operator.

    State dicts have the published names. Every step encodes the coordinates and evaluates the networks one by one.
    """

    def __init__(
        self, widths: Mapping[str, int], coordinates: Tensor, *, bottleneck: int = 128, selector_width: int = 128
    ) -> None:
        super().__init__()
        self.local_token_bottleneck = nn.ModuleDict(
            {layer: nn.Conv2d(width, bottleneck, 1, bias=False) for layer, width in widths.items()}
        )
        self.global_token_bottleneck = nn.ModuleDict(
            {layer: nn.Linear(width, bottleneck, bias=False) for layer, width in widths.items()}
        )
        self.space_selector_mlp = _selector(2, selector_width, nn.Tanh())
        self.layer_selector_mlp = _selector(len(widths), selector_width, nn.Softmax(-1))
        self.scale_selector_mlp = _selector(1, selector_width, nn.Sigmoid())
        self.weight = nn.Parameter(torch.randn(len(coordinates), bottleneck) * 0.02)
        self.bias = nn.Parameter(torch.zeros(len(coordinates)))
        self.register_buffer("coordinates", coordinates, persistent=False)

    def forward(self, local: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Responses (B, V) and the regulariser, from tokens (B, C, H, W) and (B, C) of each layer."""
        places = self.space_selector_mlp(self.coordinates)
        layers = self.layer_selector_mlp(self.coordinates)
        scale = self.scale_selector_mlp(self.coordinates)[:, 0]
        local_tokens = torch.stack([self.local_token_bottleneck[layer](local[layer]) for layer in local], 1)
        global_tokens = torch.stack([self.global_token_bottleneck[layer](whole[layer]) for layer in whole], 1)
        response = factor_readout(local_tokens, global_tokens, places, layers, scale, self.weight, self.bias)
        sharpness = (layers * (layers + 1e-8).log()).sum(-1).mean() / math.log(layers.shape[1])
        return response, sharpness + (scale - 0.5).square().mean()


def training_step(
    model: FactorTopy,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Mapping[str, Tensor], Mapping[str, Tensor], Tensor],
) -> Tensor:
    """One training step: smooth L1 (beta 0.1) plus 0.1 of the regulariser, clipping at 0.5, AdamW. Returns the loss."""
    local, whole, target = batch
    optimizer.zero_grad()
    response, regulariser = model(local, whole)
    loss = F.smooth_l1_loss(response, target, beta=0.1) + 0.1 * regulariser
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    return loss.detach()


class _Encoding(nn.Module):
    """Sines and cosines of the coordinates, scaled to a span of 100, at frequencies 1000 ** -(k / 32)."""

    def forward(self, coordinates: Tensor) -> Tensor:  # (V, 3) -> (V, 192)
        lower = coordinates.min(0).values
        places = (coordinates - lower) / (coordinates.max(0).values - lower).max() * 100
        frequencies = 1000.0 ** -(torch.arange(32, device=coordinates.device) / 32)
        angles = places[:, :, None] * frequencies
        return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def _selector(outputs: int, width: int, head: nn.Module) -> nn.Sequential:
    last = nn.Linear(width, outputs, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(_Encoding(), nn.Linear(192, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), last, head)
