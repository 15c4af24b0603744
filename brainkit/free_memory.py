"""How much memory this process may still take, a container's limit counted."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

UNKNOWN = 2**62  # bytes, where the system does not tell

_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


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
    for folder, limit, used, reclaimable in _control_groups():
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            left = int((folder / limit).read_text()) - int((folder / used).read_text())
            bounds.append(left + _cached(folder / "memory.stat", reclaimable))
    return max(0, min(bounds))


def _control_groups() -> list[tuple[Path, str, str, str]]:
    """Folders of the memory controller that bound this process, from its own group up, of both versions."""
    own = {"": "/"}
    with contextlib.suppress(OSError, ValueError):
        for line in _GROUP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            own |= dict.fromkeys(controllers.split(","), path)
    second = (_GROUPS, own[""], "memory.max", "memory.current", "inactive_file")
    first = (
        _GROUPS / "memory",
        own.get("memory", "/"),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    )
    folders = []
    for root, path, *names in (second, first):
        below = Path(path.lstrip("/"))
        folders += [(root / part, *names) for part in (below, *below.parents)]
    return folders  # type: ignore[return-value]


def _cached(statistics: Path, name: str) -> int:
    """Bytes of files in memory that the system gives back when asked: they are counted as used."""
    with contextlib.suppress(OSError):
        for line in statistics.read_text().splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[1])
    return 0
