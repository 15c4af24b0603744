"""From a backbone's name to a :class:`Backbone` with its weights."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from brainkit.backbones.base import Backbone, select_layers
from brainkit.backbones.catalog import ALIASES, Alias, paper_of
from brainkit.backbones.plugin import is_plugin, load_plugin, wrap_network
from brainkit.backbones.timm_backbone import TimmNetwork
from brainkit.backbones.torchvision_vit import TorchvisionVit
from brainkit.backbones.weight_sources import PublishedWeights, published_weights
from brainkit.backbones.weights import load_weights_by_order, load_weights_file, set_sincos_positions
from brainkit.errors import BrainkitError, UsageError
from brainkit.images import PUBLISHED, Preprocessing
from brainkit.utils.files import users_path
from brainkit.utils.text import nearest_names, one_line

Fit = Literal["whole", "crop"]


def load_backbone(
    name: str,
    *,
    weights: str | Path | None = None,
    random_weights: bool = False,
    layers: Sequence[str] | None = None,
    size: int | None = None,
    fit: Fit = "whole",
    preset: str | None = None,
    seed: int = 0,
) -> Backbone:
    """Load a frozen vision network.

    Parameters
    ----------
    name : str
        An alias (``brainkit.backbones.ALIASES``), any timm model name, or ``FILE.py:ClassName``.
    weights : path-like, optional
        A local weight file instead of the published weights.
    random_weights : bool
        Draw the weights from `seed` instead: the same bytes each time. LayerScale gains are set to 1, because at
        their usual initial value (1e-5) the class token would hardly depend on the image.
    layers : sequence of str, optional
        The layers to return: standard names ("block3", "stage2", "stem"), or dotted names of submodules
        ("blocks.3.0", which is returned as "blocks_3_0"). Default: all standard ones but the stem.
    size : int, optional
        Side of the input in pixels. Default 224, SAM 1024.
    fit : {"whole", "crop"}
        "whole" resizes the whole image to a square; "crop" equals timm's evaluation transform.
    preset : {"published"}, optional
        ImageNet mean and s.d. and the whole image at 224 (SAM 1024), however the network was trained.
    seed : int
        Of the random weights.

    Returns
    -------
    Backbone

    Raises
    ------
    UsageError
        An unknown name, layer or preset, a size that the network does not support, or options that exclude each other.
    DataError
        A weight file that is unreadable or does not fit.
    BrainkitError
        The weights are not available, or a plug-in fails.
    """
    if weights is not None and random_weights:
        raise UsageError("weights and random weights exclude each other; give one")
    if fit not in ("whole", "crop"):
        raise UsageError(f"fit must be 'whole' or 'crop', got {fit!r}")
    if preset not in (None, "published"):
        raise UsageError(f"preset must be 'published', got {preset!r}")
    if preset == "published" and fit == "crop":
        raise UsageError("preset 'published' uses the whole image; it excludes fit 'crop'")
    if size is not None and size < 1:
        raise UsageError(f"size must be a positive number of pixels, got {size}")
    if layers is not None:
        layers = [layers] if isinstance(layers, str) else list(layers)
        if not layers:
            raise UsageError("layers must name at least one layer, got none")
    if is_plugin(name):
        if weights is not None or random_weights:
            raise UsageError(f"{name}: a plug-in loads its own weights; drop the option")
        if fit == "crop":
            raise UsageError(f"{name}: the fit of a plug-in is part of its 'preprocessing'; drop fit 'crop'")
        source = f"plug-in {Path(name.rpartition(':')[0]).name}"
        return wrap_network(load_plugin(name, seed), name=name, layers=layers, size=size, preset=preset, source=source)
    alias = ALIASES.get(name)
    if alias is None:
        _check_timm_name(name)
        alias = Alias(name)
    path = None if weights is None else users_path(weights)
    return LOADERS[alias.loader](_Request(name, alias, path, random_weights, layers, size, fit, preset, seed))


@dataclasses.dataclass(frozen=True)
class _Request:
    """The arguments of :func:`load_backbone`, checked."""

    name: str
    alias: Alias
    weights: Path | None
    random_weights: bool
    layers: list[str] | None
    size: int | None
    fit: Fit
    preset: str | None
    seed: int

    def backbone(
        self,
        network: nn.Module,
        own: Preprocessing,
        layers: Sequence[str],
        published: PublishedWeights,
        licence: str | None,
        shapes: Mapping[str, tuple[int, int, int]] | None = None,
    ) -> Backbone:
        source = published.text if self.weights is None else f"file {self.weights.name}"
        return Backbone(
            network,
            name=self.name,
            preprocessing=dataclasses.replace(PUBLISHED, size=own.size) if self.preset == "published" else own,
            layers={layer: layer for layer in layers},
            pretrained=not self.random_weights,
            licence=self.alias.licence or licence or None,
            source=f"random weights, seed {self.seed}" if self.random_weights else source,
            shapes=shapes,
            weights_seed=self.seed if self.random_weights else None,
            citation=paper_of(self.name) or None,
        )


def _load_timm(request: _Request) -> Backbone:
    import timm
    from timm.data import resolve_data_config

    alias = request.alias
    config: Any = timm.get_pretrained_cfg(alias.architecture)
    published = published_weights(alias)
    file = _published_file(request, published)

    def build(size: int) -> TimmNetwork:
        # The head is kept only if the published weights are loaded by their order, as a whole.
        options: dict[str, Any] = {} if alias.package else {"num_classes": 0}
        if getattr(config, "fixed_input_size", False):
            options["img_size"] = size
        if published.by_timm and file is not None:
            options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}}
        with _seeded(request.seed):
            model = timm.create_model(alias.architecture, exportable=True, **options)
        patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
        if isinstance(patch, tuple) and any(size % side for side in patch):
            # timm would silently crop the rest, and locations would no longer refer to the whole image.
            raise ValueError(f"the size must be a multiple of its patches' {patch[0]} px")
        return TimmNetwork(model, size=size, layers=request.layers, name=request.name)

    network, size = _build_at_supported_size(build, request, config)
    model = network.model
    if alias.sincos_positions:
        set_sincos_positions(model)
    if request.random_weights:
        _set_layer_scales_to_one(model)
    elif alias.package and file is not None:
        load_weights_by_order(model, file)
    elif not published.by_timm or request.weights is not None:
        # Not through timm, which does not report parameters that a file lacks when the head is left out.
        _load_weights(model, request, file)
    data = resolve_data_config(pretrained_cfg=getattr(model, "pretrained_cfg", {}), model=model)
    own = timm_preprocessing({**data, **(alias.preprocessing or {})}, size, request.fit, request.name)
    return request.backbone(
        network, own, network.layer_keys, published, getattr(config, "license", None), network.shapes
    )


def _load_torchvision(request: _Request) -> Backbone:
    from torchvision.models import vit_b_16

    alias = request.alias
    size = request.size or alias.size
    if size % 16:
        raise UsageError(f"{request.name}: size must be a multiple of 16 pixels, got {size}")
    published = published_weights(alias)
    file = _published_file(request, published)
    with _seeded(request.seed):
        model = vit_b_16(image_size=size)
    model.heads = nn.Identity()
    if not request.random_weights:
        _load_weights(model, request, file)
    available = [f"block{i + 1}" for i in range(len(model.encoder.layers))]
    layers = select_layers(request.layers, available, request.name)
    network = TorchvisionVit(model, depth=max(available.index(layer) for layer in layers) + 1)
    own = timm_preprocessing(alias.preprocessing or {}, size, request.fit, request.name)
    return request.backbone(network, own, layers, published, None)


LOADERS: dict[str, Callable[[_Request], Backbone]] = {"timm": _load_timm, "torchvision": _load_torchvision}
"""How each kind of network is built and filled with weights; `Alias.loader` names one."""


def _published_file(request: _Request, published: PublishedWeights) -> Path | None:
    """The file of the published weights, if they are requested and in a file."""
    if request.weights is not None or request.random_weights:
        return None
    if not published.text:
        raise BrainkitError(
            f"{request.name}: timm has no trained weights of this network; "
            "give a local file with --weights FILE, or try without training with --random-weights"
        )
    return published.file(request.name)


def _load_weights(model: nn.Module, request: _Request, published: Path | None) -> None:
    """Load the file given by the user, else the published one, which may have parts that a backbone does not use."""
    file = request.weights or published
    assert file is not None
    load_weights_file(model, file, label=request.name, allow_unexpected=request.weights is None)


def timm_preprocessing(data: Mapping[str, Any], size: int, fit: str, name: str) -> Preprocessing:
    """timm's evaluation transform as a :class:`Preprocessing`; `data` is a data configuration of timm."""
    mode = data.get("crop_mode") or "center"
    if fit == "crop" and mode == "squash" and data["crop_pct"] == 1:
        # timm resizes the whole image to a square, as "whole" does.
        fit = "whole"
    elif fit == "crop" and mode != "center":
        raise UsageError(
            f"{name}: fit 'crop' is not available, as timm evaluates it with crop mode {mode!r}; use fit 'whole'"
        )
    return Preprocessing(
        size=size,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"],
        fit=fit,
        crop_fraction=float(data["crop_pct"]),
    )


def _build_at_supported_size(
    build: Callable[[int], TimmNetwork], request: _Request, config: Any
) -> tuple[TimmNetwork, int]:
    """Build at the size requested, else at the alias's size, else at the size that the network was trained at."""
    preferred = request.alias.size
    own = int((getattr(config, "input_size", None) or (3, preferred, preferred))[-1])
    sizes = [request.size] if request.size else list(dict.fromkeys((preferred, own)))
    for size in sizes:
        try:
            return build(size), size
        except BrainkitError:
            raise
        except Exception as error:  # timm reports a size that does not fit in many ways, depending on the network
            failure = error
    raise UsageError(
        f"{request.name} cannot be used at {' or '.join(map(str, sizes))} px (its own size is {own}): "
        f"{type(failure).__name__}: {one_line(failure)}"
    ) from failure


def _check_timm_name(name: str) -> None:
    import timm

    architecture, _, tag = name.partition(".")
    if timm.is_model(architecture):
        tags = [entry for entry in timm.list_pretrained() if entry.startswith(f"{architecture}.")]
        if not tag or name in tags:
            return
        near = nearest_names(name, tags, most=4)
    else:
        near = nearest_names(architecture, sorted({*ALIASES, *timm.list_models()}), most=4)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    raise UsageError(
        f"unknown backbone {name!r}{hint} (an alias: {', '.join(ALIASES)}; a timm name; FILE.py:ClassName)"
    )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from a seed inside the block, and restore the caller's random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _set_layer_scales_to_one(model: nn.Module) -> None:
    for key, parameter in model.named_parameters():
        if re.fullmatch(r"gamma(_?\d)?", key.rpartition(".")[2]):
            nn.init.ones_(parameter)
