"""The three selector networks as one operator: checks its arguments once, then calls the chosen or fastest backend."""

from __future__ import annotations

import torch
from torch import Tensor

from brainkit.errors import BrainkitError, UsageError
from brainkit.ops import cpu, gpu, gpu_networks, selector_reference

BACKENDS = ("reference", "cpu", "triton")
PRECISIONS = ("float32", "tf32")
NETWORKS = 3
# Intermediate results are kept for the backward pass up to this size, and recomputed beyond it.
KEPT_BYTES = 256 * 2**20


def selector_networks(
    features: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    second_weight: Tensor,
    second_bias: Tensor,
    location_head: Tensor,
    layer_head: Tensor,
    scale_head: Tensor,
    *,
    backend: str = "auto",
    precision: str = "float32",
) -> tuple[Tensor, Tensor, Tensor]:
    """Select location, layer weights and scale of every vertex from its features.

    Three networks, each ``head @ gelu(second_weight @ gelu(hidden_weight @ features + hidden_bias) + second_bias)``
    with the exact (erf) GELU: 0 for the location (tanh), 1 for the layer weights (softmax), 2 for the scale (sigmoid).

    Parameters
    ----------
    features : Tensor of shape (V, F)
        Encoded coordinates of each vertex; constant.
    hidden_weight : Tensor of shape (3, H, F)
        First layers of the three networks.
    hidden_bias : Tensor of shape (3, H)
    second_weight : Tensor of shape (3, H, H)
        Second layers.
    second_bias : Tensor of shape (3, H)
    location_head : Tensor of shape (2, H)
    layer_head : Tensor of shape (L, H)
    scale_head : Tensor of shape (1, H)
    backend : {"auto", "reference", "cpu", "triton"}
        ``auto`` takes the fastest for the tensors' device and dtype.
    precision : {"float32", "tf32"}
        ``tf32`` needs ``triton``: relative errors of about 1e-5 in layer weights, scale and gradients. Locations are
        always float32.

    Returns
    -------
    locations : Tensor of shape (V, 2)
        x right and y down, in [-1, 1].
    layer_weights : Tensor of shape (V, L)
        Positive, with sum 1.
    scale : Tensor of shape (V,)
        0 local, 1 global.

    Differentiable in everything but the features. Autocast does not lower the precision. NaN or infinite features
    affect their own vertex only.

    Raises
    ------
    UsageError
        If a tensor has the wrong rank, size, dtype or device, features require a gradient, or the backend or its
        precision is not supported.
    BrainkitError
        If the requested backend cannot run here; says why.
    """
    weights = (hidden_weight, hidden_bias, second_weight, second_bias, location_head, layer_head, scale_head)
    _check(features, *weights)
    chosen = _choose(backend, features)
    if precision not in PRECISIONS:
        raise UsageError(f"precision must be {' or '.join(PRECISIONS)}, got {precision!r}")
    if precision == "tf32" and chosen != "triton":
        raise UsageError(f"precision must be float32 for backend {chosen!r}, got {precision!r}")
    with torch.autocast(features.device.type, enabled=False):
        if chosen == "triton":
            return gpu_networks.triton_networks(features, *weights, precision)
        if chosen == "reference":
            return selector_reference.selector_networks(features, *weights)
        needs_grad = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
        size = features.shape[0] * 2 * NETWORKS * cpu.kept_width(hidden_bias.shape[1]) * features.element_size()
        locations, layer_weights, scale, _ = _cpu_networks(features, *weights, needs_grad and size <= KEPT_BYTES)
    return locations, layer_weights, scale


def available_backends() -> dict[str, str | None]:
    """Which backends run here.

    Returns
    -------
    dict of str to (str or None)
        None if the backend runs, else the reason why not, in one phrase.
    """
    return {"reference": None, "cpu": cpu.why_unavailable(), "triton": gpu.why_unavailable()}


def _choose(backend: str, features: Tensor) -> str:
    if backend == "auto":
        if features.is_cuda and features.dtype == torch.float32 and _why_not("triton") is None:
            return "triton"
        return "cpu" if features.device.type == "cpu" and _why_not("cpu") is None else "reference"
    if backend not in BACKENDS:
        raise UsageError(f"backend must be auto, {', '.join(BACKENDS)}, got {backend!r}")
    if reason := _why_not(backend):
        raise BrainkitError(f"backend {backend!r} cannot run here: {reason}")
    if backend == "cpu" and features.device.type != "cpu":
        raise UsageError(f"tensors must be on the CPU for backend 'cpu', got {features.device}")
    if backend == "triton" and not gpu.serves(features):
        raise UsageError(f"tensors must be on a CUDA device for backend 'triton', got {features.device}")
    if backend == "triton" and features.dtype != torch.float32:
        raise UsageError(f"features must be float32 for backend 'triton', got {features.dtype}")
    return backend


def _why_not(backend: str) -> str | None:
    # Only this backend is queried: computing on a CPU must not initialise a GPU.
    return {"cpu": cpu.why_unavailable, "triton": gpu.why_unavailable}.get(backend, lambda: None)()


def _check(
    features: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    second_weight: Tensor,
    second_bias: Tensor,
    location_head: Tensor,
    layer_head: Tensor,
    scale_head: Tensor,
) -> None:
    for name, tensor, axes in (
        ("features", features, "(V, F)"),
        ("hidden_bias", hidden_bias, f"({NETWORKS}, H)"),
        ("layer_head", layer_head, "(L, H)"),
    ):
        if tensor.ndim != 2:
            raise UsageError(f"{name} must be {axes}, got shape {tuple(tensor.shape)}")
    n_vertices, n_features = features.shape
    n_hidden, n_layers = hidden_bias.shape[1], layer_head.shape[0]
    sizes = {"vertices (V)": n_vertices, "features (F)": n_features, "units (H)": n_hidden, "layers (L)": n_layers}
    for axis, size in sizes.items():
        if size == 0:
            raise UsageError(f"inputs must not be empty, got 0 {axis}")
    expected = {
        "features": (features, "(V, F)", (n_vertices, n_features)),
        "hidden_weight": (hidden_weight, f"({NETWORKS}, H, F)", (NETWORKS, n_hidden, n_features)),
        "hidden_bias": (hidden_bias, f"({NETWORKS}, H)", (NETWORKS, n_hidden)),
        "second_weight": (second_weight, f"({NETWORKS}, H, H)", (NETWORKS, n_hidden, n_hidden)),
        "second_bias": (second_bias, f"({NETWORKS}, H)", (NETWORKS, n_hidden)),
        "location_head": (location_head, "(2, H)", (2, n_hidden)),
        "layer_head": (layer_head, "(L, H)", (n_layers, n_hidden)),
        "scale_head": (scale_head, "(1, H)", (1, n_hidden)),
    }
    for name, (tensor, axes_text, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise UsageError(f"{name} must be {axes_text} = {shape}, got shape {tuple(tensor.shape)}")
        if tensor.device != features.device:
            raise UsageError(f"{name} must be on {features.device} like features, got {tensor.device}")
        if tensor.dtype not in (torch.float32, torch.float64):
            raise UsageError(f"{name} must be float32 or float64, got {tensor.dtype}")
        if tensor.dtype != features.dtype:
            raise UsageError(f"{name} must be {features.dtype} like features, got {tensor.dtype}")
    if features.requires_grad:
        raise UsageError("features must be constant, got a tensor that requires a gradient")


# The fourth result holds intermediate results for the backward pass; empty unless `keep`.
@torch.library.custom_op("brainkit::selector_networks", mutates_args=(), device_types="cpu")
def _cpu_networks(
    features: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    second_weight: Tensor,
    second_bias: Tensor,
    location_head: Tensor,
    layer_head: Tensor,
    scale_head: Tensor,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs = (
        features,
        hidden_weight,
        hidden_bias,
        second_weight,
        second_bias,
        location_head,
        layer_head,
        scale_head,
    )
    return cpu.networks_forward(*(tensor.detach().contiguous() for tensor in inputs), keep=keep)


@_cpu_networks.register_fake
def _(
    features: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    second_weight: Tensor,
    second_bias: Tensor,
    location_head: Tensor,
    layer_head: Tensor,
    scale_head: Tensor,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n_vertices, width = features.shape[0], cpu.kept_width(hidden_bias.shape[1])
    return (
        features.new_empty(n_vertices, 2),
        features.new_empty(n_vertices, layer_head.shape[0]),
        features.new_empty(n_vertices),
        features.new_empty((NETWORKS, n_vertices, 2, width) if keep else (0,)),
    )


@torch.library.custom_op("brainkit::selector_networks_backward", mutates_args=(), device_types="cpu")
def _cpu_backward(
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
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    kept: Tensor,
) -> list[Tensor]:
    grads = (grad_locations, grad_layer_weights, grad_scale)
    weights = (hidden_weight, hidden_bias, second_weight, second_bias, location_head, layer_head, scale_head)
    results = (locations, layer_weights, scale, kept)
    return cpu.networks_backward(*(x.detach().contiguous() for x in (*grads, features, *weights, *results)))


@_cpu_backward.register_fake
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
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    kept: Tensor,
) -> list[Tensor]:
    weights = (hidden_weight, hidden_bias, second_weight, second_bias, location_head, layer_head, scale_head)
    return [torch.empty(weight.shape, dtype=weight.dtype, device=weight.device) for weight in weights]


def _save(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(output[3])
    ctx.set_materialize_grads(False)  # no gradient of zeros for the fourth result, which is large
    ctx.save_for_backward(*inputs[:-1], *output)


def _differentiate(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # type: ignore[attr-defined]
    filled = [torch.zeros_like(out) if grad is None else grad for grad, out in zip(grads[:3], saved[8:11], strict=True)]
    return None, *_cpu_backward(*filled, *saved), None


_cpu_networks.register_autograd(_differentiate, setup_context=_save)
