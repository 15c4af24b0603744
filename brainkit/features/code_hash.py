"""A hash of the code that computes a network's tokens, with or without a source file.

A class at the top level of a file is identified by the file's content. Others are identified by their bytecode:
classes from a notebook cell, from ``exec``, or pickled by value; and those that a function makes, of which a file may
hold many.
"""

from __future__ import annotations

import dis
import hashlib
import inspect
import os
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch

from brainkit.backbones.probe import bytes_of
from brainkit.images import content_hash

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
_OF_VALUES = (tuple, list, dict, set, frozenset, torch.Tensor, np.ndarray)


def code_hash(network: torch.nn.Module) -> str:
    """Hash of the file that defines the network's class, and of its other code that is at the top level of no file.

    Parameters
    ----------
    network : Module

    Returns
    -------
    str
        Hex digits; the same in every process with the same version of Python.
    """
    file = _source_file(type(network))
    of_file = content_hash(file) if file else ""
    classes = dict.fromkeys(cls for module in network.modules() for cls in type(module).__mro__)
    loose: list[Any] = [cls for cls in classes if _functions(cls) and not _is_in_file(cls)]
    loose.sort(key=lambda cls: cls.__qualname__)
    if method := vars(network).get("get_tokens"):  # of this module alone
        loose.append(method)
    if not loose:
        return of_file
    digest = hashlib.sha256(of_file.encode())
    for definition in loose:
        digest.update(repr(_describe(definition, set())).encode())
    return digest.hexdigest()


def _is_in_file(cls: type) -> bool:
    return _source_file(cls) is not None and "<locals>" not in cls.__qualname__


def _source_file(cls: type) -> str | None:
    """The file that defines a class, if its functions are from there: ``exec`` leaves the module's own file."""
    try:
        file = inspect.getsourcefile(cls)
    except (TypeError, OSError):  # defined at a prompt; in a notebook
        return None
    if not file or not os.path.isfile(file):
        return None
    own = [function.__code__.co_filename for function in _functions(cls)]
    path = os.path.realpath(file)
    return file if not own or any(os.path.realpath(each) == path for each in own) else None


def _functions(cls: type) -> list[FunctionType]:
    """The Python functions that a class defines, without what decorates them."""
    found = []
    for value in vars(cls).values():
        value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        value = inspect.unwrap(value) if callable(value) else value
        if isinstance(value, FunctionType):
            found.append(value)
    return found


def _describe(value: Any, seen: set[int]) -> object:
    """Nested tuples of plain values that are the same for the same definition."""
    if isinstance(value, _PLAIN):
        return value
    if id(value) in seen:
        return "again"
    seen = seen | {id(value)}
    if isinstance(value, (tuple, list)):
        return tuple(_describe(item, seen) for item in value)
    if isinstance(value, (set, frozenset)):
        return tuple(sorted(repr(_describe(item, seen)) for item in value))
    if isinstance(value, dict):
        return tuple((repr(key), _describe(item, seen)) for key, item in value.items())
    if isinstance(value, CodeType):
        return value.co_code, value.co_names, value.co_varnames, _describe(value.co_consts, seen)
    if isinstance(value, property):
        return _describe((value.fget, value.fset), seen)
    if isinstance(value, (staticmethod, classmethod, MethodType)):
        return _describe(value.__func__, seen)
    if isinstance(value, FunctionType):
        parts = value.__code__, value.__defaults__, value.__kwdefaults__, dict(_surroundings(value))
        return tuple(_describe(part, seen) for part in parts)
    if isinstance(value, type) and not _is_in_file(value):
        members = {key: item for key, item in sorted(vars(value).items()) if key not in _OF_A_PLACE}
        return value.__qualname__, _describe(members, seen), tuple(base.__qualname__ for base in value.__bases__)
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), hashlib.sha256(bytes_of(value).numpy().tobytes()).hexdigest()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()
    return getattr(value, "__qualname__", type(value).__qualname__)


# Members of a class that say where it was defined, or nothing about what it computes.
_OF_A_PLACE = {
    *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__"),
    *("__firstlineno__", "__static_attributes__", "__annotations__"),
}


def _surroundings(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function uses from outside: its closure, and the values and loose functions of its module."""
    for name in sorted(_globals(function.__code__) & function.__globals__.keys()):
        value = function.__globals__[name]
        if isinstance(value, (*_PLAIN, *_OF_VALUES)) or (
            isinstance(value, FunctionType) and not os.path.isfile(value.__code__.co_filename)
        ):
            yield name, value
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if name != "__class__":
            yield name, cell.cell_contents


def _globals(code: CodeType) -> set[str]:
    """Names that a function, and those inside it, read from their module."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return names.union(*map(_globals, inner))
