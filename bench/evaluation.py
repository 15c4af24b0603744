"""Time and memory of `brainkit.evaluate`: ``python -m bench.evaluation``.

40,000 vertices and 1,000 images with 2,000 bootstraps and 2,000 permutations, summarised by 43 groups of vertices. Time
is that of the call; memory is the peak of the process, the two arrays included. Before that, intervals and p values of
a few vertices are checked against plain loops.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch

import brainkit
from bench import machine
from bench.report import load_average, write_report
from brainkit.utils.system import PeakMemory

ROIS = 40


def make_arrays(images: int, vertices: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and responses (images, vertices), float32, that correlate by about 0.5 and share 20 components."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((images, 20), np.float32) @ rng.standard_normal((20, vertices), np.float32)
    p, y = (shared + 4 * rng.standard_normal((images, vertices), np.float32) for _ in range(2))
    return p, y


def check() -> None:
    """Exit if intervals or p values differ from those of plain loops."""
    p, y = make_arrays(60, 5)
    found = brainkit.evaluate(p, y, bootstrap=4000, permutations=4000)
    rng = np.random.default_rng(1)

    def correlations(rows: np.ndarray, others: np.ndarray) -> list[float]:
        return [np.corrcoef(p[rows, v], y[others, v])[0, 1] for v in range(5)]

    every = np.arange(60)
    picks = [rng.integers(0, 60, 60) for _ in range(2000)]
    drawn = np.array([correlations(rows, rows) for rows in picks])
    shuffled = np.array([correlations(rng.permutation(60), every) for _ in range(2000)])
    spread = (found.r_high - found.r_low) / 3.92 / drawn.std(0)
    p_value = (shuffled >= found.r).mean(0)
    if np.abs(spread - 1).max() > 0.2 or np.abs(p_value - found.p).max() > 0.03:
        raise SystemExit(f"wrong: spread {spread}, p {found.p} instead of {p_value}")


def measure(images: int, vertices: int, draws: int) -> dict[str, Any]:
    """Seconds and bytes of one call, in this process."""
    p, y = make_arrays(images, vertices)
    rois = {f"roi {k}": np.arange(k, vertices, ROIS) for k in range(ROIS)}
    rois |= {"left hemisphere": np.arange(vertices // 2), "right hemisphere": np.arange(vertices // 2, vertices)}
    brainkit.evaluate(p[:20, :20], y[:20, :20], bootstrap=10, permutations=10)  # imports SciPy
    options: dict[str, Any] = {"noise_ceiling": np.full(vertices, 0.5), "rois": rois}
    with PeakMemory() as memory:
        started, processor = time.perf_counter(), time.process_time()
        found = brainkit.evaluate(p, y, bootstrap=draws, permutations=draws, **options)
        seconds, processor = time.perf_counter() - started, time.process_time() - processor
    return {
        "seconds": seconds,
        "processor_seconds": processor,
        "peak_bytes": memory.lap()["resident"],
        "array_bytes": p.nbytes + y.nbytes,
        "median_r": found.groups["all"]["r"]["median"],
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
    facts = machine.describe(threads=torch.get_num_threads())
    rounds = [measure(options.images, options.vertices, options.draws) for _ in range(options.rounds)]
    seconds = statistics.median(each["seconds"] for each in rounds)
    report = {
        "machine": facts | {"load after": load_average()},
        "sizes": {"images": options.images, "vertices": options.vertices, "draws": options.draws, "groups": ROIS + 3},
        "headline": {"seconds": seconds, "peak_bytes": max(each["peak_bytes"] for each in rounds)},
        "rounds": rounds,
    }
    write_report(options.name, report, page(report))


def page(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    sizes, headline, facts = report["sizes"], report["headline"], report["machine"]
    processor = statistics.median(each["processor_seconds"] for each in report["rounds"])
    draws = f"{sizes['draws']:,} bootstraps, {sizes['draws']:,} permutations"
    return f"""# brainkit.evaluate

{sizes["vertices"]:,} vertices, {sizes["images"]:,} images, {draws}, {sizes["groups"]} groups of vertices;
median of {len(report["rounds"])} rounds.

| | measured | goal |
|---|---|---|
| seconds | {headline["seconds"]:.1f} | 30 |
| processor seconds | {processor:.1f} | |
| peak memory of the process | {headline["peak_bytes"] / 1e9:.2f} GB | 2 GB |

{facts["processor"]}, {facts["threads"]} threads, NumPy {facts["numpy"]};
load {facts["load before"]} before, {facts["load after"]} after.
"""


if __name__ == "__main__":
    main()
