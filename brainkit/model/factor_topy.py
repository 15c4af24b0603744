"""FactorTopy: every vertex picks its own layer, place, scale and channels, and neighbours pick alike."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from brainkit.errors import DataError, UsageError
from brainkit.model import published_weights as published
from brainkit.model.bottlenecks import TokenStatistics, pointwise
from brainkit.model.selectors import FreeSelectors, coordinate_bounds, factored_encoding, regularity, selector_network
from brainkit.ops.factor_readout import factor_readout
from brainkit.ops.selector_networks import selector_networks
from brainkit.ops.token_grid import to_grid

Tokens = Mapping[str, Tensor]
PRECISIONS = ("float32", "tf32", "bfloat16", "bf16x3")


@dataclass(frozen=True)
class Selectors:
    """What each vertex reads: layer weights (V, L), locations (V, 2) in [-1, 1], scale (V,), 0 local to 1 global."""

    layer_weights: Tensor
    locations: Tensor
    scale: Tensor

    def regularity(self, *, entropy: float = 1.0, middle: float = 1.0) -> Tensor:
        """See :func:`brainkit.model.selectors.regularity`."""
        return regularity(self.layer_weights, self.scale, entropy=entropy, middle=middle)


@dataclass(frozen=True)
class Folded:
    """The trained model as constants (float64 numpy), with the gauge and the token statistics folded in.

    ``tokens_local[l] = local_weight[l] @ grid_tokens + local_bias[l]``, the bias added on the grid, before the ring
    of zeros; likewise the global tokens; then the operator.
    """

    layers: tuple[str, ...]
    grid: tuple[int, int]
    local_weight: dict[str, np.ndarray]  # (D, C)
    local_bias: dict[str, np.ndarray]  # (D,)
    global_weight: dict[str, np.ndarray]  # (D, C)
    global_bias: dict[str, np.ndarray]  # (D,)
    layer_weights: np.ndarray  # (V, L)
    locations: np.ndarray  # (V, 2)
    scale: np.ndarray  # (V,)
    weight: np.ndarray  # (V, D)
    bias: np.ndarray  # (V,)
    resize: str = "area"  # see grid_matrix


class FactorTopy(nn.Module):
    """Brain encoding model of *Brain Decodes Deep Nets* (arXiv 2312.01280), with a fixed gauge.

    Parameters
    ----------
    widths : mapping of str to int
        Channels C of each layer, in order of depth.
    coordinates : array of shape (V, 3)
        Cortical coordinates in mm.
    bottleneck : int
        Channels D that every layer is brought to.
    grid : (int, int)
        Rows and columns of the common token grid.
    selector_width : int
        Hidden units of the selector networks.
    topography : bool
        Selectors are networks of the coordinates. If not, each vertex has its own ``free_selectors.location`` (V, 2),
        ``.layer`` (V, L) and ``.scale`` (V,), before tanh, softmax and sigmoid, and coordinates play no part.
    gauge : {"unit", "published"}
        ``unit`` holds each bottleneck's output at unit RMS over the training tokens, which gives layer weights and
        scale a meaning; ``published`` leaves the gains free, as the seed's weights have them.
    resize : {"area", "bilinear"}
        How token maps over twice the grid's side are brought to it, see :func:`grid_matrix`.
    backend : str
        Implementation of the operator, see :func:`brainkit.ops.factor_readout`.
    precision : {"float32", "tf32", "bfloat16", "bf16x3"}
        What is multiplied while the model is in training mode. tf32 and bfloat16 are for the Triton kernels, and
        bfloat16 rounds the bottlenecks' tokens; bf16x3 is for the C++ operator. In evaluation mode it is float32.

    Raises
    ------
    UsageError
        If there is no layer, two have the same name without dots, or coordinates are not (V, 3) and finite.
    """

    response_mean: Tensor
    response_std: Tensor
    coordinates: Tensor
    coordinate_lower: Tensor
    coordinate_side: Tensor
    features: Tensor
    mix: Tensor

    def __init__(
        self,
        widths: Mapping[str, int],
        coordinates: np.ndarray | Tensor,
        *,
        bottleneck: int = 64,
        grid: tuple[int, int] = (8, 8),
        selector_width: int = 128,
        topography: bool = True,
        gauge: str = "unit",
        backend: str = "auto",
        precision: str = "float32",
        resize: str = "area",
    ) -> None:
        super().__init__()
        given = coordinates.detach().cpu() if isinstance(coordinates, Tensor) else coordinates
        places = torch.tensor(np.asarray(given, dtype=np.float32))
        if not widths:
            raise UsageError("widths must name at least one layer, got none")
        if places.ndim != 2 or places.shape[1] != 3 or not len(places) or not places.isfinite().all():
            raise UsageError(f"coordinates must be (V, 3) and finite, got shape {tuple(places.shape)}")
        if precision not in PRECISIONS:
            raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        if gauge not in ("unit", "published"):
            raise UsageError(f"gauge must be 'unit' or 'published', got {gauge!r}")
        if resize not in ("area", "bilinear"):
            raise UsageError(f"resize must be 'area' or 'bilinear', got {resize!r}")
        self.layers, self.widths = tuple(widths), dict(widths)
        self.grid, self.gauge, self.backend = (int(grid[0]), int(grid[1])), gauge, backend
        self.precision, self.resize = precision, resize
        self._keys = {layer: layer.replace(".", "_") for layer in self.layers}  # module names hold no dots
        if len(set(self._keys.values())) < len(self.layers):
            raise UsageError(f"layers must have different names without their dots, got {', '.join(self.layers)}")

        self.local_token_bottleneck = nn.ModuleDict(
            {self._keys[layer]: nn.Conv2d(c, bottleneck, 1, bias=False) for layer, c in widths.items()}
        )
        self.global_token_bottleneck = nn.ModuleDict(
            {self._keys[layer]: nn.Linear(c, bottleneck, bias=False) for layer, c in widths.items()}
        )
        self.local_statistics = nn.ModuleDict({self._keys[layer]: TokenStatistics(c) for layer, c in widths.items()})
        self.global_statistics = nn.ModuleDict({self._keys[layer]: TokenStatistics(c) for layer, c in widths.items()})
        self.free_selectors = None if topography else FreeSelectors(len(places), len(self.layers))
        if topography:
            self.space_selector_mlp = selector_network(2, selector_width, nn.Tanh())
            self.layer_selector_mlp = selector_network(len(self.layers), selector_width, nn.Softmax(-1))
            self.scale_selector_mlp = selector_network(1, selector_width, nn.Sigmoid())
        self.weight = nn.Parameter(torch.empty(len(places), bottleneck).uniform_(-1, 1) * bottleneck**-0.5)
        self.bias = nn.Parameter(torch.zeros(len(places)))

        lower, side = coordinate_bounds(places)
        self.register_buffer("response_mean", torch.zeros(len(places)))
        self.register_buffer("response_std", torch.ones(len(places)))
        self.register_buffer("coordinates", places)
        self.register_buffer("coordinate_lower", lower)
        self.register_buffer("coordinate_side", side)
        if topography:
            # Computed once: the encoding never changes, and the checkpoint need not carry it.
            features, mix = factored_encoding(places, lower, side)
            self.register_buffer("features", features, persistent=False)
            self.register_buffer("mix", mix, persistent=False)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        before = [tensor.clone() for tensor in self._places()]
        super()._load_from_state_dict(state_dict, prefix, *rest)
        # Coordinates and bounds may have come with the state: the encoding follows them.
        moved = not all(torch.equal(old, new) for old, new in zip(before, self._places(), strict=True))
        if moved and self.free_selectors is None:
            self.features, self.mix = factored_encoding(*self._places())

    def _places(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.coordinates, self.coordinate_lower, self.coordinate_side

    @property
    def encoding(self) -> Tensor:
        """The positional encoding (V, 192) of every vertex, in [-1, 1]."""
        return self.features @ self.mix

    @classmethod
    def from_published(
        cls,
        state_dict: Mapping[str, Tensor],
        coordinates: np.ndarray | Tensor,
        *,
        layers: Sequence[str] | None = None,
        grid: tuple[int, int] = (8, 8),
    ) -> FactorTopy:
        """Load weights of the published implementation; it predicts the same as there.

        Its gains are free (gauge "published"), it takes raw tokens, and brings them to the grid by bilinear
        interpolation whatever their size. Where the positional encoding begins and ends follows from `coordinates`,
        and is kept with the model.

        Parameters
        ----------
        state_dict : mapping of str to Tensor
            A bare state dict with the published names; a prefix that all of them share is left out.
        coordinates : array of shape (V, 3)
            The cortical coordinates the model was trained with, in mm, all V of them: they are not in the state dict.
        layers : sequence of str, optional
            Names that its layers get here, in the state dict's order; by default its own.
        grid : (int, int)
            Token grid of the published model.

        Raises
        ------
        DataError
            If keys are missing, unknown, of the wrong shape, or not finite.
        """
        state = published.bare(state_dict)
        shape = published.shape_of(state)
        if len(coordinates) != shape.vertices:
            raise DataError(
                f"coordinates: expected {shape.vertices} rows as the model's vertices, found {len(coordinates)}"
            )
        state, widths = published.renamed(state, shape, layers)
        model = cls(
            widths,
            coordinates,
            bottleneck=shape.bottleneck,
            grid=grid,
            selector_width=shape.selector_width,
            gauge="published",
            resize="bilinear",
        )
        own = {key: value for key, value in model.state_dict().items() if not _is_constant(key)}
        published.check(state, own)
        model.load_state_dict(state, strict=False)
        return model

    def set_response_scale(self, mean: np.ndarray, std: np.ndarray) -> None:
        """Take the mean and s.d. (V,) of the training responses; where the s.d. is 0 it is left at 1."""
        self.response_mean.copy_(torch.from_numpy(np.asarray(mean)))
        self.response_std.copy_(torch.from_numpy(np.where(np.asarray(std) > 0, std, 1.0)))

    def leave_tokens_raw(self) -> None:
        """Neither centre nor scale the tokens; call it once their statistics are set."""
        for held in (self.local_statistics, self.global_statistics):
            for statistics in held.values():
                cast(TokenStatistics, statistics).leave_raw()

    def selectors(self) -> Selectors:
        """Layer weights (V, L), locations (V, 2) and scale (V,) of every vertex."""
        if self.free_selectors is not None:
            locations, layer_weights, scale = self.free_selectors()
            return Selectors(layer_weights, locations, scale)
        networks = (self.space_selector_mlp, self.layer_selector_mlp, self.scale_selector_mlp)
        hidden, second, heads = ([cast(nn.Linear, network[i]) for network in networks] for i in (1, 3, 5))
        # Never in less than float32, which would move locations: autocast must not reach these products either.
        with torch.autocast(self.features.device.type, enabled=False):
            locations, layer_weights, scale = selector_networks(
                self.features,
                torch.stack([layer.weight for layer in hidden]) @ self.mix.T,
                torch.stack([layer.bias for layer in hidden]),
                torch.stack([layer.weight for layer in second]),
                torch.stack([layer.bias for layer in second]),
                *(layer.weight for layer in heads),
                backend={"grouped": "reference", "reference": "reference", "triton": "triton"}.get(
                    self.backend, "auto"
                ),
                precision="tf32" if self._rounds_to() in ("tf32", "bfloat16") else "float32",
            )
        return Selectors(layer_weights, locations, scale)

    def forward(self, local_tokens: Tokens, global_tokens: Tokens) -> Tensor:
        """Predict responses (B, V) from a backbone's tokens.

        Parameters
        ----------
        local_tokens : mapping of str to Tensor of shape (B, C, H, W)
            Token maps at any resolution; those not on the model's grid are brought to it.
        global_tokens : mapping of str to Tensor of shape (B, C)
            One token for the whole image.

        Returns
        -------
        Tensor of shape (B, V)
            In the units of the responses that the model was trained on.
        """
        standard = self.standardised(local_tokens, global_tokens, self.selectors())
        return standard * self.response_std + self.response_mean

    def standardised(self, local_tokens: Tokens, global_tokens: Tokens, selectors: Selectors) -> Tensor:
        """Responses in units of each vertex's own s.d. about its mean, as training sees them. (B, V)"""
        local, whole = self.bottlenecked(local_tokens, global_tokens)
        if self._rounds_to() == "bfloat16":
            local, whole = local.bfloat16(), whole.bfloat16()
        return factor_readout(
            local,
            whole,
            selectors.locations,
            selectors.layer_weights,
            selectors.scale,
            self.weight,
            self.bias,
            backend=self.backend,
            precision=self._rounds_to().replace("bfloat16", "float32"),
        )

    def bottlenecked(self, local_tokens: Tokens, global_tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Tokens through the bottlenecks, in the gauge: (B, L, D, H, W) and (B, L, D)."""
        local, whole = [], []
        for layer in self.layers:
            local.append(pointwise(to_grid(local_tokens[layer], self.grid, self.resize), *self._local_map(layer)))
            whole.append(torch.nn.functional.linear(global_tokens[layer], *self._global_map(layer)))
        return torch.stack(local, 1), torch.stack(whole, 1)

    @torch.no_grad()
    def folded(self) -> Folded:
        """Everything that is constant once training is over; the folding itself is done in float64."""
        # The selectors are what training saw, float32; only the products of constants gain from more digits.
        plain = copy.deepcopy(self).cpu().eval()
        chosen, exact = plain.selectors(), plain.double()
        local = {layer: exact._local_map(layer) for layer in self.layers}
        whole = {layer: exact._global_map(layer) for layer in self.layers}
        return Folded(
            layers=self.layers,
            grid=self.grid,
            local_weight={layer: weight.numpy() for layer, (weight, _) in local.items()},
            local_bias={layer: bias.numpy() for layer, (_, bias) in local.items()},
            global_weight={layer: weight.numpy() for layer, (weight, _) in whole.items()},
            global_bias={layer: bias.numpy() for layer, (_, bias) in whole.items()},
            layer_weights=chosen.layer_weights.double().numpy(),
            locations=chosen.locations.double().numpy(),
            scale=chosen.scale.double().numpy(),
            weight=(exact.weight.detach() * exact.response_std[:, None]).numpy(),
            bias=(exact.bias.detach() * exact.response_std + exact.response_mean).numpy(),
            resize=self.resize,
        )

    def _rounds_to(self) -> str:
        """What is multiplied now: float32 whenever the model is scored."""
        if not self.training:
            return "float32"
        if self.precision in ("tf32", "bfloat16") and not self.weight.is_cuda and self.backend != "triton":
            place = self.weight.device
            raise UsageError(f"precision must be float32 or bf16x3 for a model on {place}, got {self.precision!r}")
        return self.precision

    def _local_map(self, layer: str) -> tuple[Tensor, Tensor]:
        key = self._keys[layer]
        return self._map(
            cast(nn.Conv2d, self.local_token_bottleneck[key]).weight[:, :, 0, 0], self.local_statistics[key]
        )

    def _global_map(self, layer: str) -> tuple[Tensor, Tensor]:
        key = self._keys[layer]
        return self._map(cast(nn.Linear, self.global_token_bottleneck[key]).weight, self.global_statistics[key])

    def _map(self, weight: Tensor, statistics: nn.Module) -> tuple[Tensor, Tensor]:
        """The affine map (D, C), (D,) of raw tokens: centring, scaling and gauge folded in."""
        return cast(TokenStatistics, statistics).mapped(weight, gauge=self.gauge == "unit")


def _is_constant(key: str) -> bool:
    """Buffers that the seed's state dict does not have."""
    return "statistics" in key or key.startswith(("coordinate", "response_"))
