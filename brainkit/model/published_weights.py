"""State dicts of the published implementation: check them, read their sizes, rename their layers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from brainkit.errors import DataError, UsageError

_UNIQUE_KEY = "layer_selector_mlp.1.weight"  # no other key ends in it
_LAYER = re.compile(r"(local|global)_token_bottleneck\.(.+)\.weight")


@dataclass(frozen=True)
class Shape:
    """Sizes of the model that a published state dict belongs to.

    Attributes
    ----------
    layers : tuple of str
        Names in the state dict, in the order of the layer selector's outputs.
    widths : tuple of int
        Channels C of each layer.
    bottleneck, vertices, selector_width : int
        D, V, and the hidden units of the selector networks.
    """

    layers: tuple[str, ...]
    widths: tuple[int, ...]
    bottleneck: int
    vertices: int
    selector_width: int


def clean_state(state_dict: Mapping[str, Tensor], source: str = "state dict") -> dict[str, Tensor]:
    """The state dict on the CPU in float32, without a prefix that all keys share (such as Lightning's ``model.``).

    Parameters
    ----------
    state_dict : mapping of str to Tensor
    source : str
        What errors call the state dict, for example its file.

    Raises
    ------
    DataError
        If a value is not a tensor of finite floating point numbers.
    """
    prefix = next((key for key in state_dict if key.endswith(_UNIQUE_KEY)), _UNIQUE_KEY).removesuffix(_UNIQUE_KEY)
    if not all(key.startswith(prefix) for key in state_dict):
        prefix = ""
    state = {}
    for key, value in state_dict.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            found = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise DataError(f"{source}: {key}: expected floating point numbers, found {found}")
        if not bool(value.isfinite().all()):
            raise DataError(f"{source}: {key}: expected finite numbers, found NaN or infinity")
        state[key.removeprefix(prefix)] = value.detach().to("cpu", torch.float32)
    return state


def infer_shape(state: Mapping[str, Tensor], source: str = "state dict") -> Shape:
    """The model's sizes, from its state.

    Raises
    ------
    DataError
        If there is no bottleneck or no readout.
    """
    bottlenecks = {
        match[2]: value for key, value in state.items() if (match := _LAYER.fullmatch(key)) and match[1] == "local"
    }
    weight = state.get("weight")
    if not bottlenecks or weight is None or weight.ndim != 2 or any(value.ndim < 2 for value in bottlenecks.values()):
        raise DataError(f"{source}: expected local_token_bottleneck.<layer>.weight and weight (V, D), found none")
    return Shape(
        layers=tuple(bottlenecks),
        widths=tuple(int(value.shape[1]) for value in bottlenecks.values()),
        bottleneck=int(weight.shape[1]),
        vertices=len(weight),
        selector_width=len(state.get("space_selector_mlp.1.weight", torch.empty(128))),
    )


def rename_layers(
    state: Mapping[str, Tensor], shape: Shape, layers: Sequence[str] | None
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Rename the state's layers to `layers` (None keeps their names); also returns each new name's channels.

    Raises
    ------
    UsageError
        If `layers` does not have one name for each layer, or repeats a name.
    """
    names = list(shape.layers if layers is None else layers)
    if len(names) != len(shape.layers) or len(set(names)) != len(names):
        raise UsageError(
            f"layers must name each of the {len(shape.layers)} layers {', '.join(shape.layers)} once, "
            f"got {', '.join(names)}"
        )
    new_names = dict(zip(shape.layers, names, strict=True))

    def rename(key: str) -> str:
        match = _LAYER.fullmatch(key)
        if match is None or match[2] not in new_names:
            return key
        # Module names cannot contain dots.
        return f"{match[1]}_token_bottleneck.{new_names[match[2]].replace('.', '_')}.weight"

    return {rename(key): value for key, value in state.items()}, dict(zip(names, shape.widths, strict=True))


def check_keys(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str = "state dict") -> None:
    """Check that a state has the keys and shapes of the state that it replaces.

    Raises
    ------
    DataError
        If keys are missing, unknown or of another shape; names the first.
    """
    if missing := sorted(set(expected) - set(state)):
        raise DataError(f"{source}: expected the key {missing[0]}, found none ({len(missing)} keys are missing)")
    if unknown := sorted(set(state) - set(expected)):
        raise DataError(f"{source}: found the unknown key {unknown[0]} ({len(unknown)} keys are unknown)")
    for key, value in expected.items():
        if value.shape != state[key].shape:
            raise DataError(f"{source}: {key}: expected shape {tuple(value.shape)}, found {tuple(state[key].shape)}")


def match_layers(published: Sequence[str], backbone: Sequence[str]) -> list[str] | None:
    """Match published layer names to a backbone's layers, if the names are unambiguous.

    They are if every published name is one of the backbone's (dots and underscores being equal), or if there are as
    many as the backbone has layers and they end in increasing numbers: then they are its layers in order of depth.

    Parameters
    ----------
    published : sequence of str
        Names in the state dict, in its order.
    backbone : sequence of str
        The backbone's layers in order of depth.

    Returns
    -------
    list of str, or None
        One of `backbone` for each of `published`; None if the names are ambiguous.
    """
    without_dots = [name.replace(".", "_") for name in published]
    if set(without_dots) <= set(backbone):
        return without_dots
    numbers = [re.search(r"(\d+)$", name) for name in without_dots]
    depths = [int(number[1]) for number in numbers if number]
    if len(depths) == len(without_dots) == len(backbone) and all(a < b for a, b in itertools.pairwise(depths)):
        return list(backbone)
    return None
