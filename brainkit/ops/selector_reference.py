"""The selector networks in plain torch: the specification that every implementation is tested against."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear


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
    sums = []
    for network, head in enumerate((location_head, layer_head, scale_head)):
        units = gelu(linear(features, hidden_weight[network], hidden_bias[network]))  # (V, H)
        units = gelu(linear(units, second_weight[network], second_bias[network]))
        sums.append(linear(units, head))  # (V, 2), (V, L) or (V, 1)
    return torch.tanh(sums[0]), torch.softmax(sums[1], -1), torch.sigmoid(sums[2][:, 0])
