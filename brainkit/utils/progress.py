"""What long work shows while it goes on: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Say = Callable[[str], None]
Progress = Callable[[int, int], None]


@contextlib.contextmanager
def progress_bar(what: str, unit: str) -> Iterator[Callable[..., None]]:
    """Show on standard error how far a piece of work is, its rate and the time left.

    Parameters
    ----------
    what : str
        What is being done, for example ``"predicting"``.
    unit : str
        What is counted, for example ``"images"``.

    Yields
    ------
    callable
        To be called with (done, total) and, where there is more to tell, a text; it does nothing where standard
        error is not a terminal.
    """
    if not sys.stderr.isatty():
        yield lambda done, total, text="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}, {{task.fields[rate]}}/s, left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, rate="-", text="")

        def advance(done: int, total: int, text: str | None = None) -> None:
            speed = bar.tasks[0].speed
            shown = bar.tasks[0].fields["text"] if text is None else text
            bar.update(task, completed=done, total=total, rate=f"{speed:.1f}" if speed else "-", text=shown)

        yield advance
