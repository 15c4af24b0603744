"""Memory for training a whole brain on this machine: ``python -m bench.whole_brain``.

327,684 vertices, D = 64, B = 8, and a network with random weights and the twelve layers of 768 channels of a ViT-B: a
run is trained, scored, drawn and exported as an encoder file, through the public functions. Peaks are of the whole
process, sampled ten times per second. For a GPU the training phase is computed, with the estimate that
`brainkit train` makes before it starts.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import brainkit
from bench import machine
from bench.cortex import coordinates
from bench.report import RESULTS, write_report
from brainkit.config import Config
from brainkit.model.factor_topy import FactorTopy
from brainkit.training.memory_budget import estimate_memory
from brainkit.utils.system import PeakMemory

WHOLE = 327_684
LIMIT = 8e9

NETWORK = '''"""Tokens of the sizes of a ViT-B/16, with random weights, without its computation."""

import torch


class Wide(torch.nn.Module):
    def __init__(self, layers=12, width=768):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.first = torch.nn.Parameter(torch.randn(width, 3, 16, 16, generator=draw) / 28)
        self.mix = torch.nn.Parameter(torch.randn(layers, width, generator=draw))

    def get_tokens(self, images):
        patches = torch.nn.functional.conv2d(images, self.first, stride=16)
        local = {f"layer{k}": torch.relu(patches + row[:, None, None]) for k, row in enumerate(self.mix)}
        return local, {name: tokens.mean((2, 3)) for name, tokens in local.items()}
'''


def make_data(folder: Path, vertices: int, images: int) -> Path:
    """A subject's folder with images and responses of noise."""
    (folder / "images").mkdir(parents=True)
    draw = np.random.default_rng(0)
    for k in range(images):
        Image.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / "images" / f"{k:05d}.png")
    np.save(folder / "coordinates.npy", coordinates(vertices))
    if vertices == WHOLE:
        space = {"space": "fsaverage", "ids": list(range(WHOLE))}
        (folder / "vertices.json").write_text(json.dumps(space), encoding="utf-8")
    responses = np.lib.format.open_memmap(folder / "responses.npy", "w+", np.float32, (images, vertices))
    for row in range(images):
        responses[row] = draw.standard_normal(vertices, dtype=np.float32)
    responses.flush()
    return folder


def peak_of(stage: Callable[[], Any]) -> dict[str, Any]:
    """Peak memory of a stage, resident and anonymous, in bytes."""
    with PeakMemory() as watch:
        before = watch.lap()
        stage()
        return {**watch.lap(), "before": before["anonymous"]}


def on_a_gpu(model: FactorTopy, images: int, batch_size: int) -> dict[str, int]:
    """Estimated bytes of the training phase on a GPU, with tokens streamed from disk."""
    need = estimate_memory(model, images, batch_size, "cuda")
    return {"state": need.state, "step": need.step, "all": need.work}


def run(vertices: int, images: int, epochs: int, folder: Path) -> dict[str, Any]:
    """Peak memory of all stages, sizes of the files, and the estimate for a GPU."""
    data = make_data(folder / "data", vertices, images)
    (folder / "net.py").write_text(NETWORK, encoding="utf-8")
    overrides = ("model.bottleneck=64", "train.batch_size=8", "train.tensorboard=off")

    def train() -> None:
        brainkit.fit(f"{folder / 'net.py'}:Wide", data, out=folder / "run", epochs=epochs, overrides=overrides)

    stages: dict[str, Any] = {"start": peak_of(lambda: None), "train": peak_of(train)}
    trained = brainkit.Run.open(folder / "run")
    for phase, peak in trained.summary["memory"]["phases"].items():
        stages[f"train: {phase}"] = peak
    stages["export"] = peak_of(trained.export)
    model = trained.model()
    files = {
        name: (trained.path / name).stat().st_size
        for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "selectors.npz", "encoder.onnx")
    }
    return {
        "stages": stages,
        "files": files,
        "gpu": on_a_gpu(model, 9_841, Config.read(trained.path / "config.yaml").train.batch_size),
        "parameters": 4 * sum(parameter.numel() for parameter in model.parameters()),
    }


def table(found: dict[str, Any]) -> str:
    """The page of results."""

    def gb(size: int | None) -> str:
        return "-" if size is None else f"{size / 1e9:.2f}"

    of = found["machine"]
    lines = [
        "# Memory of a whole brain",
        "",
        f"V = {found['vertices']:,}, D = 64, B = 8, 12 layers of 768 channels, {found['images']} images, "
        f'{found["epochs"]} epochs. GB; "anonymous" memory belongs to the process alone, the other resident memory is '
        "mapped files, which the system can reclaim.",
        "",
        f"{of['processor']}, {of['cores']} cores, torch {of['torch']}, commit {of['commit']}: "
        "`python -m bench.whole_brain`",
        "",
        "| stage | peak, resident | anonymous |",
        "|---|---|---|",
    ]
    for stage, peak in found["stages"].items():
        lines.append(f"| {stage} | {gb(peak['resident'])} | {gb(peak['anonymous'])} |")
    gpu = found["gpu"]
    lines += [
        "",
        f"On a GPU the training phase takes an estimated {gb(gpu['all'])} GB (`brainkit.training.memory_budget`), with "
        f"tokens streamed from disk: {gb(gpu['state'])} GB of weights, gradients, moments and constants, and "
        f"{gb(gpu['step'])} GB for a step or a validation batch, with a margin. This is computed, not measured.",
        "",
        "Files: " + ", ".join(f"`{name}` {size / 1e6:.0f} MB" for name, size in found["files"].items()) + ".",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, write the results, and fail if a stage exceeds 8 GB."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vertices", type=int, default=WHOLE)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    started = machine.describe(torch.get_num_threads())
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        found = run(options.vertices, options.images, options.epochs, Path(folder))
    found = {"machine": started, **{name: getattr(options, name) for name in ("vertices", "images", "epochs")}} | found
    write_report(options.out.resolve() / "whole_brain", found, table(found))
    beyond = [stage for stage, peak in found["stages"].items() if (peak["resident"] or 0) > LIMIT]
    if beyond or found["gpu"]["all"] > LIMIT:
        raise SystemExit(f"beyond {LIMIT / 1e9:.0f} GB: {', '.join(beyond) or 'the estimate for a GPU'}")


if __name__ == "__main__":
    main()
