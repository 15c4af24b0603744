"""What settings do to accuracy and to the maps, on sample subjects: ``python -m bench.accuracy``.

Subjects of seeds 0 and 1 are what defaults are chosen on; what is reported are others. Three parts, each of which can
be run alone (``--parts``); what the others found stays in ``bench/results/accuracy.json``. Seconds are of the
processor, so that a busy machine does not change them.

accuracy   default settings, published settings, and himalaya's ridge regressions from the same tokens
maps       whether two trainings give the same maps: other seeds, other halves of the images, in both parametrisations
noise      settings against overfitting, where responses are clean and where they are noisy
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import accuracy_page, machine
from bench.fitting import Fitted, Material, fit, material
from brainkit.config import Config
from brainkit.data.splits import Split
from brainkit.evaluation.recovery import CEILING_FOR_RECOVERY
from brainkit.evaluation.scores import Scores
from brainkit.model.bottlenecks import TokenStatistics
from brainkit.model.factor_topy import FactorTopy
from brainkit.ops import factor_readout

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
SEEDS = (101, 102, 103)
NOISE = (1.0, 0.35)
AGAINST_OVERFITTING = {
    "default": [],
    "weight_decay 0.003": ["train.weight_decay=0.003"],
    "weight_decay 0.1": ["train.weight_decay=0.1"],
    "weight_decay 0.1, ema 0.98, constant": ["train.weight_decay=0.1", "train.ema=0.98", "train.schedule=constant"],
}


def published_settings() -> Config:
    """Of ``examples/published.yaml``, on the tokens and for the epochs of the default settings."""
    settings = Config.read(ROOT / "examples" / "published.yaml")
    return settings.replace([f"train.epochs={Config().train.epochs}", "data.preset="])


def accuracy(folder: Path, say: Callable[[str], None], *, vertices: int, images: int, longer: int) -> dict[str, Any]:
    """Scores by subject seed, which is the seed of the split, the start and the order too.

    The first subject is also trained `longer`, with published settings, whose small learning rate needs more steps.
    """
    from bench import ridge

    found: dict[str, Any] = {}
    for seed in SEEDS:
        given = material(folder, seed, vertices=vertices, images=images)
        split = given.split(seed)
        settings = {"default settings": Config(), "published settings": published_settings()}
        if seed == SEEDS[0]:  # it takes long
            settings[f"published settings, {longer} epochs"] = published_settings().replace([f"train.epochs={longer}"])
        rows = {}
        for name, chosen in settings.items():
            fitted = fit(given, chosen.replace([f"seed={seed}"]), split)
            kept = {"best_epoch": fitted.best_epoch, "steps": fitted.steps}
            rows[name] = medians(fitted.scores) | against_truth(given, fitted) | kept | {"seconds": fitted.seconds}
            say(f"subject {seed}, {name}: {rows[name]}")
        for name, (scores, seconds) in ridge.baselines(given, split, iterations=30).items():
            rows[name] = medians(scores) | {"seconds": seconds}
            say(f"subject {seed}, {name}: {rows[name]}")
        found[str(seed)] = rows
    return {"vertices": vertices, "images": images, "seeds": found}


def maps(folder: Path, say: Callable[[str], None], *, vertices: int, images: int, pairs: int) -> dict[str, Any]:
    """Agreement of the maps of two trainings on one subject, in three parametrisations."""
    given = material(folder / "maps", SEEDS[0], vertices=vertices, images=images)
    split = given.split(SEEDS[0])
    found: dict[str, Any] = {}
    for name, settings in {
        "default settings (gauge unit)": Config(),
        "default settings, gauge published": Config().replace(["model.gauge=published"]),
        "published settings (gauge published)": published_settings(),
    }.items():
        seeds = [fit(given, settings.replace([f"seed={seed}"]), split) for seed in range(3)]
        say(f"{name}: three seeds trained")
        halves = []
        for draw in range(pairs):
            order = np.random.default_rng((draw, 4)).permutation(split.train)
            parts = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
            sides = [Split(part, split.validation, split.test, seed=split.seed) for part in parts]
            halves.append([fit(given, settings.replace([f"seed={draw}"]), side) for side in sides])
            say(f"{name}: halves, draw {draw + 1} of {pairs}, trained")
        found[name] = {
            "other seed": [agreement(given, a, b) for a, b in combinations(seeds, 2)],
            "other half of the images": [agreement(given, a, b) for a, b in halves],
            "planted truth": [against_truth(given, one) | medians(one.scores) for one in seeds],
        }
        if settings.model.gauge == "published":
            found[name]["same model, other gains"] = [regauged(given, split, one) for one in seeds]
        say(f"{name}: {found[name]}")
    return {"vertices": vertices, "images": images, "subject": SEEDS[0], "parametrisations": found}


def noise(
    folder: Path, say: Callable[[str], None], *, vertices: int, images: int, seeds: tuple[int, ...]
) -> dict[str, Any]:
    """Scores and recovery of each way against overfitting, where ceilings are multiplied by each share of `NOISE`."""
    found: dict[str, Any] = {}
    for seed in seeds:
        plain = material(folder / "noise", seed, vertices=vertices, images=images)
        split = plain.split(seed)
        for share in NOISE:
            given = plain.noisier(share, seed) if share < 1 else plain
            rows = found.setdefault(f"{share:g}", {"ceiling": []})
            rows["ceiling"].append(float(np.median(given.ceiling)))
            # Where ceilings are low the measures are over the better half of the vertices.
            floor = min(CEILING_FOR_RECOVERY, float(np.median(given.ceiling)))
            for name, overrides in AGAINST_OVERFITTING.items():
                fitted = fit(given, Config().replace([f"seed={seed}", *overrides]), split)
                row = medians(fitted.scores, floor) | against_truth(given, fitted, floor)
                rows.setdefault(name, []).append(row | {"best_epoch": fitted.best_epoch})
                say(f"subject {seed}, ceilings x {share:g}, {name}: {rows[name][-1]}")
    return {"vertices": vertices, "images": images, "seeds": list(seeds), "shares": found}


def medians(scores: Scores, floor: float = CEILING_FOR_RECOVERY) -> dict[str, float]:
    """Medians over all vertices, and over those with a noise ceiling above `floor`."""
    good = scores.noise_ceiling > floor
    # A prediction that does not vary has no correlation; it explains nothing.
    r, share = np.nan_to_num(scores.r), np.nan_to_num(scores.share)
    return {
        "share": float(np.median(share[good])),
        "r": float(np.median(r[good])),
        "R2": float(np.median(scores.R2[good])),
        "r_all": float(np.median(r)),
        "R2_all": float(np.median(scores.R2)),
    }


def against_truth(given: Material, fitted: Fitted, floor: float = CEILING_FOR_RECOVERY) -> dict[str, float]:
    """How well the maps are those that were planted."""
    planted = {
        "depth": given.truth["layer_weights"] @ np.arange(len(given.tokens.layers)),
        "location": given.truth["locations"],
        "scale": given.truth["scale"],
    }
    return _agreement(planted, fitted.selectors(), given.ceiling > floor)


def agreement(given: Material, one: Fitted, other: Fitted) -> dict[str, float]:
    """How alike the maps of two trainings are."""
    return _agreement(one.selectors(), other.selectors(), given.ceiling > CEILING_FOR_RECOVERY)


def _agreement(a: dict[str, np.ndarray], b: dict[str, np.ndarray], good: np.ndarray) -> dict[str, float]:
    apart = {name: a[name][good] - b[name][good] for name in ("depth", "location", "scale")}
    return {
        "depth_r": float(np.corrcoef(a["depth"][good], b["depth"][good])[0, 1]),
        "depth_apart": float(np.median(np.abs(apart["depth"]))),
        "depth_within_one": float((np.abs(apart["depth"]) <= 1).mean()),
        "location_apart": float(np.median(np.linalg.norm(apart["location"], axis=1))),
        "scale_r": float(np.corrcoef(a["scale"][good], b["scale"][good])[0, 1]),
        "scale_apart": float(np.median(np.abs(apart["scale"]))),
    }


@torch.inference_mode()
def regauged(given: Material, split: Split, fitted: Fitted) -> dict[str, float]:
    """What becomes of the layer map of one trained model if its bottlenecks' gains are written otherwise.

    Every layer is multiplied by k, so that its local tokens have unit RMS, and its layer weights are divided by k: the
    predictions stay.
    """
    model: FactorTopy = fitted.model
    chosen = model.selectors()
    gains = []
    for layer in model.layers:
        statistics = model.local_statistics[layer]
        assert isinstance(statistics, TokenStatistics)
        gains.append(statistics.gain(model.local_token_bottleneck[layer].weight[:, :, 0, 0]))
    k = torch.stack(gains)
    weights = chosen.layer_weights / k
    total = weights.sum(1, keepdim=True)
    local, whole = model.bottlenecked(*given.tokens.batch(split.test[:64]))
    rest = chosen.scale, model.weight, model.bias
    before = factor_readout(local, whole, chosen.locations, chosen.layer_weights, *rest)
    local, whole = local * k[:, None, None, None], whole * k[:, None]
    rest = chosen.scale, model.weight * total, model.bias
    after = factor_readout(local, whole, chosen.locations, weights / total, *rest)

    good = given.ceiling > CEILING_FOR_RECOVERY
    steps = torch.arange(len(model.layers)).float()
    depth, moved = (chosen.layer_weights @ steps).numpy()[good], ((weights / total) @ steps).numpy()[good]
    return {
        "predictions_apart": float((before - after).abs().max() / before.std()),
        "depth_apart": float(np.median(np.abs(depth - moved))),
        "depth_apart_most": float(np.abs(depth - moved).max()),
        "gains_largest_to_smallest": float(k.max() / k.min()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parts", nargs="+", choices=("accuracy", "maps", "noise"), default=["accuracy", "maps", "noise"]
    )
    parser.add_argument("--name", default="accuracy", help="of the files in bench/results")
    parser.add_argument("--quick", action="store_true", help="tiny subjects, to see that it runs")
    given = parser.parse_args()
    small = {"vertices": 100, "images": 80}
    runs: dict[str, Callable[[Path], dict[str, Any]]] = {
        "accuracy": lambda folder: accuracy(
            folder,
            print,
            **(small | {"longer": 30} if given.quick else {"vertices": 800, "images": 900, "longer": 60}),
        ),
        "maps": lambda folder: maps(
            folder, print, **(small | {"pairs": 1} if given.quick else {"vertices": 400, "images": 900, "pairs": 3})
        ),
        "noise": lambda folder: noise(
            folder, print, seeds=SEEDS, **(small if given.quick else {"vertices": 800, "images": 900})
        ),
    }
    place = RESULTS / f"{given.name}.json"
    for part in given.parts:
        with tempfile.TemporaryDirectory() as work:
            os.environ.setdefault("BRAINKIT_CACHE", str(Path(work) / "cache"))
            found = runs[part](Path(work)) | {"machine": machine.describe(torch.get_num_threads())}
        # Read again: another part may have been run meanwhile.
        report = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}
        report[part] = found
        place.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        place.with_suffix(".md").write_text(accuracy_page.page(report), encoding="utf-8")
    print(place.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
