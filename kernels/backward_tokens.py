"""Gradients of tokens: sums over the vertices that read each cell, and over all vertices for the global token.

A cell's vertices are two runs of the plan's order: two neighbouring groups in each of the two rows around it. Runs are
cut into steps, and several steps form a segment, the work of one program. So work is balanced even if all vertices have
the same location. Sums of segments are added in a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from brainkit.kernels.tokens import operand


@triton.jit
def runs_of(cell, starts, mask, height: tl.constexpr, width: tl.constexpr):
    """The two runs that read a cell: start, end, start, end. For the global token one run, of all vertices."""
    first = (cell // width) * (width + 1) + cell % width
    local = cell < height * width
    all_groups: tl.constexpr = (height + 1) * (width + 1) + 1  # of finite locations
    start = tl.load(starts + first, mask=mask & local, other=0)
    end = tl.load(starts + tl.where(local, first + 2, all_groups), mask=mask, other=0)
    lower_start = tl.load(starts + first + width + 1, mask=mask & local, other=0)
    lower_end = tl.load(starts + first + width + 3, mask=mask & local, other=0)
    return start, end, lower_start, lower_end


@triton.jit
def tokens_kernel(
    sorted_weight,  # (V, DP), in the plan's order
    sorted_values,  # (B + L + 3, V), see vertices_kernel
    plan,
    partial,  # (segments, L, B, DP) float32
    firsts,  # (H * W + 2,) int32: the first segment of every cell, and their number
    n_vertices,
    n_images,
    n_tiles,
    steps,  # per segment
    groups: tl.constexpr,
    n_layers: tl.constexpr,
    padded: tl.constexpr,
    height: tl.constexpr,
    width: tl.constexpr,
    cells: tl.constexpr,  # H * W + 1, padded
    step: tl.constexpr,
    layers: tl.constexpr,
    images: tl.constexpr,
    channels: tl.constexpr,
    precision: tl.constexpr,
):
    n_cells: tl.constexpr = height * width + 1
    layer_parts: tl.constexpr = (n_layers + layers - 1) // layers
    channel_parts: tl.constexpr = padded // channels
    # Neighbouring programs read the same weights and values.
    program = tl.program_id(0)
    first_channel = (program % channel_parts) * channels
    job = program // channel_parts
    first_layer = (job % layer_parts) * layers
    job = job // layer_parts
    image_parts = tl.cdiv(n_images, images)
    first_image = (job % image_parts) * images
    segment = job // image_parts

    starts = plan + 3 * n_tiles
    number = tl.arange(0, cells)
    upper_from, upper_to, lower_from, lower_to = runs_of(number, starts, number < n_cells, height, width)
    all_steps = (upper_to - upper_from + step - 1) // step + (lower_to - lower_from + step - 1) // step
    segments = (all_steps + steps - 1) // steps
    last = tl.cumsum(segments, 0)
    if program == 0:
        tl.store(firsts, 0)
        tl.store(firsts + 1 + number, last, mask=number < n_cells)
    cell = tl.sum((last <= segment).to(tl.int32), 0)
    if cell < n_cells:
        within = segment - tl.sum(tl.where(number == cell, last - segments, 0), 0)
        start, end, lower_start, lower_end = runs_of(cell, starts, True, height, width)
        upper_steps = (end - start + step - 1) // step
        cell_steps = upper_steps + (lower_end - lower_start + step - 1) // step
        is_global = cell == n_cells - 1
        row = (cell // width).to(tl.float32)
        column = (cell % width).to(tl.float32)

        of_channel = first_channel + tl.arange(0, channels)
        image = first_image + tl.arange(0, images)
        layer = first_layer + tl.arange(0, layers)
        grads = sorted_values + image[:, None] * n_vertices
        shares = sorted_values + (n_images + layer)[:, None] * n_vertices
        vertex_values = sorted_values + (n_images + n_layers) * n_vertices
        has_image = (image < n_images)[:, None]
        has_layer = (layer < n_layers)[:, None]
        # In their final shapes: reshaping in the loop would go through shared memory.
        along = tl.arange(0, step)[None, :]
        down = tl.arange(0, step)[:, None]
        total = tl.zeros((layers * images, channels), tl.float32)
        for k in range(within * steps, tl.minimum(within * steps + steps, cell_steps)):
            upper = k < upper_steps
            begin = tl.where(upper, start + k * step, lower_start + (k - upper_steps) * step)
            stop = tl.where(upper, end, lower_end)
            position = begin + along
            valid = position < stop
            x = tl.load(vertex_values + position, mask=valid, other=0.0)
            y = tl.load(vertex_values + n_vertices + position, mask=valid, other=0.0)
            a = tl.load(vertex_values + 2 * n_vertices + position, mask=valid, other=0.0)
            # A cell's bilinear weight falls off linearly to its neighbours' centres.
            local = (1.0 - a) * (1.0 - tl.abs(x - column)) * (1.0 - tl.abs(y - row))
            share = tl.where(is_global, a, local)
            g = tl.load(grads + position, mask=has_image & valid, other=0.0)
            q = tl.load(shares + position, mask=has_layer & valid, other=0.0)
            use = (q * share)[:, None, :] * g[None, :, :]
            use = tl.reshape(use, (layers * images, step)).to(sorted_weight.dtype.element_ty)
            at_w = (begin + down) * padded + of_channel[None, :]
            w = tl.load(sorted_weight + at_w, mask=begin + down < stop, other=0.0)
            total = tl.dot(operand(use), operand(w), acc=total, input_precision=precision)
        line = tl.arange(0, layers * images)
        line_layer = first_layer + line // images
        line_image = first_image + line % images
        destination = partial + segment.to(tl.int64) * n_layers * n_images * padded
        at = (line_layer * n_images + line_image)[:, None] * padded + of_channel[None, :]
        valid_line = (line_layer < n_layers) & (line_image < n_images)
        tl.store(destination + at, total, mask=valid_line[:, None])


@triton.jit
def gather_kernel(
    partial,  # (segments, L, B, DP) float32
    firsts,  # (H * W + 2,)
    grad_local,  # (B, L, D, H, W)
    grad_global,  # (B, L, D)
    n_images,
    n_layers: tl.constexpr,
    n_channels: tl.constexpr,
    padded: tl.constexpr,
    n_cells: tl.constexpr,  # H * W
    cells_each: tl.constexpr,
    channels: tl.constexpr,
    at_once: tl.constexpr,  # segments of the global token per iteration
):
    """Add the segments of some cells for one layer and image, in order, and write the tokens' gradients."""
    job = tl.program_id(0)
    channel_parts: tl.constexpr = padded // channels
    channel = (job % channel_parts) * channels + tl.arange(0, channels)
    job = job // channel_parts
    layer_image = job % (n_layers * n_images)
    cells_part = job // (n_layers * n_images)
    layer = layer_image // n_images
    image = layer_image % n_images
    valid_channel = channel < n_channels
    stride = tl.cast(n_layers * n_images, tl.int64) * padded  # of segments
    source = partial + layer_image * padded + channel
    offset = (image.to(tl.int64) * n_layers + layer) * n_channels + channel

    cell = cells_part * cells_each + tl.arange(0, cells_each)
    has_cell = cell < n_cells
    first = tl.load(firsts + cell, mask=has_cell, other=0)
    number = tl.load(firsts + cell + 1, mask=has_cell, other=0) - first
    total = tl.zeros((cells_each, channels), tl.float32)
    for k in range(tl.max(number, 0)):
        at = (first + k).to(tl.int64) * stride
        total += tl.load(source[None, :] + at[:, None], mask=(k < number)[:, None], other=0.0)
    pointer = grad_local + offset[:, None] * n_cells + cell[None, :]
    total = tl.trans(total).to(grad_local.dtype.element_ty)
    tl.store(pointer, total, mask=valid_channel[:, None] & has_cell[None, :])

    if cells_part == 0:
        begin = tl.load(firsts + n_cells)
        end = tl.load(firsts + n_cells + 1)
        whole = tl.zeros((channels,), tl.float32)
        for k in range(begin, end, at_once):
            segment = k + tl.arange(0, at_once)
            at = segment.to(tl.int64) * stride
            whole += tl.sum(tl.load(source[None, :] + at[:, None], mask=(segment < end)[:, None], other=0.0), 0)
        tl.store(grad_global + offset, whole.to(grad_global.dtype.element_ty), mask=valid_channel)
