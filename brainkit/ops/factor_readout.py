"""The public operator: checks its arguments once, then calls the chosen or the fastest backend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from brainkit.errors import BrainkitError, UsageError
from brainkit.ops import cpu, gpu, grouped, reference

BACKENDS = ("reference", "grouped", "cpu", "triton")
PRECISIONS = ("float32", "tf32", "bf16x3")
HALF = (torch.bfloat16, torch.float16)


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
    precision: str = "float32",
) -> Tensor:
    """Predict the response of every vertex to every image from the images' tokens.

    ``y[b, v] = bias[v] + 1/D sum_d weight[v, d] z[b, v, d]`` with
    ``z = (1 - scale) sum_l w_l local_l(location) + scale sum_l w_l global_l``: local tokens are sampled bilinearly at
    the vertex's location, with zeros beyond the border (``align_corners=False``).

    Parameters
    ----------
    local_tokens : Tensor of shape (B, L, D, H, W)
        Bottlenecked local tokens: float32, float64, bfloat16 or float16.
    global_tokens : Tensor of shape (B, L, D)
        Bottlenecked global tokens, in the same dtype. All other tensors are float32, or float64 if tokens are float64.
    locations : Tensor of shape (V, 2)
        Location of each vertex in the image, x right and y down, in [-1, 1].
    layer_weights : Tensor of shape (V, L)
        Weight of each layer.
    scale : Tensor of shape (V,)
        0 reads local tokens only, 1 reads the global token only.
    weight : Tensor of shape (V, D)
        Channel weights.
    bias : Tensor of shape (V,)
        Baseline responses.
    backend : {"auto", "reference", "grouped", "cpu", "triton"}
        ``auto`` takes the fastest for the tensors' device and dtype.
    precision : {"float32", "tf32", "bf16x3"}
        Precision of products of float32 tokens; sums are always float32. ``tf32`` needs ``triton`` and rounds factors
        to 10 bits; ``bf16x3`` needs ``cpu`` on a processor with AMX and multiplies two bfloat16 parts of each number,
        about 17 bits. With bfloat16 and float16 tokens, ``triton`` rounds the weights to the tokens' dtype, and the
        other backends compute in float32.

    Returns
    -------
    Tensor of shape (B, V)
        Predicted responses in the dtype of `weight`, differentiable in every tensor. A vertex whose location is NaN or
        infinite is NaN.

    Raises
    ------
    UsageError
        If a tensor has the wrong rank, size, dtype or device, or the backend or its precision is not supported.
    BrainkitError
        If the requested backend cannot run here; says why.

    References
    ----------
    Yang, Gee, Shi: Brain Decodes Deep Nets, arXiv 2312.01280.
    """
    inputs = (local_tokens, global_tokens, locations, layer_weights, scale, weight, bias)
    _check(*inputs)
    chosen = _choose(backend, local_tokens)
    _check_precision(precision, chosen, local_tokens.dtype)
    if chosen == "triton":
        return gpu.factor_readout(*inputs, precision)
    if chosen == "cpu":
        out: Tensor = _cpu_operator(*inputs, precision)
        return out
    if local_tokens.dtype in HALF:
        inputs = (local_tokens.float(), global_tokens.float(), *inputs[2:])
    return (reference if chosen == "reference" else grouped).factor_readout(*inputs)


def available_backends() -> dict[str, str | None]:
    """Which backends run here.

    Returns
    -------
    dict of str to (str or None)
        None if the backend runs, else the reason why not, in one phrase.
    """
    return {"reference": None, "grouped": None, "cpu": cpu.why_unavailable(), "triton": gpu.why_unavailable()}


def fastest_backend(device: str, dtype: torch.dtype = torch.float32) -> str:
    """The backend that ``auto`` takes for tokens of a dtype on a type of device (cpu, cuda or mps)."""
    if device == "cuda" and dtype != torch.float64 and _why_not("triton") is None:
        return "triton"
    if device == "cpu" and dtype not in HALF and _why_not("cpu") is None:
        return "cpu"
    return "grouped"


def _choose(backend: str, tokens: Tensor) -> str:
    if backend == "auto":
        return fastest_backend(tokens.device.type, tokens.dtype)
    if backend not in BACKENDS:
        raise UsageError(f"backend must be auto, {', '.join(BACKENDS)}, got {backend!r}")
    if reason := _why_not(backend):
        raise BrainkitError(f"backend {backend!r} cannot run here: {reason}")
    if backend == "cpu" and tokens.device.type != "cpu":
        raise UsageError(f"tensors must be on the CPU for backend 'cpu', got {tokens.device}")
    if backend == "cpu" and tokens.dtype in HALF:
        raise UsageError(f"local_tokens must be float32 or float64 for backend 'cpu', got {tokens.dtype}")
    if backend == "triton" and not gpu.serves(tokens):
        raise UsageError(f"tensors must be on a CUDA device for backend 'triton', got {tokens.device}")
    if backend == "triton" and tokens.dtype == torch.float64:
        raise UsageError(f"local_tokens must be float32, bfloat16 or float16 for backend 'triton', got {tokens.dtype}")
    return backend


def _why_not(backend: str) -> str | None:
    # Only this backend is queried: computing on a CPU must not initialise a GPU.
    return {"cpu": cpu.why_unavailable, "triton": gpu.why_unavailable}.get(backend, lambda: None)()


def _check_precision(precision: str, backend: str, dtype: torch.dtype) -> None:
    if precision not in PRECISIONS:
        raise UsageError(f"precision must be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, got {precision!r}")
    if precision == "float32":
        return
    if dtype != torch.float32 or backend != {"tf32": "triton", "bf16x3": "cpu"}[precision]:
        raise UsageError(f"precision must be float32 for {dtype} tokens on backend {backend!r}, got {precision!r}")
    if precision == "bf16x3" and (reason := cpu.why_no_bf16x3()):
        raise BrainkitError(f"precision 'bf16x3' cannot run here: {reason}")


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
            raise UsageError(f"inputs must not be empty, got 0 {axis}")
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
            raise UsageError(f"{name} must be on {local_tokens.device} like local_tokens, got {tensor.device}")
        _check_dtype(name, tensor, local_tokens.dtype)


def _check_dtype(name: str, tensor: Tensor, tokens: torch.dtype) -> None:
    if name == "local_tokens":
        if tokens not in (torch.float32, torch.float64, *HALF):
            raise UsageError(f"{name} must be float32, float64, bfloat16 or float16, got {tokens}")
    elif name != "global_tokens" and tensor.dtype not in (torch.float32, torch.float64):
        raise UsageError(f"{name} must be float32 or float64, got {tensor.dtype}")
    elif name != "global_tokens" and tokens in HALF:
        if tensor.dtype != torch.float32:
            raise UsageError(f"{name} must be torch.float32 with {tokens} tokens, got {tensor.dtype}")
    elif tensor.dtype != tokens:
        raise UsageError(f"{name} must be {tokens} like local_tokens, got {tensor.dtype}")


@torch.library.custom_op("brainkit::factor_readout", mutates_args=(), device_types="cpu")
def _cpu_operator(
    local_tokens: Tensor,
    global_tokens: Tensor,
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    weight: Tensor,
    bias: Tensor,
    precision: str,
) -> Tensor:
    inputs = (local_tokens, global_tokens, locations, layer_weights, scale, weight, bias)
    return cpu.forward(*(tensor.detach().contiguous() for tensor in inputs), precision=precision)


@_cpu_operator.register_fake
def _(
    local_tokens: Tensor,
    global_tokens: Tensor,
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    weight: Tensor,
    bias: Tensor,
    precision: str,
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
    precision: str,
) -> list[Tensor]:
    inputs = (grad_response, local_tokens, global_tokens, locations, layer_weights, scale, weight)
    return cpu.backward(*(tensor.detach().contiguous() for tensor in inputs), precision=precision)


@_cpu_backward.register_fake
def _(
    grad_response: Tensor,
    local_tokens: Tensor,
    global_tokens: Tensor,
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    weight: Tensor,
    precision: str,
) -> list[Tensor]:
    inputs = (local_tokens, global_tokens, locations, layer_weights, scale, weight)
    return [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in inputs] + [weight.new_empty(weight.shape[0])]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, _, ctx.precision = inputs  # the bias is not needed
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad_response: Tensor) -> tuple[Tensor | None, ...]:
    return (*_cpu_backward(grad_response, *ctx.saved_tensors, ctx.precision), None)


_cpu_operator.register_autograd(_differentiate, setup_context=_save)
