"""How much memory the process takes at most, phase by phase."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from pathlib import Path
from types import TracebackType

Peak = dict[str, "int | None"]

_STATUS = Path("/proc/self/status")
_EVERY = 0.1  # seconds


def memory_now() -> Peak:
    """Bytes that the process holds.

    Returns
    -------
    dict
        ``resident``: in memory, mapped files included, which the system takes back when it needs to; elsewhere than on
        Linux the largest so far. ``anonymous``: of these, what belongs to the process alone. None where not known.
    """
    if _STATUS.is_file():
        found = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii").splitlines() if ":" in line)
        return {
            name: int(found[key].split()[0]) * 1024 if key in found else None
            for name, key in (("resident", "VmRSS"), ("anonymous", "RssAnon"))
        }
    if importlib.util.find_spec("resource") is None:  # Windows
        return {"resident": None, "anonymous": None}
    resource = importlib.import_module("resource")
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"resident": largest * (1 if sys.platform == "darwin" else 1024), "anonymous": None}


class PeakMemory:
    """Looks at the process's memory ten times a second, in a thread of its own, while the block runs."""

    def __init__(self) -> None:
        self._peak = memory_now()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="brainkit memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def lap(self) -> Peak:
        """The largest seen since the last call, or since the start."""
        self._look()
        with self._lock:
            peak, self._peak = self._peak, memory_now()
        return peak

    def _look(self) -> None:
        now = memory_now()
        with self._lock:
            self._peak = largest([self._peak, now])

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY):
            self._look()


def largest(peaks: list[Peak]) -> Peak:
    """The largest of each kind; None where none is known."""
    return {
        kind: max((value for peak in peaks if (value := peak.get(kind)) is not None), default=None)
        for kind in ("resident", "anonymous")
    }
