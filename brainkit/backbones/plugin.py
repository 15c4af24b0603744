"""A user's own backbone, taken from ``FILE.py:ClassName``."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

import torch
from torch import nn

from brainkit.errors import BrainkitError, UsageError
from brainkit.utils.text import with_type


def is_plugin(name: str) -> bool:
    """Whether a backbone's name means a Python file rather than a known network."""
    return name.rpartition(":")[0].endswith(".py") or name.endswith(".py")


def load_plugin(name: str, seed: int = 0) -> nn.Module:
    """Import the file and make the network.

    Parameters
    ----------
    name : str
        ``FILE.py:ClassName``. The class is called without arguments.
    seed : int
        For what the constructor draws at random: the same network comes back at export.

    Returns
    -------
    nn.Module
        Has ``get_tokens``; what that returns is not checked here.

    Raises
    ------
    UsageError
        If the file or the class is missing, or the name has no class.
    BrainkitError
        If the file or the constructor raises, or the class is no ``nn.Module`` with ``get_tokens``.
    """
    file, _, class_name = name.rpartition(":")
    if not file.endswith(".py"):
        raise UsageError(f"{name}: a plug-in is given as FILE.py:ClassName; the class is missing")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"{file}: plug-in file not found")
    # A name of its own, so that two plug-ins called model.py do not replace each other.
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
    kind = getattr(module, class_name, None)
    if not isinstance(kind, type):
        classes = sorted(key for key, value in vars(module).items() if isinstance(value, type))
        raise UsageError(f"{file} has no class {class_name!r}; it has: {', '.join(classes) or 'none'}")
    if not (issubclass(kind, nn.Module) and callable(getattr(kind, "get_tokens", None))):
        raise BrainkitError(f"{name}: expected a torch.nn.Module with a method get_tokens(images)")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return kind()
    except Exception as error:
        raise BrainkitError(f"{name}: {class_name}() failed: {with_type(error)}") from error
