from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Float = TypeVar("_Float", np.float32, np.float64)

def group_vertices(
    locations: NDArray[_Float], height: int, width: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]: ...
def factor_readout_forward(
    local_tokens: NDArray[_Float],
    global_tokens: NDArray[_Float],
    locations: NDArray[_Float],
    layer_weights: NDArray[_Float],
    scale: NDArray[_Float],
    weight: NDArray[_Float],
    bias: NDArray[_Float],
    threads: int = 1,
) -> NDArray[_Float]: ...
def factor_readout_backward(
    grad_response: NDArray[_Float],
    local_tokens: NDArray[_Float],
    global_tokens: NDArray[_Float],
    locations: NDArray[_Float],
    layer_weights: NDArray[_Float],
    scale: NDArray[_Float],
    weight: NDArray[_Float],
    threads: int = 1,
) -> tuple[NDArray[_Float], ...]: ...
def factor_readout_forward_bf16x3(
    local_tokens: NDArray[np.float32],
    global_tokens: NDArray[np.float32],
    locations: NDArray[np.float32],
    layer_weights: NDArray[np.float32],
    scale: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    threads: int = 1,
) -> NDArray[np.float32]: ...
def factor_readout_backward_bf16x3(
    grad_response: NDArray[np.float32],
    local_tokens: NDArray[np.float32],
    global_tokens: NDArray[np.float32],
    locations: NDArray[np.float32],
    layer_weights: NDArray[np.float32],
    scale: NDArray[np.float32],
    weight: NDArray[np.float32],
    threads: int = 1,
) -> tuple[NDArray[np.float32], ...]: ...
def token_readout(
    tokens: NDArray[_Float],
    weight: NDArray[_Float],
    coefficients: NDArray[_Float],
    bias: NDArray[_Float],
    taps: NDArray[np.int64],
    starts: NDArray[np.int64],
    threads: int = 1,
) -> NDArray[_Float]: ...
def why_no_bf16x3() -> str | None: ...
def selector_networks_forward(
    features: NDArray[_Float],
    hidden_weight: NDArray[_Float],
    hidden_bias: NDArray[_Float],
    second_weight: NDArray[_Float],
    second_bias: NDArray[_Float],
    location_head: NDArray[_Float],
    layer_head: NDArray[_Float],
    scale_head: NDArray[_Float],
    threads: int = 1,
    keep: bool = False,
) -> tuple[NDArray[_Float], NDArray[_Float], NDArray[_Float], NDArray[_Float]]: ...
def selector_networks_backward(
    grad_locations: NDArray[_Float],
    grad_layer_weights: NDArray[_Float],
    grad_scale: NDArray[_Float],
    features: NDArray[_Float],
    hidden_weight: NDArray[_Float],
    hidden_bias: NDArray[_Float],
    second_weight: NDArray[_Float],
    second_bias: NDArray[_Float],
    location_head: NDArray[_Float],
    layer_head: NDArray[_Float],
    scale_head: NDArray[_Float],
    locations: NDArray[_Float],
    layer_weights: NDArray[_Float],
    scale: NDArray[_Float],
    kept: NDArray[_Float],
    threads: int = 1,
) -> tuple[NDArray[_Float], ...]: ...
def instruction_set() -> str: ...
