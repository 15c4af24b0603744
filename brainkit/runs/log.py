"""What a run reports as it works: lines on the terminal and in ``log.txt``, seconds and memory of each phase."""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from brainkit.errors import UsageError
from brainkit.utils.locks import FileLock
from brainkit.utils.progress import Say
from brainkit.utils.system import Peak, PeakMemory
from brainkit.utils.table import Table, styled


class RunLog:
    """Reports lines, and writes them to the run's ``log.txt`` as soon as there is a run folder.

    Parameters
    ----------
    say : callable, optional
        Called with each line. By default lines are printed, and tables are styled if standard output is a terminal.
    """

    def __init__(self, say: Say | None = None) -> None:
        self._say = say or _print
        self._styled = say is None and sys.stdout.isatty()
        self._early: list[str] = []
        self._file: IO[str] | None = None
        self._lock: FileLock | None = None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            if error is not None:
                self.write(f"stopped: {type(error).__name__}: {error}")
            self._file.close()
        if self._lock is not None:
            self._lock.release()

    def __call__(self, line: str) -> None:
        """Report a line and write it to the file."""
        self._say(line)
        self.write(line)

    def show(self, *tables: Table) -> None:
        """Report tables and write them to the file as plain text."""
        lines = [line for table in tables for line in table.plain()]
        for text in [styled(tables)] if self._styled else lines:
            self._say(text)
        for line in lines:
            self.write(line)

    def write(self, line: str) -> None:
        """Write a line to the file without reporting it."""
        if self._file is None:
            self._early.append(line)
            return
        stamp = datetime.datetime.now().isoformat(sep=" ", timespec="seconds")
        self._file.write(f"{stamp}  {line}\n")
        self._file.flush()

    def open_file(self, path: Path) -> None:
        """Write to this file from now on, beginning with the lines so far.

        Raises
        ------
        UsageError
            If another process has it open: two trainings in one folder would overwrite each other's files.
        """
        self._lock = FileLock.take(path)
        if self._lock is None:
            raise UsageError(f"{path.parent}: another process is training in it; wait for it, or name another --out")
        self._file = path.open("a", encoding="utf-8")
        for line in self._early:
            self.write(line)
        self._early.clear()


class PhaseClock:
    """Seconds and peak memory of each phase of a run.

    Parameters
    ----------
    watch : PeakMemory, optional
        Measures the memory; without it only time is measured.

    Attributes
    ----------
    seconds : dict of str to float
        By phase.
    memory : dict of str to dict
        Peak bytes by phase, see :meth:`brainkit.utils.system.PeakMemory.lap`.
    """

    def __init__(self, watch: PeakMemory | None = None) -> None:
        self._started = self._last = time.monotonic()
        self._watch = watch
        self.seconds: dict[str, float] = {}
        self.memory: dict[str, Peak] = {}

    def end_phase(self, phase: str) -> None:
        """End the phase that began with the end of the last one."""
        now = time.monotonic()
        self.seconds[phase] = round(now - self._last, 2)
        self._last = now
        if self._watch is not None:
            self.memory[phase] = self._watch.lap()

    def total(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started


def _print(line: str) -> None:
    print(line, flush=True)  # a log file or a pipe shows it at once
