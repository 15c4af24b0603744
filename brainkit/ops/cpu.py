"""Call the C++ extension ``brainkit._C``, which takes numpy arrays, with tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

try:
    import brainkit._C as _C
except ImportError as error:
    _missing: ImportError | None = error
else:
    _missing = None


def why_unavailable() -> str | None:
    """Why the C++ extension cannot be used, in one phrase; None if it can."""
    if _missing is None:
        return None
    if isinstance(_missing, ModuleNotFoundError) and _missing.name == "brainkit._C":
        return "brainkit was installed without its C++ extension (with BRAINKIT_NO_EXT=1, or from source with no build)"
    return f"the C++ extension brainkit._C cannot be loaded: {' '.join(str(_missing).split())}"


def why_no_bf16x3() -> str | None:
    """Why precision ``bf16x3`` cannot be used, in one phrase; None if it can.

    It needs Linux and a processor with AMX (``amx_tile`` and ``amx_bf16``). With the environment variable
    ``BRAINKIT_AMX=emulate``, read at the first call, it runs everywhere but slowly, for tests.
    """
    return why_unavailable() if _missing is not None else _C.why_no_bf16x3()


def forward(
    local_tokens: torch.Tensor,
    global_tokens: torch.Tensor,
    locations: torch.Tensor,
    layer_weights: torch.Tensor,
    scale: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    precision: str = "float32",
) -> torch.Tensor:
    """Evaluate the operator in C++ on as many threads as torch uses.

    The tensors must be detached, contiguous, on the CPU and all float32 or all float64; they are not copied. The
    result does not depend on the number of threads.

    Parameters
    ----------
    local_tokens : tensor of shape (B, L, D, H, W)
    global_tokens : tensor of shape (B, L, D)
    locations : tensor of shape (V, 2)
        x right and y down; [-1, 1] spans the image. A NaN or infinite location gives NaN for its vertex.
    layer_weights : tensor of shape (V, L)
    scale : tensor of shape (V,)
        0 reads local tokens, 1 the global token.
    weight : tensor of shape (V, D)
    bias : tensor of shape (V,)
    precision : {"float32", "bf16x3"}, optional
        ``bf16x3`` splits each float32 number into two bfloat16 numbers and sums three of their four products in
        float32. It needs a processor with AMX; the relative rms error of the result and of every gradient is about
        5e-6, and infinite tokens or weights count as NaN.

    Returns
    -------
    tensor of shape (B, V)
        In the dtype of the inputs.

    Raises
    ------
    RuntimeError
        If the extension is missing, or the precision cannot run here: see :func:`why_no_bf16x3`.
    ValueError, TypeError
        If shapes disagree, dtypes differ or do not suit the precision, or the precision is unknown.
    """
    inputs = (local_tokens, global_tokens, locations, layer_weights, scale, weight, bias)
    function = _function("factor_readout_forward", precision)
    return torch.from_numpy(function(*(tensor.numpy() for tensor in inputs), torch.get_num_threads()))


def backward(
    grad_response: torch.Tensor,
    local_tokens: torch.Tensor,
    global_tokens: torch.Tensor,
    locations: torch.Tensor,
    layer_weights: torch.Tensor,
    scale: torch.Tensor,
    weight: torch.Tensor,
    *,
    precision: str = "float32",
) -> list[torch.Tensor]:
    """Differentiate the operator in C++ on as many threads as torch uses.

    Tensors are as in :func:`forward`; the bias is not needed. The result does not depend on the number of threads.

    Parameters
    ----------
    grad_response : tensor of shape (B, V)
        Gradient of the loss with respect to the operator's result.
    local_tokens, global_tokens, locations, layer_weights, scale, weight : tensor
        The inputs of :func:`forward`.
    precision : {"float32", "bf16x3"}, optional
        As for :func:`forward`.

    Returns
    -------
    list of tensor
        Gradients of the seven inputs of :func:`forward`, in their order and shapes. A vertex whose location is NaN or
        infinite has zero gradients and contributes nothing to those of the tokens.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        As :func:`forward`.
    """
    inputs = (grad_response, local_tokens, global_tokens, locations, layer_weights, scale, weight)
    function = _function("factor_readout_backward", precision)
    return list(map(torch.from_numpy, function(*(tensor.numpy() for tensor in inputs), torch.get_num_threads())))


def kept_width(hidden: int) -> int:
    """Length of a row of what :func:`networks_forward` keeps: the hidden units, padded to whole vectors."""
    return (hidden + 15) // 16 * 16


def networks_forward(
    features: torch.Tensor,
    hidden_weight: torch.Tensor,
    hidden_bias: torch.Tensor,
    second_weight: torch.Tensor,
    second_bias: torch.Tensor,
    location_head: torch.Tensor,
    layer_head: torch.Tensor,
    scale_head: torch.Tensor,
    *,
    keep: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Evaluate the selector networks in C++ on as many threads as torch uses.

    The tensors must be detached, contiguous, on the CPU and all float32 or all float64; they are not copied. The
    results do not depend on the number of threads.

    Parameters
    ----------
    features : tensor of shape (V, F)
    hidden_weight : tensor of shape (3, H, F)
    hidden_bias : tensor of shape (3, H)
    second_weight : tensor of shape (3, H, H)
    second_bias : tensor of shape (3, H)
    location_head : tensor of shape (2, H)
    layer_head : tensor of shape (L, H)
    scale_head : tensor of shape (1, H)
    keep : bool
        Keep intermediate results that make :func:`networks_backward` faster, in memory that later calls reuse.

    Returns
    -------
    tuple of tensor
        Locations (V, 2), layer weights (V, L), scale (V,), and what was kept: (3, V, 2, kept_width(H)) or (0,).

    Raises
    ------
    RuntimeError
        If the extension is missing.
    ValueError, TypeError
        If shapes disagree, or dtypes differ or are neither float32 nor float64.
    """
    function = _function("selector_networks_forward")
    weights = (hidden_weight, hidden_bias, second_weight, second_bias, location_head, layer_head, scale_head)
    arrays = function(*(tensor.numpy() for tensor in (features, *weights)), torch.get_num_threads(), keep)
    locations, layer_weights, scale, kept = map(torch.from_numpy, arrays)
    return locations, layer_weights, scale, kept


def networks_backward(
    grad_locations: torch.Tensor,
    grad_layer_weights: torch.Tensor,
    grad_scale: torch.Tensor,
    features: torch.Tensor,
    hidden_weight: torch.Tensor,
    hidden_bias: torch.Tensor,
    second_weight: torch.Tensor,
    second_bias: torch.Tensor,
    location_head: torch.Tensor,
    layer_head: torch.Tensor,
    scale_head: torch.Tensor,
    locations: torch.Tensor,
    layer_weights: torch.Tensor,
    scale: torch.Tensor,
    kept: torch.Tensor,
) -> list[torch.Tensor]:
    """Differentiate the selector networks in C++ on as many threads as torch uses.

    Tensors are as in :func:`networks_forward`. The result does not depend on the number of threads or on `kept`.

    Parameters
    ----------
    grad_locations, grad_layer_weights, grad_scale : tensor
        Gradients of the loss with respect to the three results of :func:`networks_forward`.
    features, hidden_weight, hidden_bias, second_weight, second_bias, location_head, layer_head, scale_head : tensor
        The inputs of :func:`networks_forward`.
    locations, layer_weights, scale, kept : tensor
        Its results; ``kept`` may be empty.

    Returns
    -------
    list of tensor
        Gradients of the seven weights, in their order and shapes.

    Raises
    ------
    RuntimeError
        If the extension is missing.
    ValueError, TypeError
        If shapes disagree, or dtypes differ or are neither float32 nor float64.
    """
    grads = (grad_locations, grad_layer_weights, grad_scale)
    weights = (hidden_weight, hidden_bias, second_weight, second_bias, location_head, layer_head, scale_head)
    tensors = (*grads, features, *weights, locations, layer_weights, scale, kept)
    function = _function("selector_networks_backward")
    return list(map(torch.from_numpy, function(*(tensor.numpy() for tensor in tensors), torch.get_num_threads())))


def _function(name: str, precision: str = "float32") -> Callable[..., Any]:
    if _missing is not None:
        raise RuntimeError(why_unavailable()) from _missing
    if precision not in ("float32", "bf16x3"):
        raise ValueError(f"precision must be float32 or bf16x3, got {precision!r}")
    function: Callable[..., Any] = getattr(_C, name if precision == "float32" else f"{name}_bf16x3")
    return function
