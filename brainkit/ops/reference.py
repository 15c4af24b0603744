"""The operator in plain torch, as in the paper: the specification that every implementation is tested against.

One letter per axis: B images, L layers, D bottleneck channels, H and W token grid, V vertices.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def factor_readout(
    local_tokens: Tensor,  # (B, L, D, H, W)
    global_tokens: Tensor,  # (B, L, D)
    locations: Tensor,  # (V, 2) x right, y down, [-1, 1]
    layer_weights: Tensor,  # (V, L)
    scale: Tensor,  # (V,) 0 local, 1 global
    weight: Tensor,  # (V, D)
    bias: Tensor,  # (V,)
) -> Tensor:  # (B, V)
    """Predict every vertex's response from every image's tokens (Brain Decodes Deep Nets, arXiv 2312.01280)."""
    n_images, n_layers, n_channels = global_tokens.shape
    # A location that is NaN or infinite makes its vertex NaN, whatever grid_sample would return.
    known = locations.isfinite().all(-1)
    grid = torch.where(known[:, None], locations, 0.0)[None, :, None].expand(n_images, -1, 1, 2)
    sampled = torch.stack(
        [
            F.grid_sample(local_tokens[:, layer], grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            for layer in range(n_layers)
        ],
        dim=1,
    )[..., 0]  # (B, L, D, V)
    local = torch.einsum("vl,bldv->bvd", layer_weights, sampled)
    whole = torch.einsum("vl,bld->bvd", layer_weights, global_tokens)
    mixed = (1 - scale)[:, None] * local + scale[:, None] * whole  # (B, V, D)
    response = bias + (mixed * weight).sum(-1) / n_channels
    return torch.where(known, response, torch.nan)
