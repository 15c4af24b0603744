"""How well training recovers planted selectors: ``python -m bench.recovery``.

Default settings on sample subjects; they were chosen on the subjects of seeds 0 and 1, so others are used here.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np

import brainkit
from bench.machine import processor
from bench.report import write_report
from brainkit.sample import make_sample

GOALS = {
    "depth_r": 0.96,
    "depth_within_one": 0.95,
    "location_median": 0.05,
    "scale_r": 0.93,
    "accuracy_share": 0.80,
}


def main() -> None:
    """Make the subjects, train on each, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103], help="of subjects and trainings")
    parser.add_argument("--name", default="recovery", help="name of the files in bench/results")
    parser.add_argument("--quick", action="store_true", help="tiny subjects and few epochs, to check that it runs")
    options = parser.parse_args()
    size, epochs = ({"images": 60, "vertices": 60}, 2) if options.quick else ({}, None)
    runs = {}
    with tempfile.TemporaryDirectory() as work:
        os.environ["BRAINKIT_CACHE"] = str(Path(work) / "cache")
        os.chdir(work)
        for seed in options.seeds:
            subject = make_sample(f"subject-{seed}", seed=seed, **size)
            run = brainkit.fit("efficientnet_lite0", subject, out=f"run-{seed}", seed=seed, epochs=epochs)
            found = json.loads((run.path / "recovery.json").read_text(encoding="utf-8"))
            runs[seed] = {"rows": found["rows"], "scores": run.scores["all"], "seconds": run.summary["seconds"]}
            versions = run.summary["versions"]
    machine = {"processor": processor(), "cores": os.cpu_count(), **versions}
    text = table(runs) + "\n" + ", ".join(f"{name} {value}" for name, value in machine.items()) + "\n"
    write_report(options.name, {"machine": machine, "runs": runs}, text)


def table(runs: dict[int, dict]) -> str:
    """A row per measure, a column per seed, the best constant and the goal."""
    seeds = list(runs)
    lines = ["# Recovery of the planted truth", ""]
    lines.append(f"| | {' | '.join(f'seed {seed}' for seed in seeds)} | best constant | goal |")
    lines.append("|---" * (len(seeds) + 3) + "|")
    for name, goal in GOALS.items():
        values = [runs[seed]["rows"][name]["value"] for seed in seeds]
        constant = np.mean([runs[seed]["rows"][name]["constant"] for seed in seeds])
        cells = " | ".join(f"{value:.3f}" for value in values)
        sign = "at most" if name == "location_median" else "at least"
        lines.append(f"| {name} | {cells} | {constant:.3f} | {sign} {goal} |")
    seconds = " | ".join(f"{runs[seed]['seconds']['training']:.0f} s" for seed in seeds)
    lines.append(f"| training | {seconds} | | |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
