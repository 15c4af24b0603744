"""What the machine gives this process: cores, memory, CUDA devices, open files. Limits of containers count."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import os
import sys
import threading
from pathlib import Path
from types import TracebackType

Peak = dict[str, "int | None"]

_SAMPLE_SECONDS = 0.1  # how often PeakMemory looks
_OTHER_FILES = 256  # that a process has open in any case: libraries, sockets, images being decoded

# Linux's control groups, by which containers and schedulers bound a process.
_OWN_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
# A group's memory limit, its use, and the part of it that is file cache, which is given back on demand; versions 2, 1.
_MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def cores() -> int:
    """Processor cores this process may use: its affinity, and a container's quota where there is one."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _control_groups("cpu"):
        with contextlib.suppress(OSError, ValueError):  # no control group, or "max": no quota
            quota, period = map(int, (folder / "cpu.max").read_text().split())
            count = min(count, -(-quota // period))
        with contextlib.suppress(OSError, ValueError):  # version 1, where -1 means no quota
            quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            count = min(count, -(-quota // period)) if quota > 0 else count
    return max(1, count)


def settle_openmp() -> None:
    """Let OpenMP's idle threads sleep soon; call it before anything loads OpenMP.

    Threads that spin while they wait slow training down many times on a machine that others use too, and take the
    cores from the operator's own threads. GNU's OpenMP may spin for some microseconds, which spares it from falling
    asleep between two operations. What the user has set is kept.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def total_memory() -> int:
    """Bytes of memory this process may use in all: the machine's, or its container's limit."""
    import psutil

    bounds = [int(psutil.virtual_memory().total)]
    for folder in _control_groups("memory"):
        for limit, _, _ in _MEMORY_FILES:
            with contextlib.suppress(OSError, ValueError):  # "max": no limit
                bounds.append(int((folder / limit).read_text()))
    return min(bounds)


def free_memory() -> int:
    """Bytes of memory this process may still take: what the system has available, within a container's limit."""
    import psutil

    bounds = [int(psutil.virtual_memory().available)]
    for folder in _control_groups("memory"):
        for limit, used, cached in _MEMORY_FILES:
            with contextlib.suppress(OSError, ValueError):  # "max": no limit
                left = int((folder / limit).read_text()) - int((folder / used).read_text())
                bounds.append(left + _statistic(folder / "memory.stat", cached))
    return max(0, min(bounds))


def memory_now() -> Peak:
    """Bytes that the process holds now.

    Returns
    -------
    dict
        ``resident``: in memory, mapped files included, which the system takes back when it needs to. ``anonymous``:
        of these, what belongs to the process alone; None where the system does not tell (other than Linux).
    """
    import psutil

    memory = psutil.Process().memory_info()
    shared = getattr(memory, "shared", None)
    return {"resident": int(memory.rss), "anonymous": None if shared is None else int(memory.rss - shared)}


class PeakMemory:
    """Samples the process's memory ten times a second, in a thread of its own, while the block runs."""

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
        self._sample()
        with self._lock:
            peak, self._peak = self._peak, memory_now()
        return peak

    def _sample(self) -> None:
        now = memory_now()
        with self._lock:
            self._peak = largest([self._peak, now])

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self._sample()


def largest(peaks: list[Peak]) -> Peak:
    """The largest of each kind; None where none is known."""
    return {
        kind: max((value for peak in peaks if (value := peak.get(kind)) is not None), default=None)
        for kind in ("resident", "anonymous")
    }


def cuda_devices() -> tuple[list[tuple[str, int]], str]:
    """List CUDA devices by asking the driver itself, so that neither torch nor ONNX Runtime is needed.

    Returns
    -------
    devices : list of (str, int)
        Name and bytes of memory of each device.
    reason : str
        Why there is none; empty where there is one.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        initialise, count_devices = driver.cuInit, driver.cuDeviceGetCount
    except (OSError, AttributeError):  # no library, or one that is no CUDA driver
        return [], "no NVIDIA driver"
    if status := initialise(0):
        return [], f"the NVIDIA driver finds no device (cuInit returned {status})"
    count = ctypes.c_int()
    if count_devices(ctypes.byref(count)) or count.value == 0:
        return [], "the NVIDIA driver lists no device"
    devices = []
    for number in range(count.value):
        device, size, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(128)
        driver.cuDeviceGet(ctypes.byref(device), number)
        driver.cuDeviceGetName(name, len(name), device)
        driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
        devices.append((name.value.decode(errors="replace"), size.value))
    return devices, ""


def allow_open_files(count: int) -> None:
    """Let this process hold `count` more files open, as far as the system permits."""
    if importlib.util.find_spec("resource") is None:  # Windows has no such limit
        return
    resource = importlib.import_module("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # some systems have a lower limit than they report
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _control_groups(controller: str) -> list[Path]:
    """Folders that may hold a controller's limits for this process, from its own group up; version 2, then 1."""
    own = {"": "/", controller: "/"}
    with contextlib.suppress(OSError, ValueError):
        for line in _OWN_GROUP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            own |= dict.fromkeys(controllers.split(","), path)
    folders = []
    for root, path in ((_GROUPS, own[""]), (_GROUPS / controller, own[controller])):
        below = Path(path.lstrip("/"))
        folders += [root / part for part in (below, *below.parents)]
    return folders


def _statistic(path: Path, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[1])
    return 0
