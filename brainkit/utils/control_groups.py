"""The control groups that bound this process, as containers and schedulers set them; none on other systems."""

from __future__ import annotations

import contextlib
from pathlib import Path

_OWN = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")


def groups(controller: str) -> list[Path]:
    """Folders that may hold a controller's limits for this process, from its own group up; version 2, then 1.

    Parameters
    ----------
    controller : str
        ``"memory"`` or ``"cpu"``.
    """
    own = {"": "/", controller: "/"}
    with contextlib.suppress(OSError, ValueError):
        for line in _OWN.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            own |= dict.fromkeys(controllers.split(","), path)
    folders = []
    for root, path in ((_ROOT, own[""]), (_ROOT / controller, own[controller])):
        below = Path(path.lstrip("/"))
        folders += [root / part for part in (below, *below.parents)]
    return folders
