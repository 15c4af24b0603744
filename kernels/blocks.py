"""Sizes: how the operator's work is cut into programs, and how its buffers are laid out. Plain Python, no triton.

Nothing is tuned at run time. The table was written by hand from what the compiler makes of each entry (registers, no
spills, shared memory; ``python -m bench.kernels``), so that one size always takes one kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

HOPPER = (9, 0)
# Vertices of one tile of the plan. Every tile lies within one group; kernels work on tiles or on parts of them.
TILE = 128
# Vertices that one program of the planning kernels counts and ranks.
COUNTED = 256
# Up to this many counts, every program of the plan sums them itself; beyond, a launch of its own scans them once.
SCAN_BEYOND = 32_768
# Vertices that one step of the tokens' gradient takes in, and steps of one program at least.
STEP = 64
LEAST_STEPS = 16
# Programs of the tokens' gradient that are enough to fill any device.
ENOUGH_PROGRAMS = 192


@dataclass(frozen=True)
class Blocks:
    """One kernel's tile: vertices (or token rows), columns of the product, channels at a time; how it is compiled."""

    rows: int
    columns: int
    channels: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Choice:
    """Tiles of the three large kernels."""

    forward: Blocks  # rows: vertices; columns: layers x images
    vertices: Blocks  # backward for what belongs to vertices; rows: vertices; columns: layers x images
    tokens: Blocks  # backward for tokens; rows: layers x images; columns: vertices of a step


# By kind of product ("half" is bfloat16 and float16), then by whether the device has Hopper's matrix units.
TABLE = {
    ("half", True): Choice(Blocks(128, 64, 128, 8, 3), Blocks(64, 64, 128, 4, 3), Blocks(128, STEP, 128, 8, 3)),
    ("half", False): Choice(Blocks(128, 64, 128, 8, 3), Blocks(64, 64, 128, 4, 2), Blocks(128, STEP, 128, 8, 3)),
    ("tf32", True): Choice(Blocks(128, 64, 64, 8, 3), Blocks(64, 32, 64, 4, 3), Blocks(128, STEP, 64, 8, 3)),
    ("tf32", False): Choice(Blocks(128, 32, 64, 8, 3), Blocks(64, 32, 64, 4, 2), Blocks(128, STEP, 64, 8, 2)),
    ("float32", True): Choice(Blocks(64, 32, 32, 4, 2), Blocks(64, 32, 32, 4, 2), Blocks(64, STEP, 32, 4, 2)),
    ("float32", False): Choice(Blocks(64, 32, 32, 4, 2), Blocks(64, 32, 32, 4, 2), Blocks(64, STEP, 32, 4, 2)),
}


def choose(half: bool, precision: str, capability: tuple[int, int]) -> Choice:
    """The tiles for tokens of two bytes, or for float32 tokens multiplied in `precision`."""
    return TABLE["half" if half else precision, capability >= HOPPER]


def split_columns(columns: int, n_images: int, n_layers: int) -> tuple[int, int]:
    """Layers and images of one tile's columns: both powers of two, 16 columns at least, `columns` at most."""
    images = min(power_of_two(n_images), columns)
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


@dataclass(frozen=True)
class PlanSizes:
    """Bounds that hold wherever the vertices look, so that the device need not be asked."""

    groups: int  # tap cells, then one for places with no tap in the image, then one for places that are no numbers
    counters: int  # the groups, padded
    counted: int  # programs that count vertices
    tiles: int

    @property
    def length(self) -> int:
        """Entries of the plan: (group, start, end) of every tile, the start of every group and the end, the order."""
        return 3 * self.tiles + self.groups + 1


def plan_sizes(n_vertices: int, height: int, width: int) -> PlanSizes:
    groups = (height + 1) * (width + 1) + 2
    full = min(groups, n_vertices)  # a tile is not full only where its group ends
    return PlanSizes(
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


def segment_sizes(n_vertices: int, height: int, width: int) -> SegmentSizes:
    cells = height * width + 1
    # A vertex is read by four cells and by the global token; a cell's vertices are two runs of the order.
    steps = 5 * n_vertices // STEP + 2 * cells
    each = max(LEAST_STEPS, -(-steps // max(ENOUGH_PROGRAMS, cells)))
    return SegmentSizes(each, steps // each + min(cells, steps))
