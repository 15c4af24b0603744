"""The plan, computed on the device: vertices sorted into groups that share their four taps, cut into tiles.

Group `row * (W + 1) + column` holds the vertices whose upper left tap is cell (row - 1, column - 1) of the token grid;
one more group is for locations with no tap in the image, and one for NaN and infinite locations. The order is a stable
sort by group, the same in every run: each program counts the groups of its vertices, counts are summed in a fixed
order, and ranks within a program come from comparisons. Nothing waits for the host.
"""

from __future__ import annotations

import triton
import triton.language as tl

from brainkit.kernels.tokens import pack


@triton.jit
def to_cells(x, size: tl.constexpr):
    """A location's coordinate in cells, whose centres are integers."""
    # An explicit fma: otherwise kernels could round differently, and assign a vertex to different cells.
    return tl.fma(x + 1.0, size * 1.0, -1.0) * 0.5


@triton.jit
def group_of(locations, vertex, valid, height: tl.constexpr, width: tl.constexpr):
    x = tl.load(locations + vertex * 2, mask=valid, other=0.0)
    y = tl.load(locations + vertex * 2 + 1, mask=valid, other=0.0)
    finite = (tl.abs(x) < float("inf")) & (tl.abs(y) < float("inf"))
    column = tl.floor(to_cells(x, width))
    row = tl.floor(to_cells(y, height))
    inside = (column >= -1) & (column < width) & (row >= -1) & (row < height)
    # Only locations inside become indices: conversion of huge numbers and NaN to int is undefined.
    column = tl.where(inside, column, 0.0).to(tl.int32) + 1
    row = tl.where(inside, row, 0.0).to(tl.int32) + 1
    outside: tl.constexpr = (height + 1) * (width + 1)
    return tl.where(finite, tl.where(inside, row * (width + 1) + column, outside), outside + 1)


@triton.jit
def part_of_tile(plan, part, parts: tl.constexpr, rows: tl.constexpr):
    """The group of a part of a tile, and its start and end in the order."""
    entry = plan + 3 * (part // parts)
    return tl.load(entry), tl.load(entry + 1) + (part % parts) * rows, tl.load(entry + 2)


@triton.jit
def ordered(plan, start, end, n_tiles, groups: tl.constexpr, rows: tl.constexpr):
    """Positions in the order, which of them exist, and their vertices. (rows,) each"""
    number = tl.arange(0, rows)
    valid = start + number < end
    vertex = tl.load(plan + (3 * n_tiles + groups + 1 + start) + number, mask=valid, other=0)
    return start + number, valid, vertex


@triton.jit
def corner_shares(locations, vertex, valid, group, height: tl.constexpr, width: tl.constexpr):
    """Offsets of a group's vertices from their upper left tap, in cells: x, y in [0, 1). (n,) each"""
    x = to_cells(tl.load(locations + vertex * 2, mask=valid, other=0.0), width)
    y = to_cells(tl.load(locations + vertex * 2 + 1, mask=valid, other=0.0), height)
    # Far outside there are no taps, and differences of huge numbers could be NaN.
    inside = group < (height + 1) * (width + 1)
    x = tl.where(inside, x - (group % (width + 1) - 1).to(tl.float32), 0.0)
    y = tl.where(inside, y - (group // (width + 1) - 1).to(tl.float32), 0.0)
    return x, y


@triton.jit
def prepare_kernel(
    locations,  # (V, 2)
    counts,  # (NB + 1, GP) int32; NB rows are written here
    local_tokens,  # (B, L, D, H, W), any strides
    global_tokens,  # (B, L, D), any strides
    table,  # (H * W + 1, L, B, DP)
    n_vertices,
    n_counted,
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
    flat: tl.constexpr,  # whether rows of cells are contiguous in memory
    counters: tl.constexpr,
    counted: tl.constexpr,
    pack_cells: tl.constexpr,
    pack_channels: tl.constexpr,
):
    """Two independent jobs in one launch: count groups, and lay out the tokens."""
    program = tl.program_id(0)
    if program < n_counted:
        vertex = program * counted + tl.arange(0, counted)
        valid = vertex < n_vertices
        group = group_of(locations, vertex, valid, height, width)
        count = tl.histogram(tl.where(valid, group, counters - 1), counters)
        number = tl.arange(0, counters)
        # The last counter has no group: there are fewer groups than counters.
        tl.store(counts + program * counters + number, tl.where(number < counters - 1, count, 0))
    else:
        pack(
            program - n_counted,
            local_tokens,
            global_tokens,
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
            n_layers,
            n_channels,
            padded,
            height,
            width,
            flat,
            pack_cells,
            pack_channels,
        )


@triton.jit
def scan_kernel(
    counts,  # (NB + 1, GP): replaced by the counts of the preceding programs; totals in the last row
    n_counted,
    counters: tl.constexpr,
    groups_each: tl.constexpr,  # groups per program
    rows: tl.constexpr,
):
    """For plans with too many counts for every program to sum."""
    group = tl.program_id(0) * groups_each + tl.arange(0, groups_each)
    total = tl.zeros((groups_each,), tl.int32)
    for first in range(0, n_counted, rows):
        row = first + tl.arange(0, rows)
        pointer = counts + row[:, None] * counters + group[None, :]
        valid = (row < n_counted)[:, None] & (group < counters)[None, :]
        count = tl.load(pointer, mask=valid, other=0)
        tl.store(pointer, tl.cumsum(count, 0) - count + total[None, :], mask=valid)
        total += tl.sum(count, 0)
    tl.store(counts + n_counted * counters + group, total, mask=group < counters)


@triton.jit
def order_kernel(
    locations,  # (V, 2)
    counts,  # (NB + 1, GP), scanned or not
    bases,  # (NB, GP) int32: start of each program's vertices of a group
    plan,  # (3 * tiles + G + 1 + V) int32
    n_vertices,
    n_counted,
    n_tiles,
    groups: tl.constexpr,
    height: tl.constexpr,
    width: tl.constexpr,
    counters: tl.constexpr,
    counted: tl.constexpr,
    scanned: tl.constexpr,
    rows: tl.constexpr,
    some_tiles: tl.constexpr,
    tile: tl.constexpr,
    chunk: tl.constexpr,
):
    """The first programs sort the vertices that they counted, the others list the tiles."""
    program = tl.program_id(0)
    number = tl.arange(0, counters)
    if scanned:
        before = tl.load(counts + tl.minimum(program, n_counted - 1) * counters + number)
        total = tl.load(counts + n_counted * counters + number)
    else:
        before = tl.zeros((counters,), tl.int32)
        total = tl.zeros((counters,), tl.int32)
        for first in range(0, n_counted, rows):
            row = first + tl.arange(0, rows)
            row_counts = counts + row[:, None] * counters + number[None, :]
            count = tl.load(row_counts, mask=(row < n_counted)[:, None], other=0)
            total += tl.sum(count, 0)
            before += tl.sum(tl.where((row < program)[:, None], count, 0), 0)
    start = tl.cumsum(total, 0) - total

    starts = plan + 3 * n_tiles
    if program < n_counted:
        tl.store(bases + program * counters + number, start + before)
        tl.debug_barrier()  # other threads wrote what is gathered below
        vertex = program * counted + tl.arange(0, counted)
        valid = vertex < n_vertices
        group = group_of(locations, vertex, valid, height, width)
        rank = tl.zeros((counted,), tl.int32)
        for first_other in range(0, counted, chunk):
            other = program * counted + first_other + tl.arange(0, chunk)
            other_group = group_of(locations, other, other < n_vertices, height, width)
            earlier = (group[:, None] == other_group[None, :]) & (other[None, :] < vertex[:, None])
            rank += tl.sum(earlier.to(tl.int32), 1)
        position = tl.load(bases + program * counters + group, mask=valid, other=0) + rank
        tl.store(starts + groups + 1 + position, vertex, mask=valid)
    else:
        part = program - n_counted
        if part == 0:
            tl.store(starts + number, start, mask=number < groups)
            tl.store(starts + groups, n_vertices)
        of_group = (total + tile - 1) // tile
        end_tile = tl.cumsum(of_group, 0)
        t = part * some_tiles + tl.arange(0, some_tiles)
        tile_group = tl.sum((end_tile[None, :] <= t[:, None]).to(tl.int32), 1)
        is_tile_group = number[None, :] == tile_group[:, None]
        used = tile_group < groups
        within = t - tl.sum(tl.where(is_tile_group, (end_tile - of_group)[None, :], 0), 1)
        begin = tl.sum(tl.where(is_tile_group, start[None, :], 0), 1) + within * tile
        end = tl.minimum(begin + tile, tl.sum(tl.where(is_tile_group, (start + total)[None, :], 0), 1))
        entry = plan + 3 * t
        valid_tile = t < n_tiles
        tl.store(entry, tl.where(used, tile_group, 0), mask=valid_tile)
        tl.store(entry + 1, tl.where(used, begin, 0), mask=valid_tile)
        tl.store(entry + 2, tl.where(used, end, 0), mask=valid_tile)
