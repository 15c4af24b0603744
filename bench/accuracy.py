"""How settings affect accuracy and maps, on sample subjects: ``python -m bench.accuracy``.

Defaults are chosen on the subjects of seeds 0 and 1; results are reported on others. Three parts, which can be run
separately (``--parts``); results of parts that are not run stay in ``bench/results/accuracy.json``. Seconds are CPU
time, so that a busy machine does not change them.

accuracy   default settings, published settings, and himalaya's ridge regressions from the same tokens
maps       whether two trainings give the same maps: other seeds, other halves of the images, in both gauges
noise      settings against overfitting, with clean and with noisy responses
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
from bench.fitting import Sample, Trained, load_sample, train
from bench.report import RESULTS, ROOT, write_report
from brainkit.config import Config
from brainkit.data.split import Split
from brainkit.evaluation.scores import Scores
from brainkit.metrics.scores import RELIABLE_CEILING
from brainkit.model.bottlenecks import TokenStatistics
from brainkit.model.factor_topy import FactorTopy
from brainkit.ops import factor_readout

SEEDS = (101, 102, 103)
NOISE = (1.0, 0.35)
AGAINST_OVERFITTING = {
    "default": [],
    "weight_decay 0.003": ["train.weight_decay=0.003"],
    "weight_decay 0.1": ["train.weight_decay=0.1"],
    "weight_decay 0.1, ema 0.98, constant": ["train.weight_decay=0.1", "train.ema=0.98", "train.schedule=constant"],
}


def published_settings() -> Config:
    """``examples/published.yaml``, with the tokens and epochs of the default settings."""
    settings = Config.read(ROOT / "examples" / "published.yaml")
    return settings.replace([f"train.epochs={Config().train.epochs}", "data.preset="])


def accuracy(folder: Path, say: Callable[[str], None], *, vertices: int, images: int, longer: int) -> dict[str, Any]:
    """Scores by subject seed, which is also the seed of split, weights and batches.

    The first subject is also trained for `longer` epochs with published settings: their learning rate is small.
    """
    from bench import ridge

    found: dict[str, Any] = {}
    for seed in SEEDS:
        sample = load_sample(folder, seed, vertices=vertices, images=images)
        split = sample.split(seed)
        settings = {"default settings": Config(), "published settings": published_settings()}
        if seed == SEEDS[0]:  # it takes long
            settings[f"published settings, {longer} epochs"] = published_settings().replace([f"train.epochs={longer}"])
        rows = {}
        for name, chosen in settings.items():
            trained = train(sample, chosen.replace([f"seed={seed}"]), split)
            facts = {"best_epoch": trained.best_epoch, "steps": trained.steps, "seconds": trained.seconds}
            rows[name] = medians(trained.scores) | against_truth(sample, trained) | facts
            say(f"subject {seed}, {name}: {rows[name]}")
        for name, (scores, seconds) in ridge.baselines(sample, split).items():
            rows[name] = medians(scores) | {"seconds": seconds}
            say(f"subject {seed}, {name}: {rows[name]}")
        found[str(seed)] = rows
    return {"vertices": vertices, "images": images, "seeds": found}


def maps(folder: Path, say: Callable[[str], None], *, vertices: int, images: int, pairs: int) -> dict[str, Any]:
    """Agreement of the maps of two trainings on one subject, in three parametrisations."""
    sample = load_sample(folder / "maps", SEEDS[0], vertices=vertices, images=images)
    split = sample.split(SEEDS[0])
    found: dict[str, Any] = {}
    for name, settings in {
        "default settings (gauge unit)": Config(),
        "default settings, gauge published": Config().replace(["model.gauge=published"]),
        "published settings (gauge published)": published_settings(),
    }.items():
        seeds = [train(sample, settings.replace([f"seed={seed}"]), split) for seed in range(3)]
        say(f"{name}: three seeds trained")
        halves = []
        for draw in range(pairs):
            order = np.random.default_rng((draw, 4)).permutation(split.train)
            parts = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
            sides = [Split(part, split.validation, split.test, seed=split.seed) for part in parts]
            halves.append([train(sample, settings.replace([f"seed={draw}"]), side) for side in sides])
            say(f"{name}: halves, draw {draw + 1} of {pairs}, trained")
        found[name] = {
            "other seed": [agreement(sample, a, b) for a, b in combinations(seeds, 2)],
            "other half of the images": [agreement(sample, a, b) for a, b in halves],
            "planted truth": [against_truth(sample, one) | medians(one.scores) for one in seeds],
        }
        if settings.model.gauge == "published":
            found[name]["same model, other gains"] = [regauged(sample, split, one) for one in seeds]
        say(f"{name}: {found[name]}")
    return {"vertices": vertices, "images": images, "subject": SEEDS[0], "parametrisations": found}


def noise(
    folder: Path, say: Callable[[str], None], *, vertices: int, images: int, seeds: tuple[int, ...]
) -> dict[str, Any]:
    """Scores and recovery with each setting against overfitting, for ceilings multiplied by each share of `NOISE`."""
    found: dict[str, Any] = {}
    for seed in seeds:
        plain = load_sample(folder / "noise", seed, vertices=vertices, images=images)
        split = plain.split(seed)
        for share in NOISE:
            sample = plain.noisier(share, seed) if share < 1 else plain
            rows = found.setdefault(f"{share:g}", {"ceiling": []})
            rows["ceiling"].append(float(np.median(sample.ceiling)))
            # With low ceilings, measures are over the better half of the vertices.
            floor = min(RELIABLE_CEILING, float(np.median(sample.ceiling)))
            for name, overrides in AGAINST_OVERFITTING.items():
                trained = train(sample, Config().replace([f"seed={seed}", *overrides]), split)
                row = medians(trained.scores, floor) | against_truth(sample, trained, floor)
                rows.setdefault(name, []).append(row | {"best_epoch": trained.best_epoch})
                say(f"subject {seed}, ceilings x {share:g}, {name}: {rows[name][-1]}")
    return {"vertices": vertices, "images": images, "seeds": list(seeds), "shares": found}


def medians(scores: Scores, floor: float = RELIABLE_CEILING) -> dict[str, float]:
    """Medians over all vertices, and over those with a noise ceiling above `floor`."""
    good = scores.noise_ceiling > floor
    # A constant prediction has no correlation and counts as 0.
    r, share = np.nan_to_num(scores.r), np.nan_to_num(scores.share)
    return {
        "share": float(np.median(share[good])),
        "r": float(np.median(r[good])),
        "R2": float(np.median(scores.R2[good])),
        "r_all": float(np.median(r)),
        "R2_all": float(np.median(scores.R2)),
    }


def against_truth(sample: Sample, trained: Trained, floor: float = RELIABLE_CEILING) -> dict[str, float]:
    """Agreement of the maps with the planted ones."""
    planted = {
        "depth": sample.truth["layer_weights"] @ np.arange(len(sample.tokens.layers)),
        "location": sample.truth["locations"],
        "scale": sample.truth["scale"],
    }
    return _agreement(planted, trained.selectors(), sample.ceiling > floor)


def agreement(sample: Sample, one: Trained, other: Trained) -> dict[str, float]:
    """Agreement of the maps of two trainings."""
    return _agreement(one.selectors(), other.selectors(), sample.ceiling > RELIABLE_CEILING)


def _agreement(a: dict[str, np.ndarray], b: dict[str, np.ndarray], good: np.ndarray) -> dict[str, float]:
    difference = {name: a[name][good] - b[name][good] for name in ("depth", "location", "scale")}
    return {
        "depth_r": float(np.corrcoef(a["depth"][good], b["depth"][good])[0, 1]),
        "depth_apart": float(np.median(np.abs(difference["depth"]))),
        "depth_within_one": float((np.abs(difference["depth"]) <= 1).mean()),
        "location_apart": float(np.median(np.linalg.norm(difference["location"], axis=1))),
        "scale_r": float(np.corrcoef(a["scale"][good], b["scale"][good])[0, 1]),
        "scale_apart": float(np.median(np.abs(difference["scale"]))),
    }


@torch.inference_mode()
def regauged(sample: Sample, split: Split, trained: Trained) -> dict[str, float]:
    """How the layer map of a trained model changes with its bottlenecks' gains, at the same predictions.

    Every layer's bottlenecks are multiplied by a k that gives its local tokens unit RMS, and its layer weights are
    divided by k.
    """
    model: FactorTopy = trained.model
    selected = model.selectors()
    gains = []
    for layer in model.layers:
        statistics = model.local_statistics[layer]
        assert isinstance(statistics, TokenStatistics)
        gains.append(statistics.gain(model.local_token_bottleneck[layer].weight[:, :, 0, 0]))
    k = torch.stack(gains)
    weights = selected.layer_weights / k
    total = weights.sum(1, keepdim=True)
    local, whole = model.bottlenecked(*sample.tokens.batch(split.test[:64]))
    rest = selected.scale, model.weight, model.bias
    before = factor_readout(local, whole, selected.locations, selected.layer_weights, *rest)
    local, whole = local * k[:, None, None, None], whole * k[:, None]
    rest = selected.scale, model.weight * total, model.bias
    after = factor_readout(local, whole, selected.locations, weights / total, *rest)

    good = sample.ceiling > RELIABLE_CEILING
    steps = torch.arange(len(model.layers)).float()
    depth, moved = (selected.layer_weights @ steps).numpy()[good], ((weights / total) @ steps).numpy()[good]
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
    parser.add_argument("--name", default="accuracy", help="name of the files in bench/results")
    parser.add_argument("--quick", action="store_true", help="tiny subjects, to check that it runs")
    options = parser.parse_args()
    small = {"vertices": 100, "images": 80}
    runs: dict[str, Callable[[Path], dict[str, Any]]] = {
        "accuracy": lambda folder: accuracy(
            folder,
            print,
            **(small | {"longer": 30} if options.quick else {"vertices": 800, "images": 900, "longer": 60}),
        ),
        "maps": lambda folder: maps(
            folder, print, **(small | {"pairs": 1} if options.quick else {"vertices": 400, "images": 900, "pairs": 3})
        ),
        "noise": lambda folder: noise(
            folder, print, seeds=SEEDS, **(small if options.quick else {"vertices": 800, "images": 900})
        ),
    }
    path = RESULTS / f"{options.name}.json"
    for part in options.parts:
        with tempfile.TemporaryDirectory() as work:
            os.environ.setdefault("BRAINKIT_CACHE", str(Path(work) / "cache"))
            found = runs[part](Path(work)) | {"machine": machine.describe(torch.get_num_threads())}
        # Read again: other parts may have been run meanwhile.
        report = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        report[part] = found
        write_report(options.name, report, accuracy_page.page(report))


if __name__ == "__main__":
    main()
