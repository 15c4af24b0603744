"""Where a subject's data lie, and which part of them is meant, as one text: ``nsd:DIR?subject=1&space=func1pt8mm``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, unquote

from brainkit.errors import DataError, UsageError
from brainkit.utils.files import users_path
from brainkit.utils.text import nearest_name

PathLike = str | os.PathLike[str]

# What can be chosen -> whether it is a switch, which takes no value.
OPTIONS: dict[str, bool] = {
    "subject": False,
    "betas": False,
    "space": False,
    "experiment": False,
    "allow_missing_sessions": True,
}
_LAYOUT = re.compile(r"([a-z][a-z0-9]+):(?![\\/]{2})(.+)", re.DOTALL)


@dataclass(frozen=True)
class Location:
    """A folder (or file) of data, and what of it to read.

    Attributes
    ----------
    path : Path
    layout : str
        Name of the layout; "" recognises it by the content.
    options : mapping of str to str
        What was chosen: ``subject``, ``betas``, ``space``, ``experiment``, ``allow_missing_sessions``; see `OPTIONS`.
    """

    path: Path
    layout: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: PathLike, layouts: tuple[str, ...]) -> Location:
        """Read ``[layout:]path[?name=value&...]``; a text that names an existing path is that path.

        Raises
        ------
        UsageError
            If an option is unknown, or has no value.
        """
        given = os.fspath(text)
        if users_path(given).exists():
            return cls(users_path(given))
        match = _LAYOUT.fullmatch(given)
        layout, rest = (match[1], match[2]) if match and match[1] in layouts else ("", given)
        path, _, query = rest.partition("?")
        options: dict[str, str] = {}
        for pair in filter(None, query.split("&")):
            name, _, value = pair.partition("=")
            if name not in OPTIONS:
                raise UsageError(
                    f"{given}: expected the options {', '.join(OPTIONS)}, found {name!r}{nearest_name(name, OPTIONS)}"
                )
            options[name] = unquote(value)
        return cls(users_path(path), layout, {}).choose(options)

    def choose(self, options: Mapping[str, str]) -> Location:
        """The same data with these options, which win over its own; empty ones change nothing.

        Raises
        ------
        UsageError
            If an option that needs a value has none.
        """
        for name, is_switch in OPTIONS.items():
            if name in options and not options[name] and not is_switch:
                raise UsageError(f"{self.path}: expected a value for {name}, found none")
        chosen = {**self.options, **options}
        return replace(self, options={name: chosen[name] for name in OPTIONS if name in chosen})

    def absolute(self) -> Location:
        """The same location from any working folder."""
        return replace(self, path=self.path.resolve())

    def check(self) -> Location:
        """Check that there is something.

        Raises
        ------
        DataError
            If there is nothing.
        """
        if not self.path.exists():
            raise DataError(f"{self.path}: expected a data folder, found nothing")
        return self

    def __str__(self) -> str:
        prefix = f"{self.layout}:" if self.layout else ""
        query = "&".join(f"{name}={quote(value, safe='/,')}" if value else name for name, value in self.options.items())
        return f"{prefix}{self.path}{'?' if query else ''}{query}"
