"""Hostile encoder files: thousands of damaged and malicious variants are read, opened and run.

    python -m bench.hostile                          # 2,400 variants of a small encoder, 600 of an exported transformer
    python -m bench.hostile --variants 100 --no-export

Every variant must work, or be refused with a one-line error. Workers with limited memory test many variants each; if
one dies, hangs or prints, the report names the variant, and the next worker continues after it.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import brainkit
from bench.report import RESULTS, ROOT

SECONDS = 60.0  # per variant; most take some milliseconds
MEMORY = 6 << 30  # bytes of address space of a worker, of which libraries take about 2 GB
GOOD = ("works", "refused")


def main() -> None:
    """Make the variants, test them in workers, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=2400)
    parser.add_argument("--exported", type=int, default=600, help="variants of an exported transformer")
    parser.add_argument("--no-export", action="store_true", help="only the small encoder; needs no torch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only kinds whose names contain this")
    parser.add_argument("--name", type=Path, default=RESULTS / "hostile", help="where to write the .json and .md")
    parser.add_argument("--worker", nargs=3, metavar=("FOLDER", "START", "STOP"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(Path(options.worker[0]), options.seed, options.only, int(options.worker[1]), int(options.worker[2]))
        return
    started = time.monotonic()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small_encoder(folder / "base.onnx")
        rows += [{"base": "small", **row} for row in attack(folder, options.seed, options.only, options.variants)]
        if not options.no_export:
            exported_encoder(folder / "base.onnx")
            rows += [
                {"base": "exported", **row} for row in attack(folder, options.seed + 1, options.only, options.exported)
            ]
    write(options.name, rows, options.seed, time.monotonic() - started)
    bad = [row for row in rows if row["outcome"] not in GOOD]
    for row in bad:
        print(f"{row['base']} {row['variant']}, {row['kind']}: {row['outcome']}: {row['text'][:300]}")
    print(f"{len(rows)} variants, {len(bad)} handled badly, {time.monotonic() - started:.0f} s")
    sys.exit(1 if bad else 0)


def attack(folder: Path, seed: int, only: str, count: int) -> list[dict[str, Any]]:
    """Test all variants in workers; the outcome of each, in order."""
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        start = len(rows)
        stop = min(count, start + 400)
        command = [sys.executable, "-m", "bench.hostile", "--seed", str(seed), "--only", only, "--worker", str(folder)]
        worker = subprocess.Popen(
            [*command, str(start), str(stop)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert worker.stdout is not None and worker.stderr is not None
        hung = False
        while True:
            timer = threading.Timer(SECONDS, worker.kill)
            timer.start()
            line = worker.stdout.readline()
            hung = not timer.is_alive() and not line
            timer.cancel()
            if not line:
                break
            rows.append(json.loads(line))
        stderr = worker.stderr.read()
        code = worker.wait()
        if code and len(rows) < stop:
            outcome = "hung" if hung else f"died ({code})"
            kind = (folder / "kind.txt").read_text(encoding="utf-8")
            stderr += (folder / "printed.txt").read_text(encoding="utf-8", errors="replace")
            rows.append({"variant": len(rows), "kind": kind, "outcome": outcome, "text": stderr[-500:], "seconds": 0.0})
        elif stderr:
            rows[-1] |= {"outcome": "printed", "text": stderr[-500:]}
    return rows


def work(folder: Path, seed: int, only: str, start: int, stop: int) -> None:
    """One worker: prints a line of JSON for each variant."""
    from bench.hostile_variants import Parts, kind_of, variant
    from brainkit.predict.session import import_runtime

    parts = Parts.of((folder / "base.onnx").read_bytes())
    import_runtime()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    # Output of libraries goes to a file, where it is checked; standard output is for the protocol only.
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    printed = open(folder / "printed.txt", "w+b", buffering=0)  # noqa: SIM115
    os.dup2(printed.fileno(), 1)
    os.dup2(printed.fileno(), 2)
    path = folder / "variant.onnx"
    for number in range(start, stop):
        (folder / "kind.txt").write_text(kind_of(number, only), encoding="utf-8")
        kind, content = variant(parts, number, seed, only)
        path.write_bytes(content)
        del content
        begun = time.monotonic()
        outcome, stage, text = judge(path)
        sys.stdout.flush()
        if printed.tell() or printed.seek(0, os.SEEK_END):
            printed.seek(0)
            outcome, text = "printed", printed.read().decode(errors="replace")[-500:]
            printed.truncate(0)
            printed.seek(0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        row = {"variant": number, "kind": kind, "outcome": outcome, "stage": stage, "text": text}
        protocol.write(json.dumps({**row, "seconds": round(time.monotonic() - begun, 4), "peak": peak}) + "\n")
        protocol.flush()


def judge(path: Path) -> tuple[str, str, str]:
    """Read, open and run one file: the outcome, the stage, and the error's text."""
    from brainkit import encoder_file
    from brainkit.errors import BrainkitError
    from brainkit.predict import load

    stage = "metadata and digest"
    try:
        info = encoder_file.read(path)
        stage = "opening"
        encoder = load(path, "cpu")
        stage = "predicting"
        size = info.preprocessing.size
        encoder.predict(np.zeros((2, size, size, 3), np.uint8), prepared=True)
    except BrainkitError as error:
        text = str(error).replace(str(path), "FILE")
        if "\n" in text or not text or len(text) > 1000:
            return "many lines", stage, text
        if "its graph is not" in text or ("not an ONNX file" in text and stage == "opening"):
            stage = "graph check"
        elif "its graph must" in text:
            stage = "signature"
        elif "ONNX Runtime" in text:
            stage = f"ONNX Runtime, {stage}"
        return "refused", stage, text
    except BaseException as error:  # any other exception is a finding
        return f"raised {type(error).__name__}", stage, str(error)[:500]
    return "works", "predicted", ""


def small_encoder(path: Path) -> None:
    """An encoder of a few kilobytes with the operators of exported networks."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from brainkit import encoder_file
    from brainkit.cortex.rois import RoiTable
    from brainkit.cortex.vertices import Vertices
    from brainkit.export import onnx_readout
    from brainkit.images import Preprocessing

    rng = np.random.default_rng(0)
    size, channels, cells, V = 16, 8, 16, 20
    constants = {
        "step": np.float32(255),
        "kernel": rng.normal(size=(channels, 3, 4, 4)).astype(np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "starts": np.array([0, 0]),
        "ends": np.array([4, 4]),
        "axes": np.array([2, 3]),
        "rows": np.array([0, channels, cells]),
        "gain": np.ones(channels, np.float32),
        "offset": np.zeros(channels, np.float32),
        "query": rng.normal(size=(channels, channels)).astype(np.float32),
        "low": np.float32(-4),
        "high": np.float32(4),
        "split": np.array([3, 5]),
        "index": np.arange(cells)[::-1].copy(),
        "shape": np.array([0, 1, channels, cells]),
        "last": np.array([3]),
        "one": np.array([1, 1, 1]),
    }
    steps: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
        ("Cast", ["images"], ["float"], {"to": TensorProto.FLOAT}),
        ("Div", ["float", "step"], ["scaled"], {}),
        ("Transpose", ["scaled"], ["pixels"], {"perm": [0, 3, 1, 2]}),
        ("Conv", ["pixels", "kernel"], ["patches"], {"strides": [4, 4], "pads": [0, 0, 0, 0], "group": 1}),
        ("Pad", ["patches", "pads"], ["padded"], {"mode": "constant"}),
        ("MaxPool", ["padded"], ["pooled"], {"kernel_shape": [3, 3], "strides": [1, 1]}),
        ("Resize", ["pooled", "", "scales"], ["larger"], {"mode": "nearest"}),
        ("Slice", ["larger", "starts", "ends", "axes"], ["cut"], {}),
        ("Reshape", ["cut", "rows"], ["flat"], {}),
        ("Transpose", ["flat"], ["sequence"], {"perm": [0, 2, 1]}),
        ("LayerNormalization", ["sequence", "gain", "offset"], ["normal"], {"axis": -1, "epsilon": 1e-5}),
        ("MatMul", ["normal", "query"], ["mixed"], {}),
        ("Softmax", ["mixed"], ["attention"], {"axis": -1}),
        ("Einsum", ["attention", "normal"], ["attended"], {"equation": "bij,bij->bij"}),
        ("Gelu", ["attended"], ["bent"], {"approximate": "none"}),
        ("Clip", ["bent", "low", "high"], ["clipped"], {}),
        ("Split", ["clipped", "split"], ["left", "right"], {"axis": 2}),
        ("Concat", ["left", "right"], ["joined"], {"axis": 2}),
        ("Gather", ["joined", "index"], ["turned"], {"axis": 1}),
        ("Expand", ["turned", "one"], ["expanded"], {}),
        ("Transpose", ["expanded"], ["across"], {"perm": [0, 2, 1]}),
        ("Reshape", ["across", "shape"], ["local"], {}),
        ("ReduceMean", ["local", "last"], ["whole"], {"keepdims": 1}),
        ("Concat", ["local", "whole"], ["tokens"], {"axis": 3}),
    ]
    nodes = [helper.make_node(op, inputs, outputs, **attributes) for op, inputs, outputs, attributes in steps]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", size, size, 3])
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [images], [], stored), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    folded = SimpleNamespace(
        grid=(4, 4),
        layer_weights=np.ones((V, 1)),
        locations=rng.uniform(-1, 1, (V, 2)),
        scale=rng.uniform(0, 1, V),
        weight=rng.normal(size=(V, channels)),
        bias=rng.normal(size=V),
    )
    onnx_readout.append_readout(model, onnx_readout.sort_readout(folded), (4, 4), 1)
    onnx.checker.check_model(model, full_check=True)
    unknown = np.full(V, np.nan, np.float32)
    info = encoder_file.EncoderInfo(
        vertices=Vertices("fsaverage5", np.arange(V) * 1000),
        rois=RoiTable({"V1v": [3, 1], "absent": []}, V),
        preprocessing=Preprocessing(size, (0.5,) * 3, (0.5,) * 3, "bilinear", "whole", 1.0),
        layers=("only",),
        grid=(4, 4),
        bottleneck=channels,
        layer_weights=folded.layer_weights,
        locations=folded.locations,
        scale=folded.scale,
        r=unknown,
        R2=unknown,
        noise_ceiling=unknown,
        units="a.u.",
        backbone={"name": "small", "pretrained": False},
        image_hashes={side: np.sort(rng.integers(0, 1 << 62, 5)) for side in ("train", "validation", "test")},
    )
    path.unlink(missing_ok=True)
    encoder_file.write(path, model.SerializeToString(), info)


def exported_encoder(path: Path) -> None:
    """The smallest of timm's transformers with random weights, exported by `brainkit.export`."""
    import torch

    from brainkit import export
    from brainkit.backbones import load_backbone
    from brainkit.cortex.rois import RoiTable
    from brainkit.cortex.vertices import Vertices
    from brainkit.model.factor_topy import FactorTopy

    backbone = load_backbone("test_vit", random_weights=True)
    rng = np.random.default_rng(0)
    model = FactorTopy(backbone.widths, rng.normal(0, 40, (50, 3)), bottleneck=8, backend="reference")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1)
    info = export.describe(
        model.folded(),
        vertices=Vertices.custom(50),
        rois=RoiTable({}, 50),
        preprocessing=backbone.preprocessing,
        backbone={"name": backbone.name, "pretrained": False},
    )
    size = backbone.preprocessing.size
    images = rng.integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    export.export_onnx(model, backbone, path, info=info, images=images)


def write(name: Path, rows: list[dict[str, Any]], seed: int, seconds: float) -> None:
    """Write the counts by kind and by the check that refused them."""
    versions = {"python": platform.python_version(), "brainkit": brainkit.__version__, "numpy": np.__version__}
    for package in ("onnxruntime", "onnxruntime-gpu", "onnx", "torch", "timm"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    stages = collections.Counter(row.get("stage", row["outcome"]) for row in rows)
    kinds: dict[str, collections.Counter[str]] = {}
    for row in rows:
        outcome = row["outcome"] if row["outcome"] in GOOD else "BAD"
        kinds.setdefault(f"{row['kind']} ({row['base']})", collections.Counter())[outcome] += 1
    summary = {
        "variants": len(rows),
        "bad": sum(row["outcome"] not in GOOD for row in rows),
        "seed": seed,
        "seconds": round(seconds, 1),
        "slowest variant, s": max(row["seconds"] for row in rows),
        "largest resident memory of a worker, MB": round(max(row.get("peak", 0) for row in rows) / 1e6),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "stopped by": dict(stages.most_common()),
        "kinds": {kind: dict(counts) for kind, counts in kinds.items()},
        "badly answered": [row for row in rows if row["outcome"] not in GOOD],
    }
    name.with_suffix(".json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# Hostile encoder files",
        "",
        f"`python -m bench.hostile`, seed {seed}: {len(rows)} variants of two encoder files, each read, opened and run "
        f"once. Handled badly (a crash, a hang over {SECONDS:.0f} s, a traceback, printed text, more than one line): "
        f"**{summary['bad']}**.",
        "",
        f"{summary['seconds']} s in all, the slowest variant {summary['slowest variant, s']:.2f} s; peak memory of a "
        f"worker {summary['largest resident memory of a worker, MB']} MB. "
        + ", ".join(f"{package} {version}" for package, version in versions.items())
        + f", {summary['system']}.",
        "",
        "| refused by | variants |",
        "|---|---|",
        *(f"| {stage} | {count} |" for stage, count in stages.most_common()),
        "",
        "| kind | refused in one line | works | bad |",
        "|---|---|---|---|",
        *(f"| {kind} | {counts['refused']} | {counts['works']} | {counts['BAD']} |" for kind, counts in kinds.items()),
        "",
    ]
    name.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
