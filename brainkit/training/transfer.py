"""Start a new subject's model from another subject's: bottlenecks are kept, selectors and readout are a start."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from brainkit.model.factor_topy import FactorTopy
from brainkit.training.datamodule import EncodingData
from brainkit.training.refit import mean_r, refit

BOTTLENECKS = ("local_token_bottleneck", "global_token_bottleneck")
# What subjects share: how tokens become channels. The statistics are part of it, as they set each channel's gain.
SHARED = (*BOTTLENECKS, "local_statistics", "global_statistics")

_NETWORKS = ("space_selector_mlp", "layer_selector_mlp", "scale_selector_mlp")


@torch.no_grad()
def keep_bottlenecks(model: FactorTopy, old: FactorTopy) -> None:
    """Give a model the bottlenecks and token statistics of another one of the same shape, as constants.

    Parameters
    ----------
    model : FactorTopy
        Changed in place: its bottlenecks no longer train.
    old : FactorTopy
    """
    for name in SHARED:
        getattr(model, name).load_state_dict(getattr(old, name).state_dict())
    for name in BOTTLENECKS:
        getattr(model, name).requires_grad_(False)


@torch.no_grad()
def start_from(model: FactorTopy, old: FactorTopy, nearest: np.ndarray) -> None:
    """Let a model select and read out what another subject's does at the same place of the cortex.

    The selector networks are functions of the coordinates, and so are those of the old model from then on, with the
    bounds of its positional encoding; what each vertex has of its own, offsets and readout, is the nearest vertex's.

    Parameters
    ----------
    model : FactorTopy
        Changed in place. Its coordinates are in the frame of the old model's.
    old : FactorTopy
        Of the same shape.
    nearest : array of shape (V,), int64
        For each vertex of `model`, the nearest one of `old`; -1 where none is near, which starts without offsets and
        readout.
    """
    index = torch.from_numpy(np.maximum(nearest, 0))
    near = torch.from_numpy(nearest >= 0)
    state = old.state_dict()
    start = {name: state[name] for name in state if name.startswith(("coordinate_", *_NETWORKS))}
    for name in state:
        if name in ("weight", "bias") or name.startswith(("offsets.", "free_selectors.")):
            values = state[name][index]
            start[name] = torch.where(near.view(-1, *[1] * (values.ndim - 1)), values, torch.zeros_like(values))
    model.load_state_dict(start, strict=False)


class Beginning(NamedTuple):
    """How a model's training begins, see `choose_start`.

    Attributes
    ----------
    prior : Tensor of shape (V, D), or None
        The old subject's readout at the nearest vertices, which a later refit may use.
    transferred : bool
        Whether the selectors are the old subject's.
    validation_r : dict of str to float
        The mean r over vertices on the validation images, with ``neutral`` and with ``transferred`` selectors.
    """

    prior: Tensor | None
    transferred: bool
    validation_r: dict[str, float]


@torch.no_grad()
def choose_start(model: FactorTopy, old: FactorTopy, nearest: np.ndarray | None, data: EncodingData) -> Beginning:
    """Begin with another subject's selectors, or with neutral ones if their refitted readout validates better.

    Parameters
    ----------
    model : FactorTopy
        Neutral, with the old model's bottlenecks and its response scale set. Changed in place: its selectors are the
        start, and its readout is refitted to it.
    old : FactorTopy
    nearest : array of shape (V,), int64, or None
        See `start_from`; None if there is nothing but the bottlenecks to start from.
    data : EncodingData
        The new subject's.

    """
    rows, validation = data.split.train, data.split.validation

    def refitted(prior: Tensor | None) -> float:
        refit(model, data.tokens, data.responses, rows, validation, prior=prior)
        return mean_r(model, data.tokens, data.responses, validation)

    found = {"neutral": refitted(None)}
    if nearest is None:
        return Beginning(None, False, found)
    neutral = {name: value.clone() for name, value in model.state_dict().items()}
    start_from(model, old, nearest)
    prior = model.weight.clone()
    found["transferred"] = refitted(prior)
    transferred = len(validation) < 2 or found["transferred"] > found["neutral"]
    if not transferred:
        model.load_state_dict(neutral)
    return Beginning(prior, transferred, found)
