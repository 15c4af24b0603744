"""Launches of the selector networks: features of every vertex -> locations, layer weights, scale, and gradients.

Three MLPs of the same features, F -> H -> H -> outputs with exact GELU: network 0 (space) ends in tanh, 1 (layers) in
softmax, 2 (scale) in sigmoid. Everything is float32, and results are the same in every run: no atomics, and partial
sums are added in a fixed order. Shapes are static and nothing waits for the device, so CUDA graphs can capture it.
Callers have checked shapes, dtypes and devices.

Forward: a small launch splits the weights into bfloat16 parts, then one launch computes everything, without storing a
(V, H) tensor. A single backward kernel would spill registers, so there are four; they take vertices in chunks, so that
buffers between them are at most 65 MB for any V, and mostly stay in the L2 cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor

from brainkit.kernels import selector_kernels as kernels

# bfloat16 numbers per float32 number, by precision.
PARTS = {"float32": 3, "tf32": 2}
NETWORKS = 3
SIGNAL_COLUMNS = 32
PACKED_ROWS = 16


@dataclass(frozen=True)
class Tiles:
    """Tile sizes of a kernel.

    Attributes
    ----------
    rows : int
        Vertices per tile.
    units : int
        Units of the first hidden layer computed at a time (forward), or summed by one program (gradients).
    stages : int
        Stages of the pipelined loads.
    """

    rows: int
    units: int
    stages: int


@dataclass(frozen=True)
class Blocks:
    """Tile sizes for one kind of device, chosen by the compiler's figures, see `bench/kernel_compile.py`.

    Attributes
    ----------
    programs : int
        How many programs run at once: registers allow one per multiprocessor.
    networks, second, first : Tiles
        Kernels of the forward pass, and those that sum the gradients of the second and of the first weight.
    many_features : Tiles
        Kernels of the forward pass for 81 to 192 features.
    wide_networks, wide_sums : Tiles
        Both for more features or more than 128 hidden units; not optimised for speed.
    """

    programs: int
    networks: Tiles
    second: Tiles
    first: Tiles
    many_features: Tiles = Tiles(128, 16, 2)
    wide_networks: Tiles = Tiles(32, 16, 1)
    wide_sums: Tiles = Tiles(16, 32, 1)

    @property
    def chunk(self) -> int:
        """Vertices per launch of the backward pass: one tile for every program."""
        return self.programs * self.networks.rows


_SMALL = Blocks(
    84,
    Tiles(128, 16, 2),
    Tiles(16, 64, 1),
    Tiles(16, 32, 1),
    many_features=Tiles(32, 16, 1),
    wide_sums=Tiles(16, 16, 1),
)
# By compute capability; the highest entry not above the device's. 8.6 to 8.9 and 12.0 have less shared memory.
BLOCKS = {
    (8, 0): Blocks(108, Tiles(128, 16, 2), Tiles(16, 128, 1), Tiles(16, 64, 1)),
    (8, 6): _SMALL,
    (9, 0): Blocks(132, Tiles(128, 32, 2), Tiles(64, 128, 2), Tiles(32, 128, 1)),
    (12, 0): _SMALL,
}
# For Triton's interpreter: small tiles and chunks, so that few vertices make several chunks.
INTERPRETED = Blocks(
    6, Tiles(32, 64, 1), Tiles(32, 64, 1), Tiles(32, 128, 1), Tiles(32, 64, 1), Tiles(32, 128, 1), Tiles(32, 64, 1)
)


@dataclass(frozen=True)
class Launch:
    """A kernel with its compile-time constants."""

    kernel: Any
    constants: dict[str, int]
    num_warps: int = 4
    num_stages: int = 1

    def __call__(self, grid: tuple[int, ...], *arguments: Tensor | int) -> None:
        self.kernel[grid](*arguments, **self.constants, num_warps=self.num_warps, num_stages=self.num_stages)


@dataclass(frozen=True)
class Plan:
    """The launches for one kind of device, sizes and precision; hidden, layers and features are padded."""

    hidden: int
    layers: int
    features: int
    mains: int  # programs that share the features
    parts: int  # bfloat16 numbers per number in the gradients' products
    rows: int
    chunk: int
    second_owners: int  # programs that share the units
    second_slots: int  # programs that share the vertices
    first_owners: int
    first_slots: int
    launches: dict[str, Launch]


def forward(
    features: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    second_weight: Tensor,
    second_bias: Tensor,
    location_head: Tensor,
    layer_head: Tensor,
    scale_head: Tensor,
    *,
    precision: str = "float32",
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the three networks on every vertex.

    Parameters
    ----------
    features : Tensor of shape (V, F), float32
        Inputs of the networks.
    hidden_weight, hidden_bias : Tensor of shape (3, H, F) and (3, H), float32
        First layers of the networks space, layers and scale.
    second_weight, second_bias : Tensor of shape (3, H, H) and (3, H), float32
        Second layers.
    location_head, layer_head, scale_head : Tensor of shape (2, H), (L, H) and (1, H), float32
        Last layers, which have no bias.
    precision : {"float32", "tf32"}
        "tf32" halves the products of the networks of layers and scale, and of all gradients, with errors of 1e-5 (true
        tf32: 3e-4); locations are always float32.

    Returns
    -------
    locations : Tensor of shape (V, 2), in [-1, 1]
    layer_weights : Tensor of shape (V, L), each row sums to 1
    scale : Tensor of shape (V,), in [0, 1]
    """
    parameters = (hidden_weight, hidden_bias, second_weight, second_bias, location_head, layer_head, scale_head)
    features, hidden_weight, hidden_bias, second_weight, second_bias, *heads = _contiguous(features, *parameters)
    n_vertices, n_layers = len(features), len(layer_head)
    plan = plan_for(features, hidden_weight, n_layers, precision)
    outputs = [features.new_empty(n_vertices, *shape) for shape in ((2,), (n_layers,), ())]
    with _on(features.device):
        first, second, packed_heads = _pack(plan, hidden_weight, second_weight, heads)
        plan.launches["forward"](
            (triton.cdiv(n_vertices, plan.rows), NETWORKS),
            *(features, first, hidden_bias, second, second_bias, packed_heads, *outputs),
            n_vertices,
        )
    locations, layer_weights, scale = outputs
    return locations, layer_weights, scale


def backward(
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
    *,
    precision: str = "float32",
) -> list[Tensor]:
    """Gradients of the seven parameters, given those of the three outputs; the features have none.

    Parameters
    ----------
    grad_locations, grad_layer_weights, grad_scale : Tensor of shape (V, 2), (V, L) and (V,), float32
    features, hidden_weight, hidden_bias, second_weight, second_bias, location_head, layer_head, scale_head, precision
        As for `forward`.

    Returns
    -------
    list of Tensor
        Gradients of hidden_weight, hidden_bias, second_weight, second_bias, location_head, layer_head, scale_head.
    """
    parameters = (hidden_weight, hidden_bias, second_weight, second_bias, location_head, layer_head, scale_head)
    gradients = [torch.empty_like(parameter, memory_format=torch.contiguous_format) for parameter in parameters]
    grads = _contiguous(grad_locations, grad_layer_weights, grad_scale)
    features, hidden_weight, hidden_bias, second_weight, second_bias, *heads = _contiguous(features, *parameters)
    n_vertices, n_hidden = len(features), len(second_bias[0])
    plan = plan_for(features, hidden_weight, len(layer_head), precision)
    launch, chunk, tiles_per_chunk = plan.launches, plan.chunk, plan.chunk // plan.rows

    entering = features.new_empty(NETWORKS, chunk, plan.hidden)
    logit_grads = features.new_empty(NETWORKS, chunk, plan.layers)
    signals = features.new_empty(plan.parts, NETWORKS, chunk, plan.hidden, dtype=torch.bfloat16)
    head_sums = features.new_empty(NETWORKS, tiles_per_chunk, plan.layers + 1, plan.hidden)
    second_sums = features.new_empty(NETWORKS, plan.second_slots, plan.hidden, plan.hidden)
    first_sums = features.new_empty(NETWORKS, plan.first_slots, plan.hidden, plan.features)
    bias_sums = features.new_empty(NETWORKS, plan.first_slots, plan.hidden)
    with _on(features.device):
        first, second, packed_heads = _pack(plan, hidden_weight, second_weight, heads)
        for begin in range(0, n_vertices, chunk):
            tiles = triton.cdiv(min(chunk, n_vertices - begin), plan.rows)
            resumed = int(begin > 0)
            launch["recompute"](
                (tiles, NETWORKS),
                *(*grads, features, first, hidden_bias, second, second_bias, packed_heads, entering, logit_grads),
                *(begin, n_vertices),
            )
            launch["signal"](
                (tiles, NETWORKS, triton.cdiv(plan.hidden, SIGNAL_COLUMNS)),
                *(entering, logit_grads, *heads, signals, head_sums),
                resumed,
            )
            launch["second_weight"](
                (plan.second_slots, plan.second_owners, NETWORKS),
                *(features, first, hidden_bias, signals, second_sums),
                *(begin, n_vertices, resumed),
            )
            launch["first_weight"](
                (plan.first_slots, plan.first_owners * plan.mains, NETWORKS),
                *(features, first, hidden_bias, second, signals, first_sums, bias_sums),
                *(begin, n_vertices, resumed),
            )
        launch["sum"](
            (max(n_hidden, plan.layers + 1), NETWORKS),
            *(head_sums, second_sums, first_sums, bias_sums, *gradients),
            min(tiles_per_chunk, triton.cdiv(n_vertices, plan.rows)),
        )
    return gradients


def plan_for(features: Tensor, hidden_weight: Tensor, n_layers: int, precision: str) -> Plan:
    """The launches for these tensors. On devices other than CUDA, only the interpreter runs kernels."""
    on_gpu = features.device.type == "cuda"
    capability = torch.cuda.get_device_capability(features.device) if on_gpu else None
    return make_plan(capability, features.shape[1], hidden_weight.shape[1], n_layers, precision)


@lru_cache
def make_plan(
    capability: tuple[int, int] | None, n_features: int, n_hidden: int, n_layers: int, precision: str
) -> Plan:
    """The launches for F features, H hidden units and L layers on a device of this compute capability.

    A capability of None is for the interpreter. Nothing is launched, and no device is queried.
    """
    blocks = INTERPRETED if capability is None else BLOCKS[max(known for known in BLOCKS if known <= capability)]
    parts = PARTS[precision]
    hp, lp = _padded(n_hidden), _padded(n_layers)
    main = max(width for width in (16, 32, 64) if width <= max(16, n_features))
    mains = max(1, n_features // main)
    rest = _padded(n_features - main * mains) if n_features > main * mains else 0
    fp = main * mains + rest
    sizes = {"F": n_features, "H": n_hidden, "HP": hp, "FM": main, "MAINS": mains, "FR": rest}
    wide = hp > 128 or fp > 80
    warps = 8 if hp >= 128 else 4
    tiles = blocks.networks
    if wide:
        tiles = blocks.many_features if hp <= 128 and fp <= 192 else blocks.wide_networks
    heads = {"H": n_hidden, "L": n_layers, "HP": hp, "LP": lp}
    networks = {**sizes, **heads, "BM": tiles.rows, "SLAB": min(tiles.units, hp), "OTHERS": parts}

    def sums(own: Tiles, shared: int) -> tuple[int, int, dict[str, int]]:
        """Programs that share the units, programs that share the vertices, and compile-time constants."""
        units = min(own.units, hp)
        slots = max(1, blocks.programs // (NETWORKS * shared * (hp // units)))
        divided = {"BM": own.rows, "UNITS": units, "CHUNK": blocks.chunk, "SLOTS": slots, "PARTS": parts}
        return hp // units, slots, {**sizes, **divided}

    of_second = blocks.wide_sums if wide else blocks.second
    of_first = blocks.wide_sums if wide else blocks.first
    second_owners, second_slots, second = sums(of_second, 1)
    first_owners, first_slots, first = sums(of_first, mains)
    counts = {"PLACES": blocks.chunk // tiles.rows, "SECOND_SLOTS": second_slots, "FIRST_SLOTS": first_slots}
    columns = {"FP": fp, "FB": triton.next_power_of_2(fp)}
    launches = {
        "pack": Launch(kernels.pack_kernel, {"F": n_features, **heads, **columns, "ROWS": PACKED_ROWS}),
        "forward": Launch(kernels.forward_kernel, networks, 8, tiles.stages),
        "recompute": Launch(kernels.recompute_kernel, {**networks, "CHUNK": blocks.chunk}, 8, tiles.stages),
        "signal": Launch(
            kernels.signal_kernel,
            {**heads, "ROWS": tiles.rows, "COLUMNS": min(SIGNAL_COLUMNS, hp), "CHUNK": blocks.chunk, "PARTS": parts},
            8,
        ),
        "second_weight": Launch(kernels.second_weight_kernel, second, warps, of_second.stages),
        "first_weight": Launch(kernels.first_weight_kernel, first, warps, of_first.stages),
        "sum": Launch(kernels.sum_kernel, {"F": n_features, **heads, **columns, **counts}),
    }
    return Plan(
        hidden=hp,
        layers=lp,
        features=fp,
        mains=mains,
        parts=parts,
        rows=tiles.rows,
        chunk=blocks.chunk,
        second_owners=second_owners,
        second_slots=second_slots,
        first_owners=first_owners,
        first_slots=first_slots,
        launches=launches,
    )


def _pack(plan: Plan, hidden_weight: Tensor, second_weight: Tensor, heads: Sequence[Tensor]) -> list[Tensor]:
    """The padded weights in three bfloat16 parts: (3, 3, HP, FP), (3, 3, HP, HP), (3, 3, LP, HP); parts first."""
    shapes = ((plan.hidden, plan.features), (plan.hidden, plan.hidden), (plan.layers, plan.hidden))
    packed = [hidden_weight.new_empty(3, NETWORKS, *shape, dtype=torch.bfloat16) for shape in shapes]
    grid = (triton.cdiv(max(plan.hidden, plan.layers), PACKED_ROWS), NETWORKS)
    plan.launches["pack"](grid, hidden_weight, second_weight, *heads, *packed)
    return packed


def _contiguous(*tensors: Tensor) -> list[Tensor]:
    return [tensor.contiguous() for tensor in tensors]


def _on(device: torch.device) -> contextlib.AbstractContextManager:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _padded(n: int) -> int:
    """A tile's width: a power of two, at least 16 for the tensor cores."""
    return max(16, triton.next_power_of_2(n))
