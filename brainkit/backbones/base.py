"""The class through which the rest of brainkit sees a vision network."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import nn

from brainkit.errors import BrainkitError, UsageError
from brainkit.images import Preprocessing

TokenPair = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]
"""Local tokens (B, C, H, W) and global tokens (B, C) by layer."""


class TokenNetwork(Protocol):
    """What an adapter or a user's plug-in must offer: an ``nn.Module`` with this method."""

    def get_tokens(self, images: torch.Tensor) -> TokenPair: ...


class Backbone(nn.Module):
    """A frozen vision network that turns images into local and global tokens, layer by layer.

    It always stays in evaluation mode, and none of its parameters requires a gradient.

    Parameters
    ----------
    network : nn.Module
        Has ``get_tokens(images)``; its layer names may contain dots.
    name : str
        As given by the user.
    preprocessing : Preprocessing
        How an image becomes this network's input.
    layers : mapping of str to str
        The layers to return, in order of depth: name without dots -> the network's own key.
    pretrained : bool
        False if the weights are random.
    licence : str
        Of the weights; "unknown" if it is not known.
    source : str
        Where the weights came from.

    Attributes
    ----------
    layer_names : tuple of str
        In order of depth, without dots.
    widths : dict of str to int
        Channels C per layer.
    grids : dict of str to (int, int)
        Token grid (H, W) per layer at ``preprocessing.size``.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        preprocessing: Preprocessing,
        layers: Mapping[str, str],
        pretrained: bool,
        licence: str,
        source: str,
        shapes: Mapping[str, tuple[int, int, int]] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.name = name
        self.preprocessing = preprocessing
        self.layer_names = tuple(layers)
        self.pretrained = pretrained
        self.licence = licence
        self.source = source
        self._keys = dict(layers)
        self._weights_hash: str | None = None
        self.requires_grad_(False)
        self.eval()
        if shapes is None:
            shapes = self.probe(network, preprocessing.size)
        self.widths = {layer: shapes[key][0] for layer, key in self._keys.items()}
        self.grids = {layer: shapes[key][1:] for layer, key in self._keys.items()}

    def get_tokens(self, images: torch.Tensor) -> TokenPair:
        """Local and global tokens of a batch of images.

        Parameters
        ----------
        images : float32 tensor of shape (B, 3, S, S)
            Normalised according to `preprocessing`.

        Returns
        -------
        local : dict of str to tensor of shape (B, C, H, W)
            On the network's own grid at that depth; nothing is resized.
        global : dict of str to tensor of shape (B, C)
        """
        local, global_ = self.network.get_tokens(images)  # type: ignore[operator]
        return (
            {layer: local[key] for layer, key in self._keys.items()},
            {layer: global_[key] for layer, key in self._keys.items()},
        )

    def forward(self, images: torch.Tensor) -> TokenPair:
        """The same as :meth:`get_tokens`."""
        return self.get_tokens(images)

    def exporting(self) -> contextlib.AbstractContextManager[None]:
        """Context manager in which the network has a form that can be exported, if its usual one cannot."""
        manager: contextlib.AbstractContextManager[None] = getattr(self.network, "exporting", contextlib.nullcontext)()
        return manager

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode: a Lightning module calls ``train()`` on all its submodules."""
        del mode
        return super().train(False)

    @property
    def weights_hash(self) -> str:
        """SHA-256 (hex) over the names, types, shapes and bytes of the network's state dict, in sorted order."""
        if self._weights_hash is None:
            digest = hashlib.sha256()
            for key, value in sorted(self.network.state_dict().items()):
                value = value.detach().cpu().contiguous()
                digest.update(f"{key}|{value.dtype}|{tuple(value.shape)}|".encode())
                digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
            self._weights_hash = digest.hexdigest()
        return self._weights_hash

    @staticmethod
    def probe(network: nn.Module, size: int) -> dict[str, tuple[int, int, int]]:
        """Widths and grids of every layer, from a forward pass of a blank image.

        Parameters
        ----------
        network : nn.Module
            Has ``get_tokens``.
        size : int
            Side of the blank image, in pixels.

        Returns
        -------
        dict of str to (C, H, W)
            In the order in which the network returns its layers.

        Raises
        ------
        BrainkitError
            If the result is not two dicts with the same layers, of shapes (B, C, H, W) and (B, C).
        """
        device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
        with torch.no_grad():
            tokens = network.get_tokens(torch.zeros(1, 3, size, size, device=device))  # type: ignore[operator]
        name = f"{type(network).__name__}.get_tokens"
        is_pair = isinstance(tokens, tuple | list) and len(tokens) == 2
        if not is_pair or not all(isinstance(part, dict) for part in tokens):
            raise BrainkitError(f"{name} must return two dicts (local tokens, global tokens), got {_describe(tokens)}")
        local, global_ = tokens
        if not local or set(local) != set(global_):
            raise BrainkitError(
                f"{name} must return the same layers in both dicts, got local {sorted(map(str, local))} "
                f"and global {sorted(map(str, global_))}"
            )
        return {layer: _token_shape(name, layer, local[layer], global_[layer]) for layer in local}


def _token_shape(name: str, layer: object, local: object, global_: object) -> tuple[int, int, int]:
    """(C, H, W) of a layer's tokens of one image."""
    if not isinstance(layer, str):
        raise BrainkitError(f"{name} must name its layers with strings, got {layer!r}")
    if not (isinstance(local, torch.Tensor) and local.ndim == 4 and local.shape[0] == 1):
        raise BrainkitError(
            f"{name}, layer {layer!r}: local tokens must have shape (1, C, H, W) for one image, got {_describe(local)}"
        )
    _, width, height, columns = (int(side) for side in local.shape)
    if not (isinstance(global_, torch.Tensor) and tuple(global_.shape) == (1, width)):
        raise BrainkitError(
            f"{name}, layer {layer!r}: global tokens must have shape (1, {width}), since the local tokens have "
            f"{width} channels, got {_describe(global_)}"
        )
    return width, height, columns


def _describe(value: object) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__


def dot_free(layer: str) -> str:
    """A layer's name in brainkit: parameters of a torch module cannot have dots in their names."""
    return layer.replace(".", "_")


def name_layers(keys: list[str], *, owner: str) -> dict[str, str]:
    """Names without dots -> a network's own keys, in the same order.

    A name becomes a key of a torch module and part of file names.

    Raises
    ------
    UsageError
        If a name has other characters than letters, digits, ``_``, ``.`` and ``-``, is reserved by
        ``torch.nn.ModuleDict`` (``values``, ``type``), or equals another one without dots.
    """
    names: dict[str, str] = {}
    for key in keys:
        name = dot_free(key)
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise UsageError(f"{owner}: layer {key!r}: expected a name of letters, digits, '_', '.' and '-' only")
        if hasattr(nn.ModuleDict(), name):
            raise UsageError(f"{owner}: layer {key!r}: torch reserves this name; give the layer another one")
        if name in names:
            raise UsageError(f"{owner}: layers {names[name]!r} and {key!r} have the same name {name!r} without dots")
        names[name] = key
    return names


def select_layers(requested: Sequence[str] | None, available: Sequence[str], name: str) -> list[str]:
    """The requested layers; by default all that are available.

    Raises
    ------
    UsageError
        If one is not available, or is requested twice.
    """
    if requested is None:
        return list(available)
    for layer in requested:
        if layer not in available:
            raise UsageError(f"{name} has no layer {layer!r}; available: {', '.join(available)}")
    if len(set(requested)) != len(requested):
        raise UsageError(f"{name}: a layer is named twice in {', '.join(requested)}")
    return list(requested)
