"""The operator as the paper formulates it, for comparison: features are sampled layer by layer and materialised.

Written from Yang, Gee, Shi: Brain Decodes Deep Nets, arXiv 2312.01280. Every layer's (B, V, D) features, local and
global, are made, weighted by the vertices' layer selection, and summed; scale selection blends the two, and the
channel weights read the blend out.
"""

from __future__ import annotations

from torch import Tensor
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
