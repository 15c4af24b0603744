"""The example of docs/networks.md: ``python -m bench.networks`` runs it, and writes the page's figures and numbers.

It runs examples/compare_networks.py on two simulated subjects, one that responds like EfficientNet-Lite0 and one like
Lite2. One thread; about 20 minutes of CPU. ``--page`` writes the numbers again from ``bench/results/networks.json``.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import machine
from bench.readme import rewrite, wrapped
from bench.report import RESULTS, ROOT
from brainkit.evaluation.compare import ALL
from brainkit.utils.files import read_json, write_json

SCRIPT = ROOT / "examples" / "compare_networks.py"
TRUTH, OTHER_TRUTH = "efficientnet_lite0", "efficientnet_lite2"
CONTROL = "random"
MEASURE = "explained"
# File of the page -> file of the study.
FIGURES = {
    "leaderboard.png": f"{TRUTH}/leaderboard/leaderboard.png",
    "accuracy-by-roi.png": f"{TRUTH}/comparison/accuracy-by-roi.png",
    "hierarchy.png": f"{TRUTH}/comparison/hierarchy.png",
    "other-truth.png": f"{OTHER_TRUTH}/leaderboard/leaderboard.png",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the studies, keep their numbers, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="only write the numbers of the page again")
    parser.add_argument("--folder", type=Path, help="keep runs there, and go on with those that are there")
    parser.add_argument("--results", type=Path, default=RESULTS / "networks.json")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where networks.md and its figures are")
    options, study = parser.parse_known_args(arguments)
    if not options.page:
        with tempfile.TemporaryDirectory() as temporary:
            run_studies(options.folder or Path(temporary), options.results, options.docs / "networks", study)
    write_page(read_json(options.results), options.docs / "networks.md")


def run_studies(folder: Path, results: Path, figures: Path, more: Sequence[str] = ()) -> None:
    """Run the script on both subjects, and keep its comparisons and figures."""
    about = machine.describe(1)
    # A cache of its own: the time includes the tokens.
    environment = os.environ | {"BRAINKIT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    found: dict[str, Any] = {}
    for truth, short in ((TRUTH, ()), (OTHER_TRUTH, ("--repeats", "0", "--random", "1"))):
        before = _seconds()
        options = ["--out", str(folder / truth), "--truth", truth, "--threads", "1", *short, *more]
        subprocess.run([sys.executable, str(SCRIPT), *options], env=environment, check=True)
        comparison = read_json(folder / truth / "comparison" / "comparison.json")
        found[truth] = comparison | {"CPU seconds": round(_seconds() - before)}
    figures.mkdir(parents=True, exist_ok=True)
    for name, source in FIGURES.items():
        shutil.copyfile(folder / source, figures / name)
    write_json(results, found | {"machine": about})


def write_page(found: dict[str, Any], page: Path) -> None:
    """Write what was found between the marks of the page.

    Raises
    ------
    SystemExit
        If a study does not find what was planted: the page explains why it must.
    """
    for truth in (TRUTH, OTHER_TRUTH):
        ranking = ranked(found[truth])
        if ranking[0] != truth or ranking[-1] != CONTROL:
            raise SystemExit(f"networks: expected {truth} first and {CONTROL} last, found {', '.join(ranking)}")
    study = found[TRUTH]
    parts = {
        "which": lambda: which(study),
        "where": lambda: where(study),
        "depth": lambda: depth(study),
        "other truth": lambda: which(found[OTHER_TRUTH]),
        "made with": lambda: made_with(found),
    }
    rewrite(page, parts)


def ranked(study: dict[str, Any]) -> list[str]:
    """Models from best to worst."""
    return sorted(study["models"], key=lambda name: -_accuracy(study, name, ALL)["mean"])


def which(study: dict[str, Any]) -> str:
    """Accuracy over all vertices, and differences from the best."""
    best, *others = ranked(study)
    facts = next(iter(study["subjects"].values()))
    value = _accuracy(study, best, ALL)
    sentences = [
        f"On {facts['images']} test images of {facts['stimuli']} stimuli, `{best}` explains {value['mean']:.3f} of the "
        f"noise ceiling ({value['mean_low']:.3f} to {value['mean_high']:.3f}), the mean over {value['n']:,} vertices."
    ]
    for other in others:
        line = difference(study, best, other, ALL)
        sentences.append(
            f"`{other}` explains {_accuracy(study, other, ALL)['mean']:.3f}: less by {_with_interval(line)}, "
            f"p {line['p']:.2g}."
        )
    r = study["models"][CONTROL]["accuracy"][ALL]["r"]
    sentences.append(f"The mean r of `{CONTROL}` is {r['mean']:.3f} ({r['mean_low']:.3f} to {r['mean_high']:.3f}).")
    return wrapped(" ".join(sentences))


def where(study: dict[str, Any]) -> str:
    """The best against the second, by region, and in how many regions the control is last."""
    best, second = ranked(study)[:2]
    groups = next(pair for pair in study["pairs"] if {pair["a"], pair["b"]} == {best, second})["groups"]
    regions = [name for name in groups if name != ALL and not name.endswith("hemisphere")]
    lines = {name: difference(study, best, second, name) for name in regions}
    smallest, largest = (pick(lines, key=lambda name: lines[name]["difference"]) for pick in (min, max))
    q = max(line["q"] for line in lines.values())
    last = sum(
        min(study["models"], key=lambda name: _accuracy(study, name, region)["mean"]) == CONTROL for region in regions
    )
    return wrapped(
        f"`{best}` is ahead of `{second}` by {_with_interval(lines[smallest])} in {smallest}, least of the "
        f"{len(regions)} regions, and by {_with_interval(lines[largest])} in {largest}, most; the largest q is "
        f"{q:.2g}. Random weights are last in {last} of {len(regions)} regions."
    )


def depth(study: dict[str, Any]) -> str:
    """Slopes of preferred depth with intervals and p."""
    areas = " < ".join(next(iter(study["subjects"].values()))["areas"])
    sentences = [f"Depth is fitted against {areas}."]
    for name in ranked(study):
        line = study["models"][name]["hierarchy"]
        slope = line["slope"]
        interval = "" if slope["low"] is None else f" ({slope['low']:.3f} to {slope['high']:.3f})"
        p = "" if slope["p"] is None else f" and p {slope['p']:.2g} (spin test)"
        r2 = line["r2"]["value"]
        sentences.append(f"The slope of `{name}` is {slope['value']:.3f} per area{interval}, with r² {r2:.2f}{p}.")
    return wrapped(" ".join(sentences))


def made_with(found: dict[str, Any]) -> str:
    """Time, hardware and versions."""
    about = found["machine"]
    minutes = [f"{found[truth]['CPU seconds'] / 60:.0f}" for truth in (TRUTH, OTHER_TRUTH)]
    return wrapped(
        f"The studies took {minutes[0]} and {minutes[1]} minutes of CPU on one thread of an {about['processor']} "
        f"(brainkit {about['brainkit']}, torch {about['torch']}); the tokens of a network are extracted once, for "
        "both. `python -m bench.networks` runs them and writes figures and numbers of this page, from "
        "[networks.json](../bench/results/networks.json)."
    )


def difference(study: dict[str, Any], a: str, b: str, group: str) -> dict[str, Any]:
    """By how much `a` explains more than `b`."""
    for pair in study["pairs"]:
        if (pair["a"], pair["b"]) == (a, b):
            return dict(pair["groups"][group][MEASURE])
        if (pair["a"], pair["b"]) == (b, a):
            line = pair["groups"][group][MEASURE]
            return line | {"difference": -line["difference"], "low": -line["high"], "high": -line["low"]}
    raise LookupError(f"{a}, {b}")


def _accuracy(study: dict[str, Any], model: str, group: str) -> dict[str, Any]:
    return dict(study["models"][model]["accuracy"][group][MEASURE])


def _with_interval(line: dict[str, Any]) -> str:
    return f"{line['difference']:.3f} ({line['low']:.3f} to {line['high']:.3f})"


def _seconds() -> float:
    """CPU seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
