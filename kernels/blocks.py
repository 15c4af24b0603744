"""Tile sizes of the operator's kernels, and sizes of their buffers. Plain Python, no triton.

Nothing is tuned at run time. The tables were written by hand from the compiler's figures (registers, no spills, shared
memory; ``python -m bench.kernels``), so that equal sizes always take the same kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

HOPPER = (9, 0)
# Vertices per tile of the plan. A tile belongs to one group; kernels work on tiles or parts of them.
TILE = 128
# Vertices per program of the planning kernels.
COUNTED = 256
# Up to this many counts, every planning program sums them itself; beyond, a separate launch scans them once.
MAX_UNSCANNED = 32_768
# Programs of the tokens' gradient that fill any device, and the least vertices per program.
ENOUGH_PROGRAMS = 256
MIN_VERTICES = 512


@dataclass(frozen=True)
class Blocks:
    """Tile sizes and compiler options of a kernel."""

    rows: int
    columns: int
    channels: int  # per product, at most
    warps: int
    stages: int  # of the pipelined loads
    registers: int | None  # limit per thread: with 128, two programs of 8 warps share a multiprocessor


@dataclass(frozen=True)
class Choice:
    """Blocks of the three large kernels."""

    forward: Blocks  # rows: vertices; columns: layers x images
    vertices: Blocks  # gradients of vertices; rows: vertices; columns: layers x images
    tokens: Blocks  # gradients of tokens; rows: layers x images; columns: vertices per step


# By kind of product, and whether the device has Hopper's matrix units. Beyond WIDE channels, rows of W are read in
# parts, which needs registers for their addresses.
WIDE = 128
HOPPER_HALF = Choice(
    Blocks(128, 32, 128, warps=8, stages=3, registers=128),
    Blocks(64, 32, 128, warps=4, stages=3, registers=255),
    Blocks(128, 32, 128, warps=8, stages=4, registers=128),
)
AMPERE_HALF = Choice(
    Blocks(128, 32, 128, warps=8, stages=3, registers=128),
    Blocks(64, 16, 64, warps=4, stages=3, registers=255),
    Blocks(64, 32, 128, warps=4, stages=3, registers=168),
)
TABLE = {
    ("bfloat16", True): HOPPER_HALF,
    ("bfloat16", False): AMPERE_HALF,
    ("float16", True): replace(HOPPER_HALF, vertices=Blocks(64, 32, 128, warps=8, stages=3, registers=None)),
    ("float16", False): AMPERE_HALF,
    ("tf32", True): Choice(
        Blocks(128, 32, 128, warps=8, stages=2, registers=128),
        Blocks(64, 32, 64, warps=4, stages=2, registers=None),
        Blocks(64, 32, 128, warps=4, stages=3, registers=168),
    ),
    ("tf32", False): Choice(
        Blocks(128, 32, 128, warps=8, stages=2, registers=128),
        Blocks(64, 32, 64, warps=8, stages=2, registers=None),
        Blocks(64, 32, 64, warps=4, stages=3, registers=168),
    ),
    ("float32", True): Choice(
        Blocks(128, 32, 64, warps=8, stages=2, registers=None),
        Blocks(64, 32, 64, warps=8, stages=2, registers=None),
        Blocks(128, 32, 64, warps=8, stages=2, registers=128),
    ),
    ("float32", False): Choice(
        Blocks(128, 32, 32, warps=8, stages=2, registers=240),
        Blocks(64, 32, 32, warps=8, stages=2, registers=224),
        Blocks(128, 32, 64, warps=8, stages=2, registers=255),
    ),
}
WIDE_AMPERE_HALF = replace(AMPERE_HALF, forward=Blocks(128, 32, 128, warps=8, stages=3, registers=255))
WIDE_TABLE = {
    ("bfloat16", False): WIDE_AMPERE_HALF,
    ("float16", False): WIDE_AMPERE_HALF,
    ("bfloat16", True): replace(
        HOPPER_HALF,
        forward=Blocks(128, 32, 64, warps=8, stages=3, registers=128),
        vertices=Blocks(64, 32, 64, warps=4, stages=3, registers=255),
    ),
    ("float16", True): replace(
        HOPPER_HALF,
        forward=Blocks(128, 32, 64, warps=8, stages=3, registers=128),
        vertices=Blocks(64, 32, 64, warps=8, stages=3, registers=None),
    ),
    ("tf32", True): replace(TABLE["tf32", True], forward=Blocks(128, 32, 64, warps=8, stages=2, registers=128)),
    ("tf32", False): replace(TABLE["tf32", False], forward=Blocks(64, 32, 64, warps=8, stages=2, registers=128)),
}
# Most images in a tile's columns: more would cost registers and save few reads.
MAX_IMAGES = 16


def choose(kind: str, n_channels: int, capability: tuple[int, int]) -> Choice:
    """Blocks for "bfloat16", "float16", "tf32" or "float32" products."""
    # Consumer Blackwell (12.0) has the matrix units of Ampere.
    key = kind, HOPPER <= capability < (12, 0)
    return WIDE_TABLE.get(key, TABLE[key]) if n_channels > WIDE else TABLE[key]


def split_columns(columns: int, n_images: int, n_layers: int) -> tuple[int, int]:
    """Layers and images of a tile's columns: powers of two with a product of 16 to `columns`."""
    images = min(power_of_two(n_images), columns, MAX_IMAGES)
    layers = min(power_of_two(n_layers), columns // images)
    return max(layers, -(-16 // images)), images


def power_of_two(n: int) -> int:
    """The smallest power of two >= n."""
    return 1 << (n - 1).bit_length() if n > 1 else 1


def padded_channels(n_channels: int) -> int:
    """Channels of a row of the token table: a multiple of every tile's channels, at least 16."""
    if n_channels <= 128:
        return max(16, power_of_two(n_channels))
    return -(-n_channels // 128) * 128


def table_shape(n_images: int, n_layers: int, n_channels: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Shape of the token table: cells plus one for the global token, layers, images, padded channels."""
    return height * width + 1, n_layers, n_images, padded_channels(n_channels)


@dataclass(frozen=True)
class PlanSizes:
    """Upper bounds for any locations, so that the host need not read anything from the device."""

    vertices: int
    groups: int  # one per tap cell, one for locations with no tap in the image, one for NaN and infinite locations
    counters: int  # groups, padded
    counted: int  # programs that count vertices
    tiles: int

    @property
    def length(self) -> int:
        """Entries of the plan: (group, start, end) per tile, the start of every group and the end, the order."""
        return 3 * self.tiles + self.groups + 1 + self.vertices


def plan_sizes(n_vertices: int, height: int, width: int) -> PlanSizes:
    groups = (height + 1) * (width + 1) + 2
    full = min(groups, n_vertices)  # groups, each of which may end in a partial tile
    return PlanSizes(
        n_vertices,
        groups,
        max(32, power_of_two(groups + 1)),
        -(-n_vertices // COUNTED),
        (n_vertices + full * (TILE - 1)) // TILE,
    )


@dataclass(frozen=True)
class SegmentSizes:
    """How the tokens' gradient is split into segments of a cell's vertices (of all vertices, for the global token)."""

    steps: int  # per segment
    segments: int  # at most


def segment_sizes(n_vertices: int, height: int, width: int, step: int) -> SegmentSizes:
    cells = height * width + 1
    # A vertex contributes to four cells and the global token; a cell's vertices are two runs of the order.
    steps = 5 * n_vertices // step + 2 * cells
    each = max(MIN_VERTICES // step, -(-steps // max(ENOUGH_PROGRAMS, cells)))
    return SegmentSizes(each, steps // each + min(cells, steps))
