"""Progress bars for long work, and the types of the callables that report it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Say = Callable[[str], None]
Progress = Callable[[int, int], None]


@contextlib.contextmanager
def progress_bar(what: str, unit: str) -> Iterator[Callable[..., None]]:
    """Show the progress of some work on standard error, with its rate and the time left.

    Parameters
    ----------
    what : str
        The work, for example ``"predicting"``.
    unit : str
        What is counted, for example ``"images"``.

    Yields
    ------
    callable
        Call it with (done, total) and optionally a text to show. It does nothing if standard error is not a terminal.
    """
    if not sys.stderr.isatty():
        yield lambda done, total, text="": None
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn(f"{unit}, {{task.fields[rate]}}/s, left"),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[text]}"),
    )
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, rate="-", text="")

        def advance(done: int, total: int, text: str | None = None) -> None:
            speed = bar.tasks[0].speed
            text = bar.tasks[0].fields["text"] if text is None else text
            bar.update(task, completed=done, total=total, rate=f"{speed:.1f}" if speed else "-", text=text)

        yield advance
