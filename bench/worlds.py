"""How FactorTopy and ridge regressions fare where responses are not FactorTopy's own: ``python -m bench.worlds``.

A world is a simulated subject (see `bench.world_simulation`). ``load_world(seed, kind)`` and ``run_variant(world,
overrides)`` try a setting in half a minute of CPU; worlds and results stay in a folder, so that nothing is computed
twice.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from bench import machine, ridge, world_simulation
from bench.fitting import train
from bench.report import write_report
from bench.world_simulation import AREAS, World
from brainkit.config import Config
from brainkit.evaluation.scores import Scores
from brainkit.metrics.correlation import StreamingCorrelation
from brainkit.utils.files import atomic_write, cache_folder, read_json, write_json

GROUPS = ("all", *AREAS)
VARIANTS: dict[str, list[str]] = {
    "default": [],
    "no topography": ["model.topography=false"],
    "no offsets": ["model.offsets=[]"],
    "no offsets, no refit": ["model.offsets=[]", "train.refit=false"],
}
MEANING = {"all": "Both kinds", "near": "Little scatter", "far": "Much scatter"}


def load_world(seed: int, kind: str = "near", *, folder: Path | None = None, grid: int = 8) -> World:
    """A world by its seed and kind ("near" or "far"); made on first use in about two minutes."""
    return world_simulation.load_world(seed, kind, folder=folder or cache_folder() / "worlds", grid=grid)


def run_variant(world: World, overrides: Sequence[str] = (), seed: int = 0) -> dict[str, Any]:
    """Train with settings such as ``["model.topography=false"]``.

    Returns
    -------
    dict
        ``explained`` and ``signal``: medians over all vertices and by area of the explained share of the noise ceiling,
        and of the squared correlation with the responses without noise; ``seconds`` (CPU), ``best_epoch``.
    """
    split = world.split(seed)
    trained = train(world, Config().replace([f"seed={seed}", "train.threads=1", *overrides]), split)
    predicted = predictions(trained.model, world, split.test)
    found = summarise(world, predicted, split.test) | {"seconds": trained.seconds, "best_epoch": trained.best_epoch}
    return found | {"locations": location_errors(world, trained.selectors())}


def predictions(model: Any, world: World, rows: np.ndarray) -> np.ndarray:
    """A model's predictions (n, V) of some images."""
    model.eval()
    with torch.inference_mode():
        parts = [model(*world.tokens.batch(part)).numpy() for part in np.array_split(rows, -(-len(rows) // 64))]
    return np.concatenate(parts)


def summarise(world: World, predicted: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    """Medians by area of the explained share and of the squared correlation with the noise-free responses."""
    noisy = StreamingCorrelation(predicted.shape[1])
    noisy.update(predicted, world.responses.rows(rows))
    share = Scores(np.asarray(noisy.r), np.asarray(noisy.R2), world.ceiling, len(rows)).share
    clean = StreamingCorrelation(predicted.shape[1])
    clean.update(predicted, world.signal[rows])
    squared = np.maximum(np.nan_to_num(np.asarray(clean.r)), 0) ** 2
    return {
        "explained": {group: float(np.nanmedian(share[world.of(group)])) for group in GROUPS},
        "signal": {group: float(np.median(squared[world.of(group)])) for group in GROUPS},
    }


def location_errors(world: World, selectors: dict[str, np.ndarray]) -> dict[str, float]:
    """Median distance of the selected location from the receptive field's centre, where there is one."""
    distance = np.linalg.norm(selectors["location"] - world.truth["centre"], axis=1)
    return {area: float(np.median(distance[world.of(area)])) for area in ("early", "mid")}


def run_ridges(world: World, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Each ridge regression of `bench.ridge` on the same tokens and split."""
    split = world.split(seed)
    found = {}
    for name, (predicted, seconds) in ridge.predictions(world, split).items():
        found[name] = summarise(world, predicted, split.test) | {"seconds": seconds}
    return found


class Results:
    """Results by world and variant in a JSON file: what is there is not computed again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """World -> variant -> result."""
        return read_json(self.path) if self.path.is_file() else {}

    def fill(self, world: str, variants: Sequence[str], compute: Callable[[], dict[str, Any]]) -> None:
        """Compute and store the results of variants in a world, unless they are there."""
        if all(variant in self.rows.get(world, {}) for variant in variants):
            return
        found = compute()
        rows = self.rows  # read again: other processes may have stored theirs meanwhile
        rows[world] = rows.get(world, {}) | found
        with atomic_write(self.path) as temporary:
            write_json(temporary, rows)


def paired(rows: dict[str, dict[str, Any]], variant: str, against: str, measure: str, group: str) -> dict[str, float]:
    """Mean difference of two variants over the worlds that have both, and its 95 % t interval."""
    both = [row for row in rows.values() if variant in row and against in row]
    differences = np.array([row[variant][measure][group] - row[against][measure][group] for row in both])
    half = stats.t.ppf(0.975, len(both) - 1) * differences.std(ddof=1) / np.sqrt(len(both)) if len(both) > 1 else np.nan
    mean = differences.mean()
    return {"difference": mean, "low": mean - half, "high": mean + half, "n": len(both), "won": (differences > 0).sum()}


def page(rows: dict[str, dict[str, Any]]) -> str:
    """Means over worlds by kind, and paired differences from the default."""
    lines = ["# Worlds that are not the model's own", "", (world_simulation.__doc__ or "").strip(), ""]
    scatter = "; ".join(
        f"{name}: centres {kind.centre_scatter[0]} early and {kind.centre_scatter[1]} mid (the image is 2 wide), sizes "
        f"{kind.size_scatter} (logarithm), smooth share of feature weights {kind.smooth_share}"
        for name, kind in world_simulation.KINDS.items()
    )
    lines += [f"Scatter between neighbouring vertices (s.d.): {scatter}.", ""]
    lines += [
        f"{world_simulation.VERTICES} vertices, {world_simulation.TRAINING} images to train and validate on, "
        f"{world_simulation.TEST} of {world_simulation.TEST_PHOTOGRAPHS} other photographs to test on. Explained share "
        "of the noise ceiling: the median over an area's vertices, averaged over worlds. Differences are over all "
        "vertices, paired by world, with 95 % t intervals. Centre error: distance of the location from the planted "
        "receptive field's centre, median.",
        "",
    ]
    kinds = {kind: {k: row for k, row in rows.items() if k.startswith(kind)} for kind in world_simulation.KINDS}
    for kind, chosen in (("all", rows), *kinds.items()):
        if not chosen:
            continue
        variants = dict.fromkeys(variant for row in chosen.values() for variant in row)
        lines += [f"## {MEANING[kind]}: {len(chosen)} worlds", ""]
        lines += ["| | " + " | ".join(GROUPS) + " | centre error, early | mid | CPU s | this minus default | worlds |"]
        lines += ["|---" * (len(GROUPS) + 6) + "|"]
        for variant in variants:
            having = [row[variant] for row in chosen.values() if variant in row]
            cells = [f"{np.mean([row['explained'][group] for row in having]):.3f}" for group in GROUPS]
            for area in ("early", "mid"):
                off = [row["locations"][area] for row in having if "locations" in row]
                cells.append(f"{np.mean(off):.3f}" if off else "")
            cells.append(f"{np.mean([row['seconds'] for row in having]):.0f}")
            d = paired(chosen, variant, "default", "explained", "all")
            interval = f" ({d['low']:+.3f} to {d['high']:+.3f})" if d["n"] > 1 else ""
            cells.append("" if variant == "default" else f"{d['difference']:+.3f}{interval}")
            lines.append(f"| {variant} | {' | '.join(cells)} | {len(having)} |")
        lines.append("")
    lines += ["## Paired differences by area, both kinds", ""]
    lines += ["Mean, 95 % t interval over worlds, worlds won.", "", "| | " + " | ".join(GROUPS) + " |"]
    lines += ["|---" * (len(GROUPS) + 1) + "|"]
    ours = [variant for variant in VARIANTS if any(variant in row for row in rows.values())]
    others = [title for title in ridge.TITLES.values() if any(title in row for row in rows.values())]
    for variant, against in [*combinations(ours, 2), *product(ours, others)]:
        cells = []
        for group in GROUPS:
            d = paired(rows, variant, against, "explained", group)
            cells.append(f"{d['difference']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f}), {d['won']} of {d['n']}")
        lines.append(f"| {variant} minus {against} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", ""])


def main() -> None:
    """Measure every variant in every world, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="worlds of each kind")
    parser.add_argument("--kinds", nargs="+", default=list(world_simulation.KINDS), choices=world_simulation.KINDS)
    parser.add_argument("--folder", type=Path, help="of the worlds and results (default: in the cache folder)")
    parser.add_argument("--only", nargs="+", choices=[*VARIANTS, "ridges"], help="some of the variants")
    parser.add_argument(
        "--try",
        dest="tried",
        action="append",
        default=[],
        metavar="SETTINGS",
        help="of another variant",
    )
    parser.add_argument("--name", default="worlds", help="name of the files in bench/results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.folder or cache_folder() / "worlds"
    results = Results(folder / "results.json")
    names = [f"{kind}-{seed}" for seed in options.seeds for kind in options.kinds]
    for name in names:
        kind, _, seed = name.partition("-")
        world = load_world(int(seed), kind, folder=folder)
        for variant in [*(options.only or [*VARIANTS, "ridges"]), *options.tried]:
            if variant == "ridges":
                results.fill(name, list(ridge.TITLES.values()), lambda: run_ridges(world, int(seed)))  # noqa: B023
            else:
                overrides = VARIANTS.get(variant, variant.split())
                results.fill(name, [variant], lambda: {variant: run_variant(world, overrides, int(seed))})  # noqa: B023
            print(name, variant, flush=True)
    rows = {name: results.rows[name] for name in names}
    about = machine.describe(1)
    text = page(rows) + ", ".join(f"{key} {value}" for key, value in about.items()) + "\n"
    write_report(options.name, {"machine": about, "worlds": rows}, text)


if __name__ == "__main__":
    main()
