"""The machine that a benchmark runs on: hardware, versions, and the rate of matrix products."""

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
from bench.report import ROOT, load_average
from bench.timing import Run, timed


def describe(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Hardware, versions and the load before the benchmark."""
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
        "processor": processor(),
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
        "load before": load_average(),
    }


def matmul_rate(size: int = 2048, runs: int = 9) -> dict[str, float]:
    """float32 GFLOP/s of a square matrix product on torch's threads, by library that torch ships.

    Which one is the fastest depends on the processor, so shares are shares of the best.
    """
    a, b = torch.randn(size, size), torch.randn(size, size)
    products = {"torch.matmul": lambda: a @ b}
    if torch.backends.mkldnn.is_available():
        a_dnn, b_dnn = a.to_mkldnn(), b.to_mkldnn()
        products["oneDNN"] = lambda: torch.nn.functional.linear(a_dnn, b_dnn)
    return {name: 2 * size**3 / _median_seconds(product, runs, "cpu") / 1e9 for name, product in products.items()}


def gpu_matmul_rate(size: int = 8192, runs: int = 5) -> dict[str, float]:
    """GFLOP/s of a square matrix product on the GPU, by number format."""
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
    """Peak MB of GPU memory that a run allocates, without its results."""
    run()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results = sum(tensor.numel() * tensor.element_size() for tensor in run())
    return (torch.cuda.max_memory_allocated() - before - results) / 1e6


def resident(field: str) -> float:
    """MB of this process: VmRSS (now) or VmHWM (the peak since it was cleared). Linux only."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(field)


def processor() -> str:
    """The processor's name."""
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
