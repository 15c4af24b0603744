"""Option values that several commands can read alike."""

from __future__ import annotations

import click


def split_names(ctx: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Names from an option that can be repeated and can have several, with commas: ``--layers a,b --layers c``."""
    return tuple(name for text in given for name in (part.strip() for part in text.split(",")) if name)
