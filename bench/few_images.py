"""A new subject from few images: from another subject's run against from scratch: ``python -m bench.few_images``.

Subjects are planted in one pool of images, `bench.planted`. An old subject is trained on images of its own. New ones,
with images and noise of their own, are trained on few images: from scratch, and starting from the old subject's model.
Shares of the noise ceiling are medians over vertices, on images of other photographs that nobody was trained on.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from bench import machine
from bench.fitting import Responses, Sample, train
from bench.planted import Pool, load_pool
from bench.report import RESULTS, settings_digest, write_report
from brainkit.config import Config
from brainkit.data.split import Split
from brainkit.evaluation.model_scores import score
from brainkit.sample_truth import DEPTH_SPREAD, Patch, draw_truth, occipital_patch, plant_signal, smooth_field
from brainkit.utils.files import cache_folder, read_json

SHIFT = {
    "depth": 0.3,
    "location": 0.1,
    "scale": 0.05,
}  # s.d. between subjects, in layers, and where the image is 2 wide
SHARED = 0.5  # of the variance of the channels' weights
KINDS = {
    "related": "selectors shifted a little, half of the variance of the weights shared",
    "unrelated": "selectors and weights that have nothing to do with the old subject's",
    "other channels": "unrelated, and the channels that the network's layers are reduced to are others too",
}
LONGER = 60  # epochs: with few images, those of the default are few steps
GOAL = 1.3  # at 100 images, of related subjects
WAYS = {
    "from the old run": f"starting from the old subject's model, {Config().train.epochs} epochs",
    "from scratch": f"{Config().train.epochs} epochs",
    "from scratch, longer": f"{LONGER} epochs",
    "unchanged": "the old subject's model as it is",
}


def subjects(pool: Pool, seed: int, vertices: int) -> dict[str, Sample]:
    """An old subject, and a new one of each kind, of all images of the pool."""
    patch, layers = occipital_patch(vertices), len(pool.tokens.layers)
    rng = np.random.default_rng((seed, 41))
    old, own = (draw_truth(rng, patch, layers) for _ in range(2))
    move, free = (smooth_field(rng, patch.coordinates, 4, 40.0) for _ in range(2))
    depth = old["layer_weights"] @ np.arange(layers)
    related = {
        "layer_weights": _at_depth(depth + SHIFT["depth"] * move[:, 0], layers),
        "locations": np.clip(old["locations"] + SHIFT["location"] * move[:, 1:3], -0.95, 0.95),
        "scale": np.clip(old["scale"] + SHIFT["scale"] * move[:, 3], 0, 1),
        "weight": np.sqrt(SHARED) * old["weight"] + np.sqrt(1 - SHARED) * own["weight"],
    }
    unrelated = {
        "layer_weights": _at_depth((layers - 1) / (1 + np.exp(-1.5 * free[:, 0])), layers),
        "locations": 0.8 * np.tanh(free[:, 1:3]),
        "scale": 0.05 + 0.65 / (1 + np.exp(-1.5 * free[:, 3])),
        "weight": own["weight"],
    }
    truths = {"old": (old, 0), "related": (related, 0), "unrelated": (unrelated, 0), "other channels": (unrelated, 1)}
    return {
        name: _respond(pool, patch, truth, (seed, 42, channels), (seed, 43, k))
        for k, (name, (truth, channels)) in enumerate(truths.items())
    }


def measure(
    pool: Pool, seed: int, *, vertices: int, old_images: int, counts: list[int], epochs: int, longer: int
) -> dict[str, Any]:
    """Shares by kind, way and number of images."""
    everyone = subjects(pool, seed, vertices)
    options = [f"seed={seed}", "train.threads=1"]
    default, more = (Config().replace([*options, f"train.epochs={count}"]) for count in (epochs, longer))
    old = train(everyone.pop("old"), default, _split(pool, 0, old_images, seed)).model
    rows: dict[str, Any] = {}
    for kind, sample in everyone.items():
        rows[kind] = {}
        for count in counts:
            split = _split(pool, old_images, count, seed)
            found = {
                "from the old run": _share(train(sample, default, split, old).scores),
                "from scratch": _share(train(sample, default, split).scores),
                "from scratch, longer": _share(train(sample, more, split).scores),
                "unchanged": _share(score(old, sample.tokens, sample.responses, split.test, sample.ceiling)),
            }
            rows[kind][str(count)] = found
            print(f"seed {seed}, {kind}, {count} images: {found}", flush=True)
    return rows


def _respond(
    pool: Pool, patch: Patch, truth: dict[str, np.ndarray], channels: tuple[int, ...], noise: tuple[int, ...]
) -> Sample:
    """A subject of all images with this truth; `channels` and `noise` are seeds."""
    signal = plant_signal(np.random.default_rng(channels), pool.tokens, np.arange(min(900, pool.training)), truth)
    signal = (signal - signal.mean(0)) / signal[pool.training :].std(0)
    rng = np.random.default_rng(noise)
    field = smooth_field(rng, patch.coordinates, 1, 40.0)[:, 0]
    field = (field - field.mean()) / field.std() + 0.6 * rng.standard_normal(len(field)) + 0.1
    ceiling = 0.05 + 0.75 / (1 + np.exp(-field))
    responses = signal + rng.standard_normal(signal.shape, np.float32) * np.sqrt(1 / ceiling - 1)
    subject: Any = SimpleNamespace(root=pool.folder, coordinates=patch.coordinates)
    return Sample(subject, pool.tokens, Responses(responses.astype(np.float32)), ceiling, truth)


def _at_depth(depth: np.ndarray, layers: int) -> np.ndarray:
    away = np.arange(layers) - np.clip(depth, 0, layers - 1)[:, None]
    weights = np.exp(-0.5 * (away / DEPTH_SPREAD) ** 2)
    return weights / weights.sum(1, keepdims=True)


def _split(pool: Pool, first: int, count: int, seed: int) -> Split:
    """`count` images from number `first` on, a tenth of them to validate; all test images."""
    rows = first + np.arange(count)
    validation = max(2, count // 10)
    return Split(rows[validation:], rows[:validation], np.arange(pool.training, len(pool.images)), seed=seed)


def _share(scores: Any) -> float:
    return float(np.median(np.nan_to_num(scores.share)))


def page(report: dict[str, Any]) -> str:
    """The curves, by kind: means over seeds with 95 % t intervals, and the ratio to the better way from scratch."""
    runs, size = report["runs"], report["size"]
    seeds = f"means of {len(runs)} seeds, with 95 % t intervals" if len(runs) > 1 else "one seed, so without intervals"
    lines = [
        "# A new subject from few images",
        "",
        f"{size['vertices']} vertices; the old subject has {size['old_images']:,} images of its own. Images are those "
        "to train and validate on together (nine to one). Explained share of the noise ceiling, median over vertices, "
        f"on test images of other photographs; {seeds}.",
        "",
        *(f"- {way}: {meaning}" for way, meaning in WAYS.items()),
        "",
    ]
    for kind in KINDS:
        lines += [
            f"## {kind.capitalize()}: {KINDS[kind]}",
            "",
            f"| images | {' | '.join(WAYS)} | ratio to the better from scratch |",
        ]
        lines += ["|---" * (len(WAYS) + 2) + "|"]
        for count in size["counts"]:
            found = [run[kind][str(count)] for run in runs.values()]
            ratio = [
                each["from the old run"] / max(each["from scratch"], each["from scratch, longer"], 1e-9)
                for each in found
            ]
            cells = [interval([each[way] for each in found]) for way in WAYS]
            lines.append(f"| {count:,} | {' | '.join(cells)} | {interval(ratio, '.2f')} |")
        lines.append("")
    lines += [
        f"Goal: a ratio of {GOAL} at 100 images, related.",
        "",
        f"Seeds {', '.join(runs)}. {report['machine']}",
        "",
    ]
    return "\n".join(lines)


def interval(values: list[float], form: str = ".3f") -> str:
    """The mean of several seeds and its 95 % t interval."""
    from scipy.stats import t

    mean = format(np.mean(values), form)
    if len(values) < 2:
        return mean
    reach = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{mean} ({np.mean(values) - reach:{form}} to {np.mean(values) + reach:{form}})"


def main() -> None:
    """Measure the seeds that have not been measured with these sizes and settings, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--vertices", type=int, default=300)
    parser.add_argument("--old-images", type=int, default=1200)
    parser.add_argument("--counts", type=int, nargs="+", default=[50, 100, 300, 1000])
    parser.add_argument("--folder", type=Path, help="of images and tokens (default: in the cache folder)")
    parser.add_argument("--name", default="few_images", help="name of the files in bench/results")
    parser.add_argument("--quick", action="store_true", help="tiny subjects and few epochs, to check that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = {"vertices": options.vertices, "old_images": options.old_images, "counts": options.counts}
    size |= {"epochs": Config().train.epochs, "longer": LONGER}
    if options.quick:
        size = {"vertices": 40, "old_images": 40, "counts": [20, 30], "epochs": 2, "longer": 3}
    images, tests = size["old_images"] + max(size["counts"]), 24 if options.quick else 240
    folder = options.folder or cache_folder() / "few_images"
    pool = load_pool(folder, images, total=images, test=tests)
    path = (RESULTS / options.name).with_suffix(".json")
    settings = {"size": size, "defaults": settings_digest()}
    before = read_json(path) if path.is_file() else {}
    runs = before["runs"] if before.get("settings") == settings else {}
    for seed in options.seeds:
        if str(seed) in runs:
            continue
        runs[str(seed)] = measure(pool, seed, **size)
        versions = f"{machine.processor()}, {os.cpu_count()} cores, torch {torch.__version__}, numpy {np.__version__}"
        report = {"settings": settings, "size": size, "machine": versions, "runs": runs}
        write_report(options.name, report, page(report))


if __name__ == "__main__":
    main()
