"""FactorTopy: every vertex selects its own layer, location, scale and channels, and neighbours select alike."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from brainkit.errors import DataError, UsageError
from brainkit.model import published_weights
from brainkit.model.bottlenecks import TokenStatistics, pointwise
from brainkit.model.selectors import (
    FreeSelectors,
    Selectors,
    VertexOffsets,
    coordinate_bounds,
    factored_encoding,
    selector_network,
)
from brainkit.ops.factor_readout import factor_readout
from brainkit.ops.selector_networks import selector_networks
from brainkit.ops.token_grid import to_grid
from brainkit.utils.text import plural

LayerTokens = Mapping[str, Tensor]  # layer name -> its tokens, (B, C, H, W) local or (B, C) global
PRECISIONS = ("float32", "tf32", "bfloat16", "bf16x3")


@dataclass(frozen=True)
class Folded:
    """The trained model as float64 constants, with the gauge, token statistics and response scale folded in.

    ``local_weight[l] @ tokens + local_bias[l]`` gives layer l's local tokens on the grid, before zero padding; global
    tokens likewise. The operator with the remaining constants then predicts responses.
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
    """The encoding model of *Brain Decodes Deep Nets* (arXiv 2312.01280), with a fixed gauge.

    Parameters
    ----------
    widths : mapping of str to int
        Layer name -> its channels C, in order of depth.
    coordinates : array of shape (V, 3)
        Cortical coordinates in mm.
    bottleneck : int
        Channels D after the bottlenecks.
    grid : (int, int)
        Rows and columns of the common token grid.
    selector_width : int
        Hidden units of the selector networks.
    topography : bool
        Selectors are networks of the coordinates. If False, each vertex has parameters ``free_selectors.location``
        (V, 2), ``.layer`` (V, L) and ``.scale`` (V,), before tanh, softmax and sigmoid; coordinates are not used.
    offsets : sequence of {"layer", "location", "scale"}
        With topography, selectors to whose network's sums, before tanh, softmax and sigmoid, each vertex adds
        parameters of its own, ``offsets.location``, ``.layer`` and ``.scale`` of the same shapes; training penalises
        their squares. ``brainkit train`` has them for layer and location.
    fixed : sequence of {"layer", "location", "scale"}
        Selectors that are not learnt: they stay where all start, at equal layer weights, the image's centre and 0.5.
    gauge : {"unit", "published"}
        ``unit`` fixes each bottleneck's output at unit RMS over the training tokens, so that layer weights and scale
        can be compared; ``published`` leaves the gains free, as in the published weights.
    backend : str
        Implementation of the operator, see :func:`brainkit.ops.factor_readout`.
    precision : {"float32", "tf32", "bfloat16", "bf16x3"}
        Precision of products in training mode. tf32 and bfloat16 need the Triton kernels, and bfloat16 rounds the
        bottlenecks' outputs; bf16x3 needs the C++ operator. Evaluation mode is always float32.
    resize : {"area", "bilinear"}
        How token maps more than twice the grid's size are reduced, see :func:`brainkit.ops.token_grid.grid_matrix`.

    Raises
    ------
    UsageError
        If there is no layer, two layer names differ in dots and underscores only, coordinates are not (V, 3) and
        finite, or an option is unknown.
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
        offsets: Sequence[str] = (),
        fixed: Sequence[str] = (),
        gauge: str = "unit",
        backend: str = "auto",
        precision: str = "float32",
        resize: str = "area",
    ) -> None:
        super().__init__()
        positions = _positions(coordinates)
        _check_options(widths, gauge=gauge, precision=precision, resize=resize)
        _check_selectors(fixed=fixed, offsets=offsets)
        self.layers, self.widths = tuple(widths), dict(widths)
        self.grid, self.gauge, self.backend = (int(grid[0]), int(grid[1])), gauge, backend
        self.precision, self.resize, self.fixed = precision, resize, tuple(fixed)
        self._keys = {layer: layer.replace(".", "_") for layer in self.layers}  # no dots in module names

        self.local_token_bottleneck = nn.ModuleDict(
            {self._keys[layer]: nn.Conv2d(c, bottleneck, 1, bias=False) for layer, c in widths.items()}
        )
        self.global_token_bottleneck = nn.ModuleDict(
            {self._keys[layer]: nn.Linear(c, bottleneck, bias=False) for layer, c in widths.items()}
        )
        self.local_statistics = nn.ModuleDict({self._keys[layer]: TokenStatistics(c) for layer, c in widths.items()})
        self.global_statistics = nn.ModuleDict({self._keys[layer]: TokenStatistics(c) for layer, c in widths.items()})
        self.free_selectors = None if topography else FreeSelectors(len(positions), len(self.layers))
        self.offsets = VertexOffsets(len(positions), len(self.layers), offsets) if topography and offsets else None
        if topography:
            self.space_selector_mlp = selector_network(2, selector_width, nn.Tanh())
            self.layer_selector_mlp = selector_network(len(self.layers), selector_width, nn.Softmax(-1))
            self.scale_selector_mlp = selector_network(1, selector_width, nn.Sigmoid())
        for selector in self.fixed:
            for learnt in self._selector_parameters(selector):
                learnt.requires_grad_(False)
        self.weight = nn.Parameter(torch.empty(len(positions), bottleneck).uniform_(-1, 1) * bottleneck**-0.5)
        self.bias = nn.Parameter(torch.zeros(len(positions)))

        lower, side = coordinate_bounds(positions)
        self.register_buffer("response_mean", torch.zeros(len(positions)))
        self.register_buffer("response_std", torch.ones(len(positions)))
        self.register_buffer("coordinates", positions)
        self.register_buffer("coordinate_lower", lower)
        self.register_buffer("coordinate_side", side)
        if topography:
            # Constant, and follows from the coordinates: not part of a checkpoint.
            features, mix = factored_encoding(positions, lower, side)
            self.register_buffer("features", features, persistent=False)
            self.register_buffer("mix", mix, persistent=False)

    def __repr__(self) -> str:
        # In a line: `named_modules()` has the parts.
        D, (H, W) = self.weight.shape[1], self.grid
        vertices, layers = plural(len(self.weight), "vertex", "vertices"), plural(len(self.layers), "layer")
        return f"FactorTopy({vertices}, {layers}, {D} channels, grid {H} x {W})"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        before = [tensor.clone() for tensor in self._encoding_inputs()]
        super()._load_from_state_dict(state_dict, prefix, *rest)
        # The state may have other coordinates and bounds: then the encoding is computed again.
        changed = not all(torch.equal(old, new) for old, new in zip(before, self._encoding_inputs(), strict=True))
        if changed and self.free_selectors is None:
            self.features, self.mix = factored_encoding(*self._encoding_inputs())

    def _encoding_inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.coordinates, self.coordinate_lower, self.coordinate_side

    def _selector_parameters(self, selector: str) -> list[nn.Module | nn.Parameter]:
        """What is learnt of a selector; its outputs are neutral at the start, because heads and free ones are zero."""
        found = [getattr(part, selector) for part in (self.free_selectors, self.offsets) if part is not None]
        if self.free_selectors is None:
            network = {"location": "space"}.get(selector, selector)
            found.append(getattr(self, f"{network}_selector_mlp"))
        return found

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
        source: str = "state dict",
    ) -> FactorTopy:
        """Load weights of the published implementation; predictions are those of the published model.

        The gauge is "published" (free gains), tokens are neither centred nor scaled, and are resized to the grid by
        bilinear interpolation. The bounds of the positional encoding are those of `coordinates`, and become part of
        the model.

        Parameters
        ----------
        state_dict : mapping of str to Tensor
            A state dict with the published names; a prefix that all keys share is removed.
        coordinates : array of shape (V, 3)
            Cortical coordinates of all V vertices, in mm, as in training: the state dict does not have them.
        layers : sequence of str, optional
            New names for the layers, in the state dict's order; by default the names in the state dict.
        grid : (int, int)
            Token grid of the published model.
        source : str
            What errors call the state dict, for example its file.

        Raises
        ------
        DataError
            If keys are missing, unknown, of the wrong shape, or not finite.
        UsageError
            If `layers` does not name each layer once.
        """
        state = published_weights.clean_state(state_dict, source)
        shape = published_weights.infer_shape(state, source)
        if len(coordinates) != shape.vertices:
            raise DataError(
                f"coordinates: expected {shape.vertices} rows, one for each of the model's vertices, "
                f"found {len(coordinates)}"
            )
        state, widths = published_weights.rename_layers(state, shape, layers)
        model = cls(
            widths,
            coordinates,
            bottleneck=shape.bottleneck,
            grid=grid,
            selector_width=shape.selector_width,
            gauge="published",
            resize="bilinear",
        )
        expected = {key: value for key, value in model.state_dict().items() if not _is_constant(key)}
        published_weights.check_keys(state, expected, source)
        model.load_state_dict(state, strict=False)
        return model

    def set_response_scale(self, mean: np.ndarray, std: np.ndarray) -> None:
        """Set the mean and s.d. (V,) of the training responses; an s.d. of 0 counts as 1."""
        self.response_mean.copy_(torch.from_numpy(np.asarray(mean)))
        self.response_std.copy_(torch.from_numpy(np.where(np.asarray(std) > 0, std, 1.0)))

    def leave_tokens_raw(self) -> None:
        """Neither centre nor scale the tokens; call this after their statistics are set."""
        for layers in (self.local_statistics, self.global_statistics):
            for statistics in layers.values():
                cast(TokenStatistics, statistics).leave_raw()

    def selectors(self) -> Selectors:
        """Layer weights (V, L), locations (V, 2) and scale (V,) of every vertex."""
        if self.free_selectors is not None:
            locations, layer_weights, scale = self.free_selectors()
            return Selectors(layer_weights, locations, scale)
        networks = (self.space_selector_mlp, self.layer_selector_mlp, self.scale_selector_mlp)
        hidden, second, heads = ([cast(nn.Linear, network[i]) for network in networks] for i in (1, 3, 5))
        # Autocast must not reach these products: in less than float32, locations would move.
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
                precision="tf32" if self._active_precision() in ("tf32", "bfloat16") else "float32",
            )
            if self.offsets is not None:
                locations, layer_weights, scale = self.offsets.added(locations, layer_weights, scale)
        return Selectors(layer_weights, locations, scale)

    def forward(self, local_tokens: LayerTokens, global_tokens: LayerTokens) -> Tensor:
        """Predict responses (B, V) from a backbone's tokens.

        Parameters
        ----------
        local_tokens : mapping of str to Tensor of shape (B, C, H, W)
            Token maps of any size; they are resized to the model's grid.
        global_tokens : mapping of str to Tensor of shape (B, C)
            One token per image.

        Returns
        -------
        Tensor of shape (B, V)
            In the units of the training responses.
        """
        standardised = self.standardised(local_tokens, global_tokens, self.selectors())
        return standardised * self.response_std + self.response_mean

    def standardised(self, local_tokens: LayerTokens, global_tokens: LayerTokens, selectors: Selectors) -> Tensor:
        """Predicted responses (B, V) in z-scores: in each vertex's s.d. from its mean. Training uses these."""
        local, whole = self.bottlenecked(local_tokens, global_tokens)
        if self._active_precision() == "bfloat16":
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
            precision=self._active_precision().replace("bfloat16", "float32"),
        )

    def bottlenecked(self, local_tokens: LayerTokens, global_tokens: LayerTokens) -> tuple[Tensor, Tensor]:
        """Outputs of the bottlenecks, with the gauge applied: (B, L, D, H, W) and (B, L, D)."""
        local, whole = [], []
        for layer in self.layers:
            local.append(pointwise(to_grid(local_tokens[layer], self.grid, self.resize), *self._local_map(layer)))
            whole.append(torch.nn.functional.linear(global_tokens[layer], *self._global_map(layer)))
        return torch.stack(local, 1), torch.stack(whole, 1)

    @torch.no_grad()
    def folded(self) -> Folded:
        """The model as constants; folded in float64."""
        # Selectors stay as in training, float32; only products of constants need more digits.
        model = copy.deepcopy(self).cpu().eval()
        selectors, exact = model.selectors(), model.double()
        local = {layer: exact._local_map(layer) for layer in self.layers}
        whole = {layer: exact._global_map(layer) for layer in self.layers}
        return Folded(
            layers=self.layers,
            grid=self.grid,
            local_weight={layer: weight.numpy() for layer, (weight, _) in local.items()},
            local_bias={layer: bias.numpy() for layer, (_, bias) in local.items()},
            global_weight={layer: weight.numpy() for layer, (weight, _) in whole.items()},
            global_bias={layer: bias.numpy() for layer, (_, bias) in whole.items()},
            layer_weights=selectors.layer_weights.double().numpy(),
            locations=selectors.locations.double().numpy(),
            scale=selectors.scale.double().numpy(),
            weight=(exact.weight.detach() * exact.response_std[:, None]).numpy(),
            bias=(exact.bias.detach() * exact.response_std + exact.response_mean).numpy(),
            resize=self.resize,
        )

    def _active_precision(self) -> str:
        """The precision of products in the current mode: float32 in evaluation."""
        if not self.training:
            return "float32"
        if self.precision in ("tf32", "bfloat16") and not self.weight.is_cuda and self.backend != "triton":
            device = self.weight.device
            raise UsageError(f"precision must be float32 or bf16x3 for a model on {device}, got {self.precision!r}")
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
        return cast(TokenStatistics, statistics).affine_map(weight, gauge=self.gauge == "unit")


def _positions(coordinates: np.ndarray | Tensor) -> Tensor:
    """Coordinates as a float32 tensor (V, 3) on the CPU."""
    if isinstance(coordinates, Tensor):
        coordinates = coordinates.detach().cpu().numpy()
    positions = torch.tensor(np.asarray(coordinates, dtype=np.float32))
    if positions.ndim != 2 or positions.shape[1] != 3 or not len(positions):
        raise UsageError(f"coordinates must be (V, 3), got shape {tuple(positions.shape)}")
    if not positions.isfinite().all():
        raise UsageError("coordinates must be finite, got NaN or infinity")
    return positions


def _check_options(widths: Mapping[str, int], *, gauge: str, precision: str, resize: str) -> None:
    if not widths:
        raise UsageError("widths must name at least one layer, got none")
    if len({layer.replace(".", "_") for layer in widths}) < len(widths):
        raise UsageError(f"layers must differ in more than dots and underscores, got {', '.join(widths)}")
    for name, value, options in (
        ("gauge", gauge, ("unit", "published")),
        ("precision", precision, PRECISIONS),
        ("resize", resize, ("area", "bilinear")),
    ):
        if value not in options:
            raise UsageError(f"{name} must be one of {', '.join(options)}, got {value!r}")


def _check_selectors(**given: Sequence[str]) -> None:
    for option, names in given.items():
        if unknown := next((name for name in names if name not in ("layer", "location", "scale")), None):
            raise UsageError(f"{option} must have values of layer, location, scale, got {unknown!r}")


def _is_constant(key: str) -> bool:
    """Whether a key is a buffer that published state dicts do not have."""
    return "statistics" in key or key.startswith(("coordinate", "response_"))
