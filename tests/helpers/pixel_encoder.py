"""An encoder file whose tokens are the pixels themselves, for tests that score: made in a moment, without torch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from brainkit import encoder_file
from brainkit.cortex.surface import RoiTable, Vertices
from brainkit.export import onnx_readout
from brainkit.images import Preprocessing

SIZE, V = 8, 20
PREPROCESSING = Preprocessing(SIZE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", "whole", 1.0)
ROIS = RoiTable({"V1v": [3, 1], "V1d": [7], "PPA": [1, 19], "absent": []}, V)


def readout_constants() -> Any:
    rng = np.random.default_rng(0)
    return SimpleNamespace(
        grid=(SIZE, SIZE),
        layers=("pixels",),
        layer_weights=np.ones((V, 1)),
        locations=rng.uniform(-1, 1, (V, 2)),
        scale=rng.uniform(0, 1, V),
        weight=rng.normal(size=(V, 3)),
        bias=rng.normal(size=V),
    )


def make_graph(*, outputs: tuple[str, ...] = ("fmri", "tokens"), size: int = SIZE) -> bytes:
    """An encoder whose tokens are the pixels themselves, and their mean as the global one: no torch needed."""
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "step"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["channels"], perm=[0, 3, 1, 2]),
        helper.make_node("Reshape", ["channels", "shape"], ["cells"]),
        helper.make_node("ReduceMean", ["cells", "axis"], ["mean"], keepdims=1),
        helper.make_node("Concat", ["cells", "mean"], ["tokens"], axis=3),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.float32(1 / 255), "step"),
        onnx.numpy_helper.from_array(np.array([0, 1, 3, SIZE * SIZE]), "shape"),
        onnx.numpy_helper.from_array(np.array([3]), "axis"),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", size, size, 3])
    graph = helper.make_graph(nodes, "g", [images], [], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx_readout.append_readout(model, onnx_readout.sort_readout(readout_constants()), (SIZE, SIZE), 1)
    kept = [output for output in model.graph.output if output.name in outputs]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return bytes(model.SerializeToString())


def make_info(n_vertices: int = V) -> encoder_file.EncoderInfo:
    constants = readout_constants()
    return encoder_file.EncoderInfo(
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


def write_encoder(folder: Path) -> Path:
    """The encoder as a file, in a folder."""
    path = folder / "encoder.onnx"
    encoder_file.write(path, make_graph(), make_info())
    return path
