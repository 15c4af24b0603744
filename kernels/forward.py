"""The forward pass for a tile of vertices and some images: gather and readout as products `weight @ tokens^T`."""

from __future__ import annotations

import triton
import triton.language as tl

from brainkit.kernels.plan import corner_shares, ordered, part_of_tile
from brainkit.kernels.tokens import operand, spread_layers, tap_cell, tap_share


@triton.jit
def forward_kernel(
    table,  # (H * W + 1, L, B, DP)
    plan,
    locations,  # (V, 2)
    layer_weights,  # (V, L)
    scale,  # (V,)
    weight,  # (V, D)
    bias,  # (V,)
    response,  # (B, V)
    n_vertices,
    n_images,
    n_tiles,
    n_taps,  # 5, but unknown to the compiler: the unrolled loop would need too many registers
    groups: tl.constexpr,
    n_layers: tl.constexpr,
    n_channels: tl.constexpr,
    padded: tl.constexpr,
    height: tl.constexpr,
    width: tl.constexpr,
    tile: tl.constexpr,
    rows: tl.constexpr,
    layers: tl.constexpr,
    images: tl.constexpr,
    channels: tl.constexpr,
    precision: tl.constexpr,
):
    program = tl.program_id(0)
    # Neighbouring programs read the same weights.
    image_parts = tl.cdiv(n_images, images)
    first_image = (program % image_parts) * images
    part = program // image_parts
    group, start, end = part_of_tile(plan, part, tile // rows, rows)
    if start < end:
        _, valid, vertex = ordered(plan, start, end, n_tiles, groups, rows)
        x, y = corner_shares(locations, vertex, valid, group, height, width)
        a = tl.load(scale + vertex, mask=valid, other=0.0)
        column = tl.arange(0, layers * images)
        column_image = first_image + column % images
        out = tl.zeros((rows, images), tl.float32)
        for first_channel in range(0, padded, channels):
            channel = first_channel + tl.arange(0, channels)
            w = tl.load(
                weight + vertex[:, None] * n_channels + channel[None, :],
                mask=valid[:, None] & (channel < n_channels)[None, :],
                other=0.0,
            ).to(table.dtype.element_ty)
            for first_layer in range(0, n_layers, layers):
                layer = first_layer + tl.arange(0, layers)
                q = tl.load(
                    layer_weights + vertex[:, None] * n_layers + layer[None, :],
                    mask=valid[:, None] & (layer < n_layers)[None, :],
                    other=0.0,
                )
                column_layer = first_layer + column // images
                token = (column_layer * n_images + column_image)[:, None] * padded + channel[None, :]
                valid_column = (column_layer < n_layers) & (column_image < n_images)
                mixed = tl.zeros((rows, layers * images), tl.float32)
                for tap in range(n_taps):
                    cell, inside = tap_cell(group, tap, height, width)
                    cell_tokens = table + cell.to(tl.int64) * n_layers * n_images * padded
                    tokens = tl.load(cell_tokens + token, mask=valid_column[:, None] & inside, other=0.0)
                    product = tl.dot(operand(w), operand(tl.trans(tokens)), input_precision=precision)
                    mixed += tap_share(tap, x, y, a)[:, None] * product
                mixed *= spread_layers(q, images)
                out += tl.sum(tl.reshape(mixed, (rows, layers, images)), 1)
        # Loaded again: kept in registers, these would crowd out the products.
        _, start, end = part_of_tile(plan, part, tile // rows, rows)
        _, valid, vertex = ordered(plan, start, end, n_tiles, groups, rows)
        out = out * (1.0 / n_channels) + tl.load(bias + vertex, mask=valid, other=0.0)[:, None]
        out = tl.where(group == groups - 1, float("nan"), out)  # NaN and infinite locations
        image = first_image + tl.arange(0, images)
        valid_response = valid[:, None] & (image < n_images)[None, :]
        tl.store(response + image[None, :] * n_vertices + vertex[:, None], out, mask=valid_response)
