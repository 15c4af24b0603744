"""The backward pass for what belongs to vertices: weights, bias, layer weights, locations and scale.

A tile's products with the tokens serve twice: read out with the responses' gradients they give the gradients of the
coefficients, and mixed with them those of the weights. The tile's inputs are written out in the plan's order on the
way, as the tokens' gradient reads them several times.
"""

from __future__ import annotations

import triton
import triton.language as tl

from brainkit.kernels.plan import corner_shares
from brainkit.kernels.tokens import spread_images, spread_layers, tap_cell, tap_share


@triton.jit
def vertices_kernel(
    grad_response,  # (B, V), any strides
    table,  # (H * W + 1, L, B, DP)
    plan,
    locations,  # (V, 2)
    layer_weights,  # (V, L)
    scale,  # (V,)
    weight,  # (V, D)
    grad_locations,
    grad_layer_weights,
    grad_scale,
    grad_weight,
    grad_bias,
    sorted_weight,  # (V, DP), in the plan's order
    sorted_values,  # (B + L + 3, V) float32, in the plan's order: grad_response / D, layer weights, x, y, scale
    n_vertices,
    n_images,
    n_tiles,
    grad_b,
    grad_v,
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
    normalised: tl.constexpr,  # float16 has no room for gradients: scale each vertex's to its largest
):
    part = tl.program_id(0)
    listed = plan + 3 * (part // (tile // rows))
    group = tl.load(listed)
    start = tl.load(listed + 1) + (part % (tile // rows)) * rows
    end = tl.load(listed + 2)
    if start < end:
        place = start + tl.arange(0, rows)
        live = place < end
        vertex = tl.load(plan + 3 * n_tiles + groups + 1 + place, mask=live, other=0)
        channel = tl.arange(0, channels)
        some_layers = tl.arange(0, layers)
        some_images = tl.arange(0, images)
        if group == groups - 1:
            # A vertex with no place learns nothing. Nobody reads its sorted values.
            nothing = tl.zeros((rows,), tl.float32)
            tl.store(grad_locations + vertex * 2, nothing, mask=live)
            tl.store(grad_locations + vertex * 2 + 1, nothing, mask=live)
            tl.store(grad_scale + vertex, nothing, mask=live)
            tl.store(grad_bias + vertex, nothing, mask=live)
            for first in range(0, n_layers, layers):
                of_layer = first + some_layers
                kept = live[:, None] & (of_layer < n_layers)[None, :]
                into = grad_layer_weights + vertex[:, None] * n_layers + of_layer[None, :]
                tl.store(into, tl.zeros((rows, layers), tl.float32), mask=kept)
            for first in range(0, padded, channels):
                of_channel = first + channel
                kept = live[:, None] & (of_channel < n_channels)[None, :]
                into = grad_weight + vertex[:, None] * n_channels + of_channel[None, :]
                tl.store(into, tl.zeros((rows, channels), tl.float32), mask=kept)
        else:
            x, y = corner_shares(locations, vertex, live, group, height, width)
            a = tl.load(scale + vertex, mask=live, other=0.0)
            kept_values = sorted_values + (n_images + n_layers) * n_vertices + place
            tl.store(kept_values, x + (group % (width + 1) - 1).to(tl.float32), mask=live)
            tl.store(kept_values + n_vertices, y + (group // (width + 1) - 1).to(tl.float32), mask=live)
            tl.store(kept_values + 2 * n_vertices, a, mask=live)

            total = tl.zeros((rows,), tl.float32)
            largest = tl.zeros((rows,), tl.float32)
            for first in range(0, n_images, images):
                image = first + some_images
                kept = live[:, None] & (image < n_images)[None, :]
                g = tl.load(grad_response + image[None, :] * grad_b + vertex[:, None] * grad_v, mask=kept, other=0.0)
                total += tl.sum(g, 1)
                g *= 1.0 / n_channels
                tl.store(sorted_values + image[None, :] * n_vertices + place[:, None], g, mask=kept)
                if normalised:
                    largest = tl.maximum(largest, tl.max(tl.abs(g), 1))
            tl.store(grad_bias + vertex, total, mask=live)
            largest = tl.where(largest == 0.0, 1.0, largest)

            column = tl.arange(0, layers * images)
            grad_x = tl.zeros((rows,), tl.float32)
            grad_y = tl.zeros((rows,), tl.float32)
            grad_a = tl.zeros((rows,), tl.float32)
            for first_channel in range(0, padded, channels):
                of_channel = first_channel + channel
                has_channel = live[:, None] & (of_channel < n_channels)[None, :]
                w = tl.load(
                    weight + vertex[:, None] * n_channels + of_channel[None, :], mask=has_channel, other=0.0
                )
                tl.store(
                    sorted_weight + place[:, None].to(tl.int64) * padded + of_channel[None, :],
                    w.to(sorted_weight.dtype.element_ty),
                    mask=live[:, None],
                )
                w = w.to(table.dtype.element_ty)
                grad_w = tl.zeros((rows, channels), tl.float32)
                for first_layer in range(0, n_layers, layers):
                    of_layer = first_layer + some_layers
                    has_layer = live[:, None] & (of_layer < n_layers)[None, :]
                    q = tl.load(
                        layer_weights + vertex[:, None] * n_layers + of_layer[None, :], mask=has_layer, other=0.0
                    )
                    if first_channel == 0:
                        into = sorted_values + (n_images + of_layer)[None, :] * n_vertices + place[:, None]
                        tl.store(into, q, mask=has_layer)
                    column_layer = first_layer + column // images
                    grad_q = tl.zeros((rows, layers), tl.float32)
                    for first_image in range(0, n_images, images):
                        image = first_image + some_images
                        g = tl.load(
                            grad_response + image[None, :] * grad_b + vertex[:, None] * grad_v,
                            mask=live[:, None] & (image < n_images)[None, :],
                            other=0.0,
                        )
                        g = spread_images(g * (1.0 / n_channels), layers)
                        gq = g * spread_layers(q, images)
                        column_image = first_image + column % images
                        token = (column_layer * n_images + column_image)[:, None] * padded + of_channel[None, :]
                        known = (column_layer < n_layers) & (column_image < n_images)
                        mixed = tl.zeros((rows, layers * images), tl.float32)
                        for tap in range(5):
                            cell, there = tap_cell(group, tap, height, width)
                            first = table + cell.to(tl.int64) * n_layers * n_images * padded
                            tokens = tl.load(first + token, mask=known[:, None] & there, other=0.0)
                            product = tl.dot(w, tl.trans(tokens), input_precision=precision)
                            share = tap_share(tap, x, y, a)
                            mixed += share[:, None] * product
                            # The gradient of the tap's share, and what it means for x, y and the scale.
                            slope = tl.sum(gq * product, 1)
                            along = tl.where(tap % 2 == 1, x, 1.0 - x)
                            down = tl.where(tap // 2 == 1, y, 1.0 - y)
                            local = tap < 4
                            grad_x += tl.where(local, tl.where(tap % 2 == 1, down, -down), 0.0) * slope
                            grad_y += tl.where(local, tl.where(tap // 2 == 1, along, -along), 0.0) * slope
                            grad_a += tl.where(local, -along * down, 1.0) * slope
                            if normalised:
                                share = share / largest
                            use = (gq * share[:, None]).to(table.dtype.element_ty)
                            grad_w = tl.dot(use, tokens, acc=grad_w, input_precision=precision)
                        grad_q += tl.sum(tl.reshape(g * mixed, (rows, layers, images)), 2)
                    into = grad_layer_weights + vertex[:, None] * n_layers + of_layer[None, :]
                    if padded > channels:
                        # Summed over parts of the channels in memory, by this program alone.
                        tl.debug_barrier()
                        if first_channel > 0:
                            grad_q += tl.load(into, mask=has_layer, other=0.0)
                    tl.store(into, grad_q, mask=has_layer)
                if normalised:
                    grad_w *= largest[:, None]
                tl.store(
                    grad_weight + vertex[:, None] * n_channels + of_channel[None, :], grad_w, mask=has_channel
                )
            local_share = (1.0 - a) * 0.5
            tl.store(grad_locations + vertex * 2, grad_x * local_share * width, mask=live)
            tl.store(grad_locations + vertex * 2 + 1, grad_y * local_share * height, mask=live)
            tl.store(grad_scale + vertex, grad_a, mask=live)
