"""Tensors to the C++ extension ``brainkit._C``, which sees numpy arrays only."""

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
    """Say in one phrase why the C++ extension is missing, or return None where it is there."""
    if _missing is None:
        return None
    if isinstance(_missing, ModuleNotFoundError) and _missing.name == "brainkit._C":
        return "brainkit was installed without its C++ extension (with BRAINKIT_NO_EXT=1, or from source with no build)"
    return f"the C++ extension brainkit._C cannot be loaded: {' '.join(str(_missing).split())}"


def why_no_bf16x3() -> str | None:
    """Say in one phrase why precision ``bf16x3`` cannot run here, or return None where it can.

    It needs a processor with AMX (``amx_tile`` and ``amx_bf16``), on Linux. With the environment variable
    ``BRAINKIT_AMX=emulate``, read at the first call, it runs everywhere, but slowly: that is for tests.
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

    The tensors are detached, contiguous, on the CPU and all float32 or all float64; nothing is copied. The result
    does not depend on the number of threads.

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
        ``bf16x3`` splits each number into two of bfloat16 and sums three of their four products in float32: on
        processors with AMX alone, and only for float32 tensors. It loses about 5e-6 of the result's rms, and of
        every gradient's; an infinite token or weight counts as NaN.

    Returns
    -------
    tensor of shape (B, V)
        In the dtype of the inputs.

    Raises
    ------
    RuntimeError
        If the extension is missing, or the precision cannot run here: see :func:`why_no_bf16x3`.
    ValueError, TypeError
        If shapes do not fit together, dtypes differ or do not suit the precision, or there is no such precision.
    """
    response = _function("factor_readout_forward", precision)(
        local_tokens.numpy(),
        global_tokens.numpy(),
        locations.numpy(),
        layer_weights.numpy(),
        scale.numpy(),
        weight.numpy(),
        bias.numpy(),
        torch.get_num_threads(),
    )
    return torch.from_numpy(response)


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
        What :func:`forward` was given.
    precision : {"float32", "bf16x3"}, optional
        As for :func:`forward`.

    Returns
    -------
    list of tensor
        Gradients of the seven inputs of :func:`forward`, in their order and shapes. A vertex whose location is NaN or
        infinite has a gradient of zero, and adds nothing to those of the tokens.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        As :func:`forward` does.
    """
    grads = _function("factor_readout_backward", precision)(
        grad_response.numpy(),
        local_tokens.numpy(),
        global_tokens.numpy(),
        locations.numpy(),
        layer_weights.numpy(),
        scale.numpy(),
        weight.numpy(),
        torch.get_num_threads(),
    )
    return [torch.from_numpy(grad) for grad in grads]


def kept_width(hidden: int) -> int:
    """Numbers in a row of what :func:`networks_forward` keeps: the hidden units, padded to whole vectors."""
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
    """Evaluate the networks of the selectors in C++ on as many threads as torch uses.

    The tensors are detached, contiguous, on the CPU and all float32 or all float64; nothing is copied. The results do
    not depend on the number of threads.

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
        Keep what makes :func:`networks_backward` faster, in memory that is used again once it is free.

    Returns
    -------
    tuple of tensor
        Locations (V, 2), layer weights (V, L), scale (V,), and what was kept: (3, V, 2, kept_width(H)), or (0,).

    Raises
    ------
    RuntimeError
        If the extension is missing.
    ValueError, TypeError
        If shapes do not fit together, or dtypes differ or are not float32 or float64.
    """
    if _missing is not None:
        raise RuntimeError(why_unavailable()) from _missing
    locations, layer_weights, scale, kept = _C.selector_networks_forward(
        features.numpy(),
        hidden_weight.numpy(),
        hidden_bias.numpy(),
        second_weight.numpy(),
        second_bias.numpy(),
        location_head.numpy(),
        layer_head.numpy(),
        scale_head.numpy(),
        torch.get_num_threads(),
        keep,
    )
    return (
        torch.from_numpy(locations),
        torch.from_numpy(layer_weights),
        torch.from_numpy(scale),
        torch.from_numpy(kept),
    )


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
    """Differentiate the networks of the selectors in C++ on as many threads as torch uses.

    Tensors are as in :func:`networks_forward`. The result depends neither on the number of threads nor on whether
    anything was kept.

    Parameters
    ----------
    grad_locations, grad_layer_weights, grad_scale : tensor
        Gradients of the loss with respect to the three results of :func:`networks_forward`.
    features, hidden_weight, hidden_bias, second_weight, second_bias, location_head, layer_head, scale_head : tensor
        What :func:`networks_forward` was given.
    locations, layer_weights, scale, kept : tensor
        What it gave; ``kept`` may be empty.

    Returns
    -------
    list of tensor
        Gradients of the seven weights, in their order and shapes.

    Raises
    ------
    RuntimeError
        If the extension is missing.
    ValueError, TypeError
        If shapes do not fit together, or dtypes differ or are not float32 or float64.
    """
    if _missing is not None:
        raise RuntimeError(why_unavailable()) from _missing
    grads = _C.selector_networks_backward(
        grad_locations.numpy(),
        grad_layer_weights.numpy(),
        grad_scale.numpy(),
        features.numpy(),
        hidden_weight.numpy(),
        hidden_bias.numpy(),
        second_weight.numpy(),
        second_bias.numpy(),
        location_head.numpy(),
        layer_head.numpy(),
        scale_head.numpy(),
        locations.numpy(),
        layer_weights.numpy(),
        scale.numpy(),
        kept.numpy(),
        torch.get_num_threads(),
    )
    return [torch.from_numpy(grad) for grad in grads]


def _function(name: str, precision: str) -> Callable[..., Any]:
    if _missing is not None:
        raise RuntimeError(why_unavailable()) from _missing
    if precision not in ("float32", "bf16x3"):
        raise ValueError(f"precision must be float32 or bf16x3, got {precision!r}")
    function: Callable[..., Any] = getattr(_C, name if precision == "float32" else f"{name}_bf16x3")
    return function
