"""The operator in Triton, registered with autograd and ``torch.compile``.

Triton is imported at the first call.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

import brainkit.kernels as kernels
from brainkit.errors import BrainkitError
from brainkit.kernels import blocks


def why_unavailable() -> str | None:
    """Why the Triton kernels cannot run here, in one phrase; None if they can. Determined once."""
    return _cached_reason()


# A constant for torch.compile. Its decorator sets only this attribute, but importing that imports the whole compiler
# and triton.
why_unavailable._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def _cached_reason() -> str | None:
    return kernels.why_unavailable()


def serves(tokens: Tensor) -> bool:
    """Whether the kernels take tensors on this device: CUDA, or the CPU with Triton's interpreter."""
    return tokens.is_cuda or (tokens.device.type == "cpu" and kernels.interpreted())


def require() -> None:
    """Raise BrainkitError if the kernels cannot run: compiled programs skip the check of the public operator."""
    if reason := why_unavailable():
        raise BrainkitError(f"backend 'triton' cannot run here: {reason}")


def factor_readout(
    local_tokens: Tensor,
    global_tokens: Tensor,
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    weight: Tensor,
    bias: Tensor,
    precision: str,
) -> Tensor:
    """Evaluate the operator in Triton; arguments as for :func:`brainkit.ops.factor_readout`, which checks them."""
    response, _, _ = triton_operator(
        local_tokens, global_tokens, locations, layer_weights, scale, weight, bias, precision
    )
    return response


@torch.library.custom_op("brainkit::factor_readout_triton", mutates_args=())
def triton_operator(
    local_tokens: Tensor,
    global_tokens: Tensor,
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    weight: Tensor,
    bias: Tensor,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Responses (B, V), and the token table and the plan for the backward pass."""
    require()
    from brainkit.kernels import launch

    vertices = (tensor.detach().contiguous() for tensor in (locations, layer_weights, scale, weight, bias))
    return launch.forward(local_tokens.detach(), global_tokens.detach(), *vertices, precision)


@triton_operator.register_fake
def _(
    local_tokens: Tensor,
    global_tokens: Tensor,
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    weight: Tensor,
    bias: Tensor,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor]:
    n_images, n_layers, n_channels, height, width = local_tokens.shape
    n_vertices = locations.shape[0]
    return (
        weight.new_empty(n_images, n_vertices),
        local_tokens.new_empty(blocks.table_shape(n_images, n_layers, n_channels, height, width)),
        local_tokens.new_empty(blocks.plan_sizes(n_vertices, height, width).length, dtype=torch.int32),
    )


@torch.library.custom_op("brainkit::factor_readout_triton_backward", mutates_args=())
def triton_backward(
    grad_response: Tensor,
    table: Tensor,
    plan: Tensor,
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    weight: Tensor,
    height: int,
    width: int,
    precision: str,
) -> list[Tensor]:
    """Gradients of the operator's seven inputs, in their order."""
    require()
    from brainkit.kernels import launch

    vertices = (tensor.detach().contiguous() for tensor in (locations, layer_weights, scale, weight))
    return list(launch.backward(grad_response.detach(), table, plan, *vertices, height, width, precision))


@triton_backward.register_fake
def _(
    grad_response: Tensor,
    table: Tensor,
    plan: Tensor,
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    weight: Tensor,
    height: int,
    width: int,
    precision: str,
) -> list[Tensor]:
    _, n_layers, n_images, _ = table.shape
    n_vertices, n_channels = weight.shape
    return [
        table.new_empty(n_images, n_layers, n_channels, height, width),
        table.new_empty(n_images, n_layers, n_channels),
        locations.new_empty(n_vertices, 2),
        layer_weights.new_empty(n_vertices, n_layers),
        scale.new_empty(n_vertices),
        weight.new_empty(n_vertices, n_channels),
        weight.new_empty(n_vertices),
    ]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    local_tokens, _, locations, layer_weights, scale, weight, _, precision = inputs
    _, table, plan = output
    ctx.mark_non_differentiable(table, plan)
    # The table holds the tokens; the bias is not needed.
    ctx.save_for_backward(table, plan, locations, layer_weights, scale, weight)
    ctx.settings = (*local_tokens.shape[-2:], precision)


def _differentiate(ctx: Any, grad_response: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    return (*triton_backward(grad_response, *ctx.saved_tensors, *ctx.settings), None)


triton_operator.register_autograd(_differentiate, setup_context=_save)
