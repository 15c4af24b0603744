"""Memory of a whole brain's training on this machine: ``python -m bench.whole_brain``.

327,684 vertices, D = 64, B = 8, and a network of random weights with a ViT-B's twelve layers of 768 channels: data are
made, a run is trained, scored and drawn, and exported as an encoder file, each as a user would do it. Peaks are of the
whole process, looked at ten times a second. For a GPU the training phase is computed, by the estimate that the
preflight of `brainkit train` uses.
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

from bench import machine
from bench.cortex import coordinates
from brainkit.config import Config
from brainkit.model.factor_topy import FactorTopy
from brainkit.runs.export import export
from brainkit.runs.folder import load_model
from brainkit.runs.train import train
from brainkit.training.memory_budget import estimate_memory
from brainkit.utils.system import PeakMemory

RESULTS = Path(__file__).resolve().parent / "results"
WHOLE = 327_684
LIMIT = 8e9

NETWORK = '''"""Tokens of the sizes of a ViT-B/16, of random weights, without its work."""

import torch


class Wide(torch.nn.Module):
    def __init__(self, layers=12, width=768):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.first = torch.nn.Parameter(torch.randn(width, 3, 16, 16, generator=draw) / 28)
        self.mix = torch.nn.Parameter(torch.randn(layers, width, generator=draw))

    def get_tokens(self, images):
        seen = torch.nn.functional.conv2d(images, self.first, stride=16)
        local = {f"layer{k}": torch.relu(seen + row[:, None, None]) for k, row in enumerate(self.mix)}
        return local, {name: tokens.mean((2, 3)) for name, tokens in local.items()}
'''


def make_data(folder: Path, vertices: int, images: int) -> Path:
    """A subject in a plain folder, of noise, a few rows at a time."""
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


def measured(stage: Callable[[], Any]) -> dict[str, Any]:
    """The peak of a stage, resident and anonymous, in bytes."""
    with PeakMemory() as watch:
        before = watch.lap()
        stage()
        return {**watch.lap(), "before": before["anonymous"]}


def on_a_gpu(model: FactorTopy, images: int, batch_size: int) -> dict[str, int]:
    """What the preflight counts for the training phase on a GPU, in bytes, with tokens left on the disk."""
    need = estimate_memory(model, images, batch_size, "cuda")
    return {"state": need.state, "step": need.step, "all": need.work}


def run(vertices: int, images: int, epochs: int, place: Path) -> dict[str, Any]:
    """All stages in `place`; the peak of each."""
    data = make_data(place / "data", vertices, images)
    (place / "net.py").write_text(NETWORK, encoding="utf-8")
    stages: dict[str, Any] = {"start": measured(lambda: None)}
    settings = ("model.bottleneck=64", "train.batch_size=8", "train.tensorboard=off")
    stages["train"] = measured(
        lambda: train(f"{place / 'net.py'}:Wide", data=data, out=place / "run", epochs=epochs, overrides=settings)
    )
    summary = json.loads((place / "run" / "run.json").read_text(encoding="utf-8"))
    for phase, peak in summary["memory"]["phases"].items():
        stages[f"train: {phase}"] = peak
    stages["export"] = measured(lambda: export(place / "run"))
    model = load_model(place / "run")
    files = {
        name: (place / "run" / name).stat().st_size
        for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "selectors.npz", "encoder.onnx")
    }
    return {
        "stages": stages,
        "files": files,
        "gpu": on_a_gpu(model, 9_841, Config.read(place / "run" / "config.yaml").train.batch_size),
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
        f'{found["epochs"]} epochs. GB; "anonymous" belongs to the process alone, the rest of what is resident is '
        "files mapped, which the system takes back when it needs to.",
        "",
        f"{of['processor']}, {of['cores']} cores, torch {of['torch']}, commit {of['commit']}: "
        "`python -m bench.whole_brain`",
        "",
        "| stage | peak, resident | of it anonymous |",
        "|---|---|---|",
    ]
    for stage, peak in found["stages"].items():
        lines.append(f"| {stage} | {gb(peak['resident'])} | {gb(peak['anonymous'])} |")
    gpu = found["gpu"]
    lines += [
        "",
        f"On a GPU the training phase takes {gb(gpu['all'])} GB by the preflight's estimate "
        "(`brainkit.training.memory_budget`), with "
        f"tokens left on the disk: {gb(gpu['state'])} of weights, gradients, moments and constants, and "
        f"{gb(gpu['step'])} for a step or a validation batch, a quarter of that and 0.3 GB counted in. That is "
        "computed, not measured.",
        "",
        "Files: " + ", ".join(f"`{name}` {size / 1e6:.0f} MB" for name, size in found["files"].items()) + ".",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, write the results, and fail where they are beyond 8 GB."""
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
    options.out.mkdir(exist_ok=True)
    (options.out / "whole_brain.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    (options.out / "whole_brain.md").write_text(table(found), encoding="utf-8")
    print(table(found))
    beyond = [stage for stage, peak in found["stages"].items() if (peak["resident"] or 0) > LIMIT]
    if beyond or found["gpu"]["all"] > LIMIT:
        raise SystemExit(f"beyond {LIMIT / 1e9:.0f} GB: {', '.join(beyond) or 'the estimate for a GPU'}")


if __name__ == "__main__":
    main()
