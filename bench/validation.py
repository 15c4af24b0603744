"""Is what brainkit says true? Makes docs/validation.md and its figures: ``python -m bench.validation``.

Parts can be run separately (``--parts``; with none, the page alone is made anew); results of parts that are not run
stay in ``bench/results/validation.json``. One thread; the whole takes about 40 minutes of CPU, most of it `recovery`.

recovery     planted maps: against noise, number of images, number of vertices
calibration  do intervals cover the truth, do tests hold their level?
agreement    every metric against another library
official     the Algonauts score on a worked example
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import machine
from bench.report import RESULTS, ROOT, settings_digest
from brainkit.utils.files import cache_folder

PARTS = ("recovery", "calibration", "agreement", "official")
SIMULATIONS = ("coverage", "levels", "large ROI", "slopes", "null", "errors", "spin")
REFERENCE = {"images": 1000, "vertices": 400, "share": 1.0}
SWEEPS: dict[str, tuple[Any, ...]] = {
    "share": (0.1, 0.25, 0.5, 1.0),
    "images": (300, 1000, 3000, 10_000),
    "vertices": (100, 400, 1600),
}
DRAWS = 3
_LEAST_POOL = 1000  # images over which the planted channels are scaled, whatever the number of training images

Say = Callable[[str], None]


def main() -> None:
    """Run the parts asked for, keep their results, and make the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to check that it runs")
    parser.add_argument("--most-images", type=int, default=10_000, help="leave out trainings with more images")
    parser.add_argument(
        "--simulations", nargs="+", choices=SIMULATIONS, default=[], help="some of those of `calibration` alone"
    )
    parser.add_argument("--again", action="store_true", help="train again what `recovery` has trained before")
    parser.add_argument("--results", type=Path, default=RESULTS / "validation.json")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where validation.md and its figures go")
    parser.add_argument("--folder", type=Path, help="of crops and their tokens (1 GB); default: the cache")
    options = parser.parse_args()
    folder = options.folder or cache_folder() / "validation"
    runs: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "recovery": lambda kept: recovery(folder, kept, options, _say),
        "calibration": lambda kept: kept | calibration(_say, quick=options.quick, names=options.simulations),
        "agreement": lambda kept: agreement(),
        "official": lambda kept: official(),
    }
    for part in options.parts:
        started = time.process_time()
        kept = {} if options.again else read(options.results).get(part, {})
        found = runs[part](kept)
        before = kept.get("CPU seconds", 0) if options.simulations or part == "recovery" else 0
        found |= {"CPU seconds": round(before + time.process_time() - started), "machine": machine.describe(1)}
        store(options.results, part, found)
    from bench.validation_page import write_page

    # Worlds that are not the model's own have a program of their own, `bench.worlds`.
    write_page(read(options.results) | {"worlds": read(RESULTS / "worlds.json")}, options.docs)


def read(path: Path) -> dict[str, Any]:
    """The results so far."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def store(path: Path, part: str, found: dict[str, Any]) -> None:
    """Keep the results of a part; others may have been run meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(read(path) | {part: found}, indent=1) + "\n", encoding="utf-8")


def recovery(folder: Path, kept: dict[str, Any], options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Trainings on planted subjects, one thing varied at a time; what is kept is not trained again."""
    import torch

    torch.set_num_threads(1)
    reference, sweeps, draws = REFERENCE, SWEEPS, DRAWS
    if options.quick:
        reference, sweeps, draws = {"images": 60, "vertices": 60, "share": 1.0}, {"images": (60,)}, 2
    about = {"defaults": settings_digest(), "reference": reference, "sweeps": sweeps}
    rows: list[dict[str, Any]] = list(kept["rows"]) if kept.get("defaults") == about["defaults"] else []
    cells = [reference | {name: value} for name, values in sweeps.items() for value in values]
    unique = sorted({tuple(cell.items()) for cell in cells}, key=lambda cell: dict(cell)["images"])
    for cell in [dict(items) | {"seed": seed} for seed in range(1, draws + 1) for items in unique]:
        done = any(all(row[name] == value for name, value in cell.items()) for row in rows)
        if done or cell["images"] > options.most_images:
            continue
        rows.append(cell | _train_cell(folder, cell, quick=options.quick))
        say(f"recovery: {rows[-1]}")
        store(options.results, "recovery", about | {"rows": rows})
    return about | {"rows": rows}


def _train_cell(folder: Path, cell: dict[str, Any], *, quick: bool) -> dict[str, float]:
    from bench.fitting import train
    from bench.planted import load_pool, plant, recovery
    from brainkit.config import Config
    from brainkit.metrics.scores import RELIABLE_CEILING

    pool = load_pool(folder, 60, total=60, test=20) if quick else load_pool(folder, max(cell["images"], _LEAST_POOL))
    planted = plant(pool, cell["seed"], vertices=cell["vertices"], share=cell["share"])
    settings = Config().replace([f"seed={cell['seed']}", "train.threads=1", *(["train.epochs=2"] if quick else [])])
    trained = train(planted, settings, pool.split(cell["seed"], cell["images"]))
    # The same vertices whatever the noise: those of a ceiling above 0.3 where it is not reduced.
    found = recovery(planted, trained, planted.ceiling > RELIABLE_CEILING * cell["share"])
    return found | {"CPU seconds": round(trained.seconds, 1)}


def calibration(say: Say, *, quick: bool, names: Sequence[str] = ()) -> dict[str, Any]:
    """The simulations of `bench.calibration`, all or those named."""
    from bench import calibration as simulations

    def number(datasets: int) -> int:
        return 4 if quick else datasets

    parts: dict[str, Callable[[], Any]] = {
        "coverage": lambda: simulations.coverage(number(200), say),
        "levels": lambda: simulations.nominal_curve(number(150), say),
        "large ROI": lambda: simulations.large_roi(number(600), say),
        "slopes": lambda: simulations.slope_coverage(number(2000), say),
        "null": lambda: simulations.null_p_values(number(1500), say),
        "errors": lambda: simulations.error_rates(number(500), say),
        "spin": lambda: simulations.spin_level(number(1500), say, draws=number(499)),
    }
    return {name: run() for name, run in parts.items() if not names or name in names}


def agreement() -> dict[str, Any]:
    """The largest differences from other libraries; a difference that is too large ends the program."""
    from bench.agreement import agreements

    rows = [asdict(each) for each in agreements()]
    if wrong := [row for row in rows if not row["difference"] <= row["allowed"]]:
        raise SystemExit(f"nothing is reported: {wrong[0]['metric']} is not that of {wrong[0]['other']}: {wrong[0]}")
    return {"rows": rows}


def official() -> dict[str, Any]:
    """The worked example: what each vertex counts, their mean and their median."""
    from bench.agreement import EXAMPLE_CEILING, EXAMPLE_R, official_by_hand
    from brainkit.metrics import official_score

    vertices = []
    for r, ceiling in zip(EXAMPLE_R, EXAMPLE_CEILING, strict=True):
        counts = official_by_hand([r], [ceiling])
        vertices.append({"r": _plain(r), "noise ceiling": _plain(ceiling), "counts": counts[0] if counts else None})
    score = official_score(EXAMPLE_R, EXAMPLE_CEILING)
    return {"vertices": vertices, "mean": score.mean, "median": score.median, "n": score.n}


def _plain(value: float) -> float | None:
    return None if value != value else value


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
