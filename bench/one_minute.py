"""A whole map, from image files to the encoder file: ``python -m bench.one_minute``.

9,841 images of 425 px, a ViT-B/14 with random weights, 37,984 vertices, 20 epochs: decoding, tokens, training, scores,
figures and export, with an empty cache. On a GPU everything runs, and the phases are listed. On a CPU a part of the
images runs through the same functions, and the time for all of them is computed from each phase's rate: for this
machine, and for an H100 from the rates that it can reach. The training phase is compared with the published
formulation's step in the same process.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import psutil
import torch

import brainkit
from bench import machine, published, step
from bench.cortex import coordinates
from bench.extraction import SIDE, write_images
from bench.report import load_average, write_report
from bench.timing import timed
from brainkit.backbones import load_backbone
from brainkit.images import Preprocessing, decode, prepare

IMAGES, VERTICES, EPOCHS, CHANNELS = 9_841, 37_984, 20, 64
NETWORK = "dinov2"
FORWARD_TFLOP = 0.0465  # one image through a ViT-B/14 at 224 px
STEP_8 = 0.5e-3  # seconds of a step at batch 8
# Assumptions of the columns for an H100.
H100 = {
    "tokens": "decoding on 16 cores at the rate of a core here, then 46.5 GFLOP per image at 40 % of 990 TFLOP/s "
    "(bfloat16); one after the other, although they overlap",
    "training": "0.5 ms per step at batch 8, in proportion beyond; the floor of its memory traffic is 0.10 to 0.15 ms",
    "the rest": "as measured here",
}


def main() -> None:
    """Make the images, run all phases, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, help="[default: 9841 on a GPU, 160 on a CPU]")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32, 64], help="images per training step")
    parser.add_argument("--vertices", type=int, default=VERTICES)
    parser.add_argument("--epochs", type=int, help="[default: 20 on a GPU, about 32 steps on a CPU]")
    parser.add_argument("--backbone", default=NETWORK)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--name", default="one_minute", help="name of the files in bench/results")
    options = parser.parse_args()
    images = options.images or (IMAGES if options.device == "cuda" else 160)

    def epochs(batch: int) -> int:
        few = EPOCHS if options.device == "cuda" else math.ceil(32 / math.ceil(0.8 * images / batch))
        return options.epochs or few

    report: dict[str, Any] = {"machine": machine.describe(torch.get_num_threads(), options.device)}
    with tempfile.TemporaryDirectory() as work, _inside(Path(work)):
        make_data(Path("subject"), images, options.vertices)
        runs = {
            batch: run_once(options.backbone, batch, epochs(batch), options.device, options.vertices)
            for batch in options.batches
        }
        decoding = decoding_rate(sorted(Path("subject/images").iterdir())[: min(images, 200)])
    report |= {"images": images, "vertices": options.vertices, "device": options.device}
    report |= {"backbone": options.backbone, "runs": runs, "decoded images/s": decoding}
    report["machine"]["load after"] = load_average()
    write_report(options.name, report, table(report))


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def make_data(folder: Path, images: int, vertices: int) -> None:
    """A subject's folder: images as in bench/extraction.py, and responses of noise."""
    (folder / "images").mkdir(parents=True)
    write_images(folder / "images", images)
    draw = np.random.default_rng(0)
    responses = np.lib.format.open_memmap(folder / "responses.npy", "w+", np.float32, (images, vertices))
    for start in range(0, images, 256):
        responses[start : start + 256] = draw.standard_normal((min(256, images - start), vertices), np.float32)
    responses.flush()
    left = vertices // 2
    ids = [*range(left), *range(163_842, 163_842 + vertices - left)]
    (folder / "vertices.json").write_text(json.dumps({"space": "fsaverage", "ids": ids}))
    # No cortical surface need be installed.
    np.save(folder / "coordinates.npy", coordinates(vertices))


def run_once(backbone: str, batch: int, epochs: int, device: str, vertices: int) -> dict[str, Any]:
    """All phases once, from an empty cache: seconds of each, and of the published step."""
    network = load_backbone(backbone, random_weights=True)
    widths = list(network.widths.values())
    sizes = step.Sizes(vertices=vertices, layers=len(widths), width=widths[0], channels=CHANNELS, images=batch)
    before = published_step(sizes, device)
    folder = Path(f"run-{batch}")
    os.environ["BRAINKIT_CACHE"] = str(Path.cwd() / f"cache-{batch}")
    started = time.monotonic()
    overrides = (f"train.batch_size={batch}", f"train.device={device}", f"model.bottleneck={CHANNELS}")
    run = brainkit.fit(network, "subject", out=folder, epochs=epochs, overrides=overrides)
    trained = time.monotonic() - started
    summary = run.summary
    phases = {**summary["seconds"], "all else": trained - sum(summary["seconds"].values())}
    started = time.monotonic()
    exported = run.export()
    phases["export"] = time.monotonic() - started
    shutil.rmtree(os.environ["BRAINKIT_CACHE"])
    with (folder / "metrics.csv").open(newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    # The first epoch allocates memory and starts threads. The rest of the phase precedes the first step.
    epoch = median(seconds[1:] or seconds)
    phases = {
        name: part
        for key, value in phases.items()
        for name, part in (
            (("statistics of tokens", value - epochs * epoch), (key, epochs * epoch))
            if key == "training"
            else ((key, value),)
        )
    }
    steps = epochs * math.ceil(summary["split"]["train"] / batch)
    theirs = [seconds for seconds in (before, published_step(sizes, device)) if seconds is not None]
    return {
        "phases": phases,
        "epochs": epochs,
        "steps": steps,
        "a step": phases["training"] / steps,  # including validation and checkpoints
        "published step": mean(theirs) if theirs else None,
        "split": summary["split"],
        "encoder, MB": exported.bytes / 1e6,
        "versions": summary["versions"],
    }


def published_step(sizes: step.Sizes, device: str) -> float | None:
    """Seconds per step of the published formulation; None if its features do not fit into memory."""
    needed = 2.5 * 4 * sizes.layers * sizes.images * sizes.vertices * sizes.channels
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available
    if needed > 0.9 * free:
        return None
    model = step.published_model(sizes).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batch = step.on(device, sizes.batch())
    return min(timed(partial(published.training_step, model, optimizer, batch), 2, device))


def decoding_rate(images: list[Path]) -> float:
    """Images per second and core, decoded and resized as for training."""
    preprocessing = Preprocessing(size=224, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic")
    started = time.monotonic()
    for image in images:
        prepare(decode(image), preprocessing)
    return len(images) / (time.monotonic() - started)


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    count, runs = report["images"], report["runs"]
    lines = ["# A whole map", "", *(f"- {key}: {value}" for key, value in report["machine"].items())]
    lines += [
        "",
        f"{report['backbone']} with random weights, {report['vertices']:,} vertices, D = {CHANNELS}, from an empty "
        f"cache. Run here: {count:,} images of {SIDE} px; seconds per phase.",
        "",
        "| | " + " | ".join(f"batch {batch}" for batch in runs) + " |",
        "|---" * (len(runs) + 1) + "|",
    ]
    for phase in next(iter(runs.values()))["phases"]:
        lines.append(f"| {phase} | " + " | ".join(f"{run['phases'][phase]:.1f}" for run in runs.values()) + " |")
    lines.append("| **all** | " + " | ".join(f"{sum(r['phases'].values()):.1f}" for r in runs.values()) + " |")
    lines.append("| epochs | " + " | ".join(str(run["epochs"]) for run in runs.values()) + " |")
    lines += ["", "| training | " + " | ".join(f"batch {batch}" for batch in runs) + " |"]
    lines += ["|---" * (len(runs) + 1) + "|"]
    lines.append(
        "| one step of the training phase, ms | " + " | ".join(f"{1e3 * r['a step']:.1f}" for r in runs.values()) + " |"
    )
    shown = [f"{1e3 * r['published step']:,.0f}" if r["published step"] else "does not fit" for r in runs.values()]
    lines.append("| one published step, ms | " + " | ".join(shown) + " |")
    shown = [f"{r['published step'] / r['a step']:.0f}x" if r["published step"] else "" for r in runs.values()]
    lines.append("| ratio | " + " | ".join(shown) + " |")
    lines += ["", f"Decoding and resizing: {report['decoded images/s']:.0f} images/s per core.", ""]
    if report["device"] == "cpu" or count < IMAGES or any(run["epochs"] < EPOCHS for run in runs.values()):
        lines += whole(report)
    return "\n".join(lines) + "\n"


def whole(report: dict[str, Any]) -> list[str]:
    """Seconds for all images and epochs, computed from the rates."""
    batches = list(report["runs"])
    here, there = [computed(report, batch) for batch in batches], [on_h100(report, batch) for batch in batches]
    columns = [f"here, batch {batch}" for batch in batches] + [f"H100, batch {batch}" for batch in batches]
    lines = [
        f"## All {IMAGES:,} images, {EPOCHS} epochs: computed, not run",
        "",
        "*Here*: the times above, scaled by the number of images and steps. *H100*: not run on one; each phase is its "
        "work over the rate below. Seconds.",
        "",
        "| | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for phase in here[0]:
        lines.append(f"| {phase} | " + " | ".join(f"{column[phase]:,.0f}" for column in here + there) + " |")
    lines.append("| **all** | " + " | ".join(f"{sum(column.values()):,.0f}" for column in here + there) + " |")
    lines += ["", "Assumptions of the H100 columns:", ""]
    return lines + [f"- {phase}: {why}" for phase, why in H100.items()]


def computed(report: dict[str, Any], batch: int) -> dict[str, float]:
    """Seconds per phase on this machine, from the measured rates."""
    run = report["runs"][batch]
    share = IMAGES / report["images"]
    steps = EPOCHS * math.ceil(0.8 * IMAGES / batch)
    scaled = {"tokens": share, "statistics of tokens": share, "training": steps / run["steps"], "evaluation": share}
    return {phase: seconds * scaled.get(phase, 1.0) for phase, seconds in run["phases"].items()}


def on_h100(report: dict[str, Any], batch: int) -> dict[str, float]:
    """Seconds per phase on an H100 with 16 cores, by the assumptions in `H100`."""
    run = report["runs"][batch]
    decoding = IMAGES / (16 * report["decoded images/s"])
    steps = EPOCHS * math.ceil(0.8 * IMAGES / batch)
    return {
        "tokens": decoding + FORWARD_TFLOP * IMAGES / (0.4 * 990),
        "training": steps * STEP_8 * max(1.0, batch / 8),
        **{phase: seconds for phase, seconds in run["phases"].items() if phase not in ("tokens", "training")},
    }


if __name__ == "__main__":
    main()
