"""Timing, interleaved, on a CPU or a GPU."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from statistics import median

import torch

Run = Callable[[], object]


def timed(run: Run, times: int, device: str = "cpu") -> list[float]:
    """Seconds of each of several runs; on a GPU each is the mean of ten in a row."""
    if device == "cuda":
        return [_on_gpu(run, 10) for _ in range(times)]
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds


def _on_gpu(run: Run, count: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(count):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / count


def interleaved(
    runs: Mapping[str, Run], rounds: int, repeats: Mapping[str, int], device: str = "cpu"
) -> dict[str, float]:
    """Median seconds of each; in every round they take turns. The first run of each is a warm-up."""
    for run in runs.values():
        timed(run, 1, device)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds):
        for name, run in runs.items():
            _show(f"round {turn + 1} of {rounds}: {name}")
            seconds[name] += timed(run, repeats.get(name, 1), device)
    _show("")
    return {name: median(values) for name, values in seconds.items()}


def captured(run: Run) -> Run:
    """The same work as one CUDA graph, without the cost of launching kernels."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compiles kernels and allocates memory before the capture
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()

    def replay() -> object:
        graph.replay()
        return results

    return replay


def _show(text: str) -> None:
    if sys.stdout.isatty():
        print(text.ljust(60), end="\r", flush=True)
