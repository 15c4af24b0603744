"""How fast images become tokens on this machine: ``python -m bench.extraction``.

The whole extraction (reading, decoding, resizing, the network, the token grid, half precision, checksums, writing)
against the network's forward pass alone over prepared images in memory, interleaved in one process. Both in seconds and
in CPU time, which does not change on a busy machine. Then the cost of opening a token store, which verifies every
checksum, against reading the same records.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench import machine
from bench.report import load_average, write_report
from bench.timing import interleaved
from brainkit.backbones import Backbone, load_backbone
from brainkit.features.extract import extract_tokens
from brainkit.features.fill import read_input
from brainkit.features.forward import TokenExtractor

SIDE = 425  # pixels, as in the Natural Scenes Dataset
# Images per round: some seconds each.
NETWORKS = {"dinov2": 32, "efficientnet_lite0": 192}


def write_images(folder: Path, count: int) -> list[Path]:
    """PNGs with noise, so that decoding takes as long as for photographs."""

    def write(number: int) -> Path:
        draw = np.random.default_rng(number)
        coarse = draw.integers(0, 256, (14, 14, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
        path = folder / f"{number:05d}.png"
        grain = 6 * draw.standard_normal((SIDE, SIDE, 3), np.float32)
        Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(path)
        return path

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(write, range(count)))


class Bare:
    """The network's forward pass alone."""

    def __init__(self, backbone: Backbone, batches: list[torch.Tensor]) -> None:
        self.backbone, self.batches = backbone, batches
        self.processor: list[float] = []

    def __call__(self) -> None:
        start = time.process_time()
        with torch.inference_mode():
            for batch in self.batches:
                self.backbone.get_tokens(batch)
        self.processor.append(time.process_time() - start)


class Extraction:
    """The whole extraction, into a new store each time; creating the store and one-time work are not timed."""

    def __init__(self, backbone: Backbone, images: list[Path], folder: Path, device: str) -> None:
        self.backbone, self.images, self.folder, self.device = backbone, images, folder, device
        self.seconds: list[float] = []
        self.processor: list[float] = []
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
        cache = self.folder / str(self.count)
        extract_tokens(self.backbone, self.images[:1], cache=cache, device=self.device)
        start, busy = time.perf_counter(), time.process_time()
        extract_tokens(self.backbone, self.images, cache=cache, device=self.device)
        self.seconds.append(time.perf_counter() - start)
        self.processor.append(time.process_time() - busy)


def measure(name: str, count: int, rounds: int, device: str) -> dict[str, Any]:
    """Images per second of both, and the rates of opening and reading a store."""
    backbone = load_backbone(name, random_weights=name != "efficientnet_lite0")
    network = TokenExtractor(backbone, (8, 8), device=device)
    with tempfile.TemporaryDirectory() as folder:
        images = write_images(Path(folder), count + 1)
        ready = [read_input(path, backbone.preprocessing) for path in images[1:]]
        size = network.batch_size
        batches = [torch.from_numpy(np.stack(ready[k : k + size])).to(device) for k in range(0, count, size)]
        whole = Extraction(backbone, images, Path(folder), device)
        bare = Bare(backbone, batches)
        seconds = interleaved({"bare": bare, "whole": whole}, rounds, {}, device)
        ours = float(np.median(whole.seconds[1:]))
        busy = [float(np.median(run.processor[1:])) for run in (bare, whole)]
        tokens = extract_tokens(backbone, images[1:], cache=Path(folder) / "1", device=device)
        rows = np.arange(len(tokens))
        store = tokens.store
        assert store is not None
        disk = interleaved(
            {"compared": partial(store.check, tokens.images), "read": partial(tokens.records, rows)}, 5, {}
        )
    return {
        "images": count,
        "batch": size,
        "arithmetic": network.arithmetic,
        "MB an image": tokens.record * 2 / 1e6,
        "bare, images/s": count / seconds["bare"],
        "whole, images/s": count / ours,
        "share": seconds["bare"] / ours,
        "bare, processor s an image": busy[0] / count,
        "whole, processor s an image": busy[1] / count,
        "share of processor time": busy[0] / busy[1],
        "checksums compared, GB/s": tokens.nbytes / disk["compared"] / 1e9,
        "records read, GB/s": tokens.nbytes / disk["read"] / 1e9,
    }


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    lines = ["# From images to tokens", "", *(f"- {key}: {value}" for key, value in report["machine"].items())]
    lines += [
        "",
        f"PNGs of {SIDE} x {SIDE} pixels, 224 x 224 for the network, 8x8 tokens, float16 on disk. `bare` is the "
        "network alone over prepared images in memory; `whole` is decoding, resizing, the network, the token grid, "
        "checksums and writing, and checking one stored image again. Medians, interleaved in one process.",
        "",
        "| network | images | batch | MB an image | bare, images/s | whole, images/s | whole / bare | "
        "bare / whole, processor time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in report["networks"].items():
        lines.append(
            f"| {name} ({row['arithmetic']}) | {row['images']} | {row['batch']} | {row['MB an image']:.2f} | "
            f"{row['bare, images/s']:.2f} | {row['whole, images/s']:.2f} | {row['share']:.3f} | "
            f"{row['share of processor time']:.3f} |"
        )
    lines += [
        "",
        "Opening a store verifies the checksums of the requested images; for comparison, reading the same records into "
        "memory. Both from the page cache:",
        "",
        "| network | checksums compared, GB/s | records read, GB/s |",
        "|---|---|---|",
    ]
    for name, row in report["networks"].items():
        lines.append(f"| {name} | {row['checksums compared, GB/s']:.1f} | {row['records read, GB/s']:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--network", choices=tuple(NETWORKS), action="append", help="[default: all]")
    parser.add_argument("--images", type=int, help="per round")
    parser.add_argument("--name", default="extraction", help="name of the files in bench/results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report: dict[str, Any] = {"machine": machine.describe(options.threads, options.device), "networks": {}}
    for name in options.network or NETWORKS:
        report["networks"][name] = measure(name, options.images or NETWORKS[name], options.rounds, options.device)
    report["machine"]["load after"] = load_average()
    write_report(options.name, report, table(report))


if __name__ == "__main__":
    main()
