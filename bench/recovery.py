"""How well training finds a planted truth: default settings on sample subjects of seeds that were not tuned on.

Run it with ``python -m bench.recovery``; it writes ``bench/results/recovery.md`` and ``.json``, with hardware and
versions. The settings in ``brainkit/config.py`` were chosen on the subjects of seeds 0 and 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path

import numpy as np

from brainkit.api import fit
from brainkit.sample import make_sample

RESULTS = Path(__file__).resolve().parent / "results"
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103], help="of subject and of training")
    given = parser.parse_args()
    runs = {}
    with tempfile.TemporaryDirectory() as work:
        os.environ["BRAINKIT_CACHE"] = str(Path(work) / "cache")
        os.chdir(work)
        for seed in given.seeds:
            subject = make_sample(f"subject-{seed}", seed=seed)
            run = fit("efficientnet_lite0", subject, out=f"run-{seed}", seed=seed)
            found = json.loads((run.path / "recovery.json").read_text(encoding="utf-8"))
            runs[seed] = {"rows": found["rows"], "scores": run.scores["all"], "seconds": run.summary["seconds"]}
            versions = run.summary["versions"]
    machine = {"processor": processor(), "cores": os.cpu_count(), **versions}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "recovery.json").write_text(json.dumps({"machine": machine, "runs": runs}, indent=2) + "\n")
    text = table(runs) + "\n" + ", ".join(f"{name} {value}" for name, value in machine.items()) + "\n"
    (RESULTS / "recovery.md").write_text(text, encoding="utf-8")
    print(text)


def table(runs: dict[int, dict]) -> str:
    """One row a measure, one column a seed, with the best constant and the goal."""
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


def processor() -> str:
    """Name of the processor, as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
