"""Users' own networks as backbones: ``FILE.py:ClassName``, or a module made in Python."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from brainkit.backbones.base import Backbone, dot_free, name_layers, select_layers
from brainkit.backbones.plugin_file import import_file
from brainkit.backbones.probe import first_change, other_numbers, probe_network, stored_tensors
from brainkit.backbones.user_code import file_of, reported
from brainkit.errors import BrainkitError, UsageError
from brainkit.images import PUBLISHED, Preprocessing
from brainkit.utils.files import users_path

IN_PYTHON = "module given in Python"
"""The source of a backbone that cannot be loaded again by its name."""

# Up to this size, a plug-in that does not say that it is trained is created twice, to see whether its weights repeat.
_COMPARED = 200e6


def is_plugin(name: str) -> bool:
    """Whether a backbone's name is that of a Python file."""
    return name.rpartition(":")[0].endswith(".py") or name.endswith(".py")


def is_own(name: str, source: str) -> bool:
    """Whether a backbone, by its name and source, is a user's own module."""
    return ".py:" in name or source == IN_PYTHON


def load_plugin(name: str, seed: int = 0) -> nn.Module:
    """Import the file and create the network.

    Parameters
    ----------
    name : str
        ``FILE.py:ClassName``. The class is called without arguments.
    seed : int
        For random numbers (torch's, NumPy's, Python's) in the constructor, so that the same network is created again at
        export.

    Returns
    -------
    nn.Module
        Has ``get_tokens``; its result is not checked here.

    Raises
    ------
    UsageError
        If the file or the class is missing, or the name has no class.
    BrainkitError
        If the file or the constructor raises, the class is not an ``nn.Module`` with ``get_tokens``, or its weights
        differ each time it is created.
    """
    file, _, class_name = name.rpartition(":")
    if not file.endswith(".py"):
        raise UsageError(f"{name}: expected FILE.py:ClassName, found no class")
    path = users_path(file).resolve()
    if not path.is_file():
        raise UsageError(f"{file}: plug-in file not found")
    module = import_file(path, file)
    network_class = getattr(module, class_name, None)
    if not isinstance(network_class, type):
        classes = sorted(
            key for key, value in vars(module).items() if isinstance(value, type) and hasattr(value, "get_tokens")
        )
        raise UsageError(f"{file} has no class {class_name!r}; available: {', '.join(classes) or 'none'}")
    if not (issubclass(network_class, nn.Module) and callable(getattr(network_class, "get_tokens", None))):
        raise BrainkitError(f"{name}: expected a torch.nn.Module with a method get_tokens(images)")

    def create() -> nn.Module:
        with _seeded(seed), reported(f"{name}: {class_name}() failed", str(path)):
            return network_class()

    network = create()
    weights = stored_tensors(network)
    with reported(f"{name}: its 'pretrained' cannot be read", str(path)):
        is_stated_trained = _attribute(network, "pretrained") is True
    if is_stated_trained or sum(each.nbytes for each in weights.values()) > _COMPARED:
        return network
    if changed := first_change(weights, stored_tensors(create())):
        raise BrainkitError(
            f"{name}: its weights differ each time it is created ({changed!r} differs), and export creates it "
            "again: seed its random numbers, for example with torch.manual_seed(0) in the constructor"
        )
    return network


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
        deep. It should say whether its weights are trained, ``pretrained = True`` or ``False``, and may have its own
        ``preprocessing`` (default: the published one), ``licence`` and ``citation``. It is frozen, and stays so. If
        its weights are not float32, a copy in float32 is used.
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
        If ``get_tokens`` fails on synthetic images, returns something else, or does not repeat itself.
    """
    if not (isinstance(network, nn.Module) and callable(getattr(network, "get_tokens", None))):
        raise UsageError(
            f"a backbone must be a name, or a torch.nn.Module with get_tokens(images), got {type(network).__name__}"
        )
    name = name or backbone_name(network)
    network.eval()
    about = _About.read(network, name, preset)
    preprocessing = about.preprocessing if size is None else dataclasses.replace(about.preprocessing, size=size)
    notes = about.notes(name)
    numbers = ", ".join(other_numbers(network))
    if numbers:
        notes.append(
            f"{name}: its weights are {numbers} and are converted to float32, as encoder files compute in float32"
        )
        with reported(f"{name}: its weights are {numbers} and cannot be converted", advice="; call .float() on it"):
            # A network given in Python keeps its own weights.
            network = (copy.deepcopy(network) if source == IN_PYTHON else network).float()
    try:
        shapes = probe_network(network, preprocessing, name=name)
    except BrainkitError as error:
        if not numbers:
            raise
        raise BrainkitError(
            f"{name}: its weights are {numbers}, and brainkit computes in float32: call .float() on the network, and "
            f"leave the images float32 in get_tokens (converted, it fails: {str(error).removeprefix(f'{name}: ')})"
        ) from error
    available = name_layers(list(shapes), owner=name)
    requested = None if layers is None else [dot_free(layer) for layer in layers]
    return Backbone(
        network,
        name=name,
        preprocessing=preprocessing,
        layers={layer: available[layer] for layer in select_layers(requested, list(available), name)},
        pretrained=about.pretrained,
        licence=about.licence,
        source=source,
        shapes=shapes,
        citation=about.citation,
        notes=notes,
    )


@dataclass(frozen=True)
class _About:
    """What a module says about itself in attributes; None where it does not."""

    preprocessing: Preprocessing
    pretrained: bool | None
    licence: str | None
    citation: str | None

    @classmethod
    def read(cls, network: nn.Module, name: str, preset: str | None) -> _About:
        with reported(f"{name}: its attributes cannot be read", file_of(network)):
            own, pretrained, licence, american, citation = (
                _attribute(network, key) for key in ("preprocessing", "pretrained", "licence", "license", "citation")
            )
        if own is not None and not isinstance(own, Preprocessing):
            raise BrainkitError(
                f"{name}: 'preprocessing' must be a brainkit.images.Preprocessing, got {type(own).__name__}"
            )
        licence = licence if licence is not None else american
        # Networks of others may have a submodule or a method under these names.
        if isinstance(pretrained, (str, int, float)) and not isinstance(pretrained, bool):
            raise BrainkitError(f"{name}: pretrained must be True or False, got {pretrained!r}")
        for key, value in (("licence", licence), ("citation", citation)):
            if isinstance(value, (int, float)):
                raise BrainkitError(f"{name}: {key} must be text, got {value!r}")
        return cls(
            own if own is not None and preset != "published" else PUBLISHED,
            pretrained if isinstance(pretrained, bool) else None,
            licence if isinstance(licence, str) and licence else None,
            citation if isinstance(citation, str) and citation else None,
        )

    def notes(self, name: str) -> list[str]:
        """A warning if it does not say whether it is trained."""
        if self.pretrained is not None:
            return []
        also = [key for key in ("licence", "citation") if getattr(self, key) is None]
        more = f" (and {' and '.join(also)}, if there is one)" if also else ""
        return [
            f"warning: {name} does not say whether its weights are trained: add `pretrained = True` or "
            f"`pretrained = False` to the class{more}; without it, figures and encoder file say that it is not stated"
        ]


def _attribute(network: nn.Module, key: str) -> Any:
    """An attribute, or None."""
    static = inspect.getattr_static(type(network), key, None)
    if isinstance(static, property) and static.fget is not None:
        # Through getattr, a module would report an AttributeError in the property as a missing property.
        return static.fget(network)
    return getattr(network, key, None)


def backbone_name(network: nn.Module) -> str:
    """The name of a backbone, or of a module that is to become one."""
    return network.name if isinstance(network, Backbone) else type(network).__name__


def drawn_seed(network: object) -> int | None:
    """The seed of a backbone whose weights were drawn by `load_backbone`; None for all other networks and names."""
    return network.weights_seed if isinstance(network, Backbone) else None


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from a seed inside the block, and restore the caller's random states."""
    # NumPy's global generator too: users' constructors draw from it.
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            random.seed(seed)
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


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
