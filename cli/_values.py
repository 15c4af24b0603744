"""Options that several commands have, and values that they read alike."""

from __future__ import annotations

import click

threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processor threads.  [default: one for each core this process may use]",
)


def split_names(ctx: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Names from an option that can be repeated and can have several, with commas: ``--layers a,b --layers c``."""
    return tuple(name for text in given for name in (part.strip() for part in text.split(",")) if name)
