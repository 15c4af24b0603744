"""Timing things side by side, on a CPU or a GPU."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from statistics import median

import torch

Run = Callable[[], object]


def timed(run: Run, times: int, device: str = "cpu") -> list[float]:
    """Seconds of each of several runs; on a GPU the mean of ten that follow one another, as they do in training."""
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
    """Median seconds of each, all taking turns in every round; the first run of each only warms up."""
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
    """The same work as one CUDA graph: what is left when launching costs nothing."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # kernels are compiled and memory is found before the capture
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = run()

    def replay() -> object:
        graph.replay()
        return kept

    return replay


def _show(text: str) -> None:
    if sys.stdout.isatty():
        print(text.ljust(60), end="\r", flush=True)
