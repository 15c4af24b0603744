"""Tensors to the C++ extension ``brainkit._C``, which sees numpy arrays only."""

from __future__ import annotations

import torch

try:
    from brainkit._C import factor_readout_backward, factor_readout_forward
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


def forward(
    local_tokens: torch.Tensor,
    global_tokens: torch.Tensor,
    locations: torch.Tensor,
    layer_weights: torch.Tensor,
    scale: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
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

    Returns
    -------
    tensor of shape (B, V)
        In the dtype of the inputs.

    Raises
    ------
    RuntimeError
        If the extension is missing.
    ValueError, TypeError
        If shapes do not fit together, or dtypes differ or are not float32 or float64.
    """
    if _missing is not None:
        raise RuntimeError(why_unavailable()) from _missing
    response = factor_readout_forward(
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
) -> list[torch.Tensor]:
    """Differentiate the operator in C++ on as many threads as torch uses.

    Tensors are as in :func:`forward`; the bias is not needed. The result does not depend on the number of threads.

    Parameters
    ----------
    grad_response : tensor of shape (B, V)
        Gradient of the loss with respect to the operator's result.
    local_tokens, global_tokens, locations, layer_weights, scale, weight : tensor
        What :func:`forward` was given.

    Returns
    -------
    list of tensor
        Gradients of the seven inputs of :func:`forward`, in their order and shapes. A vertex whose location is NaN or
        infinite has a gradient of zero, and adds nothing to those of the tokens.

    Raises
    ------
    RuntimeError
        If the extension is missing.
    ValueError, TypeError
        If shapes do not fit together, or dtypes differ or are not float32 or float64.
    """
    if _missing is not None:
        raise RuntimeError(why_unavailable()) from _missing
    grads = factor_readout_backward(
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
