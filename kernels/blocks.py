"""Sizes: how the operator's work is cut into programs, and how its buffers are laid out. Plain Python, no triton.

Nothing is tuned at run time. The table was written by hand from what the compiler makes of each entry (registers, no
spills, shared memory; ``python -m bench.kernels``), so that one size always takes one kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

HOPPER = (9, 0)
# Vertices of one tile of the plan. Every tile lies within one group; kernels work on tiles or on parts of them.
TILE = 128
# Vertices that one program of the planning kernels counts and ranks.
COUNTED = 256
# Up to this many counts, every program of the plan sums them itself; beyond, a launch of its own scans them once.
SCAN_BEYOND = 32_768
# Programs of the tokens' gradient that are enough to fill any device, and vertices that one takes in at least.
ENOUGH_PROGRAMS = 256
LEAST_VERTICES = 512


@dataclass(frozen=True)
class Blocks:
    """One kernel's tile, and how it is compiled."""

    rows: int
    columns: int
    channels: int  # of a product, at most
    warps: int
    stages: int  # of loads in flight
    registers: int | None  # of a thread, at most: with 128, two programs of 8 warps share a multiprocessor


@dataclass(frozen=True)
class Choice:
    """Tiles of the three large kernels."""

    forward: Blocks  # rows: vertices; columns: layers x images
    vertices: Blocks  # backward for what belongs to vertices; rows: vertices; columns: layers x images
    tokens: Blocks  # backward for tokens; rows: layers x images; columns: vertices taken in at a step


# By kind of product, and whether the device has Hopper's matrix units. Rows of W beyond WIDE channels are read in
# parts, which takes registers for the parts' places.
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
# Images of one tile's columns at most. More would need more registers than they save reads.
MOST_IMAGES = 16


def choose(kind: str, n_channels: int, capability: tuple[int, int]) -> Choice:
    """The tiles for "bfloat16", "float16", "tf32" or "float32" products."""
    # Consumer Blackwell (12.0) has the older matrix units.
    key = kind, HOPPER <= capability < (12, 0)
    return WIDE_TABLE.get(key, TABLE[key]) if n_channels > WIDE else TABLE[key]


def split_columns(columns: int, n_images: int, n_layers: int) -> tuple[int, int]:
    """Layers and images of one tile's columns: both powers of two, 16 columns at least, `columns` at most."""
    images = min(power_of_two(n_images), columns, MOST_IMAGES)
    layers = min(power_of_two(n_layers), columns // images)
    return max(layers, -(-16 // images)), images


def power_of_two(n: int) -> int:
    """The least power of two that is no less than n."""
    return 1 << (n - 1).bit_length() if n > 1 else 1


def padded_channels(n_channels: int) -> int:
    """Channels of a row of the token table: what every tile's channels divide, and no less than a product needs."""
    if n_channels <= 128:
        return max(16, power_of_two(n_channels))
    return -(-n_channels // 128) * 128


def table_shape(n_images: int, n_layers: int, n_channels: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Shape of the token table: cells and one more for the global token, layers, images, padded channels."""
    return height * width + 1, n_layers, n_images, padded_channels(n_channels)


@dataclass(frozen=True)
class PlanSizes:
    """Bounds that hold wherever the vertices look, so that the device need not be asked."""

    vertices: int
    groups: int  # tap cells, then one for places with no tap in the image, then one for places that are no numbers
    counters: int  # the groups, padded
    counted: int  # programs that count vertices
    tiles: int

    @property
    def length(self) -> int:
        """Entries of the plan: (group, start, end) of every tile, the start of every group and the end, the order."""
        return 3 * self.tiles + self.groups + 1 + self.vertices


def plan_sizes(n_vertices: int, height: int, width: int) -> PlanSizes:
    groups = (height + 1) * (width + 1) + 2
    full = min(groups, n_vertices)  # a tile is not full only where its group ends
    return PlanSizes(
        n_vertices,
        groups,
        max(32, power_of_two(groups + 1)),
        -(-n_vertices // COUNTED),
        (n_vertices + full * (TILE - 1)) // TILE,
    )


@dataclass(frozen=True)
class SegmentSizes:
    """How the tokens' gradient is split: every cell's vertices, and all of them for the global token, in segments."""

    steps: int  # of one segment
    segments: int  # at most


def segment_sizes(n_vertices: int, height: int, width: int, step: int) -> SegmentSizes:
    cells = height * width + 1
    # A vertex is read by four cells and by the global token; a cell's vertices are two runs of the order.
    steps = 5 * n_vertices // step + 2 * cells
    each = max(LEAST_VERTICES // step, -(-steps // max(ENOUGH_PROGRAMS, cells)))
    return SegmentSizes(each, steps // each + min(cells, steps))
