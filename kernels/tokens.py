"""The layout of tokens for the kernels, and the taps of a group in it.

The token table is (H * W + 1, L, B, DP): cells in row-major order, then the global token; channels padded with zeros to
global_token tiles. All tokens that a tap reads are contiguous. Taps beyond the border are masked, not stored.
"""

from __future__ import annotations

import triton
import triton.language as tl

from brainkit.kernels import interpreted

INTERPRETED: tl.constexpr = tl.constexpr(interpreted())


@triton.jit
def pack(
    job,
    local_tokens,  # (B, L, D, H, W)
    global_tokens,  # (B, L, D)
    table,
    n_images,
    local_b,
    local_l,
    local_d,
    local_h,
    local_w,
    global_b,
    global_l,
    global_d,
    n_layers: tl.constexpr,
    n_channels: tl.constexpr,
    padded: tl.constexpr,
    height: tl.constexpr,
    width: tl.constexpr,
    flat: tl.constexpr,
    cells: tl.constexpr,
    channels: tl.constexpr,
):
    """Lay out some cells and channels of one image's layer."""
    n_cells: tl.constexpr = height * width
    channel_parts: tl.constexpr = padded // channels
    part = job % channel_parts
    job = job // channel_parts
    image = job % n_images
    job = job // n_images
    layer = job % n_layers
    cell = (job // n_layers) * cells + tl.arange(0, cells)
    channel = part * channels + tl.arange(0, channels)
    offset = cell * local_w if flat else (cell // width) * local_h + (cell % width) * local_w
    # Read with cells fastest, as tokens usually are in memory; written with channels fastest.
    source = local_tokens + image.to(tl.int64) * local_b + layer * local_l
    valid = (channel < n_channels)[:, None] & (cell < n_cells)[None, :]
    tokens = tl.load(source + channel[:, None] * local_d + offset[None, :], mask=valid, other=0.0)
    row = (cell.to(tl.int64) * n_layers + layer) * n_images + image
    tl.store(table + row[:, None] * padded + channel[None, :], tl.trans(tokens), mask=(cell < n_cells)[:, None])
    if job // n_layers == 0:
        global_source = global_tokens + image.to(tl.int64) * global_b + layer * global_l
        global_token = tl.load(global_source + channel * global_d, mask=channel < n_channels, other=0.0)
        last_row = (layer.to(tl.int64) + n_cells * n_layers) * n_images + image
        tl.store(table + last_row * padded + channel, global_token)


@triton.jit
def tap_cell(group, tap, height: tl.constexpr, width: tl.constexpr):
    """The cell of a tap (upper left, upper right, lower left, lower right, global), and whether it is in the image."""
    row = group // (width + 1) - 1 + tap // 2
    column = group % (width + 1) - 1 + tap % 2
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    cell = tl.where(tap == 4, height * width, row * width + column)
    return cell, inside | (tap == 4)


@triton.jit
def tap_share(tap, x, y, scale):
    """Each vertex's weight of a tap: bilinear in x and y for the four local ones."""
    along = tl.where(tap % 2 == 1, x, 1.0 - x)
    down = tl.where(tap // 2 == 1, y, 1.0 - y)
    return tl.where(tap == 4, scale, (1.0 - scale) * along * down)


@triton.jit
def operand(values):
    """An operand of tl.dot: unchanged, except in the interpreter, which reads bfloat16 as integers there."""
    return values.to(tl.float32) if INTERPRETED else values


@triton.jit
def spread_layers(values, images: tl.constexpr):
    """(n, layers) -> (n, layers * images): each layer's value for all images."""
    wide = tl.broadcast_to(values[:, :, None], (values.shape[0], values.shape[1], images))
    return tl.reshape(wide, (values.shape[0], values.shape[1] * images))


@triton.jit
def spread_images(values, layers: tl.constexpr):
    """(n, images) -> (n, layers * images): all images' values for each layer."""
    wide = tl.broadcast_to(values[:, None, :], (values.shape[0], layers, values.shape[1]))
    return tl.reshape(wide, (values.shape[0], layers * values.shape[1]))
