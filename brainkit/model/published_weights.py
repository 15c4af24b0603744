"""State dicts of the published implementation: what is in them, and what their layers are called here."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from brainkit.errors import DataError, UsageError

_LANDMARK = "layer_selector_mlp.1.weight"  # a name that no other part of a state dict ends in
_LAYER = re.compile(r"(local|global)_token_bottleneck\.(.+)\.weight")


@dataclass(frozen=True)
class Shape:
    """What a published state dict tells of its model.

    Attributes
    ----------
    layers : tuple of str
        Its own names, in the order of its layer selector's outputs.
    widths : tuple of int
        Channels C of each.
    bottleneck, vertices, selector_width : int
        D, V, and the hidden units of the selector networks.
    """

    layers: tuple[str, ...]
    widths: tuple[int, ...]
    bottleneck: int
    vertices: int
    selector_width: int


def bare(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict in float32, without the prefix that all of its keys share (as Lightning's ``model.``).

    Raises
    ------
    DataError
        If a value is no tensor of floating point numbers, or holds one that is not finite.
    """
    place = next((key for key in state_dict if key.endswith(_LANDMARK)), _LANDMARK)
    prefix = place.removesuffix(_LANDMARK)
    if not all(key.startswith(prefix) for key in state_dict):
        prefix = ""
    state = {}
    for key, value in state_dict.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            found = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise DataError(f"state dict: {key} must hold floating point numbers, found {found}")
        if not bool(value.isfinite().all()):
            raise DataError(f"state dict: {key} must be finite, found NaN or infinity")
        state[key.removeprefix(prefix)] = value.detach().to("cpu", torch.float32)
    return state


def shape_of(state: Mapping[str, Tensor]) -> Shape:
    """Read the model's sizes off its state.

    Raises
    ------
    DataError
        If it has no bottleneck or no readout.
    """
    found = [
        (match[2], value) for key, value in state.items() if (match := _LAYER.fullmatch(key)) and match[1] == "local"
    ]
    weight = state.get("weight")
    if not found or weight is None or weight.ndim != 2 or any(value.ndim < 2 for _, value in found):
        raise DataError("state dict: expected local_token_bottleneck.<layer>.weight and weight (V, D), found none")
    return Shape(
        layers=tuple(layer for layer, _ in found),
        widths=tuple(int(value.shape[1]) for _, value in found),
        bottleneck=int(weight.shape[1]),
        vertices=len(weight),
        selector_width=len(state.get("space_selector_mlp.1.weight", torch.empty(128))),
    )


def renamed(
    state: Mapping[str, Tensor], shape: Shape, layers: Sequence[str] | None
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The state with its layers called `layers`, and the width of each of these.

    Raises
    ------
    UsageError
        If there are not as many names as layers, or one stands twice.
    """
    names = list(shape.layers if layers is None else layers)
    if len(names) != len(shape.layers) or len(set(names)) != len(names):
        raise UsageError(
            f"layers must name each of the {len(shape.layers)} layers {', '.join(shape.layers)} once, "
            f"got {', '.join(names)}"
        )
    new = dict(zip(shape.layers, names, strict=True))

    def rename(key: str) -> str:
        match = _LAYER.fullmatch(key)
        if match is None or match[2] not in new:
            return key
        # Modules have no dots in their names.
        return f"{match[1]}_token_bottleneck.{new[match[2]].replace('.', '_')}.weight"

    return {rename(key): value for key, value in state.items()}, dict(zip(names, shape.widths, strict=True))


def check(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Hold a state against the one it is to fill.

    Raises
    ------
    DataError
        If keys are missing, unknown or of another shape; the first is named.
    """
    if missing := sorted(set(own) - set(state)):
        raise DataError(f"state dict: {len(missing)} keys are missing, the first is {missing[0]}")
    if unknown := sorted(set(state) - set(own)):
        raise DataError(f"state dict: {len(unknown)} keys are unknown, the first is {unknown[0]}")
    for key, value in own.items():
        if value.shape != state[key].shape:
            raise DataError(f"state dict: {key} must be {tuple(value.shape)}, found {tuple(state[key].shape)}")


def match_layers(theirs: Sequence[str], ours: Sequence[str]) -> list[str] | None:
    """Which of a backbone's layers the published ones are, where their names leave no doubt.

    Either all of them are names of the backbone's (dots and underscores taken alike), or there are as many as the
    backbone has, their names end in numbers, and these increase: then they are its layers in order of depth.

    Parameters
    ----------
    theirs : sequence of str
        The published names, in the state dict's order.
    ours : sequence of str
        The backbone's layers in order of depth.

    Returns
    -------
    list of str, or None
        One of `ours` for each of `theirs`; None where the names do not tell.
    """
    plain = [name.replace(".", "_") for name in theirs]
    if set(plain) <= set(ours):
        return plain
    numbers = [re.search(r"(\d+)$", name) for name in plain]
    depths = [int(number[1]) for number in numbers if number]
    if len(depths) == len(plain) == len(ours) and all(a < b for a, b in itertools.pairwise(depths)):
        return list(ours)
    return None
