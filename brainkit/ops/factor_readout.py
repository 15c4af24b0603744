"""The public operator: it checks its arguments once, then hands them to the fastest path that can serve them."""

from __future__ import annotations

import torch
from torch import Tensor

import brainkit.kernels as kernels
from brainkit.errors import BrainkitError, UsageError
from brainkit.ops import cpu, grouped, reference

BACKENDS = ("reference", "grouped", "cpu", "triton")


def factor_readout(
    local_tokens: Tensor,
    global_tokens: Tensor,
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """Predict the response of every vertex to every image from the images' tokens.

    ``y[b, v] = bias[v] + 1/D sum_d weight[v, d] z[b, v, d]``, where ``z`` mixes, over layers, the local tokens
    sampled bilinearly at the vertex's location (zeros beyond the border, cell edges not aligned) and the global
    tokens: ``z = (1 - scale) sum_l w_l local_l(location) + scale sum_l w_l global_l``.

    Parameters
    ----------
    local_tokens : Tensor of shape (B, L, D, H, W)
        Bottlenecked local tokens.
    global_tokens : Tensor of shape (B, L, D)
        Bottlenecked global tokens.
    locations : Tensor of shape (V, 2)
        Where each vertex looks, x right and y down, the image spanning [-1, 1].
    layer_weights : Tensor of shape (V, L)
        How each vertex mixes the layers.
    scale : Tensor of shape (V,)
        0 reads local tokens only, 1 the global token only.
    weight : Tensor of shape (V, D)
        Channel weights.
    bias : Tensor of shape (V,)
        Baseline responses.
    backend : {"auto", "reference", "grouped", "cpu", "triton"}
        ``auto`` takes the fastest that serves the tensors' device and dtype.

    Returns
    -------
    Tensor of shape (B, V)
        Predicted responses, differentiable in every tensor. A vertex whose location is not finite is NaN.

    Raises
    ------
    UsageError
        If a tensor has the wrong rank, size, dtype or device, or the backend is unknown.
    BrainkitError
        If the backend asked for cannot run here; says why.

    References
    ----------
    Yang, Gee, Shi: Brain Decodes Deep Nets, arXiv 2312.01280.
    """
    inputs = (local_tokens, global_tokens, locations, layer_weights, scale, weight, bias)
    _check(*inputs)
    chosen = _choose(backend, local_tokens)
    if chosen == "reference":
        return reference.factor_readout(*inputs)
    if chosen == "grouped":
        return grouped.factor_readout(*inputs)
    out: Tensor = _cpu_operator(*inputs)
    return out


def available_backends() -> dict[str, str | None]:
    """Which implementations run here.

    Returns
    -------
    dict of str to (str or None)
        None where the backend runs; else one sentence saying why it does not.
    """
    return {"reference": None, "grouped": None, "cpu": cpu.why_unavailable(), "triton": kernels.why_unavailable()}


def _choose(backend: str, tokens: Tensor) -> str:
    if backend == "auto":
        return "cpu" if tokens.device.type == "cpu" and cpu.why_unavailable() is None else "grouped"
    if backend not in BACKENDS:
        raise UsageError(f"backend must be auto, {', '.join(BACKENDS)}, got {backend!r}")
    if reason := available_backends()[backend]:
        raise BrainkitError(f"backend {backend!r} cannot run here: {reason}")
    if backend == "cpu" and tokens.device.type != "cpu":
        raise UsageError(f"backend 'cpu' must get tensors on the CPU, got {tokens.device}")
    return backend


def _check(
    local_tokens: Tensor,
    global_tokens: Tensor,
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    weight: Tensor,
    bias: Tensor,
) -> None:
    if local_tokens.ndim != 5:
        raise UsageError(f"local_tokens must be (B, L, D, H, W), got shape {tuple(local_tokens.shape)}")
    if locations.ndim != 2:
        raise UsageError(f"locations must be (V, 2), got shape {tuple(locations.shape)}")
    n_images, n_layers, n_channels, height, width = local_tokens.shape
    n_vertices = locations.shape[0]
    axes = {
        "images (B)": n_images,
        "layers (L)": n_layers,
        "channels (D)": n_channels,
        "rows (H)": height,
        "columns (W)": width,
        "vertices (V)": n_vertices,
    }
    for axis, size in axes.items():
        if size == 0:
            raise UsageError(f"the operator must get at least one of its {axis}, got 0")
    expected = {
        "local_tokens": (local_tokens, "(B, L, D, H, W)", (n_images, n_layers, n_channels, height, width)),
        "global_tokens": (global_tokens, "(B, L, D)", (n_images, n_layers, n_channels)),
        "locations": (locations, "(V, 2)", (n_vertices, 2)),
        "layer_weights": (layer_weights, "(V, L)", (n_vertices, n_layers)),
        "scale": (scale, "(V,)", (n_vertices,)),
        "weight": (weight, "(V, D)", (n_vertices, n_channels)),
        "bias": (bias, "(V,)", (n_vertices,)),
    }
    for name, (tensor, axes_text, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise UsageError(f"{name} must be {axes_text} = {shape}, got shape {tuple(tensor.shape)}")
        if tensor.device != local_tokens.device:
            raise UsageError(f"{name} must be on {local_tokens.device} as local_tokens, got {tensor.device}")
        if tensor.dtype not in (torch.float32, torch.float64):
            raise UsageError(f"{name} must be float32 or float64, got {tensor.dtype}")
        if tensor.dtype != local_tokens.dtype:
            raise UsageError(f"{name} must be {local_tokens.dtype} as local_tokens, got {tensor.dtype}")


@torch.library.custom_op("brainkit::factor_readout", mutates_args=(), device_types="cpu")
def _cpu_operator(
    local_tokens: Tensor,
    global_tokens: Tensor,
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    weight: Tensor,
    bias: Tensor,
) -> Tensor:
    inputs = (local_tokens, global_tokens, locations, layer_weights, scale, weight, bias)
    return cpu.forward(*(tensor.detach().contiguous() for tensor in inputs))


@_cpu_operator.register_fake
def _(
    local_tokens: Tensor,
    global_tokens: Tensor,
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    weight: Tensor,
    bias: Tensor,
) -> Tensor:
    return weight.new_empty(local_tokens.shape[0], weight.shape[0])


@torch.library.custom_op("brainkit::factor_readout_backward", mutates_args=(), device_types="cpu")
def _cpu_backward(
    grad_response: Tensor,
    local_tokens: Tensor,
    global_tokens: Tensor,
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    weight: Tensor,
) -> list[Tensor]:
    inputs = (grad_response, local_tokens, global_tokens, locations, layer_weights, scale, weight)
    return cpu.backward(*(tensor.detach().contiguous() for tensor in inputs))


@_cpu_backward.register_fake
def _(
    grad_response: Tensor,
    local_tokens: Tensor,
    global_tokens: Tensor,
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    weight: Tensor,
) -> list[Tensor]:
    inputs = (local_tokens, global_tokens, locations, layer_weights, scale, weight)
    return [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in inputs] + [weight.new_empty(weight.shape[0])]


def _save(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:-1])  # the bias is not needed


def _differentiate(ctx: torch.autograd.function.FunctionCtx, grad_response: Tensor) -> tuple[Tensor, ...]:
    return tuple(_cpu_backward(grad_response, *ctx.saved_tensors))  # type: ignore[attr-defined]


_cpu_operator.register_autograd(_differentiate, setup_context=_save)
