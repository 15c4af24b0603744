"""The progress of long work on standard error: a bar on a terminal, elsewhere a line a minute."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Say = Callable[[str], None]
Progress = Callable[[int, int], None]

_SECONDS = 60.0  # between two lines, where there is no bar


def shows_bars() -> bool:
    """Whether `progress_bar` shows a bar: standard error is a terminal."""
    return sys.stderr.isatty()


@contextlib.contextmanager
def progress_bar(what: str, unit: str) -> Iterator[Callable[..., None]]:
    """Show the progress of some work on standard error, with its rate and the time left.

    On a terminal that is a bar, which appears with the first call. Elsewhere a line is printed when the last one is a
    minute old, so that short work prints none.

    Parameters
    ----------
    what : str
        The work, for example ``"predicting"``.
    unit : str
        What is counted, for example ``"images"``.

    Yields
    ------
    callable
        Call it with (done, total) and optionally a text that the bar shows. Where there is no bar, a text means that
        the caller has just reported this progress itself: the next line is due a minute later.
    """
    with contextlib.ExitStack() as stack:
        show: Callable[[int, int, str | None], None] | None = None

        def advance(done: int, total: int, text: str | None = None) -> None:
            nonlocal show
            if show is None:  # opened late: lines printed before would break the bar
                show = stack.enter_context(_bar(what, unit)) if shows_bars() else _Lines(what, unit, done)
            show(done, total, text)

        yield advance


@contextlib.contextmanager
def _bar(what: str, unit: str) -> Iterator[Callable[[int, int, str | None], None]]:
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

        def advance(done: int, total: int, text: str | None) -> None:
            speed = bar.tasks[0].speed
            text = bar.tasks[0].fields["text"] if text is None else text
            bar.update(task, completed=done, total=total, rate=f"{speed:.1f}" if speed else "-", text=text)

        yield advance


class _Lines:
    """Prints how far the work is, once a minute."""

    def __init__(self, what: str, unit: str, done: int) -> None:
        self._what, self._unit, self._first = what, unit, done
        self._started = self._printed = time.monotonic()

    def __call__(self, done: int, total: int, text: str | None) -> None:
        now = time.monotonic()
        if text is not None:
            self._printed = now
        if now - self._printed < _SECONDS or done >= total:
            return
        self._printed = now
        rate = (done - self._first) / (now - self._started) if now > self._started else 0.0
        left = f", {rate:.1f}/s, {duration((total - done) / rate)} left" if rate else ""
        print(f"{self._what}: {done:,} of {total:,} {self._unit}{left}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A time to wait, roughly: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
