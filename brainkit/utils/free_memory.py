"""How much memory this process may still take, a container's limit counted."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from brainkit.utils.control_groups import groups

UNKNOWN = 2**62  # bytes, where the system does not tell

_MEMINFO = Path("/proc/meminfo")

# The limit, what is used, and what of that are files which the system gives back when asked; versions 2 and 1.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory() -> int:
    """Bytes that Linux says are available, within the limits of the process's control groups.

    Returns
    -------
    int
        `UNKNOWN` on other systems.
    """
    bounds = [UNKNOWN]
    with contextlib.suppress(OSError):
        found = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
        bounds += [int(found[1]) * 1024] if found else []
    for folder in groups("memory"):
        for limit, used, cached in _FILES:
            with contextlib.suppress(OSError, ValueError):  # "max": no limit
                left = int((folder / limit).read_text()) - int((folder / used).read_text())
                bounds.append(left + _statistic(folder / "memory.stat", cached))
    return max(0, min(bounds))


def _statistic(path: Path, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[1])
    return 0
