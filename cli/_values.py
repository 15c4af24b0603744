"""How the commands read values that several of them take."""

from __future__ import annotations

import click


def split_names(ctx: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Names of an option that may be repeated and may hold several with commas: ``--roi V1,V2 --roi FFA-1``."""
    return tuple(name for text in given for name in (part.strip() for part in text.split(",")) if name)
