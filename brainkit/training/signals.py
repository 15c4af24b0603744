"""Ctrl-C and SIGTERM as requests to stop: they are noted, and obeyed where a state can be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

_REQUESTS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While it is entered, the first Ctrl-C or SIGTERM is only noted; a second Ctrl-C interrupts at once.

    A signal that the process ignores stays ignored, and outside the main thread nothing changes.

    Attributes
    ----------
    received : signal.Signals, optional
        The first one.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _REQUESTS:
                before = signal.getsignal(number)
                # None: a handler that is not Python's, which could not be restored.
                if before not in (signal.SIG_IGN, None):
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def reinstall(self) -> None:
        """Handle the signals again after something else has replaced the handlers."""
        for number in self._before:
            signal.signal(number, self._note)

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = self.received is not None
        self.received = self.received or signal.Signals(number)
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
