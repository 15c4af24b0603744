"""Launches of the operator's kernels: three or four for the forward pass, three for the backward pass.

Nothing waits for the device or reads from it, so both can be captured in a CUDA graph.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from brainkit.errors import UsageError
from brainkit.kernels import blocks
from brainkit.kernels.backward_tokens import gather_kernel, tokens_kernel
from brainkit.kernels.backward_vertices import vertices_kernel
from brainkit.kernels.blocks import Blocks, Choice, PlanSizes
from brainkit.kernels.forward import forward_kernel
from brainkit.kernels.plan import order_kernel, prepare_kernel, scan_kernel

# Four local taps and the global token.
TAPS = 5
# Cells and channels per program of the packing and of the gathering kernel.
PACKED = (64, 64)
GATHERED = (32, 64)


def forward(
    local_tokens: Tensor,
    global_tokens: Tensor,
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    weight: Tensor,
    bias: Tensor,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Evaluate the operator on a CUDA device.

    Parameters
    ----------
    local_tokens : tensor of shape (B, L, D, H, W)
        float32, bfloat16 or float16, any strides.
    global_tokens : tensor of shape (B, L, D)
        Same dtype, any strides.
    locations, layer_weights, scale, weight, bias : tensor
        Of shapes (V, 2), (V, L), (V,), (V, D) and (V,); float32 and contiguous.
    precision : {"float32", "tf32"}
        Precision of products of float32 tokens.

    Returns
    -------
    response : tensor of shape (B, V)
        float32.
    table : tensor of shape (H * W + 1, L, B, DP)
        The tokens laid out for the kernels, for :func:`backward`.
    plan : tensor of int32
        The vertices' order and tiles, for :func:`backward`.
    """
    local_tokens, global_tokens = _within_reach(local_tokens, 1), _within_reach(global_tokens, 1)
    n_images, n_layers, n_channels, height, width = local_tokens.shape
    n_vertices = len(locations)
    sizes = blocks.plan_sizes(n_vertices, height, width)
    padded = blocks.padded_channels(n_channels)
    _check_size(n_vertices * padded, n_vertices * (n_images + n_layers + 3), n_layers * n_images * padded)
    table = local_tokens.new_empty(blocks.table_shape(*local_tokens.shape))
    plan = local_tokens.new_empty((sizes.length,), dtype=torch.int32)
    response = weight.new_empty((n_images, n_vertices))
    with _on(weight):
        _prepare(local_tokens, global_tokens, locations, table, plan, sizes)
        tile = _choose(table, n_channels, precision).forward
        layers, images = blocks.split_columns(tile.columns, n_images, n_layers)
        programs = sizes.tiles * (blocks.TILE // tile.rows) * -(-n_images // images)
        forward_kernel[(programs,)](
            table,
            plan,
            locations,
            layer_weights,
            scale,
            weight,
            bias,
            response,
            n_vertices,
            n_images,
            sizes.tiles,
            TAPS,
            **_grid_constants(sizes, n_layers, padded, height, width),
            **_tile_constants(tile, layers, images, padded, precision),
            n_channels=n_channels,
            tile=blocks.TILE,
            rows=tile.rows,
        )
    return response, table, plan


def backward(
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
) -> tuple[Tensor, ...]:
    """Differentiate the operator on a CUDA device.

    Parameters
    ----------
    grad_response : tensor of shape (B, V)
        float32, any strides.
    table, plan : tensor
        Results of :func:`forward`.
    locations, layer_weights, scale, weight : tensor
        Inputs of :func:`forward`.
    height, width : int
        Size of the token grid.
    precision : {"float32", "tf32"}
        As for :func:`forward`.

    Returns
    -------
    tuple of tensor
        Gradients of the seven inputs of :func:`forward`, in their order and dtypes, contiguous. A vertex whose location
        is NaN or infinite has zero gradients and contributes nothing to those of the tokens.
    """
    grad_response = _within_reach(grad_response, 0)
    n_images, n_vertices = grad_response.shape
    n_layers, n_channels = layer_weights.shape[1], weight.shape[1]
    padded = table.shape[-1]
    sizes = blocks.plan_sizes(n_vertices, height, width)
    choice = _choose(table, n_channels, precision)
    segments = blocks.segment_sizes(n_vertices, height, width, choice.tokens.columns)
    grad_local = table.new_empty((n_images, n_layers, n_channels, height, width))
    grad_global = table.new_empty((n_images, n_layers, n_channels))
    grad_locations, grad_layer_weights = torch.empty_like(locations), torch.empty_like(layer_weights)
    grad_scale, grad_weight, grad_bias = torch.empty_like(scale), torch.empty_like(weight), torch.empty_like(scale)
    # float16 has too little range for gradients; bfloat16 is precise enough.
    half = table.dtype != torch.float32
    sorted_weight = table.new_empty((n_vertices, padded), dtype=torch.bfloat16 if half else torch.float32)
    sorted_values = weight.new_empty((n_images + n_layers + 3, n_vertices))
    partial = weight.new_empty((segments.segments, n_layers, n_images, padded))
    firsts = plan.new_empty((height * width + 2,))
    grid = _grid_constants(sizes, n_layers, padded, height, width)
    with _on(weight):
        tile = choice.vertices
        layers, images = blocks.split_columns(tile.columns, n_images, n_layers)
        vertices_kernel[(sizes.tiles * (blocks.TILE // tile.rows),)](
            grad_response,
            table,
            plan,
            locations,
            layer_weights,
            scale,
            weight,
            grad_locations,
            grad_layer_weights,
            grad_scale,
            grad_weight,
            grad_bias,
            sorted_weight,
            sorted_values,
            n_vertices,
            n_images,
            sizes.tiles,
            TAPS,
            *grad_response.stride(),
            **grid,
            **_tile_constants(tile, layers, images, padded, precision),
            n_channels=n_channels,
            tile=blocks.TILE,
            rows=tile.rows,
            normalised=table.dtype == torch.float16,
        )
        tile = choice.tokens
        layers, images = blocks.split_columns(tile.rows, n_images, n_layers)
        parts = -(-n_layers // layers) * -(-n_images // images) * (padded // min(tile.channels, padded))
        tokens_kernel[(segments.segments * parts,)](
            sorted_weight,
            sorted_values,
            plan,
            partial,
            firsts,
            n_vertices,
            n_images,
            sizes.tiles,
            segments.steps,
            **grid,
            **_tile_constants(tile, layers, images, padded, precision),
            cells=blocks.power_of_two(height * width + 1),
            step=tile.columns,
        )
        cells_each, channels = GATHERED[0], min(GATHERED[1], padded)
        programs = n_images * n_layers * (padded // channels) * -(-height * width // cells_each)
        gather_kernel[(programs,)](
            partial,
            firsts,
            grad_local,
            grad_global,
            n_images,
            n_layers=n_layers,
            n_channels=n_channels,
            padded=padded,
            n_cells=height * width,
            cells_each=cells_each,
            channels=channels,
            at_once=16,
            num_warps=4,
        )
    return grad_local, grad_global, grad_locations, grad_layer_weights, grad_scale, grad_weight, grad_bias


def _grid_constants(sizes: PlanSizes, n_layers: int, padded: int, height: int, width: int) -> dict[str, Any]:
    return {"groups": sizes.groups, "n_layers": n_layers, "padded": padded, "height": height, "width": width}


def _tile_constants(tile: Blocks, layers: int, images: int, padded: int, precision: str) -> dict[str, Any]:
    return {
        "layers": layers,
        "images": images,
        "channels": min(tile.channels, padded),
        "precision": "tf32" if precision == "tf32" else "ieee",
        "num_warps": tile.warps,
        "num_stages": tile.stages,
        "maxnreg": tile.registers,
    }


def _check_size(*entries: int) -> None:
    if max(entries) >= 2**31:
        raise UsageError(f"tensors must have fewer than 2**31 entries for backend 'triton', got {max(entries):,}")


def _within_reach(tensor: Tensor, first: int) -> Tensor:
    """The tensor, or a contiguous copy if offsets from dimension `first` on exceed 32 bits."""
    reach = sum((n - 1) * step for n, step in zip(tensor.shape[first:], tensor.stride()[first:], strict=True))
    return tensor.contiguous() if reach >= 2**31 else tensor


def _prepare(
    local_tokens: Tensor, global_tokens: Tensor, locations: Tensor, table: Tensor, plan: Tensor, sizes: PlanSizes
) -> None:
    """Fill the token table and the plan."""
    n_images, n_layers, n_channels, height, width = local_tokens.shape
    n_vertices, padded = len(locations), table.shape[-1]
    scanned = sizes.counted * sizes.counters > blocks.MAX_UNSCANNED
    counts = plan.new_empty((2 * sizes.counted + 1, sizes.counters))
    cells, channels = PACKED[0], min(PACKED[1], padded)
    packed = n_images * n_layers * (padded // channels) * -(-height * width // cells)
    strides = local_tokens.stride()
    prepare_kernel[(sizes.counted + packed,)](
        locations,
        counts,
        local_tokens,
        global_tokens,
        table,
        n_vertices,
        sizes.counted,
        n_images,
        *strides,
        *global_tokens.stride(),
        n_layers=n_layers,
        n_channels=n_channels,
        padded=padded,
        height=height,
        width=width,
        flat=strides[3] == width * strides[4],
        counters=sizes.counters,
        counted=blocks.COUNTED,
        pack_cells=cells,
        pack_channels=channels,
        num_warps=4,
    )
    if scanned:
        groups_each = 32
        scan_kernel[(sizes.counters // groups_each,)](
            counts, sizes.counted, counters=sizes.counters, groups_each=groups_each, rows=64, num_warps=4
        )
    some_tiles = max(1, 8192 // sizes.counters)
    order_kernel[(sizes.counted + -(-sizes.tiles // some_tiles),)](
        locations,
        counts,
        counts[sizes.counted + 1 :],
        plan,
        n_vertices,
        sizes.counted,
        sizes.tiles,
        groups=sizes.groups,
        height=height,
        width=width,
        counters=sizes.counters,
        counted=blocks.COUNTED,
        scanned=scanned,
        rows=max(1, 4096 // sizes.counters),
        some_tiles=some_tiles,
        tile=blocks.TILE,
        chunk=32,
        num_warps=8,
    )


def _choose(table: Tensor, n_channels: int, precision: str) -> Choice:
    kind = precision if table.dtype == torch.float32 else str(table.dtype).removeprefix("torch.")
    return blocks.choose(kind, n_channels, capability_of(table.device))


def capability_of(device: torch.device) -> tuple[int, int]:
    """Compute capability of a device; the interpreter counts as Hopper."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else blocks.HOPPER


def _on(tensor: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensor's."""
    if tensor.device.type != "cuda" or tensor.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(tensor.device)
