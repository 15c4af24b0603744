"""Time and memory of `brainkit.evaluate` and of comparing two models: ``python -m bench.evaluation``.

40,000 vertices and 1,000 images with 2,000 bootstraps and 2,000 permutations, summarised by 43 groups of vertices. Time
is that of the call; memory is the peak of the process, the arrays and torch included. Before that, intervals and p
values of a few vertices are checked against plain loops.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import brainkit
from bench import machine
from bench.report import load_average, write_report
from brainkit.evaluation.compare import compare_predictions
from brainkit.utils.system import PeakMemory

ROIS = 40


def make_arrays(images: int, vertices: int, models: int = 1, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Predictions of each model and responses (images, vertices), float32, that correlate by about 0.5.

    They share 20 components.
    """
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((images, 20), np.float32) @ rng.standard_normal((20, vertices), np.float32)
    return tuple(shared + 4 * rng.standard_normal((images, vertices), np.float32) for _ in range(models + 1))


def check() -> None:
    """Exit if intervals or p values differ from those of plain loops."""
    p, y = make_arrays(60, 5)
    found = brainkit.evaluate(p, y, bootstrap=4000, permutations=4000)
    rng = np.random.default_rng(1)
    every = np.arange(60)
    picks = [rng.integers(0, 60, 60) for _ in range(2000)]
    drawn = np.array([_correlations(p[rows], y[rows]) for rows in picks])
    shuffled = np.array([_correlations(p[rng.permutation(60)], y[every]) for _ in range(2000)])
    _agree((found.r_high - found.r_low) / 3.92 / drawn.std(0), found.p, (shuffled >= found.r).mean(0))


def check_comparison() -> None:
    """Exit if intervals or p values of differences differ from those of plain loops."""
    a, b, y = (each / each.std(axis=0) for each in make_arrays(60, 5, models=2))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    found = compare_predictions(a, b, y, bootstrap=4000, permutations=4000)
    rng = np.random.default_rng(1)
    picks = [rng.integers(0, 60, 60) for _ in range(2000)]
    drawn = np.array([_correlations(a[rows], y[rows]) - _correlations(b[rows], y[rows]) for rows in picks])
    swaps = [rng.random((60, 1)) < 0.5 for _ in range(2000)]
    swapped = np.array([_correlations(np.where(s, b, a), y) - _correlations(np.where(s, a, b), y) for s in swaps])
    expected = (np.abs(swapped) >= np.abs(found.difference["r"])).mean(0)
    _agree((found.high - found.low) / 3.92 / drawn.std(0), found.p, expected)


def _correlations(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.array([np.corrcoef(one, other)[0, 1] for one, other in zip(p.T, y.T, strict=True)])


def _agree(spread: np.ndarray, p: np.ndarray, expected: np.ndarray) -> None:
    if np.abs(spread - 1).max() > 0.2 or np.abs(p - expected).max() > 0.03:
        raise SystemExit(f"wrong: spread {spread}, p {p} instead of {expected}")


def measure_evaluation(images: int, vertices: int, draws: int) -> dict[str, Any]:
    """Seconds and bytes of one evaluation, in this process."""
    p, y = make_arrays(images, vertices)
    options = _options(vertices, draws)
    brainkit.evaluate(p[:20, :20], y[:20, :20], bootstrap=10, permutations=10)  # imports SciPy
    found, measured = _measured(lambda: brainkit.evaluate(p, y, **options))
    return measured | {"array_bytes": p.nbytes + y.nbytes, "median_r": found.groups["all"]["r"]["median"]}


def measure_comparison(images: int, vertices: int, draws: int) -> dict[str, Any]:
    """Seconds and bytes of comparing two models, in this process."""
    a, b, y = make_arrays(images, vertices, models=2)
    options = _options(vertices, draws)
    found, measured = _measured(lambda: compare_predictions(a, b, y, **options))
    return measured | {"array_bytes": 3 * y.nbytes, "median_r": found.groups["all"]["r"]["median_a"]}


def _options(vertices: int, draws: int) -> dict[str, Any]:
    rois = {f"roi {k}": np.arange(k, vertices, ROIS) for k in range(ROIS)}
    rois |= {"left hemisphere": np.arange(vertices // 2), "right hemisphere": np.arange(vertices // 2, vertices)}
    return {"noise_ceiling": np.full(vertices, 0.5), "rois": rois, "bootstrap": draws, "permutations": draws}


def _measured(call: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    with PeakMemory() as memory:
        started, processor = time.perf_counter(), time.process_time()
        found = call()
        seconds, processor = time.perf_counter() - started, time.process_time() - processor
    return found, {
        "seconds": seconds,
        "processor_seconds": processor,
        "peak_bytes": memory.lap()["resident"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--vertices", type=int, default=40_000)
    parser.add_argument("--draws", type=int, default=2000, help="bootstraps, and permutations")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="evaluation")
    options = parser.parse_args()

    check()
    check_comparison()
    facts = machine.describe(threads=torch.get_num_threads())
    sizes = (options.images, options.vertices, options.draws)
    rounds = [measure_evaluation(*sizes) for _ in range(options.rounds)]
    comparison = [measure_comparison(*sizes) for _ in range(options.rounds)]
    report = {
        "machine": facts | {"load after": load_average()},
        "sizes": {"images": options.images, "vertices": options.vertices, "draws": options.draws, "groups": ROIS + 3},
        "headline": _headline(rounds),
        "rounds": rounds,
        "comparison": {"headline": _headline(comparison), "rounds": comparison},
    }
    write_report(options.name, report, page(report))


def _headline(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    medians = {key: statistics.median(each[key] for each in rounds) for key in ("seconds", "processor_seconds")}
    return medians | {"peak_bytes": max(each["peak_bytes"] for each in rounds)}


def page(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    sizes, facts = report["sizes"], report["machine"]
    draws = f"{sizes['draws']:,} bootstraps, {sizes['draws']:,} permutations"
    one, two = report["headline"], report["comparison"]["headline"]
    return f"""# brainkit.evaluate, and comparing two models

{sizes["vertices"]:,} vertices, {sizes["images"]:,} images, {draws}, {sizes["groups"]} groups of vertices;
median of {len(report["rounds"])} rounds.

| | evaluate | goal | compare | goal |
|---|---|---|---|---|
| seconds | {one["seconds"]:.1f} | 30 | {two["seconds"]:.1f} | 60 |
| processor seconds | {one["processor_seconds"]:.1f} | | {two["processor_seconds"]:.1f} | |
| peak memory of the process | {one["peak_bytes"] / 1e9:.2f} GB | 2 GB | {two["peak_bytes"] / 1e9:.2f} GB | 2 GB |

{facts["processor"]}, {facts["threads"]} threads, NumPy {facts["numpy"]};
load {facts["load before"]} before, {facts["load after"]} after.
"""


if __name__ == "__main__":
    main()
