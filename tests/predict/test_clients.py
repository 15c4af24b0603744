"""Real clients of the encoder file: ONNX's own checker, ONNX Runtime, OpenVINO, and ONNX Runtime in Node.js.

Each gets the file as it is, without brainkit; their numbers are compared with torch's as the certificate's are.
"""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs brainkit[train]")
onnx = pytest.importorskip("onnx", reason="export needs brainkit[train]")
pytest.importorskip("timm", reason="export needs brainkit[train]")

from brainkit import encoder_file, export
from brainkit.backbones import load_backbone
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.surface import sphere_coordinates
from brainkit.cortex.vertices import Vertices
from brainkit.errors import EncoderFileError
from brainkit.export.parity import BOUND, relative_difference
from brainkit.model.factor_topy import FactorTopy

pytestmark = pytest.mark.slow

CLIENT = Path(__file__).resolve().parents[1] / "clients" / "predict.mjs"
NODE_PACKAGE = "onnxruntime-node@1.30.0"


@pytest.fixture(scope="module", params=["test_vit", "test_efficientnet"])
def given(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small transformer or convnet of timm as an encoder file, images, and what torch predicts for them."""
    backbone = load_backbone(request.param, random_weights=True)
    vertices = Vertices("fsaverage5", np.r_[0:40:2, 10_242:10_282:2].astype(np.int32))
    torch.manual_seed(0)
    model = FactorTopy(backbone.widths, sphere_coordinates(vertices), bottleneck=8, backend="reference")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.1 if "selector" in name else 1.0)
    info = export.describe(
        model.folded(),
        vertices=vertices,
        rois=RoiTable({"V1v": [0, 5], "FFA-1": [30]}, len(vertices)),
        preprocessing=backbone.preprocessing,
        backbone={"name": backbone.name, "pretrained": False},
        note="a network with random weights",
    )
    size = backbone.preprocessing.size
    coarse = np.random.default_rng(1).integers(0, 256, (6, 5, 5, 3))
    images = coarse.repeat(-(-size // 5), 1).repeat(-(-size // 5), 2)[:, :size, :size].astype(np.uint8)
    path = tmp_path_factory.mktemp("clients") / "encoder.onnx"
    export.export_onnx(model, backbone, path, info=info, images=images)
    expected = export.torch_predictions(model, backbone, images, backbone.preprocessing)
    return SimpleNamespace(path=path, images=images, expected=expected, info=info)


def agrees(found: np.ndarray, given: Any) -> None:
    assert found.dtype == np.float32
    assert found.shape == given.expected.shape
    assert relative_difference(found, given.expected).max() <= BOUND


def batches(given: Any, size: int) -> list[np.ndarray]:
    return [given.images[start : start + size] for start in range(0, len(given.images), size)]


def test_the_checker_of_onnx_passes_it(given: Any) -> None:
    onnx.checker.check_model(os.fspath(given.path), full_check=True)


@pytest.mark.parametrize("size", [1, 3])
def test_onnx_runtime_alone(given: Any, size: int) -> None:
    """In a process that cannot import brainkit."""
    pytest.importorskip("onnxruntime")
    folder = given.path.parent
    np.save(folder / "images.npy", given.images)
    script = (
        "import sys; sys.modules['brainkit'] = None\n"
        "import json, numpy as np, onnxruntime as ort\n"
        "session = ort.InferenceSession('encoder.onnx', providers=['CPUExecutionProvider'])\n"
        f"images, size = np.load('images.npy'), {size}\n"
        "rows = [session.run(['fmri'], {'images': images[k:k + size]})[0] for k in range(0, len(images), size)]\n"
        "np.save('fmri.npy', np.concatenate(rows))\n"
        "print(json.loads(session.get_modelmeta().custom_metadata_map['brainkit'])['space'])\n"
    )
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "fsaverage5"
    agrees(np.load(folder / "fmri.npy"), given)


@pytest.mark.parametrize("size", [1, 3])
def test_openvino(given: Any, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # No telemetry from tests.
    monkeypatch.setenv("OPENVINO_TELEMETRY_OPT_OUT", "1")
    monkeypatch.setenv("HOME", os.fspath(given.path.parent))
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    # Some processors would compute in bfloat16, which is OpenVINO's choice and not the file's.
    compiled = core.compile_model(given.path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    agrees(np.concatenate([compiled(batch)["fmri"] for batch in batches(given, size)]), given)


@pytest.fixture(scope="session")
def node_packages() -> Path:
    """A folder with onnxruntime-node, fetched once into the temporary folder of this machine."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    folder = Path(tempfile.gettempdir()) / f"brainkit-tests-{NODE_PACKAGE.replace('@', '-')}"
    if not (folder / "node_modules" / "onnxruntime-node" / "package.json").is_file():
        folder.mkdir(exist_ok=True)
        command = [
            "npm",
            "install",
            NODE_PACKAGE,
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--fetch-retries=1",
            "--fetch-timeout=60000",
            "--prefix",
            str(folder),
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"npm could not install {NODE_PACKAGE}: {done.stderr.strip().splitlines()[-1:]}")
    return folder


@pytest.mark.parametrize("size", [1, 3])
def test_node(given: Any, size: int, node_packages: Path, tmp_path: Path) -> None:
    """A client in another language, which reads what the columns are from the file by itself."""
    rows = []
    for number, batch in enumerate(batches(given, size)):
        (tmp_path / "images.u8").write_bytes(batch.tobytes())
        files = [str(given.path), str(tmp_path / "images.u8"), str(batch.shape[1]), str(tmp_path / f"{number}.f32")]
        done = subprocess.run(["node", str(CLIENT), *files], cwd=node_packages, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        rows.append(np.frombuffer((tmp_path / f"{number}.f32").read_bytes(), "<f4").reshape(len(batch), -1))
        printed = json.loads(done.stdout)
        assert printed["shape"] == [len(batch), len(given.info.vertices)]
        assert printed["vertices"] == given.info.vertices.ids.tolist()
        assert printed["rois"] == {name: given.info.rois[name].tolist() for name in given.info.rois}
        assert (printed["space"], printed["note"]) == ("fsaverage5", given.info.note)
        if size == 1 and number == 1:  # two single images show as much as six
            break
    found = np.concatenate(rows)
    expected = given.expected[: len(found)]
    assert np.abs(found - expected).max() <= BOUND * np.sqrt(np.mean(given.expected.std(0) ** 2))


def test_a_node_client_refuses_a_damaged_file(given: Any, node_packages: Path, tmp_path: Path) -> None:
    content = bytearray(given.path.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bad.onnx").write_bytes(content)
    command = ["node", str(CLIENT), str(tmp_path / "bad.onnx"), "x", "8", "y"]
    done = subprocess.run(command, cwd=node_packages, capture_output=True, text=True)
    assert done.returncode != 0
    assert "does not match its digest" in done.stderr
    with pytest.raises(EncoderFileError):
        encoder_file.read(tmp_path / "bad.onnx")
