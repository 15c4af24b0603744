"""The operator by tap-cell groups, in plain torch: the fallback on every device.

Vertices whose four bilinear taps are the same cells form a group. With vertices sorted by group, gather and readout
become small dense products of weights and tokens. No (B, V, D) tensor is formed, and the explicit backward pass keeps
one group's products at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

# Vertices per product: large enough for the matrix library, small enough to stay in cache.
TILE = 512


@dataclass(frozen=True)
class Groups:
    """Vertices sorted by tap cell.

    Group k = row * (W + 1) + column holds the vertices whose upper left tap is cell (row - 1, column - 1) of the
    token grid, that is cell (row, column) of the grid with a ring of zeros around it.
    """

    order: Tensor  # (V,) int64, vertices sorted by group, stable
    counts: list[int]  # ((H+1) * (W+1),)
    fraction: Tensor  # (V, 2), offset from the upper left tap in cells, x then y, in vertex order
    inside: Tensor  # (V,) bool: False if every tap lies outside the image
    known: Tensor  # (V,) bool: False if the location is NaN or infinite


def group_vertices(locations: Tensor, height: int, width: int) -> Groups:
    """Sort vertices by tap cell."""
    known = locations.isfinite().all(-1)
    size = locations.new_tensor([width, height])
    position = ((torch.where(known[:, None], locations, 0.0) + 1) * size - 1) / 2  # in cells; centres are integers
    corner = position.floor()
    # More than one cell outside the image there is no tap: the vertex reads zeros.
    inside = ((corner >= -1) & (corner < size)).all(-1)
    corner = torch.minimum(corner.clamp(min=-1), size - 1)
    fraction = torch.where(inside[:, None], position - corner, 0.0)
    cell = corner.long() + 1
    group = cell[:, 1] * (width + 1) + cell[:, 0]
    order = torch.sort(group, stable=True).indices
    counts = torch.bincount(group, minlength=(height + 1) * (width + 1)).tolist()
    return Groups(order, counts, fraction, inside, known)


def _taps(fraction: Tensor) -> Tensor:
    """Bilinear weights of the four taps: upper left, upper right, lower left, lower right. (V, 4)"""
    x, y = fraction.unbind(-1)
    return torch.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x], -1)


def coefficients(groups: Groups, layer_weights: Tensor, scale: Tensor) -> Tensor:
    """Coefficients of the layers of the four taps and of the global token, tap-major. (V, 5L)"""
    taps = _taps(groups.fraction) * ((1 - scale) * groups.inside)[:, None]
    weights = torch.cat([taps, scale[:, None]], 1)  # (V, 5)
    return (weights[:, :, None] * layer_weights[:, None, :]).flatten(1)


def _token_table(local_tokens: Tensor, global_tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens laid out for the products: (H+2, W+2, L, B*D), padded with zeros, and (L, B*D)."""
    n_images, n_layers, n_channels, height, width = local_tokens.shape
    table = local_tokens.new_zeros(height + 2, width + 2, n_layers, n_images * n_channels)
    table[1:-1, 1:-1] = rearrange(local_tokens, "b l d h w -> h w l (b d)")
    return table, rearrange(global_tokens, "b l d -> l (b d)")


def _slots(group: int, height: int, width: int) -> list[tuple[int, int, int]]:
    """The taps of a group that lie inside the image: (tap, row, column) in the padded grid."""
    row, column = divmod(group, width + 1)
    slots = [(0, row, column), (1, row, column + 1), (2, row + 1, column), (3, row + 1, column + 1)]
    return [(tap, r, c) for tap, r, c in slots if 1 <= r <= height and 1 <= c <= width]


def forward(
    local_tokens: Tensor,
    global_tokens: Tensor,
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    weight: Tensor,
    bias: Tensor,
) -> Tensor:
    """Responses (B, V), without gradients."""
    groups = group_vertices(locations, *local_tokens.shape[-2:])
    n_images, _, n_channels = global_tokens.shape
    response = weight.new_empty(len(weight), n_images)
    for vertices, mixed in mixed_tokens(local_tokens, global_tokens, groups, layer_weights, scale):
        response[vertices] = torch.bmm(mixed, weight[vertices, :, None])[..., 0]
    return torch.where(groups.known, (response / n_channels).t() + bias, torch.nan)


def mixed_tokens(
    local_tokens: Tensor, global_tokens: Tensor, groups: Groups, layer_weights: Tensor, scale: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """What vertices read, some at a time: their positions (n,), and the mixed tokens (n, B, D), without gradients.

    The readout of the operator is the product of these tokens with the vertices' weights, over D.
    """
    n_images, n_layers, n_channels = global_tokens.shape
    table, whole = _token_table(local_tokens, global_tokens)
    coefficient = coefficients(groups, layer_weights, scale)[groups.order].view(-1, 5, n_layers)
    for group, start, stop in _tiles(groups.counts):
        tokens, use, _ = _product(group, table, whole, coefficient[start:stop])
        yield groups.order[start:stop], (use @ tokens).view(stop - start, n_images, n_channels)


def backward(
    grad_response: Tensor,  # (B, V)
    local_tokens: Tensor,
    global_tokens: Tensor,
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    weight: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients of the seven inputs, in their order."""
    n_images, n_layers, n_channels, height, width = local_tokens.shape
    groups = group_vertices(locations, height, width)
    grad_response = torch.where(groups.known, grad_response, 0.0)
    table, whole = _token_table(local_tokens, global_tokens)
    coefficient = coefficients(groups, layer_weights, scale)[groups.order].view(-1, 5, n_layers)
    sorted_weight = weight[groups.order]
    grad = (grad_response / n_channels).t()[groups.order]  # (V, B)

    grad_coefficient = torch.zeros_like(coefficient)
    grad_weight = torch.empty_like(sorted_weight)
    grad_table, grad_whole = torch.zeros_like(table), torch.zeros_like(whole)
    for group, start, stop in _tiles(groups.counts):
        tokens, use, slots = _product(group, table, whole, coefficient[start:stop])
        mixed = (use @ tokens).view(stop - start, n_images, n_channels)
        grad_weight[start:stop] = torch.bmm(grad[start:stop, None], mixed)[:, 0]
        grad_mixed = (grad[start:stop, :, None] * sorted_weight[start:stop, None]).flatten(1)  # (n, B*D)
        taps = [tap for tap, _, _ in slots] + [4]
        grad_coefficient[start:stop, taps] = (grad_mixed @ tokens.t()).view(stop - start, len(taps), n_layers)
        grad_tokens = (use.t() @ grad_mixed).view(len(taps), n_layers, -1)
        for (_, row, column), value in zip(slots, grad_tokens, strict=False):
            grad_table[row, column] += value
        grad_whole += grad_tokens[-1]

    by_vertex = torch.empty_like(grad_coefficient)  # (V, 5, L)
    by_vertex[groups.order] = grad_coefficient
    unsorted_weight = torch.empty_like(grad_weight)
    unsorted_weight[groups.order] = grad_weight
    taps_weight = _taps(groups.fraction) * groups.inside[:, None]  # (V, 4)
    per_tap = torch.einsum("vtl,vl->vt", by_vertex, layer_weights)  # (V, 5)
    grad_layers = torch.einsum("vtl,vt->vl", by_vertex[:, :4], taps_weight) * (1 - scale)[:, None]
    grad_layers = grad_layers + by_vertex[:, 4] * scale[:, None]
    grad_scale = per_tap[:, 4] - (per_tap[:, :4] * taps_weight).sum(-1)
    upper_left, upper_right, lower_left, lower_right = per_tap[:, :4].unbind(-1)
    x, y = groups.fraction.unbind(-1)
    local_share = (1 - scale) * groups.inside
    grad_x = ((1 - y) * (upper_right - upper_left) + y * (lower_right - lower_left)) * local_share * (width / 2)
    grad_y = ((1 - x) * (lower_left - upper_left) + x * (lower_right - upper_right)) * local_share * (height / 2)
    return (
        rearrange(grad_table[1:-1, 1:-1], "h w l (b d) -> b l d h w", b=n_images),
        rearrange(grad_whole, "l (b d) -> b l d", b=n_images),
        torch.stack([grad_x, grad_y], -1),
        grad_layers,
        grad_scale,
        unsorted_weight,
        grad_response.sum(0),
    )


def _product(
    group: int, table: Tensor, whole: Tensor, coefficient: Tensor
) -> tuple[Tensor, Tensor, list[tuple[int, int, int]]]:
    """A group's tokens (k, B*D), its vertices' coefficients of them (n, k), and the taps that lie in the image."""
    slots = _slots(group, table.shape[0] - 2, table.shape[1] - 2)
    tokens = torch.cat([table[row, column] for _, row, column in slots] + [whole])
    return tokens, coefficient[:, [tap for tap, _, _ in slots] + [4]].flatten(1), slots


def _tiles(counts: list[int]) -> list[tuple[int, int, int]]:
    """(group, start, stop) of every product, in sorted vertex order."""
    tiles, start = [], 0
    for group, count in enumerate(counts):
        end = start + count
        tiles += [(group, first, min(first + TILE, end)) for first in range(start, end, TILE)]
        start = end
    return tiles


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs[:-1])  # the bias is not needed
        return forward(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_response: Tensor) -> tuple[Tensor, ...]:
        return backward(grad_response, *ctx.saved_tensors)


def factor_readout(
    local_tokens: Tensor,
    global_tokens: Tensor,
    locations: Tensor,
    layer_weights: Tensor,
    scale: Tensor,
    weight: Tensor,
    bias: Tensor,
) -> Tensor:
    """Same arguments, result and gradients as :func:`brainkit.ops.reference.factor_readout`."""
    out: Tensor = _Grouped.apply(local_tokens, global_tokens, locations, layer_weights, scale, weight, bias)
    return out
