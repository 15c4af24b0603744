"""What a benchmark ran on: hardware, versions, and how fast this machine multiplies matrices."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterable
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy
import torch

import brainkit
from bench.timing import Run, timed

ROOT = Path(__file__).resolve().parents[1]


def describe(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Hardware and versions, and how busy the machine was."""
    gpu = {}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        gpu = {
            "GPU": properties.name,
            "GPU memory, GB": round(properties.total_memory / 1e9),
            "CUDA": torch.version.cuda,
            "triton": metadata.version("triton"),
        }
    return gpu | {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "instruction set": _instruction_set(),
        "memory, GB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "brainkit": brainkit.__version__,
        "commit": _commit(),
        "load before": round(os.getloadavg()[0], 2),
    }


def matmul_rate(size: int = 2048, runs: int = 9) -> dict[str, float]:
    """float32 GFLOP/s of a square product on torch's threads, for each of the libraries that torch brings.

    Which of them is the fastest depends on the processor's maker, so a share is a share of the best.
    """
    a, b = torch.randn(size, size), torch.randn(size, size)
    products = {"torch.matmul": lambda: a @ b}
    if torch.backends.mkldnn.is_available():
        a_dnn, b_dnn = a.to_mkldnn(), b.to_mkldnn()
        products["oneDNN"] = lambda: torch.nn.functional.linear(a_dnn, b_dnn)
    return {name: 2 * size**3 / _median_seconds(product, runs, "cpu") / 1e9 for name, product in products.items()}


def gpu_matmul_rate(size: int = 8192, runs: int = 5) -> dict[str, float]:
    """GFLOP/s of a square product on the GPU, for each kind of number."""
    rates = {}
    before = torch.get_float32_matmul_precision()
    for name, dtype, precision in (
        ("float32", torch.float32, "highest"),
        ("tf32", torch.float32, "high"),
        ("bfloat16", torch.bfloat16, before),
        ("float16", torch.float16, before),
    ):
        a, b = (torch.randn(size, size, device="cuda").to(dtype) for _ in range(2))
        torch.set_float32_matmul_precision(precision)
        rates[name] = 2 * size**3 / _median_seconds(partial(torch.matmul, a, b), runs, "cuda") / 1e9
        torch.set_float32_matmul_precision(before)
    return rates


def _median_seconds(run: Run, runs: int, device: str) -> float:
    timed(run, 1, device)
    return median(timed(run, runs, device))


def gpu_extra(run: Callable[[], Iterable[torch.Tensor]]) -> float:
    """MB of GPU memory that a run takes beyond what was there and what it returns."""
    run()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results = sum(tensor.numel() * tensor.element_size() for tensor in run())
    return (torch.cuda.max_memory_allocated() - before - results) / 1e6


def resident(field: str) -> float:
    """MB of memory of this process: VmRSS now, VmHWM at most since that was last cleared. Linux alone tells."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(field)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {key.strip(): value.strip() for key, value in fields.items()}
    name = found.get("model name", platform.machine())
    return f"{name} (family {found['cpu family']}, model {found['model']})" if "cpu family" in found else name


def _instruction_set() -> str:
    try:
        from brainkit import _C
    except ImportError:
        return "no C++ extension"
    return _C.instruction_set()


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
