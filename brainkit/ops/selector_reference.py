"""The networks of the selectors in plain torch: the specification that every implementation is held against."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import gelu


def selector_networks(
    features: Tensor,  # (V, F)
    hidden_weight: Tensor,  # (3, H, F)
    hidden_bias: Tensor,  # (3, H)
    second_weight: Tensor,  # (3, H, H)
    second_bias: Tensor,  # (3, H)
    location_head: Tensor,  # (2, H)
    layer_head: Tensor,  # (L, H)
    scale_head: Tensor,  # (1, H)
) -> tuple[Tensor, Tensor, Tensor]:  # (V, 2), (V, L), (V,)
    """See :func:`brainkit.ops.selector_networks.selector_networks`."""
    units = gelu(features @ hidden_weight.mT + hidden_bias[:, None])  # (3, V, H)
    units = gelu(units @ second_weight.mT + second_bias[:, None])
    locations = torch.tanh(units[0] @ location_head.T)
    layer_weights = torch.softmax(units[1] @ layer_head.T, -1)
    return locations, layer_weights, torch.sigmoid(units[2] @ scale_head[0])
