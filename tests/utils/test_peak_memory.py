"""Peak memory of each phase of a process's work."""

from __future__ import annotations

import mmap
import sys
import threading
import time

import pytest

from brainkit.utils.system import PeakMemory

MB = 10**6


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's /proc")
def test_peak_memory_is_that_of_each_phase() -> None:
    with PeakMemory() as memory:
        before = memory.lap()
        # Straight from the system: an allocator may have free memory of its own.
        with mmap.mmap(-1, 80 * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
            held.write(b"1" * (80 * MB))
            while (memory._peak["anonymous"] or 0) - (before["anonymous"] or 0) < 60 * MB:
                time.sleep(0.1)  # until the thread has sampled it
        during, after = memory.lap(), memory.lap()
    assert before["anonymous"] and during["anonymous"] and after["anonymous"]
    assert during["anonymous"] - before["anonymous"] > 60 * MB
    assert during["anonymous"] - after["anonymous"] > 60 * MB
    assert during["resident"] >= during["anonymous"]
    assert not any(thread.name == "brainkit memory" for thread in threading.enumerate())
