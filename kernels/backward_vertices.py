"""Gradients of vertices: weights, bias, layer weights, locations and scale.

A tile's products with the tokens are used twice: with the responses' gradients they give the gradients of the
coefficients, and with the coefficients those of the weights. The tile's inputs are also stored in the plan's order,
because the tokens' gradients read them several times.
"""

from __future__ import annotations

import triton
import triton.language as tl

from brainkit.kernels.plan import corner_shares, ordered, part_of_tile
from brainkit.kernels.tokens import operand, spread_images, spread_layers, tap_cell, tap_share


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
    n_taps,  # 5, see forward_kernel
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
    normalised: tl.constexpr,  # float16 has too little range for gradients: scale each vertex's by its largest
):
    part = tl.program_id(0)
    group, start, end = part_of_tile(plan, part, tile // rows, rows)
    if start < end:
        position, valid, vertex = ordered(plan, start, end, n_tiles, groups, rows)
        some_layers = tl.arange(0, layers)
        some_images = tl.arange(0, images)
        if group == groups - 1:
            # NaN and infinite locations have zero gradients, and their sorted values are never read.
            zero_row = tl.zeros((rows,), tl.float32)
            tl.store(grad_locations + vertex * 2, zero_row, mask=valid)
            tl.store(grad_locations + vertex * 2 + 1, zero_row, mask=valid)
            tl.store(grad_scale + vertex, zero_row, mask=valid)
            tl.store(grad_bias + vertex, zero_row, mask=valid)
            for first in range(0, n_layers, layers):
                each_layer = first + some_layers
                has = valid[:, None] & (each_layer < n_layers)[None, :]
                layer_pointer = grad_layer_weights + vertex[:, None] * n_layers + each_layer[None, :]
                tl.store(layer_pointer, tl.zeros((rows, layers), tl.float32), mask=has)
            for first in range(0, padded, channels):
                each_channel = first + tl.arange(0, channels)
                has_w = valid[:, None] & (each_channel < n_channels)[None, :]
                weight_pointer = grad_weight + vertex[:, None] * n_channels + each_channel[None, :]
                tl.store(weight_pointer, tl.zeros((rows, channels), tl.float32), mask=has_w)
        else:
            x, y = corner_shares(locations, vertex, valid, group, height, width)
            a = tl.load(scale + vertex, mask=valid, other=0.0)
            vertex_values = sorted_values + (n_images + n_layers) * n_vertices + position
            tl.store(vertex_values, x + (group % (width + 1) - 1).to(tl.float32), mask=valid)
            tl.store(vertex_values + n_vertices, y + (group // (width + 1) - 1).to(tl.float32), mask=valid)
            tl.store(vertex_values + 2 * n_vertices, a, mask=valid)

            total = tl.zeros((rows,), tl.float32)
            largest = tl.zeros((rows,), tl.float32)
            for first_image in range(0, n_images, images):
                image = first_image + some_images
                has_image = valid[:, None] & (image < n_images)[None, :]
                grad_pointer = grad_response + image[None, :] * grad_b + vertex[:, None] * grad_v
                g = tl.load(grad_pointer, mask=has_image, other=0.0)
                total += tl.sum(g, 1)
                g *= 1.0 / n_channels
                tl.store(sorted_values + image[None, :] * n_vertices + position[:, None], g, mask=has_image)
                if normalised:
                    largest = tl.maximum(largest, tl.max(tl.abs(g), 1))
            tl.store(grad_bias + vertex, total, mask=valid)
            largest = tl.where(largest == 0.0, 1.0, largest)

            column = tl.arange(0, layers * images)
            number = tl.arange(0, 8)[None, :]
            slopes = tl.zeros((rows, 8), tl.float32)  # gradients of the taps' weights
            for first_channel in range(0, padded, channels):
                channel = first_channel + tl.arange(0, channels)
                has_channel = valid[:, None] & (channel < n_channels)[None, :]
                w = tl.load(weight + vertex[:, None] * n_channels + channel[None, :], mask=has_channel, other=0.0)
                tl.store(
                    sorted_weight + position[:, None] * padded + channel[None, :],
                    w.to(sorted_weight.dtype.element_ty),
                    mask=valid[:, None],
                )
                w = w.to(table.dtype.element_ty)
                grad_w = tl.zeros((rows, channels), tl.float32)
                for first_image in range(0, n_images, images):
                    image = first_image + some_images
                    grad_pointer = grad_response + image[None, :] * grad_b + vertex[:, None] * grad_v
                    g = tl.load(grad_pointer, mask=valid[:, None] & (image < n_images)[None, :], other=0.0)
                    g = spread_images(g * (1.0 / n_channels), layers)
                    column_image = first_image + column % images
                    first_pass = (first_channel == 0) & (first_image == 0)
                    for first_layer in range(0, n_layers, layers):
                        layer = first_layer + some_layers
                        has_layer = valid[:, None] & (layer < n_layers)[None, :]
                        at_layer = vertex[:, None] * n_layers + layer[None, :]
                        q = tl.load(layer_weights + at_layer, mask=has_layer, other=0.0)
                        sorted_q = sorted_values + (n_images + layer)[None, :] * n_vertices + position[:, None]
                        tl.store(sorted_q, q, mask=has_layer & first_pass)
                        gq = g * spread_layers(q, images)
                        column_layer = first_layer + column // images
                        token = (column_layer * n_images + column_image)[:, None] * padded + channel[None, :]
                        valid_column = (column_layer < n_layers) & (column_image < n_images)
                        mixed = tl.zeros((rows, layers * images), tl.float32)
                        for tap in range(n_taps):
                            cell, inside = tap_cell(group, tap, height, width)
                            cell_tokens = table + cell.to(tl.int64) * n_layers * n_images * padded
                            tokens = tl.load(cell_tokens + token, mask=valid_column[:, None] & inside, other=0.0)
                            product = tl.dot(operand(w), operand(tl.trans(tokens)), input_precision=precision)
                            # Always gq, but now in the layout of the products: no conversion through memory.
                            gq = tl.where(n_vertices > 0, gq, product)
                            share = tap_share(tap, x, y, a)
                            mixed += share[:, None] * product
                            slopes += tl.where(number == tap, tl.sum(gq * product, 1)[:, None], 0.0)
                            if normalised:
                                share = share / largest
                            use = (gq * share[:, None]).to(table.dtype.element_ty)
                            grad_w = tl.dot(operand(use), operand(tokens), acc=grad_w, input_precision=precision)
                        grad_q = tl.sum(tl.reshape(g * mixed, (rows, layers, images)), 2)
                        # Summed over images and channels in memory, by this program only.
                        grad_q += tl.load(grad_layer_weights + at_layer, mask=has_layer & ~first_pass, other=0.0)
                        tl.store(grad_layer_weights + at_layer, grad_q, mask=has_layer)
                    tl.debug_barrier()
                if normalised:
                    grad_w *= largest[:, None]
                # Loaded valid_again: kept in registers, these would crowd out the products.
                _, start, end = part_of_tile(plan, part, tile // rows, rows)
                _, valid_again, vertex_again = ordered(plan, start, end, n_tiles, groups, rows)
                into = grad_weight + vertex_again[:, None] * n_channels + channel[None, :]
                tl.store(into, grad_w, mask=valid_again[:, None] & (channel < n_channels)[None, :])
            _, start, end = part_of_tile(plan, part, tile // rows, rows)
            _, valid, vertex = ordered(plan, start, end, n_tiles, groups, rows)
            x, y = corner_shares(locations, vertex, valid, group, height, width)
            a = tl.load(scale + vertex, mask=valid, other=0.0)
            slope0 = tl.sum(tl.where(number == 0, slopes, 0.0), 1)
            slope1 = tl.sum(tl.where(number == 1, slopes, 0.0), 1)
            slope2 = tl.sum(tl.where(number == 2, slopes, 0.0), 1)
            slope3 = tl.sum(tl.where(number == 3, slopes, 0.0), 1)
            slope4 = tl.sum(tl.where(number == 4, slopes, 0.0), 1)
            grad_x = ((1.0 - y) * (slope1 - slope0) + y * (slope3 - slope2)) * (1.0 - a) * (0.5 * width)
            grad_y = ((1.0 - x) * (slope2 - slope0) + x * (slope3 - slope1)) * (1.0 - a) * (0.5 * height)
            local = (1.0 - y) * ((1.0 - x) * slope0 + x * slope1) + y * ((1.0 - x) * slope2 + x * slope3)
            tl.store(grad_locations + vertex * 2, grad_x, mask=valid)
            tl.store(grad_locations + vertex * 2 + 1, grad_y, mask=valid)
            tl.store(grad_scale + vertex, slope4 - local, mask=valid)
