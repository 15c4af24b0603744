"""The class through which the rest of brainkit sees a vision network."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from brainkit.backbones.plugin_file import with_plugin
from brainkit.backbones.probe import TokenPair, bytes_of, probe_network, stored_tensors
from brainkit.backbones.user_code import file_of, reported
from brainkit.errors import UsageError
from brainkit.images import Preprocessing
from brainkit.utils.text import plural


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
    pretrained : bool or None
        False if the weights are random; None if nobody has said.
    licence : str or None
        Of the weights; None if nobody has stated it.
    source : str
        Where the weights came from.
    shapes : mapping of str to (C, H, W), optional
        Of the tokens by the network's own keys; by default the network is probed.
    citation : str, optional
        What to cite for the network; None if nobody has said.
    notes : sequence of str
        Lines about the network that a run should report.
    weights_seed : int, optional
        The seed of random weights that `load_backbone` drew.

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
        pretrained: bool | None,
        licence: str | None,
        source: str,
        shapes: Mapping[str, tuple[int, int, int]] | None = None,
        citation: str | None = None,
        notes: Sequence[str] = (),
        weights_seed: int | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.name = name
        self.preprocessing = preprocessing
        self.layer_names = tuple(layers)
        self.pretrained = pretrained
        self.licence = licence
        self.source = source
        self.citation = citation
        self.notes = tuple(notes)
        self.weights_seed = weights_seed
        self._keys = dict(layers)
        self._weights_hash: str | None = None
        self._file = file_of(network)
        self.requires_grad_(False)
        self.eval()
        if shapes is None:
            shapes = probe_network(network, preprocessing, name=name)
        self.widths = {layer: shapes[key][0] for layer, key in self._keys.items()}
        self.grids = {layer: shapes[key][1:] for layer, key in self._keys.items()}

    def __reduce_ex__(self, protocol: Any) -> Any:
        return with_plugin(self.network, super().__reduce_ex__(protocol))

    def __repr__(self) -> str:
        # In a line: `network` shows the modules.
        size = self.preprocessing.size
        return f"Backbone({self.name!r}, {plural(len(self.layer_names), 'layer')}, images {size} x {size})"

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

        Raises
        ------
        BrainkitError
            If the network's code fails; names the line.
        """
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self._tokens(images)  # exporters have errors of their own, which they catch
        with reported(f"{self.name}: get_tokens failed", self._file):
            return self._tokens(images)

    def _tokens(self, images: torch.Tensor) -> TokenPair:
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
            for key, value in stored_tensors(self.network).items():
                digest.update(f"{key}|{value.dtype}|{tuple(value.shape)}|".encode())
                digest.update(bytes_of(value).numpy().data)
            self._weights_hash = digest.hexdigest()
        return self._weights_hash


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
