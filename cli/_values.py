"""Option values that several commands read alike."""

from __future__ import annotations

import click


def split_names(ctx: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Names from an option that can be repeated and can have several, with commas: ``--roi V1,V2 --roi FFA-1``."""
    return tuple(name for text in given for name in (part.strip() for part in text.split(",")) if name)
