"""The selector networks in Triton, registered with autograd and ``torch.compile``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from brainkit.ops import gpu


@torch.library.custom_op("brainkit::selector_networks_triton", mutates_args=())
def triton_networks(
    features: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    second_weight: Tensor,
    second_bias: Tensor,
    location_head: Tensor,
    layer_head: Tensor,
    scale_head: Tensor,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Locations (V, 2), layer weights (V, L) and scale (V,); callers have checked the arguments."""
    gpu.require()
    from brainkit.kernels import selectors

    weights = (hidden_weight, hidden_bias, second_weight, second_bias, location_head, layer_head, scale_head)
    return selectors.forward(features.detach(), *(weight.detach() for weight in weights), precision=precision)


@triton_networks.register_fake
def _(
    features: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    second_weight: Tensor,
    second_bias: Tensor,
    location_head: Tensor,
    layer_head: Tensor,
    scale_head: Tensor,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor]:
    n_vertices = features.shape[0]
    return (
        features.new_empty(n_vertices, 2),
        features.new_empty(n_vertices, layer_head.shape[0]),
        features.new_empty(n_vertices),
    )


@torch.library.custom_op("brainkit::selector_networks_triton_backward", mutates_args=())
def triton_backward(
    grad_locations: Tensor,
    grad_layer_weights: Tensor,
    grad_scale: Tensor,
    features: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    second_weight: Tensor,
    second_bias: Tensor,
    location_head: Tensor,
    layer_head: Tensor,
    scale_head: Tensor,
    precision: str,
) -> list[Tensor]:
    """Gradients of the seven weights, in their order."""
    gpu.require()
    from brainkit.kernels import selectors

    grads = (grad_locations, grad_layer_weights, grad_scale)
    weights = (hidden_weight, hidden_bias, second_weight, second_bias, location_head, layer_head, scale_head)
    return selectors.backward(*(x.detach() for x in (*grads, features, *weights)), precision=precision)


@triton_backward.register_fake
def _(
    grad_locations: Tensor,
    grad_layer_weights: Tensor,
    grad_scale: Tensor,
    features: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    second_weight: Tensor,
    second_bias: Tensor,
    location_head: Tensor,
    layer_head: Tensor,
    scale_head: Tensor,
    precision: str,
) -> list[Tensor]:
    weights = (hidden_weight, hidden_bias, second_weight, second_bias, location_head, layer_head, scale_head)
    return [torch.empty(weight.shape, dtype=weight.dtype, device=weight.device) for weight in weights]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.precision = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    return None, *triton_backward(*grads, *ctx.saved_tensors, ctx.precision), None


triton_networks.register_autograd(_differentiate, setup_context=_save)
