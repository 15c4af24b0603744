"""One table of cases for every implementation of the operator: tests and benchmarks draw from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NAMES = ("local_tokens", "global_tokens", "locations", "layer_weights", "scale", "weight", "bias")


@dataclass(frozen=True)
class Case:
    """Sizes of one case, and where its vertices look."""

    name: str
    images: int = 2
    layers: int = 3
    channels: int = 8
    height: int = 8
    width: int = 8
    vertices: int = 63
    where: str = "spread"

    def inputs(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
        """The operator's seven inputs, in order."""
        draw = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64)

        v = self.vertices
        locations = {
            "spread": lambda: torch.tanh(normal(v, 2)),
            "centre": lambda: torch.zeros(v, 2, dtype=torch.float64),  # as at initialisation: one group
            "border": lambda: torch.sign(normal(v, 2)) * (1 - 0.2 * normal(v, 2).abs().clamp(max=0.5)),
            "exact": lambda: torch.randint(-1, 2, (v, 2), generator=draw).double(),
            "beyond": lambda: 1.5 * normal(v, 2),
            "corner": lambda: 0.9 + 0.05 * torch.tanh(normal(v, 2)),  # most groups are empty
        }[self.where]()
        tensors = [
            normal(self.images, self.layers, self.channels, self.height, self.width),
            normal(self.images, self.layers, self.channels),
            locations,
            torch.softmax(normal(v, self.layers), -1),
            torch.sigmoid(normal(v)),
            normal(v, self.channels),
            normal(v),
        ]
        return [tensor.to(dtype) for tensor in tensors]


CASES = [
    Case("plain"),
    Case("one vertex", vertices=1),
    Case("one image", images=1),
    Case("many images", images=33, vertices=17),
    Case("one layer", layers=1),
    Case("twelve layers", layers=12),
    Case("forty layers", layers=40, vertices=20),
    Case("one channel", channels=1),
    Case("odd channels", channels=13),
    Case("published channels", channels=128, vertices=150),
    Case("many channels", channels=768, vertices=20),
    Case("one cell", height=1, width=1),
    Case("odd grid", height=7, width=7),
    Case("oblong", height=5, width=9),
    Case("tall", height=16, width=3),
    Case("sixteen by sixteen", height=16, width=16, vertices=300),
    Case("fine grid", height=32, width=32, vertices=500),
    Case("at initialisation", where="centre", vertices=1100),
    Case("near the border", where="border", vertices=200),
    Case("on the border", where="exact"),
    Case("beyond the border", where="beyond", vertices=200),
    Case("empty groups", where="corner"),
]
