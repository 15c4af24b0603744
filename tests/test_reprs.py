"""What a notebook shows of an object: a line or a few, whatever arrays it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from PIL import Image
from pixel_encoder import make_info, save_images, write_encoder

import brainkit
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.cortex.volume import Volume
from brainkit.predict import predict_to_file


def short(value: Any, *parts: str) -> str:
    """Check that the repr is short and says this."""
    text = repr(value)
    assert len(text) <= 300 and len(text.splitlines()) <= 3 and "array(" not in text, text
    assert all(part in text for part in parts), text
    return text


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return save_images(tmp_path_factory.mktemp("photos"), 300)


def test_an_encoder_and_what_it_gives(photos: list[Path], tmp_path: Path) -> None:
    encoder = brainkit.load(write_encoder(tmp_path), "cpu")
    short(encoder.vertices, "fsaverage5", "20")
    short(encoder.selectors, "layer_weights", "(20, 1)")
    assert isinstance(encoder.selectors, dict) and encoder.selectors["scale"].shape == (20,)
    short(encoder.info, "pixels", "20 vertices", str(encoder.info.digest)[:12])
    found = brainkit.contrast(photos[::2], photos[1::2], encoder, names=("even " * 50, "odd"))
    short(found, "150 images", "q < 0.05")
    short(found.a, "150 images")
    short(found.statistics, "hedges_g")
    short(found.arrays(), "mean_a")
    for one in encoder.top([np.asarray(Image.open(path)) for path in photos[:9]], "PPA", k=3):
        short(one, "rank=")
    assert len(repr(predict_to_file(photos, tmp_path / "fmri.npy", encoder))) < 600  # with paths


def test_a_whole_brain() -> None:
    vertices = Vertices("fsaverage", np.arange(2 * 163_842))
    rois = RoiTable({f"region {number}": [number] for number in range(400)}, len(vertices))
    short(vertices, "163,842 left")
    short(rois, "region 0: 1", "392 more", "n_vertices=327684")
    short(Vertices.custom(5), "custom")
    short(make_info(vertices=vertices, rois=rois), "327,684 vertices", "400 ROIs")
    short(Volume((90, 90, 90), np.eye(4), np.argwhere(np.ones((20, 20, 20)))), "8,000 voxels")


def test_data(tiny_sample: Path) -> None:
    subject = brainkit.data.open_subject(tiny_sample)
    short(subject, "60 vertices")
    short(subject.responses, "60 vertices")
    short(brainkit.data.make_split(subject.groups, subject.official_test, seed=4), "seed 4")


def test_models_and_tokens() -> None:
    for needed in ("torch", "pytorch_lightning", "timm"):
        pytest.importorskip(needed)
    from patch_backbone import patch_backbone
    from small_models import memory_tokens, small_model

    tokens, rows = memory_tokens(), np.arange(300)
    short(tokens, "40 images", "2 layers")
    short(small_model(tokens), "20 vertices")
    short(patch_backbone(), "2 layers")
    split = brainkit.data.Split(rows[:200], rows[200:250], rows[250:], 7)
    short(brainkit.EncodingData(tokens, np.zeros((300, 20), np.float32), split), "train 200")  # type: ignore[arg-type]


def test_a_run(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("pytorch_lightning")
    from brainkit.evaluation.scores import Scores

    values = np.linspace(0, 1, 5000)
    short(Scores(values, values, values, 12), "5,000 vertices", "12 test images")
    np.savez(tmp_path / "scores.npz", r=values, R2=values, noise_ceiling=values, vertices=np.arange(5000))
    (tmp_path / "run.json").write_text(json.dumps({"scores": {}}))
    run = brainkit.Run.open(tmp_path)
    short(run.vertex_scores, "noise_ceiling", "(5000,)")
    short(run, tmp_path.name)
