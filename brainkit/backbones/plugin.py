"""Users' own networks as backbones: ``FILE.py:ClassName``, or a module made in Python."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from brainkit.backbones.base import Backbone, dot_free, name_layers, select_layers
from brainkit.errors import BrainkitError, UsageError
from brainkit.images import PUBLISHED, Preprocessing
from brainkit.utils.text import with_type

IN_PYTHON = "module given in Python"
"""The source of a backbone that cannot be loaded again by its name."""


def is_plugin(name: str) -> bool:
    """Whether a backbone's name is that of a Python file."""
    return name.rpartition(":")[0].endswith(".py") or name.endswith(".py")


def load_plugin(name: str, seed: int = 0) -> nn.Module:
    """Import the file and create the network.

    Parameters
    ----------
    name : str
        ``FILE.py:ClassName``. The class is called without arguments.
    seed : int
        For random numbers in the constructor, so that the same network is created again at export.

    Returns
    -------
    nn.Module
        Has ``get_tokens``; its result is not checked here.

    Raises
    ------
    UsageError
        If the file or the class is missing, or the name has no class.
    BrainkitError
        If the file or the constructor raises, or the class is not an ``nn.Module`` with ``get_tokens``.
    """
    file, _, class_name = name.rpartition(":")
    if not file.endswith(".py"):
        raise UsageError(f"{name}: expected FILE.py:ClassName, found no class")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"{file}: plug-in file not found")
    # A module name of its own, so that two plug-ins called model.py do not replace each other.
    module_name = f"brainkit_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{file}: cannot be imported as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise BrainkitError(f"{file}: cannot be imported: {with_type(error)}") from error
    network_class = getattr(module, class_name, None)
    if not isinstance(network_class, type):
        classes = sorted(key for key, value in vars(module).items() if isinstance(value, type))
        raise UsageError(f"{file} has no class {class_name!r}; available: {', '.join(classes) or 'none'}")
    if not (issubclass(network_class, nn.Module) and callable(getattr(network_class, "get_tokens", None))):
        raise BrainkitError(f"{name}: expected a torch.nn.Module with a method get_tokens(images)")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return network_class()
    except Exception as error:
        raise BrainkitError(f"{name}: {class_name}() failed: {with_type(error)}") from error


def wrap_network(
    network: nn.Module,
    *,
    name: str | None = None,
    layers: Sequence[str] | None = None,
    size: int | None = None,
    preset: str | None = None,
    source: str = IN_PYTHON,
) -> Backbone:
    """Make a backbone of a module that returns tokens.

    Parameters
    ----------
    network : nn.Module
        Has ``get_tokens(images (B, 3, S, S)) -> (local, global)``, dicts of (B, C, H, W) and (B, C) from shallow to
        deep. It may have its own ``preprocessing`` (default: the published one), ``licence`` and, if its weights are
        random, ``pretrained = False``. It is frozen, and stays so.
    name : str, optional
        By default the name of its class.
    layers : sequence of str, optional
        Some of its layers; by default all.
    size : int, optional
        Side of the input in pixels; by default that of its preprocessing.
    preset : {"published"}, optional
        Use the published preprocessing instead of the module's own.
    source : str
        Where the weights came from.

    Returns
    -------
    Backbone

    Raises
    ------
    UsageError
        If it is not such a module, or lacks a layer.
    BrainkitError
        If ``get_tokens`` fails on a blank image, or returns something else.
    """
    if not (isinstance(network, nn.Module) and callable(getattr(network, "get_tokens", None))):
        raise UsageError(
            f"a backbone must be a name, or a torch.nn.Module with get_tokens(images), got {type(network).__name__}"
        )
    name = name or backbone_name(network)
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
    requested = None if layers is None else [dot_free(layer) for layer in layers]
    return Backbone(
        network,
        name=name,
        preprocessing=preprocessing,
        layers={layer: available[layer] for layer in select_layers(requested, list(available), name)},
        # Trained unless it says otherwise, so that checks which random weights are exempt from stay on.
        pretrained=bool(getattr(network, "pretrained", True)),
        licence=str(getattr(network, "licence", "unknown")),
        source=source,
        shapes=shapes,
    )


def backbone_name(network: nn.Module) -> str:
    """The name of a backbone, or of a module that is to become one."""
    return network.name if isinstance(network, Backbone) else type(network).__name__


@contextlib.contextmanager
def preserved_state(network: object) -> Iterator[None]:
    """Restore a module's mode, device and trainable parameters afterwards. Backbones stay frozen."""
    if not isinstance(network, nn.Module) or isinstance(network, Backbone):
        yield
        return
    modes = [(module, module.training) for module in network.modules()]
    trainable = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    device = next((parameter.device for parameter, _ in trainable), torch.device("cpu"))
    try:
        yield
    finally:
        network.to(device)
        for module, mode in modes:
            module.training = mode
        for parameter, requires_grad in trainable:
            parameter.requires_grad_(requires_grad)
