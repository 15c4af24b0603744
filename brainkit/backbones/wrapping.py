"""Any module with ``get_tokens`` as a backbone: a plug-in's, or one that was made in Python."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from brainkit.backbones.base import Backbone, choose_layers, dot_free, name_layers
from brainkit.errors import BrainkitError, UsageError
from brainkit.images import PUBLISHED, Preprocessing
from brainkit.utils.text import with_type

IN_PYTHON = "module given in Python"
"""The source of a backbone that no name brings back."""


def wrap_network(
    network: nn.Module,
    *,
    name: str | None = None,
    layers: Sequence[str] | None = None,
    size: int | None = None,
    preset: str | None = None,
    source: str = IN_PYTHON,
) -> Backbone:
    """Make a backbone of a module that gives tokens.

    Parameters
    ----------
    network : nn.Module
        Has ``get_tokens(images (B, 3, S, S)) -> (local, global)``, dicts of (B, C, H, W) and (B, C) from shallow to
        deep. It may say its own ``preprocessing`` (else: the published one), ``licence`` and, where its weights are
        random, ``pretrained = False``. It is frozen, and stays so.
    name : str, optional
        By default its class's name.
    layers : sequence of str, optional
        Some of its layers; by default all.
    size : int, optional
        Side of the input in pixels; by default that of its preprocessing.
    preset : {"published"}, optional
        The published preprocessing, whatever the module's own is.
    source : str
        Where the weights came from, in words.

    Returns
    -------
    Backbone

    Raises
    ------
    UsageError
        If it is no such module, or lacks a layer.
    BrainkitError
        If ``get_tokens`` fails on a blank image, or gives something else.
    """
    if not (isinstance(network, nn.Module) and callable(getattr(network, "get_tokens", None))):
        raise UsageError(
            f"a backbone must be a name, or a torch.nn.Module with get_tokens(images), got {type(network).__name__}"
        )
    name = name or name_of(network)
    network.eval()
    own = getattr(network, "preprocessing", None)
    if own is None or preset == "published":
        own = PUBLISHED
    elif not isinstance(own, Preprocessing):
        raise BrainkitError(
            f"{name}: 'preprocessing' must be a brainkit.images.Preprocessing, got {type(own).__name__}"
        )
    preprocessing = own if size is None else dataclasses.replace(own, size=size)
    try:
        shapes = Backbone.probe(network, preprocessing.size)
    except BrainkitError:
        raise
    except Exception as error:
        raise BrainkitError(
            f"{name}: get_tokens failed on a blank {preprocessing.size} px image: {with_type(error)}"
        ) from error
    available = name_layers(list(shapes), owner=name)
    chosen = choose_layers(None if layers is None else [dot_free(layer) for layer in layers], list(available), name)
    return Backbone(
        network,
        name=name,
        preprocessing=preprocessing,
        layers={layer: available[layer] for layer in chosen},
        # Taken as trained unless it says otherwise, so that checks which random weights escape stay on.
        pretrained=bool(getattr(network, "pretrained", True)),
        licence=str(getattr(network, "licence", "unknown")),
        source=source,
        shapes=shapes,
    )


def name_of(network: nn.Module) -> str:
    """What a backbone, or a module that would be one, is called."""
    return network.name if isinstance(network, Backbone) else type(network).__name__


@contextlib.contextmanager
def given_back(network: object) -> Iterator[None]:
    """Leave a module as it was found: its mode, what is trainable, its device. Backbones stay frozen."""
    if not isinstance(network, nn.Module) or isinstance(network, Backbone):
        yield
        return
    modes = [(part, part.training) for part in network.modules()]
    trainable = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    device = next((parameter.device for parameter, _ in trainable), torch.device("cpu"))
    try:
        yield
    finally:
        network.to(device)
        for part, mode in modes:
            part.training = mode
        for parameter, wanted in trainable:
            parameter.requires_grad_(wanted)
