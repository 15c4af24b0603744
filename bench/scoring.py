"""The cost of predicting compared with the bare network: ``python -m bench.scoring``.

A ViT-B/14 with random weights, 37,984 vertices, D = 128, 8x8 tokens. Interleaved in one process: the whole encoder, the
backbone alone and the readout alone in ONNX Runtime; ``predict`` from PNGs and JPEGs to a file, the backbone over
prepared images in memory, and eager torch with the published readout. Then, in processes of their own, the peak memory
with few and with many images, and the time from start to the first prediction.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch
from PIL import Image

import brainkit
from bench import machine, published
from bench.extraction import write_images
from bench.report import load_average, write_report
from bench.scoring_files import TinyBackbone, vision_transformer, write_bare, write_encoder, write_readout
from bench.timing import interleaved
from brainkit.backbones import Backbone
from brainkit.export import relative_difference
from brainkit.images import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, decode, normalise, prepare
from brainkit.model.factor_topy import FactorTopy
from brainkit.ops.token_grid import to_grid
from brainkit.predict import predict_to_file

VERTICES, BOTTLENECK = 37_984, 128
FEW, MANY = 200, 20_000  # images, for peak memory

# A process that only predicts: what this one has loaded would hide the growth.
_PEAK = """
import sys
from brainkit.predict import predict_to_file
predict_to_file(sys.argv[1], sys.argv[2], sys.argv[3], device="cpu", overwrite=True)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=32, help="per round from files")
    parser.add_argument("--vertices", type=int, default=VERTICES)
    parser.add_argument("--name", default="scoring", help="name of the files in bench/results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report: dict[str, Any] = {
        "machine": machine.describe(options.threads) | {"onnxruntime": onnxruntime.__version__},
        "vertices": options.vertices,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        backbone = vision_transformer()
        model = write_encoder(folder / "encoder.onnx", backbone, "dinov2", options.vertices, BOTTLENECK)
        write_encoder(folder / "int8.onnx", backbone, "dinov2", options.vertices, BOTTLENECK, storage="int8")
        write_bare(folder / "bare.onnx", backbone)
        write_readout(folder / "readout.onnx", folder / "encoder.onnx")
        size = backbone.preprocessing.size
        report["parts"] = {
            f"B = {batch}": parts(folder, size, batch, options.rounds, options.threads) for batch in (1, 8)
        }
        report["whole"] = whole(folder, backbone, model, options.images, options.rounds, options.threads)
        report["memory"] = memory(folder)
        report["first"] = first_prediction(folder)
    report["machine"]["load after"] = load_average()
    write_report(options.name, report, page(report))


def plain_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session with the runtime's default settings."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def parts(folder: Path, size: int, batch: int, rounds: int, threads: int) -> dict[str, float]:
    """Seconds per run of the whole graph, the backbone and the readout; then of float32 and int8 files in brainkit's
    sessions. Those are timed without other sessions, whose spinning threads would take their cores.
    """
    images = np.random.default_rng(2).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    rounds *= 4 if batch == 1 else 1  # short runs vary more
    plain = {name: plain_session(folder / f"{name}.onnx", threads) for name in ("encoder", "bare", "readout")}
    (tokens,) = plain["encoder"].run(["tokens"], {"images": images})
    seconds = interleaved(
        {
            "encoder": partial(plain["encoder"].run, ["fmri"], {"images": images}),
            "bare": partial(plain["bare"].run, ["token"], {"images": images}),
            "readout": partial(plain["readout"].run, ["fmri"], {"tokens": tokens}),
        },
        rounds,
        {"readout": 3},
    )
    del plain
    ours = {name: brainkit.load(folder / f"{name}.onnx", "cpu", threads=threads) for name in ("encoder", "int8")}
    scored = interleaved({name: partial(encoder.run, images) for name, encoder in ours.items()}, rounds, {})
    return seconds | {"float32, as scored": scored["encoder"], "int8, as scored": scored["int8"]}


def whole(
    folder: Path, backbone: Backbone, model: FactorTopy, count: int, rounds: int, threads: int
) -> dict[str, float]:
    """Seconds for `count` images: `predict` from files, the bare backbone, and torch with the published readout."""
    (folder / "png").mkdir()
    (folder / "jpeg").mkdir()
    paths = write_images(folder / "png", count)
    for path in paths:
        Image.open(path).save(folder / "jpeg" / f"{path.stem}.jpg", quality=92)
    ready = np.stack([prepare(decode(path), backbone.preprocessing) for path in paths])
    bare = plain_session(folder / "bare.onnx", threads)
    encoder = brainkit.load(folder / "encoder.onnx", device="cpu")
    batch = encoder.batch_size_for(None)

    def from_files(kind: str) -> None:
        predict_to_file(folder / kind, folder / "fmri.npy", encoder, overwrite=True)

    def bare_network() -> None:
        for start in range(0, count, batch):
            bare.run(["token"], {"images": ready[start : start + batch]})

    readout = PublishedReadout(model)

    def torch_published(images: np.ndarray = ready) -> list[torch.Tensor]:
        batches = (images[start : start + batch] for start in range(0, len(images), batch))
        with torch.inference_mode():
            return [
                readout(*backbone.get_tokens(torch.from_numpy(normalise(each, backbone.preprocessing))))
                for each in batches
            ]

    check(torch.cat(torch_published(ready[:4])).numpy(), encoder.run(ready[:4]))
    seconds = interleaved(
        {
            "bare backbone": bare_network,
            "from PNG": partial(from_files, "png"),
            "from JPEG": partial(from_files, "jpeg"),
            "torch, published readout": torch_published,
        },
        rounds,
        {},
    )
    return {"images": count, "batch": batch, **seconds}


def check(expected: np.ndarray, found: np.ndarray) -> None:
    """Exit if the predictions differ."""
    error = float(relative_difference(found, expected).max())
    if not error < 1e-3:
        sys.exit(f"nothing is reported: the encoder file differs from the published readout by {error:.1e} s.d.")


class PublishedReadout:
    """Bottlenecks and the published readout, from a backbone's tokens."""

    def __init__(self, model: FactorTopy) -> None:
        folded = model.folded()
        self.layers, self.grid, self.resize = folded.layers, folded.grid, folded.resize
        self.maps = [
            [_tensor(part[layer]) for part in (folded.local_weight, folded.local_bias)]
            + [_tensor(part[layer]) for part in (folded.global_weight, folded.global_bias)]
            for layer in folded.layers
        ]
        selected = (folded.locations, folded.layer_weights, folded.scale, folded.weight, folded.bias)
        self.selected = [_tensor(array) for array in selected]

    def __call__(self, local: dict[str, torch.Tensor], whole: dict[str, torch.Tensor]) -> torch.Tensor:
        cells, tokens = [], []
        for layer, (weight, bias, whole_weight, whole_bias) in zip(self.layers, self.maps, strict=True):
            grid = to_grid(local[layer], self.grid, self.resize)
            cells.append(torch.einsum("dc,bchw->bdhw", weight, grid) + bias[:, None, None])
            tokens.append(whole[layer] @ whole_weight.T + whole_bias)
        return published.factor_readout(torch.stack(cells, 1), torch.stack(tokens, 1), *self.selected)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def memory(folder: Path) -> dict[str, float]:
    """Peak resident MB of a process that predicts for few and for many images with a tiny network."""
    tiny = TinyBackbone().eval()
    tiny.preprocessing = Preprocessing(32, IMAGENET_MEAN, IMAGENET_STD)  # type: ignore[assignment]
    write_encoder(folder / "tiny.onnx", tiny, "tiny", 500, 8)
    images = folder / "many"
    images.mkdir()
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / "one.png")
    peaks = {}
    for count in (FEW, MANY):
        for number in range(len(os.listdir(images)), count):
            shutil.copy(folder / "one.png", images / f"{number:06d}.png")
        command = [sys.executable, "-c", _PEAK, images, folder / "fmri.npy", folder / "tiny.onnx"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[f"{count:,} images"] = int(done.stdout) * 1024 / 1e6
    return peaks


def first_prediction(folder: Path) -> dict[str, float]:
    """Seconds from starting a process to the predictions for one image on disk."""
    image = next((folder / "png").iterdir())

    def run(encoder: str) -> Callable[[], float]:
        command = [sys.executable, "-m", "brainkit.cli", "predict", image, "--encoder", folder / encoder]
        command += ["--out", folder / "first.npy", "--overwrite", "--device", "cpu"]

        def once() -> float:
            start = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            return time.perf_counter() - start

        return once

    once = run("encoder.onnx")
    once()
    return {"predict, seconds": median(once() for _ in range(3))}


def page(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    about, runs, found = report["machine"], report["parts"], report["whole"]
    lines = ["# The cost of predicting", "", *(f"- {key}: {value}" for key, value in about.items())]
    lines += [
        "",
        f"ViT-B/14 at 224 with random weights, {report['vertices']:,} vertices, D = {BOTTLENECK}, 8x8 tokens, float32. "
        "Medians, interleaved in one process. The first four columns: sessions with the runtime's default settings. "
        "The last three: sessions as in `predict`.",
        "",
        "| one run in ONNX Runtime | backbone alone | whole encoder | readout alone | readout's share | "
        "float32, predict | int8, predict | int8 is faster by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in runs.items():
        plain, small = row["float32, as scored"], row["int8, as scored"]
        lines.append(
            f"| {name} | {1e3 * row['bare']:.0f} ms | {1e3 * row['encoder']:.0f} ms | {1e3 * row['readout']:.1f} ms | "
            f"{row['readout'] / row['encoder']:.1%} | {1e3 * plain:.0f} ms | {1e3 * small:.0f} ms | "
            f"{plain / small:.2f}x |"
        )
    count, bare = found["images"], found["bare backbone"]
    lines += [
        "",
        f"{count} images of 425 x 425 pixels in batches of {found['batch']}. `predict` reads, decodes, resizes, runs "
        "and writes; the bare backbone gets prepared images in memory; torch runs the same backbone eagerly, the "
        "bottlenecks and the published readout, from prepared images too.",
        "",
        "| | images/s | of the bare backbone's |",
        "|---|---|---|",
    ]
    for name in ("bare backbone", "from PNG", "from JPEG", "torch, published readout"):
        lines.append(f"| {name} | {count / found[name]:.2f} | {bare / found[name]:.1%} |")
    gain = found["torch, published readout"] / found["from PNG"]
    few, many = report["memory"].values()
    lines += [
        "",
        f"From PNG, brainkit is {gain:.2f}x as fast as torch with the published readout, which does not decode.",
        "",
        f"Peak memory of a process that predicts with a tiny network: {few:.1f} MB for {FEW:,} images, "
        f"{many:.1f} MB for {MANY:,} ({many / few - 1:+.1%}).",
        "",
        f"`brainkit predict` from start to end, with one image and the ViT-B/14: "
        f"{report['first']['predict, seconds']:.2f} s.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
