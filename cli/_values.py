"""Options that several commands have, and values that they read alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processor threads.  [default: one for each core this process may use]",
)


def part_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which part of a data set is meant."""
    for option in reversed(
        (
            click.option(
                "--subject", "subjects", multiple=True, metavar="N", help="Which subject of a data set, such as 1."
            ),
            click.option("--betas", metavar="NAME", help="Which version of a data set's responses."),
            click.option("--space", metavar="NAME", help="Which space of a data set, such as func1pt8mm."),
            click.option(
                "--allow-missing-sessions", is_flag=True, help="Use the sessions that are there, if some are missing."
            ),
        )
    ):
        command = option(command)
    return command


def locations(
    data: Sequence[Path], subjects: Sequence[str], betas: str | None, space: str | None, allow_missing_sessions: bool
) -> Sequence[str | Path]:
    """The data, with the part of them that `part_options` choose."""
    options = {name: value for name, value in (("betas", betas), ("space", space)) if value is not None}
    options |= {"allow_missing_sessions": ""} if allow_missing_sessions else {}
    if not subjects and not options:
        return data
    from brainkit.data.readers import choose_parts

    return choose_parts(data, subjects, options)


def split_names(ctx: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Names from an option that can be repeated and can have several, with commas: ``--layers a,b --layers c``."""
    return tuple(name for text in given for name in (part.strip() for part in text.split(",")) if name)
