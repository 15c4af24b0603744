"""Selectors of layer, location and scale: three small networks of the encoded cortical coordinates.

The encoding is smooth, so neighbouring vertices select alike. `FreeSelectors` is the control without topography.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

FREQUENCIES = 32
SPAN = 100.0  # coordinates are scaled so that their longest side has this length
ENCODED = 3 * FREQUENCIES * 2
FACTOR_ERROR = 1e-6  # bound on the factored encoding; a float32 sine at an angle of 100 has ten times this error
# Prior of offsets, chosen on simulated subjects (bench/results/worlds_tried.md).
LOCATION_OFFSETS = 3e-4  # mean square below which the penalty on locations is quadratic: an estimate errs by about 0.02
OFFSETS_SD = 0.7  # of layer and scale, in logits
ROWS = 8192  # vertices factored at a time


@dataclass(frozen=True)
class Selectors:
    """What each vertex reads: layer weights (V, L), locations (V, 2) in [-1, 1], scale (V,) (0 local, 1 global)."""

    layer_weights: Tensor
    locations: Tensor
    scale: Tensor

    def of(self, vertices: Tensor) -> Selectors:
        """Those of some vertices, by position (n,)."""
        return Selectors(self.layer_weights[vertices], self.locations[vertices], self.scale[vertices])

    def regularity(self, *, entropy: float = 1.0, middle: float = 1.0) -> Tensor:
        """See :func:`regularity`."""
        return regularity(self.layer_weights, self.scale, entropy=entropy, middle=middle)


def coordinate_bounds(coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """Origin and scale of the positional encoding: the coordinates' minimum (3,) and longest side (), in mm.

    Buffers of the model: a subset of its vertices must be encoded with the bounds of all.
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
        Minimum of the coordinates that the model was trained with, in mm.
    side : Tensor of shape ()
        Their longest side, in mm.

    Returns
    -------
    Tensor of shape (V, 192)
        Ordered by coordinate, then frequency, then (sine, cosine); in [-1, 1].
    """
    scaled = (coordinates - lower) / side * SPAN
    frequencies = 1000.0 ** -(torch.arange(FREQUENCIES, device=scaled.device, dtype=scaled.dtype) / FREQUENCIES)
    angles = scaled[:, :, None] * frequencies  # (V, 3, F)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def factored_encoding(coordinates: Tensor, lower: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
    """The positional encoding as a product of two matrices: it is smooth, so its numerical rank is low.

    Parameters
    ----------
    coordinates, lower, side : Tensor
        As for :func:`encode_positions`.

    Returns
    -------
    features : Tensor of shape (V, r)
        The encoding along its r largest principal directions; r is the smallest number for which ``features @ mix`` is
        within 1e-6 of the encoding everywhere. About 60 to 80 for a cortex, 1 for one vertex.
    mix : Tensor of shape (r, 192)
        Those directions, orthonormal; the largest entry of each is positive.

    Computed in float64 on the CPU, and returned in the coordinates' dtype on their device.
    """
    positions, origin, longest = (tensor.detach().cpu().double() for tensor in (coordinates, lower, side))
    triangle = positions.new_empty(0, ENCODED)
    for part in positions.split(ROWS):
        # QR and not the Gram matrix, which would lose small directions that are still above the error bound.
        triangle = torch.linalg.qr(torch.cat([triangle, encode_positions(part, origin, longest)]), mode="r").R
    directions = torch.linalg.svd(triangle).Vh
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    directions = directions * largest.sign()

    rank, features = 1, []
    for part in positions.split(ROWS):
        encoded = encode_positions(part, origin, longest)
        projected = encoded @ directions.T

        def is_enough(r: int, encoded: Tensor = encoded, projected: Tensor = projected) -> bool:
            return bool((projected[:, :r] @ directions[:r] - encoded).abs().max() <= FACTOR_ERROR)

        if not is_enough(rank):
            rank = bisect_left(range(ENCODED), True, lo=rank + 1, key=is_enough)
        features.append(projected.to(coordinates.dtype))
    return torch.cat([part[:, :rank] for part in features]).to(coordinates.device), directions[:rank].to(coordinates)


def selector_network(n_outputs: int, width: int, head: nn.Module) -> nn.Sequential:
    """An MLP: positional encoding (192) -> width -> width -> outputs. At the start all outputs are zero.

    The identity takes the index of the published model's encoding module, so that parameter names agree.
    """
    last = nn.Linear(width, n_outputs, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(
        nn.Identity(), nn.Linear(ENCODED, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), last, head
    )


class FreeSelectors(nn.Module):
    """Selectors without topography: parameters ``location`` (V, 2), ``layer`` (V, L) and ``scale`` (V,) per vertex.

    They start at zero, like the networks' outputs, and go through the same tanh, softmax and sigmoid.
    """

    def __init__(self, vertices: int, layers: int) -> None:
        super().__init__()
        self.location = nn.Parameter(torch.zeros(vertices, 2))
        self.layer = nn.Parameter(torch.zeros(vertices, layers))
        self.scale = nn.Parameter(torch.zeros(vertices))

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        """Locations (V, 2), layer weights (V, L) and scale (V,)."""
        return self.location.tanh(), self.layer.softmax(-1), self.scale.sigmoid()


class VertexOffsets(FreeSelectors):
    """What each vertex adds to the selector networks' sums, before tanh, softmax and sigmoid: the same parameters.

    The networks return their outputs after these functions. There the offsets act as
    ``tanh(u + o) = (tanh u + tanh o) / (1 + tanh u tanh o)``, ``softmax(u + o) ~ softmax(u) exp(o)`` and
    ``sigmoid(u + o) = s / (s + (1 - s) exp(-o))`` with s = sigmoid(u), which are exact: no implementation of the
    networks has to know them.

    Parameters
    ----------
    vertices, layers : int
    of : sequence of {"layer", "location", "scale"}
        Selectors that have offsets; those of the others stay zero.
    """

    def __init__(self, vertices: int, layers: int, of: Sequence[str] = ("layer", "location", "scale")) -> None:
        super().__init__(vertices, layers)
        for selector, parameter in self.named_parameters():
            parameter.requires_grad_(selector in of)

    @property
    def of(self) -> tuple[str, ...]:
        """Selectors that have offsets."""
        return tuple(selector for selector, parameter in self.named_parameters() if parameter.requires_grad)

    def added(self, locations: Tensor, layer_weights: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Locations (V, 2), layer weights (V, L) and scale (V,) with the offsets added."""
        moved = self.location.tanh()
        weights = layer_weights * self.layer.exp()
        return (
            (locations + moved) / (1 + locations * moved),
            weights / weights.sum(-1, keepdim=True),
            scale / (scale + (1 - scale) * (-self.scale).exp()),
        )

    def penalty(self) -> Tensor:
        """The penalty of a normal prior, with m the mean over vertices of a selector's squared offsets: ().

        Of locations 2 log(1 + m / 0.0003): the prior's variance is estimated with them, so that they are held at zero
        where neighbours' locations hardly scatter, and cost little where they do. Of layer and of scale m / 0.7^2.
        """
        location, layer, scale = (each.square().sum() / len(each) for each in (self.location, self.layer, self.scale))
        return 2 * (location / LOCATION_OFFSETS).log1p() + (layer + scale) / OFFSETS_SD**2


def regularity(layer_weights: Tensor, scale: Tensor, *, entropy: float = 1.0, middle: float = 1.0) -> Tensor:
    """The published regulariser: normalised negative entropy of the layer weights, plus (scale - 0.5) squared.

    It rises as selection sharpens, so adding it to the loss keeps selection soft.

    Parameters
    ----------
    layer_weights : Tensor of shape (V, L)
    scale : Tensor of shape (V,)
    entropy, middle : float
        Factors of the two terms.

    Returns
    -------
    Tensor of shape ()
        Mean over vertices.
    """
    n_layers = layer_weights.shape[1]
    balance = middle * (scale - 0.5).square().mean()
    if n_layers == 1:
        return balance  # with one layer, entropy and log(L) are both zero
    sharpness = (layer_weights * (layer_weights + 1e-8).log()).sum(-1).mean()
    return entropy * sharpness / math.log(n_layers) + balance
