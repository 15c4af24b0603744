"""Whether the standard errors of maps are right: ``python -m bench.uncertainty``.

Simulated subjects have one planted truth, and images and noise of their own: the spread of their maps is the true
standard error. Each subject's own estimate, from halves of its images, is compared with it. Tokens are random numbers
with neighbouring layers and neighbouring cells correlated, so that no network has to run.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bench.machine import processor
from bench.report import write_report
from brainkit.config import ModelConfig, TrainConfig
from brainkit.data.split import Split
from brainkit.features.cache import TokenCache
from brainkit.metrics.depth import relative_depth
from brainkit.metrics.uncertainty import map_reliability, se_from_halves
from brainkit.model.factor_topy import FactorTopy
from brainkit.ops import grouped
from brainkit.sample_truth import CHANNELS, Patch, draw_truth, occipital_patch
from brainkit.training.checkpoint import load_best
from brainkit.training.datamodule import EncodingData
from brainkit.training.fit import fit
from brainkit.training.module import EncodingModule
from brainkit.training.token_statistics import fit_statistics

LAYERS, GRID = 5, 8
SELECTORS = ("depth", "location", "scale")


class Subject(NamedTuple):
    """Tokens and responses (n, V) of training images, then of validation images."""

    tokens: TokenCache
    responses: np.ndarray
    train: int

    def rows(self, index: np.ndarray) -> np.ndarray:
        return self.responses[index]


def main() -> None:
    """Train on each subject and on halves of its images, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=8)
    parser.add_argument("--images", type=int, default=320, help="training images of each subject")
    parser.add_argument("--vertices", type=int, default=120)
    parser.add_argument("--draws", type=int, default=2, help="each of two halves")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--half-epochs", type=int, help="of a run on half of the images; by default those of all")
    parser.add_argument("--name", default="uncertainty", help="name of the files in bench/results")
    parser.add_argument("--quick", action="store_true", help="tiny subjects and few epochs, to check that it runs")
    options = parser.parse_args()
    if options.quick:
        options.subjects, options.images, options.vertices, options.draws, options.epochs = 3, 24, 20, 2, 2
    patch = occipital_patch(options.vertices)
    truth = draw_truth(np.random.default_rng(0), patch, LAYERS)
    full, halves, seeds = [], [], []
    for k in range(options.subjects):
        subject = make_subject(truth, options.images, seed=k)
        rows = [np.random.default_rng((k, j)).permutation(subject.train) for j in range(options.draws)]
        full.append(train(subject, patch, np.arange(subject.train), 1000 * k, options.epochs))
        seeds.append(train(subject, patch, np.arange(subject.train), 1000 * k + 500, options.epochs))
        epochs = options.half_epochs or options.epochs
        middle = subject.train // 2
        parts = [(row[:middle], row[middle:]) for row in rows]
        halves.append(
            [
                [train(subject, patch, np.sort(rows), 1000 * k + 2 * j + i + 1, epochs) for i, rows in enumerate(pair)]
                for j, pair in enumerate(parts)
            ]
        )
        print(f"subject {k + 1} of {options.subjects}", flush=True)
    planted = {"depth": relative_depth(truth["layer_weights"]), "location": truth["locations"], "scale": truth["scale"]}
    found = {name: compare(name, full, seeds, halves, planted[name]) for name in SELECTORS}
    settings = {key: value for key, value in vars(options).items() if key not in ("name", "quick")}
    machine = {"processor": processor(), "cores": os.cpu_count()}
    write_report(options.name, {"machine": machine, "settings": settings, "selectors": found}, table(found, settings))


def make_subject(truth: dict[str, np.ndarray], images: int, seed: int) -> Subject:
    """New images and noise; a fifth more images for validation."""
    draw = np.random.default_rng((seed, 7))
    total = images + images // 5
    local = [draw.standard_normal((total, CHANNELS, GRID, GRID))]
    while len(local) < LAYERS:
        local.append(0.7 * local[-1] + np.sqrt(1 - 0.7**2) * draw.standard_normal(local[0].shape))
    # Means of 3 x 3 cells at unit variance, as neighbouring cells see similar things.
    smooth = [
        np.stack([np.roll(value, (i, j), (2, 3)) for i in (-1, 0, 1) for j in (-1, 0, 1)]).sum(0) / 3 for value in local
    ]
    whole = [GRID / 3 * value.mean((2, 3)) * 0.7 + 0.7 * draw.standard_normal((total, CHANNELS)) for value in smooth]
    names = [f"layer{k + 1}" for k in range(LAYERS)]
    tokens = TokenCache.of_arrays(dict(zip(names, smooth, strict=True)), dict(zip(names, whole, strict=True)))
    arrays = [torch.from_numpy(truth[name]).float() for name in ("locations", "layer_weights", "scale", "weight")]
    arrays.append(torch.zeros(len(arrays[0])))
    stacked = (torch.from_numpy(np.stack(part, 1)).float() for part in (smooth, whole))
    signal = grouped.forward(*stacked, *arrays).numpy()
    signal /= signal.std(0)
    ceiling = np.random.default_rng(1).uniform(0.1, 0.8, signal.shape[1])  # the same for all subjects
    noisy = signal + np.sqrt((1 - ceiling) / ceiling) * draw.standard_normal(signal.shape)
    return Subject(tokens, (noisy * np.sqrt(ceiling)).astype(np.float32), images)


def train(subject: Subject, patch: Patch, rows: np.ndarray, seed: int, epochs: int) -> dict[str, np.ndarray]:
    """The maps of a model trained on some of the images."""
    validation = np.arange(subject.train, len(subject.responses))
    data = EncodingData(subject.tokens, subject, Split(rows, validation, validation, seed=seed), seed=seed)
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"bottleneck": CHANNELS, "grid": (GRID, GRID), "offsets": ModelConfig().offsets}
    model = FactorTopy(subject.tokens.widths, patch.coordinates, **shape)
    fit_statistics(model, subject.tokens, rows)
    model.set_response_scale(subject.responses[rows].mean(0), subject.responses[rows].std(0))
    module = EncodingModule(model, TrainConfig(epochs=epochs, refit=False, tensorboard="off"), data.steps * epochs)
    with tempfile.TemporaryDirectory() as folder:
        load_best(module, fit(module, data, Path(folder)).best)
    folded = model.folded()
    return {"depth": relative_depth(folded.layer_weights), "location": folded.locations, "scale": folded.scale}


def compare(name: str, full: list, seeds: list, halves: list, planted: np.ndarray) -> dict[str, float]:
    """The estimated and the true standard error (rms over vertices), and what 95 % intervals cover."""
    from scipy.stats import t

    values = np.stack([each[name] for each in full])
    draws = len(halves[0])
    pairs = [[np.stack([pair[side][name] for pair in each]) for side in (0, 1)] for each in halves]
    se = np.stack([se_from_halves(*pair) for pair in pairs])
    n = len(values)
    # Against the mean of the others, which has an error too.
    others = (values.sum(0) - values) / (n - 1)
    reach = t.ppf(0.975, draws) * se
    reliability = [map_reliability(a, b) for first, second in pairs for a, b in zip(first, second, strict=True)]
    again = np.stack([each[name] for each in seeds])
    return {
        "estimated s.e.": rms(se),
        "true s.e.": rms(values.std(0, ddof=1)),
        "of seeds alone": rms(values - again) / np.sqrt(2),
        "bias": rms(values.mean(0) - planted),
        "95 % cover the mean map": float(np.mean(np.abs(values - others) <= reach * np.sqrt(1 + 1 / (n - 1)))),
        "95 % cover the truth": float(np.mean(np.abs(values - planted) <= reach)),
        "estimated reliability": float(np.mean(reliability)),
        "true reliability": float(np.mean([correlation(values[k], values[k - 1]) for k in range(n)])),
    }


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of two subjects' maps over vertices, each coordinate centred."""
    a, b = a - a.mean(0), b - b.mean(0)
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def table(found: dict[str, dict[str, float]], settings: dict) -> str:
    """A row per measure, a column per selector."""
    lines = ["# Standard errors of maps", "", f"| | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    for measure in found["depth"]:
        lines.append(f"| {measure} | {' | '.join(f'{row[measure]:.3f}' for row in found.values())} |")
    lines += ["", ", ".join(f"{key} {value}" for key, value in settings.items()), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
