"""The Python file of a plug-in as a module, also in a process that a plug-in's network is sent to."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from brainkit.backbones.user_code import reported
from brainkit.errors import UsageError

_PREFIX = "brainkit_plugin_"


def import_file(path: Path, file: str) -> ModuleType:
    """Import a plug-in's file, anew each time; errors call it `file`."""
    # A module name of its own, so that two plug-ins called model.py do not replace each other.
    module_name = f"{_PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{file}: cannot be imported as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        with reported(f"{file}: cannot be imported", str(path)):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def with_plugin(network: object, reduced: Any) -> Any:
    """What pickles an object that holds a network, so that the file of a plug-in is imported before it is opened."""
    name = type(network).__module__
    if not name.startswith(_PREFIX) or isinstance(reduced, str):
        return reduced
    create, arguments, *rest = reduced
    return _create, (name, sys.modules[name].__file__, create, arguments), *rest


def _create(name: str, file: str, create: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    if name not in sys.modules:
        import_file(Path(file), file)
    return create(*arguments)
