"""How well training recovers planted selectors: ``python -m bench.recovery``.

Default settings on ten sample subjects; they were chosen on those of seeds 0 and 1, so others are used here. A
seed that has been run with these settings is kept, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import brainkit
from bench.machine import processor
from bench.report import RESULTS, settings_digest, write_report

GOALS = {
    "depth_r": 0.96,
    "depth_within_one": 0.95,
    "location_median": 0.05,
    "scale_r": 0.93,
    "accuracy_share": 0.80,
}
SEEDS = tuple(range(101, 111))


def main() -> None:
    """Make the subjects, train on each, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="of subjects and trainings")
    parser.add_argument("--name", default="recovery", help="name of the files in bench/results")
    parser.add_argument("--quick", action="store_true", help="tiny subjects and few epochs, to check that it runs")
    parser.add_argument("--threads", type=int, default=0, help="0: those that brainkit takes")
    options = parser.parse_args()
    size, epochs = ({"images": 60, "vertices": 60}, 2) if options.quick else ({}, None)
    settings = {"size": size, "epochs": epochs, "defaults": settings_digest()}
    path = (RESULTS / options.name).with_suffix(".json").resolve()
    for seed in options.seeds:
        report = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        runs = report["runs"] if report.get("settings") == settings else {}
        if str(seed) not in runs:
            runs |= {str(seed): _run(seed, size, epochs, options.threads)}
        runs = {key: runs[key] for key in sorted(runs, key=int)}
        write_report(options.name, {"settings": settings, "runs": runs}, page(runs))


def _run(seed: int, size: dict[str, int], epochs: int | None, threads: int) -> dict[str, Any]:
    from brainkit.sample import make_sample

    before, cache = Path.cwd(), os.environ.get("BRAINKIT_CACHE")
    with tempfile.TemporaryDirectory() as work:
        os.environ["BRAINKIT_CACHE"] = str(Path(work) / "cache")
        os.chdir(work)
        try:
            subject = make_sample(f"subject-{seed}", seed=seed, **size)
            run = brainkit.fit(
                "efficientnet_lite0", subject, out=f"run-{seed}", seed=seed, epochs=epochs, maps=False, threads=threads
            )
            found = json.loads((run.path / "recovery.json").read_text(encoding="utf-8"))
            machine = {"processor": processor(), "cores": os.cpu_count(), **run.summary["versions"]}
            scores, seconds = run.scores["all"], run.summary["seconds"]
        finally:
            os.chdir(before)
            os.environ.pop("BRAINKIT_CACHE") if cache is None else os.environ.update(BRAINKIT_CACHE=cache)
    return {"rows": found["rows"], "scores": scores, "seconds": seconds, "machine": machine}


def page(runs: dict[str, dict[str, Any]]) -> str:
    """The table, and what it was made with."""
    machine = runs[max(runs)]["machine"]
    versions = ", ".join(f"{name} {value}" for name, value in machine.items())
    return f"# Recovery of the planted truth\n\n{table(runs)}\nSeeds {', '.join(runs)}. {versions}\n"


def table(runs: dict[str, dict[str, Any]], names: dict[str, str] | None = None) -> str:
    """A row per measure: mean over the seeds with its 95 % t interval, the worst seed, the best constant, the goal."""
    from scipy.stats import t

    lines = [f"| | mean of {len(runs)} subjects | 95 % | worst subject | best constant | goal |", "|---" * 6 + "|"]
    for name, goal in GOALS.items():
        rows = [run["rows"][name] for run in runs.values()]
        values = np.array([row["value"] for row in rows])
        small_is_good = name == "location_median"
        worst = values.max() if small_is_good else values.min()
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        reach = t.ppf(0.975, max(len(values) - 1, 1)) * error
        constant = np.mean([row["constant"] for row in rows])
        lines.append(
            f"| {(names or {}).get(name, name)} | {values.mean():.3f} | "
            f"{values.mean() - reach:.3f} to {values.mean() + reach:.3f} | {worst:.3f} | {constant:.3g} | "
            f"{'at most' if small_is_good else 'at least'} {goal} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
