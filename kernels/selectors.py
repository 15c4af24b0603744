"""The three selector networks on a GPU: features of every vertex -> locations, layer weights, scale, and back.

Three MLPs of the same features, F -> H -> H -> outputs with exact GELU: network 0 (space) ends in tanh, 1 (layers) in
softmax, 2 (scale) in sigmoid. Everything is float32, and results are the same from run to run: no atomics, fixed
partial sums added in a fixed order. Shapes are static and nothing waits for the device, so CUDA graphs may capture it.
Callers have checked shapes, dtypes and devices.

Forward: the weights are split into bfloat16 parts (a small launch), then one launch in which no (V, H) tensor reaches
memory. Backward: the vertices are taken a chunk at a time, so that what passes between three launches stays in the
second level cache and needs 50 MB, whatever V.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
from torch import Tensor

from brainkit.kernels.selector_kernels import (
    forward_kernel,
    pack_kernel,
    recompute_kernel,
    signal_kernel,
    sum_kernel,
    weight_kernel,
)

PRECISIONS = ("float32", "tf32")
NETWORKS = 3
SIGNAL_COLUMNS = 32


@dataclass(frozen=True)
class Blocks:
    """How one kind of device is used: chosen by what the compiler makes of it, `bench/kernel_compile.py`."""

    programs: int  # that run at once where registers allow one a multiprocessor
    rows: int  # vertices of a tile, forward
    slab: int  # units of the first layer made at a time, forward
    weight_rows: int  # vertices of a tile, gradients of the weights
    most_units: int  # of the first layer that one program sums gradients for
    weight_stages: int
    warps: int = 8

    @property
    def chunk(self) -> int:
        """Vertices between launches of the backward pass: one tile for every program, of each network."""
        return self.programs * self.rows


# By compute capability: the last one at or below the device's. Consumer cards (8.6, 8.9, 12.0) have less shared memory.
BLOCKS = {
    (8, 0): Blocks(programs=108, rows=128, slab=16, weight_rows=16, most_units=128, weight_stages=1),
    (8, 6): Blocks(programs=84, rows=128, slab=16, weight_rows=16, most_units=64, weight_stages=1),
    (9, 0): Blocks(programs=132, rows=128, slab=32, weight_rows=32, most_units=128, weight_stages=2),
    (12, 0): Blocks(programs=170, rows=128, slab=16, weight_rows=16, most_units=64, weight_stages=1),
}
INTERPRETED = Blocks(programs=4, rows=32, slab=32, weight_rows=16, most_units=64, weight_stages=1)


@dataclass(frozen=True)
class Padding:
    """Sizes as tiles need them: powers of two of at least 16."""

    hidden: int
    layers: int
    main: int  # features of a tile
    mains: int
    rest: int  # features of the last, narrower tile; 0 for none

    @property
    def features(self) -> int:
        return self.main * self.mains + self.rest

    @classmethod
    def of(cls, n_features: int, n_hidden: int, n_layers: int) -> Padding:
        main = 16
        while main < 128 and 2 * main <= n_features:
            main *= 2
        mains = max(1, n_features // main)
        left = max(0, n_features - main * mains)
        rest = _power(left) if left else 0
        return cls(_power(n_hidden), _power(n_layers), main, mains, rest)


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
        What the networks read of each vertex.
    hidden_weight, hidden_bias : Tensor of shape (3, H, F) and (3, H), float32
        First layers of the networks: space, layers, scale.
    second_weight, second_bias : Tensor of shape (3, H, H) and (3, H), float32
        Second layers.
    location_head, layer_head, scale_head : Tensor of shape (2, H), (L, H) and (1, H), float32
        Last layers, which have no bias.
    precision : {"float32", "tf32"}
        "tf32" lets layer weights and scale err by 1e-5 (ten times less than tf32 would), for half of their products;
        locations are float32 in any case.

    Returns
    -------
    locations : Tensor of shape (V, 2), in [-1, 1]
    layer_weights : Tensor of shape (V, L), each row sums to 1
    scale : Tensor of shape (V,), in [0, 1]
    """
    features = features.contiguous()
    n_vertices, n_features = features.shape
    n_hidden, n_layers = hidden_weight.shape[1], layer_head.shape[0]
    blocks = _blocks(features.device)
    padding = Padding.of(n_features, n_hidden, n_layers)
    locations = features.new_empty(n_vertices, 2)
    layer_weights = features.new_empty(n_vertices, n_layers)
    scale = features.new_empty(n_vertices)
    with _on(features.device):
        first, second, heads = _pack(hidden_weight, second_weight, location_head, layer_head, scale_head, padding)
        forward_kernel[(triton.cdiv(n_vertices, blocks.rows), NETWORKS)](
            features,
            first,
            hidden_bias.contiguous(),
            second,
            second_bias.contiguous(),
            heads,
            locations,
            layer_weights,
            scale,
            n_vertices,
            F=n_features,
            **forward_constants(blocks, padding, n_hidden, n_layers, precision),
            num_warps=blocks.warps,
            num_stages=2,
        )
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

    The forward pass is computed again, as precisely as `precision` says; the products that make gradients err by 5e-6.

    Parameters
    ----------
    grad_locations, grad_layer_weights, grad_scale : Tensor of shape (V, 2), (V, L) and (V,), float32
    features, hidden_weight, hidden_bias, second_weight, second_bias, location_head, layer_head, scale_head, precision
        As in `forward`.

    Returns
    -------
    list of Tensor
        Gradients of hidden_weight, hidden_bias, second_weight, second_bias, location_head, layer_head, scale_head.
    """
    features = features.contiguous()
    n_vertices, n_features = features.shape
    n_hidden, n_layers = hidden_weight.shape[1], layer_head.shape[0]
    blocks = _blocks(features.device)
    padding = Padding.of(n_features, n_hidden, n_layers)
    chunk, hp, lp, fp = blocks.chunk, padding.hidden, padding.layers, padding.features
    units, owners, slots = weight_owners(blocks, padding)
    places = chunk // blocks.rows
    parameters = (hidden_weight, hidden_bias, second_weight, second_bias, location_head, layer_head, scale_head)
    gradients = [torch.empty_like(parameter, memory_format=torch.contiguous_format) for parameter in parameters]
    grads = [grad.contiguous() for grad in (grad_locations, grad_layer_weights, grad_scale)]
    hidden_bias, second_bias = hidden_bias.contiguous(), second_bias.contiguous()
    location_head, layer_head, scale_head = (head.contiguous() for head in (location_head, layer_head, scale_head))

    entering = features.new_empty(NETWORKS, chunk, hp)
    logit_grads = features.new_empty(NETWORKS, chunk, lp)
    signals = features.new_empty(2, NETWORKS, chunk, hp, dtype=torch.bfloat16)
    head_sums = features.new_empty(NETWORKS, places, lp + 1, hp)
    second_sums = features.new_empty(NETWORKS, slots, hp, hp)
    first_sums = features.new_empty(NETWORKS, slots, hp, fp)
    bias_sums = features.new_empty(NETWORKS, slots, hp)
    constants = forward_constants(blocks, padding, n_hidden, n_layers, precision)
    with _on(features.device):
        first, second, heads = _pack(hidden_weight, second_weight, location_head, layer_head, scale_head, padding)
        for begin in range(0, n_vertices, chunk):
            tiles = triton.cdiv(min(chunk, n_vertices - begin), blocks.rows)
            recompute_kernel[(tiles, NETWORKS)](
                *grads,
                features,
                first,
                hidden_bias,
                second,
                second_bias,
                heads,
                entering,
                logit_grads,
                begin,
                n_vertices,
                F=n_features,
                CHUNK=chunk,
                **constants,
                num_warps=blocks.warps,
                num_stages=2,
            )
            signal_kernel[(tiles, NETWORKS, triton.cdiv(hp, SIGNAL_COLUMNS))](
                entering,
                logit_grads,
                location_head,
                layer_head,
                scale_head,
                signals,
                head_sums,
                int(begin > 0),
                H=n_hidden,
                L=n_layers,
                HP=hp,
                LP=lp,
                ROWS=blocks.rows,
                COLUMNS=min(hp, SIGNAL_COLUMNS),
                CHUNK=chunk,
                num_warps=8,
            )
            weight_kernel[(slots, owners * padding.mains, NETWORKS)](
                features,
                first,
                hidden_bias,
                second,
                signals,
                second_sums,
                first_sums,
                bias_sums,
                begin,
                n_vertices,
                int(begin > 0),
                **weight_constants(blocks, padding, n_features, n_hidden),
                num_warps=8 if units >= 128 else 4,
                num_stages=blocks.weight_stages,
            )
        sum_kernel[(max(n_hidden, lp + 1), NETWORKS)](
            head_sums,
            second_sums,
            first_sums,
            bias_sums,
            *gradients,
            min(places, triton.cdiv(n_vertices, blocks.rows)),
            F=n_features,
            H=n_hidden,
            L=n_layers,
            HP=hp,
            LP=lp,
            FP=fp,
            FB=triton.next_power_of_2(fp),
            PLACES=places,
            SLOTS=slots,
        )
    return gradients


def forward_constants(blocks: Blocks, padding: Padding, n_hidden: int, n_layers: int, precision: str) -> dict[str, int]:
    """What the kernels of the forward pass are compiled for, but the number of features."""
    return {
        "H": n_hidden,
        "L": n_layers,
        "HP": padding.hidden,
        "LP": padding.layers,
        "FM": padding.main,
        "MAINS": padding.mains,
        "FR": padding.rest,
        "BM": blocks.rows,
        "SLAB": min(blocks.slab, padding.hidden),
        "OTHERS": 3 if precision == "float32" else 2,
    }


def weight_constants(blocks: Blocks, padding: Padding, n_features: int, n_hidden: int) -> dict[str, int]:
    """What the kernel of the weights' gradients is compiled for."""
    units, _owners, slots = weight_owners(blocks, padding)
    return {
        "F": n_features,
        "H": n_hidden,
        "HP": padding.hidden,
        "FM": padding.main,
        "MAINS": padding.mains,
        "FR": padding.rest,
        "BM": blocks.weight_rows,
        "UNITS": units,
        "CHUNK": blocks.chunk,
        "SLOTS": slots,
    }


def weight_owners(blocks: Blocks, padding: Padding) -> tuple[int, int, int]:
    """Units per program, how many programs share the units, and how many share the vertices, of each network.

    A program's sums, units x (hidden + features), must fit in the registers of a multiprocessor.
    """
    wide = padding.hidden + padding.main + padding.rest > 256
    units = min(padding.hidden, 64 if wide else blocks.most_units)
    owners = padding.hidden // units
    return units, owners, max(1, blocks.programs // (NETWORKS * owners * padding.mains))


def _pack(
    hidden_weight: Tensor,
    second_weight: Tensor,
    location_head: Tensor,
    layer_head: Tensor,
    scale_head: Tensor,
    padding: Padding,
) -> Sequence[Tensor]:
    """The weights padded, in three bfloat16 parts: (3, 3, HP, FP), (3, 3, HP, HP), (3, 3, LP, HP); parts first."""
    hp, lp, fp = padding.hidden, padding.layers, padding.features
    first, second, heads = (
        hidden_weight.new_empty(3, NETWORKS, *shape, dtype=torch.bfloat16) for shape in ((hp, fp), (hp, hp), (lp, hp))
    )
    pack_kernel[(max(hp, lp), NETWORKS)](
        hidden_weight.contiguous(),
        second_weight.contiguous(),
        location_head.contiguous(),
        layer_head.contiguous(),
        scale_head.contiguous(),
        first,
        second,
        heads,
        F=hidden_weight.shape[2],
        H=hidden_weight.shape[1],
        L=layer_head.shape[0],
        FP=fp,
        FB=triton.next_power_of_2(fp),
        HP=hp,
        LP=lp,
    )
    return first, second, heads


def _blocks(device: torch.device) -> Blocks:
    """On anything but a CUDA device only Triton's interpreter runs kernels; it wants few, small tiles."""
    return _blocks_of(torch.cuda.get_device_capability(device)) if device.type == "cuda" else INTERPRETED


@lru_cache
def _blocks_of(capability: tuple[int, int]) -> Blocks:
    return BLOCKS[max((known for known in BLOCKS if known <= capability), default=min(BLOCKS))]


def _on(device: torch.device) -> contextlib.AbstractContextManager:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _power(n: int) -> int:
    return max(16, triton.next_power_of_2(n))
