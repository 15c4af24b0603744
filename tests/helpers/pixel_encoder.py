"""An encoder file whose tokens are the pixels themselves, for tests that predict: built in a moment, without torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from brainkit import encoder_file
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.export import onnx_readout
from brainkit.export.ensemble import append_members
from brainkit.images import Preprocessing, decode, prepare

SIZE, V = 8, 20
PREPROCESSING = Preprocessing(SIZE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", "whole", 1.0)
ROIS = RoiTable({"V1v": [3, 1], "V1d": [7], "PPA": [1, 19], "absent": []}, V)


def readout_constants(seed: int = 0) -> Any:
    """What `brainkit.export.onnx_readout.sort_readout` takes: selectors and readout of V vertices."""
    rng = np.random.default_rng(seed)
    return SimpleNamespace(
        grid=(SIZE, SIZE),
        layers=("pixels",),
        layer_weights=np.ones((V, 1)),
        locations=rng.uniform(-1, 1, (V, 2)),
        scale=rng.uniform(0, 1, V),
        weight=rng.normal(size=(V, 3)),
        bias=rng.normal(size=V),
    )


def make_graph(*, outputs: tuple[str, ...] | None = None, size: int = SIZE, members: int = 1) -> bytes:
    """A graph whose tokens are the pixels, and their mean as the global token; repeated for each member."""
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "step"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["channels"], perm=[0, 3, 1, 2]),
        helper.make_node("Reshape", ["channels", "shape"], ["cells"]),
        helper.make_node("ReduceMean", ["cells", "axis"], ["mean"], keepdims=1),
        helper.make_node("Concat", ["cells", "mean"], ["pixels"], axis=3),
        helper.make_node("Concat", ["pixels"] * members, ["tokens"], axis=2),
    ]
    constants = [
        numpy_helper.from_array(np.float32(1 / 255), "step"),
        numpy_helper.from_array(np.array([0, 1, 3, SIZE * SIZE]), "shape"),
        numpy_helper.from_array(np.array([3]), "axis"),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", size, size, 3])
    graph = helper.make_graph(nodes, "g", [images], [], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    readouts = [onnx_readout.sort_readout(readout_constants(seed)) for seed in range(members)]

    def append(proto: onnx.ModelProto, readout: onnx_readout.Readout) -> None:
        onnx_readout.append_readout(proto, readout, (SIZE, SIZE), 1)

    if members == 1:
        append(model, readouts[0])
    else:
        append_members(model, readouts, append, (SIZE, SIZE), 1)
    kept = [output for output in model.graph.output if outputs is None or output.name in outputs]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return bytes(model.SerializeToString())


def make_info(n_vertices: int = V, **changes: Any) -> encoder_file.EncoderInfo:
    constants = readout_constants()
    info = encoder_file.EncoderInfo(
        vertices=Vertices("fsaverage5", np.arange(n_vertices) * 1000),
        rois=RoiTable({name: index[index < n_vertices] for name, index in ROIS.items()}, n_vertices),
        preprocessing=PREPROCESSING,
        layers=("pixels",),
        grid=(SIZE, SIZE),
        bottleneck=3,
        layer_weights=constants.layer_weights[:n_vertices],
        locations=constants.locations[:n_vertices],
        scale=constants.scale[:n_vertices],
        r=np.zeros(n_vertices),
        R2=np.zeros(n_vertices),
        noise_ceiling=np.ones(n_vertices),
        units="z-scored percent signal change",
        note="simulated",
        backbone={"name": "pixels"},
    )
    return dataclasses.replace(info, **changes)


def write_encoder(folder: Path, name: str = "encoder.onnx", **changes: Any) -> Path:
    """The encoder as a file, in a folder; `changes` are those of its metadata."""
    path = folder / name
    encoder_file.write(path, make_graph(), make_info(**changes))
    return path


def write_ensemble(folder: Path, name: str = "ensemble.onnx", members: int = 2) -> Path:
    """An ensemble of such encoders, which differ in their readouts."""
    path = folder / name
    info = make_info(bottleneck=3 * members, ensemble={"members": members})
    encoder_file.write(path, make_graph(members=members), info)
    return path


def expected_rows(paths: list[Path], seed: int = 0) -> np.ndarray:
    """The predictions for some images, computed from the definition in plain NumPy: (n, V)."""
    constants = readout_constants(seed)
    rows = []
    for path in paths:
        pixels = prepare(decode(path), PREPROCESSING) / 255
        row = []
        for v in range(V):
            x, y = ((constants.locations[v] + 1) * SIZE - 1) / 2
            local = np.zeros(3)
            for i in (int(np.floor(y)), int(np.floor(y)) + 1):
                for j in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= i < SIZE and 0 <= j < SIZE:
                        local += (1 - abs(y - i)) * (1 - abs(x - j)) * pixels[i, j]
            mixed = (1 - constants.scale[v]) * local + constants.scale[v] * pixels.mean((0, 1))
            row.append(constants.bias[v] + (constants.weight[v] * mixed).mean())
        rows.append(row)
    return np.array(rows)


def save_images(folder: Path, count: int, *, broken: tuple[int, ...] = (), seed: int = 0) -> list[Path]:
    """Write ``image-000.png`` and so on, each different; those with a broken number hold no image. All paths."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = [folder / f"image-{number:03d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        pixels = rng.integers(0, 256, (5 + number % 7, 9, 3), np.uint8)
        if number in broken:
            path.write_bytes(b"no image")
        else:
            Image.fromarray(pixels).save(path)
    return paths
