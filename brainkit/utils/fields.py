"""Dataclasses of settings from plain values, and checks that name the setting that is wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_type_hints

from brainkit.errors import UsageError
from brainkit.utils.text import nearest_name

Hint = Callable[[str, Iterable[str]], str]


def build(cls: type[Any], values: Mapping[str, Any], source: str, hint: Hint = nearest_name) -> Any:
    """Build a dataclass, and those nested in it, from plain values.

    Parameters
    ----------
    cls : type
        A dataclass.
    values : mapping
        Values by field name; a nested dataclass is a nested mapping.
    source : str
        Where the values are from, for messages.
    hint : callable
        Makes the end of a message about an unknown key from the key and the known ones.

    Raises
    ------
    UsageError
        On an unknown key (names the nearest) or a value of another type.
    """
    hints = get_type_hints(cls)
    fields = {field.name for field in dataclasses.fields(cls)}
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise UsageError(f"{source}: unknown key {key!r}{hint(str(key), fields)}")
        kind = hints[key]
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise UsageError(f"{source}: {key} must be a section of keys, got {value!r}")
            arguments[key] = build(kind, value, f"{source}: {key}", hint)  # type: ignore[arg-type]
        else:
            arguments[key] = _convert(kind, key, value, source)
    return cls(**arguments)


def plain(value: Any) -> Any:
    """Nested dicts with lists for tuples."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def check_positive(config: Any, *names: str) -> None:
    """Check that fields are greater than 0."""
    for name in names:
        if not getattr(config, name) > 0:
            raise UsageError(f"{name} must be greater than 0, got {getattr(config, name)}")


def check_at_least_zero(config: Any, *names: str) -> None:
    """Check that fields are 0 or greater."""
    for name in names:
        if not getattr(config, name) >= 0:
            raise UsageError(f"{name} must be 0 or greater, got {getattr(config, name)}")


def check_below_one(config: Any, *names: str) -> None:
    """Check that fields are in [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise UsageError(f"{name} must be at least 0 and below 1, got {getattr(config, name)}")


def check_fraction(config: Any, *names: str) -> None:
    """Check that fields are in (0, 1)."""
    for name in names:
        if not 0 < getattr(config, name) < 1:
            raise UsageError(f"{name} must lie between 0 and 1, got {getattr(config, name)}")


def check_one_of(config: Any, name: str, allowed: tuple[str, ...]) -> None:
    """Check that a field has one of some values."""
    if getattr(config, name) not in allowed:
        raise UsageError(f"{name} must be one of {', '.join(repr(a) for a in allowed)}, got {getattr(config, name)!r}")


def check_each_of(config: Any, name: str, allowed: tuple[str, ...]) -> None:
    """Check that the values of a field are among some values."""
    for value in getattr(config, name):
        if value not in allowed:
            raise UsageError(f"{name} must have values of {', '.join(repr(a) for a in allowed)}, got {value!r}")


def _convert(hint: Any, key: str, value: Any, source: str) -> Any:
    """A value as its field's type."""
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    # YAML reads 1e-3 as text.
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            number = float(value)
            if not math.isfinite(number):
                raise UsageError(f"{source}: {key} must be finite, got {value!r}")
            return number
    if hint is str and isinstance(value, str):
        return value
    if hint is str and isinstance(value, bool):  # YAML reads on and off as true and false
        return "on" if value else "off"
    if hint == tuple[str, ...]:
        items = [value] if isinstance(value, str) else value
        if isinstance(items, (list, tuple)) and all(isinstance(item, str) for item in items):
            return tuple(items)
    raise UsageError(f"{source}: {key} must be {_KINDS[hint]}, got {'nothing' if value is None else repr(value)}")


_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple[str, ...]: "a list of names",
}
