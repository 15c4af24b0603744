"""One table of cases for every implementation of the selector networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from brainkit.ops import selector_networks

RESULTS = ("locations", "layer_weights", "scale")
WEIGHTS = (
    "hidden_weight",
    "hidden_bias",
    "second_weight",
    "second_bias",
    "location_head",
    "layer_head",
    "scale_head",
)


@dataclass(frozen=True)
class Case:
    """V vertices, F features, H hidden units, L layers; factors of what enters the first GELU and of the heads."""

    vertices: int = 200
    features: int = 20
    hidden: int = 24
    layers: int = 5
    size: float = 2.0
    head: float = 1.0

    def inputs(self, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        """Features and the seven weights, in the operator's order."""
        draw = torch.Generator().manual_seed(0)

        def normal(*shape: int, scale: float = 1.0) -> Tensor:
            return (scale * torch.randn(*shape, generator=draw, dtype=torch.float64)).to(dtype)

        f, h = self.features, self.hidden
        return [
            normal(self.vertices, f),
            normal(3, h, f, scale=self.size * f**-0.5),
            normal(3, h, scale=0.5 * self.size),
            normal(3, h, h, scale=1.5 * h**-0.5),
            normal(3, h),
            normal(2, h, scale=self.head * h**-0.5),
            normal(self.layers, h, scale=self.head * h**-0.5),
            normal(1, h, scale=self.head * h**-0.5),
        ]

    def grads(self, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        """Gradients of the three results."""
        draw = torch.Generator().manual_seed(1)
        shapes = ((self.vertices, 2), (self.vertices, self.layers), (self.vertices,))
        return [torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for shape in shapes]


def run(inputs: list[Tensor], grads: list[Tensor], backend: str, precision: str = "float32") -> list[Tensor]:
    """Three results and seven gradients, in the order of RESULTS and WEIGHTS."""
    features, *weights = (tensor.detach() for tensor in inputs)
    weights = [weight.requires_grad_() for weight in weights]
    results = selector_networks(features, *weights, backend=backend, precision=precision)
    return [*(result.detach() for result in results), *torch.autograd.grad(results, weights, grads)]


def reference(case: Case, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """What `run` should return for inputs in a dtype, computed in float64."""
    return run(
        [tensor.double() for tensor in case.inputs(dtype)], [grad.double() for grad in case.grads(dtype)], "reference"
    )


def relative_errors(found: list[Tensor], truth: list[Tensor]) -> dict[str, float]:
    """rms of each error over rms of the truth; of the error alone where the truth is zero everywhere."""
    return {
        name: _relative_error(value.detach().cpu().double(), true)
        for name, value, true in zip((*RESULTS, *WEIGHTS), found, truth, strict=True)
    }


def _relative_error(value: Tensor, truth: Tensor) -> float:
    error, size = (value - truth).square().mean().sqrt(), truth.square().mean().sqrt()
    return (error / size if size > 0 else error).item()
