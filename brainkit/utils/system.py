"""Cores, memory, CUDA devices and open files that this process may use, within the limits of its container."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

Peak = dict[str, "int | None"]

_SAMPLE_SECONDS = 0.1  # interval at which PeakMemory samples
_OTHER_FILES = 256  # open in any case: libraries, sockets, images being decoded

# Linux's control groups, with which containers and schedulers limit a process.
_OWN_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
# Files with a group's limit and use, and the entry for file cache, which the system reclaims on demand; versions 2, 1.
_MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


_threads: int | None = None  # what `use_threads` was told


def cores() -> int:
    """Number of threads to work with: one for each core that this process may use and has been given.

    That is the number `use_threads` was told; otherwise the smallest of `available_cores` and of the variables
    ``OMP_NUM_THREADS`` and ``SLURM_CPUS_PER_TASK``, where they are set.
    """
    if _threads is not None:
        return _threads
    counts = [available_cores()]
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        with contextlib.suppress(ValueError):  # not set, or not a number: the libraries ignore it as well
            counts.append(int(os.environ.get(name, "").split(",")[0]))  # OpenMP's may have one for each nested level
    return min(count for count in counts if count > 0)


@contextlib.contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Let `cores` be `count` within the block, for the whole process; None: leave it as it is."""
    global _threads
    before = _threads
    _threads = count or before
    try:
        yield
    finally:
        _threads = before


def available_cores() -> int:
    """Number of processor cores this process may use, by its affinity and its container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _control_groups("cpu"):
        with contextlib.suppress(OSError, ValueError):  # no control group, or "max": no quota
            quota, period = map(int, (folder / "cpu.max").read_text().split())
            count = min(count, -(-quota // period))
        with contextlib.suppress(OSError, ValueError):  # version 1, where -1 means no quota
            quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            count = min(count, -(-quota // period)) if quota > 0 else count
    return max(1, count)


def surplus_threads(threads: int | None) -> str:
    """A line for the user if there are fewer cores than the threads asked for; else empty."""
    available = available_cores()
    if not threads or threads <= available:
        return ""
    found = "is only 1 core" if available == 1 else f"are only {available} cores"
    return f"{threads:,} threads asked for, but there {found}"


def configure_openmp() -> None:
    """Make OpenMP's idle threads sleep early; call this before anything loads OpenMP.

    Threads that spin while they wait slow training down many times on a shared machine, and take cores from the
    operator's own threads. GNU's OpenMP may spin for a few microseconds, so that it does not sleep between two
    operations. Values that the user has set are kept.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def total_memory() -> int:
    """Bytes of memory of the machine, or of its container's limit."""
    import psutil

    limits = [int(psutil.virtual_memory().total)]
    for folder in _control_groups("memory"):
        for limit, _, _ in _MEMORY_FILES:
            with contextlib.suppress(OSError, ValueError):  # "max": no limit
                limits.append(int((folder / limit).read_text()))
    return min(limits)


def free_memory() -> int:
    """Bytes of memory that this process can still allocate: what is available, within the container's limit."""
    import psutil

    limits = [int(psutil.virtual_memory().available)]
    for folder in _control_groups("memory"):
        for limit, used, cached in _MEMORY_FILES:
            with contextlib.suppress(OSError, ValueError):  # "max": no limit
                left = int((folder / limit).read_text()) - int((folder / used).read_text())
                limits.append(left + _statistic(folder / "memory.stat", cached))
    return max(0, min(limits))


def memory_now() -> Peak:
    """Bytes of memory that this process uses now.

    Returns
    -------
    dict
        ``resident``: everything in memory, including mapped files, which the system reclaims on demand. ``anonymous``:
        without mapped files and other shared memory; None on systems other than Linux.
    """
    import psutil

    memory = psutil.Process().memory_info()
    shared = getattr(memory, "shared", None)
    return {"resident": int(memory.rss), "anonymous": None if shared is None else int(memory.rss - shared)}


class PeakMemory:
    """Context manager that samples this process's memory ten times a second, in a thread."""

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
        """The peak since the last call, or since the start."""
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
    """The largest value of each kind; None if no peak has one."""
    return {
        kind: max((value for peak in peaks if (value := peak.get(kind)) is not None), default=None)
        for kind in ("resident", "anonymous")
    }


def cuda_devices() -> tuple[list[tuple[str, int]], str]:
    """List CUDA devices through the driver, without torch or ONNX Runtime.

    Returns
    -------
    devices : list of (str, int)
        Name and bytes of memory of each device.
    reason : str
        Why there is no device; empty if there is one.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        initialise, count_devices = driver.cuInit, driver.cuDeviceGetCount
    except (OSError, AttributeError):  # no such library, or it is not a CUDA driver
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
    """Raise the limit on open files so that this process can open `count` more, as far as the system permits."""
    if importlib.util.find_spec("resource") is None:  # Windows has no such limit
        return
    resource = importlib.import_module("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # some systems report a higher limit than they allow
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _control_groups(controller: str) -> list[Path]:
    """Folders that may hold this process's limits for a controller, from its own group upwards; version 2, then 1."""
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
