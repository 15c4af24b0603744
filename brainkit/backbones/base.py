"""The one class through which the rest of brainkit sees a vision network."""

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


class TokenNetwork(Protocol):
    """What an adapter or a user's plug-in must offer: an ``nn.Module`` with this method."""

    def get_tokens(self, images: torch.Tensor) -> TokenPair: ...


class Backbone(nn.Module):
    """A frozen vision network that turns images into local and global tokens, layer by layer.

    It stays in evaluation mode whatever ``train()`` is asked for, and none of its parameters requires a gradient.

    Parameters
    ----------
    network : nn.Module
        Has ``get_tokens(images)``; its layer names may hold dots.
    name : str
        What the user asked for.
    preprocessing : Preprocessing
        How an image becomes this network's input.
    layers : mapping of str to str
        The layers to give out, in depth order: name without dots -> the network's own key.
    pretrained : bool
        False only where the weights are random.
    licence : str
        Licence of the weights, "unknown" where nothing is known.
    source : str
        Where the weights came from, in words.

    Attributes
    ----------
    layer_names : tuple of str
        Depth order, without dots.
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
            Normalised as `preprocessing` says.

        Returns
        -------
        local : dict of str to tensor of shape (B, C, H, W)
            The grid is the network's own at that depth; nothing is resized here.
        global : dict of str to tensor of shape (B, C)
        """
        local, whole = self.network.get_tokens(images)  # type: ignore[operator]
        return (
            {layer: local[key] for layer, key in self._keys.items()},
            {layer: whole[key] for layer, key in self._keys.items()},
        )

    def forward(self, images: torch.Tensor) -> TokenPair:
        """The same as :meth:`get_tokens`."""
        return self.get_tokens(images)

    def exporting(self) -> contextlib.AbstractContextManager[None]:
        """For a while, the form of the network that can be exported, where it is another one."""
        made: contextlib.AbstractContextManager[None] = getattr(self.network, "exporting", contextlib.nullcontext)()
        return made

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode: a Lightning module calls ``train()`` on everything it holds."""
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
        """Widths and grids of every layer, found with one forward pass of a blank image.

        Parameters
        ----------
        network : nn.Module
            Has ``get_tokens``.
        size : int
            Side of the blank image, in pixels.

        Returns
        -------
        dict of str to (C, H, W)
            In the order in which the network gives its layers.

        Raises
        ------
        BrainkitError
            If what comes back is not two dicts of the same layers, of shapes (B, C, H, W) and (B, C).
        """
        device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
        with torch.no_grad():
            given = network.get_tokens(torch.zeros(1, 3, size, size, device=device))  # type: ignore[operator]
        kind = type(network).__name__
        if not (isinstance(given, tuple | list) and len(given) == 2 and all(isinstance(part, dict) for part in given)):
            raise BrainkitError(
                f"{kind}.get_tokens must return two dicts (local tokens, global tokens), got {_describe(given)}"
            )
        local, whole = given
        if not local or set(local) != set(whole):
            raise BrainkitError(
                f"{kind}.get_tokens must return the same layers twice, got local {sorted(map(str, local))} "
                f"and global {sorted(map(str, whole))}"
            )
        shapes: dict[str, tuple[int, int, int]] = {}
        for layer, tokens in local.items():
            if not isinstance(layer, str):
                raise BrainkitError(f"{kind}.get_tokens must name its layers with strings, got {layer!r}")
            if not (isinstance(tokens, torch.Tensor) and tokens.ndim == 4 and tokens.shape[0] == 1):
                raise BrainkitError(
                    f"{kind}.get_tokens, layer {layer!r}: local tokens must have shape (1, C, H, W) "
                    f"for one image, got {_describe(tokens)}"
                )
            width = tokens.shape[1]
            if not (isinstance(whole[layer], torch.Tensor) and tuple(whole[layer].shape) == (1, width)):
                raise BrainkitError(
                    f"{kind}.get_tokens, layer {layer!r}: global tokens must have shape (1, {width}) "
                    f"as the local ones have {width} channels, got {_describe(whole[layer])}"
                )
            shapes[layer] = (int(width), int(tokens.shape[2]), int(tokens.shape[3]))
        return shapes


def dot_free(layer: str) -> str:
    """A layer's name as brainkit uses it: parameters of a torch module cannot have dots in their names."""
    return layer.replace(".", "_")


def name_layers(keys: list[str], *, owner: str) -> dict[str, str]:
    """Dot-free names for a network's own keys, in the same order.

    A name becomes the key of a torch module and a part of file names.

    Raises
    ------
    UsageError
        If a name has other characters than letters, digits, ``_``, ``.`` and ``-``, is one that
        ``torch.nn.ModuleDict`` needs for itself (``values``, ``type``), or if two keys fall together.
    """
    names: dict[str, str] = {}
    for key in keys:
        name = dot_free(key)
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise UsageError(f"{owner}: layer {key!r}: expected a name of letters, digits, '_', '.' and '-' only")
        if hasattr(nn.ModuleDict(), name):
            raise UsageError(f"{owner}: layer {key!r}: torch keeps this name for itself; give the layer another one")
        if name in names:
            raise UsageError(f"{owner}: layers {names[name]!r} and {key!r} have the same name {name!r} without dots")
        names[name] = key
    return names


def choose_layers(wanted: Sequence[str] | None, available: Sequence[str], name: str) -> list[str]:
    """The layers asked for, by default all that are available.

    Raises
    ------
    UsageError
        If one is not available, or stands twice.
    """
    if wanted is None:
        return list(available)
    for layer in wanted:
        if layer not in available:
            raise UsageError(f"{name} has no layer {layer!r}; available: {', '.join(available)}")
    if len(set(wanted)) != len(wanted):
        raise UsageError(f"{name}: a layer is named twice in {', '.join(wanted)}")
    return list(wanted)


def _describe(value: object) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
