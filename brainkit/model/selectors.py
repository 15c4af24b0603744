"""Coordinates on the cortex -> layer, location and scale: three small networks of a positional encoding.

Because the encoding is smooth, vertices that are neighbours on the cortex choose alike. `FreeSelectors` is the control
without it.
"""

from __future__ import annotations

import math
from bisect import bisect_left

import torch
from torch import Tensor, nn

FREQUENCIES = 32
SPAN = 100.0  # the longest side of the coordinates is brought to this length before encoding
ENCODED = 3 * FREQUENCIES * 2
FACTOR_ERROR = 1e-6  # of the factored encoding, at most; a sine in float32 is off by ten times as much at the far end
ROWS = 8192  # vertices that are factored at a time


def coordinate_bounds(coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """What the encoding is relative to: the lowest corner (3,) and the longest side (), in mm.

    They are kept with the model: a subset of its vertices must be encoded as the whole was.
    """
    lower = coordinates.min(0).values
    side = (coordinates.max(0).values - lower).max()
    return lower, torch.where(side > 0, side, torch.ones_like(side))


def encode_positions(coordinates: Tensor, lower: Tensor, side: Tensor) -> Tensor:
    """Sines and cosines of the coordinates at 32 frequencies, 1000 ** -(k / 32).

    Parameters
    ----------
    coordinates : Tensor of shape (V, 3)
        Cortical coordinates in mm.
    lower : Tensor of shape (3,)
        Lowest corner of the coordinates that the model was made for, in mm.
    side : Tensor of shape ()
        Their longest side, in mm.

    Returns
    -------
    Tensor of shape (V, 192)
        By coordinate, then frequency, then (sine, cosine), in [-1, 1].
    """
    places = (coordinates - lower) / side * SPAN
    frequencies = 1000.0 ** -(torch.arange(FREQUENCIES, device=places.device, dtype=places.dtype) / FREQUENCIES)
    angles = places[:, :, None] * frequencies  # (V, 3, F)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def factored_encoding(coordinates: Tensor, lower: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
    """The positional encoding as a product of few features and a constant matrix: it is smooth, so its rank is low.

    Parameters
    ----------
    coordinates, lower, side : Tensor
        As :func:`encode_positions` takes them.

    Returns
    -------
    features : Tensor of shape (V, r)
        Coordinates of the encoding along its r largest principal directions; r is the smallest with which
        ``features @ mix`` is within 1e-6 of the encoding everywhere. About 60 to 80 for a cortex, 1 for one vertex.
    mix : Tensor of shape (r, 192)
        Those directions, orthonormal; the largest entry of each is positive.

    Both are computed in float64 on the CPU, and given in the coordinates' dtype on their device.
    """
    places, corner, longest = (tensor.detach().cpu().double() for tensor in (coordinates, lower, side))
    triangle = places.new_empty(0, ENCODED)
    for part in places.split(ROWS):
        # Not by the Gram matrix: it would lose the small directions, which still are above the error allowed.
        triangle = torch.linalg.qr(torch.cat([triangle, encode_positions(part, corner, longest)]), mode="r").R
    directions = torch.linalg.svd(triangle).Vh
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    directions = directions * largest.sign()

    rank, features = 1, []
    for part in places.split(ROWS):
        encoded = encode_positions(part, corner, longest)
        along = encoded @ directions.T

        def is_enough(r: int, encoded: Tensor = encoded, along: Tensor = along) -> bool:
            return bool((along[:, :r] @ directions[:r] - encoded).abs().max() <= FACTOR_ERROR)

        if not is_enough(rank):
            rank = bisect_left(range(ENCODED), True, lo=rank + 1, key=is_enough)
        features.append(along.to(coordinates.dtype))
    given = torch.cat([part[:, :rank] for part in features]).to(coordinates.device)
    return given, directions[:rank].to(coordinates)


def selector_network(n_outputs: int, width: int, head: nn.Module) -> nn.Sequential:
    """Positional encoding (192) -> width -> width -> outputs; the last layer starts at zero, so every vertex alike.

    The first entry stands where the published model computes its encoding, so that the parameters have its names.
    """
    last = nn.Linear(width, n_outputs, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(
        nn.Identity(), nn.Linear(ENCODED, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), last, head
    )


class FreeSelectors(nn.Module):
    """Selectors without topography: ``location`` (V, 2), ``layer`` (V, L) and ``scale`` (V,), each vertex's own.

    They start at zero, as the networks' outputs do, and go through the same tanh, softmax and sigmoid.
    """

    def __init__(self, vertices: int, layers: int) -> None:
        super().__init__()
        self.location = nn.Parameter(torch.zeros(vertices, 2))
        self.layer = nn.Parameter(torch.zeros(vertices, layers))
        self.scale = nn.Parameter(torch.zeros(vertices))

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        """Locations (V, 2), layer weights (V, L) and scale (V,)."""
        return self.location.tanh(), self.layer.softmax(-1), self.scale.sigmoid()


def regularity(layer_weights: Tensor, scale: Tensor, *, entropy: float = 1.0, middle: float = 1.0) -> Tensor:
    """The published regulariser: normalised negative entropy of the layer weights, plus (scale - 0.5) squared.

    It rises as selection sharpens, so adding it to the loss keeps selection soft. Mean over vertices, a scalar.
    `entropy` and `middle` are factors of the two terms.
    """
    n_layers = layer_weights.shape[1]
    balance = middle * (scale - 0.5).square().mean()
    if n_layers == 1:
        return balance  # one layer leaves nothing to choose: its entropy is zero, and so is log(L)
    sharpness = (layer_weights * (layer_weights + 1e-8).log()).sum(-1).mean()
    return entropy * sharpness / math.log(n_layers) + balance
