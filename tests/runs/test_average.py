"""The average subject: its vertices, regions and metadata, and that its file predicts the mean of the subjects."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs brainkit[train]")
for needed in ("pytorch_lightning", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(needed)

import tiny_encoders as tiny
from PIL import Image

import brainkit
from brainkit import encoder_file, predict
from brainkit.encoder_file.describe import describe
from brainkit.errors import UsageError
from brainkit.model.ensemble import select_vertices
from brainkit.runs.average import at_common_vertices, average
from brainkit.runs.ensemble import Member
from brainkit.utils.files import write_json

SMALL = ("train.batch_size=8", "model.bottleneck=4", "model.selector_width=8", "backbone.size=40")
IDS = ([3, 5, 8, 20, 10_300, 10_301], [2, 5, 8, 21, 10_300, 10_301], [5, 8, 20, 21, 10_300])
COMMON = [5, 8, 10_300]
REGION = ([5, 8, 10_300], [8, 21], [10_300])  # of each subject


def make_subject(folder: Path, k: int) -> Path:
    draw = np.random.default_rng(k)
    (folder / "images").mkdir(parents=True)
    for row in range(40):
        pixels = draw.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{row:03d}.png")
    np.save(folder / "responses.npy", draw.standard_normal((40, len(IDS[k]))).astype(np.float32))
    write_json(folder / "vertices.json", {"space": "fsaverage5", "ids": IDS[k]})
    write_json(folder / "rois.json", {"place": [IDS[k].index(each) for each in REGION[k]]})
    np.save(folder / "noise_ceiling.npy", np.full(len(IDS[k]), 0.2 + 0.1 * k, np.float32))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of each of three subjects, who have three vertices in common."""
    folder, network = tmp_path_factory.mktemp("average"), tiny.make_backbone()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        options = {"epochs": 1, "overrides": SMALL, "maps": False, "say": lambda line: None}
        made = [
            brainkit.fit(network, make_subject(folder / f"s{k}", k), out=folder / f"run{k}", seed=k, **options)
            for k in range(3)
        ]
    return SimpleNamespace(folder=folder, network=network, runs=[run.path for run in made])


@pytest.mark.slow
def test_the_file_predicts_the_mean_of_the_subjects_at_their_common_vertices(runs: Any, tmp_path: Path) -> None:
    said: list[str] = []
    exported = average(runs.runs, tmp_path / "average.onnx", backbone=runs.network, say=said.append)
    images = sorted((runs.folder / "s0" / "images").iterdir())[:6]
    singles = []
    for run in runs.runs:
        brainkit.Run.open(run).export(tmp_path / f"{run.name}.onnx", backbone=runs.network, say=lambda line: None)
        encoder = predict.load(tmp_path / f"{run.name}.onnx", "cpu")
        singles.append(encoder.predict(images)[:, np.searchsorted(encoder.info.vertices.ids, COMMON)])
    mean, sd = predict.load(exported.path, "cpu").predict_with_spread(images)
    np.testing.assert_allclose(mean, np.mean(singles, axis=0), atol=1e-4)
    np.testing.assert_allclose(sd, np.std(singles, axis=0, ddof=1), atol=1e-4)
    info = encoder_file.read(exported.path)
    assert info.vertices.space == "fsaverage5" and info.vertices.ids.tolist() == COMMON
    assert {name: ids.tolist() for name, ids in info.rois.items()} == {"place": [1, 2]}  # more than half of the three
    np.testing.assert_allclose(info.noise_ceiling, 0.3, atol=1e-6)
    assert np.isnan(info.r).all() and np.isnan(info.R2).all() and info.provenance["scores"] is None
    assert info.ensemble is not None and [run["subject"] for run in info.ensemble["runs"]] == ["s0", "s1", "s2"]
    assert info.provenance["average"] == {"subjects": ["s0", "s1", "s2"], "vertices": 3, "of": [6, 6, 5]}
    assert "subjects s0, s1, s2" in dict(describe(exported.path).facts)["ensemble"]
    assert all(np.isnan(row.explained) for row in describe(exported.path).accuracy)
    assert any(line.startswith("test scores: unknown") for line in said)


def test_a_model_with_some_vertices_predicts_what_the_whole_does() -> None:
    for options in ({"offsets": ("layer", "location")}, {"topography": False}):
        model = tiny.make_model(**options).eval()
        index = np.array([1, 3, 4])
        part = select_vertices(model, index)
        with torch.no_grad():
            tokens = tiny.make_backbone().get_tokens(torch.rand(2, 3, 40, 40))
            torch.testing.assert_close(part(*tokens), model(*tokens)[:, index], atol=1e-5, rtol=1e-5)
        assert len(model.weight) > 3 and part.folded().locations.shape == (3, 2)


def test_what_cannot_be_averaged_is_refused(runs: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least two"):
        average(runs.runs[:1], tmp_path / "x.onnx", backbone=runs.network)
    members = [Member.open(run) for run in runs.runs[:2]]
    same = dataclasses.replace(members[1], summary={**members[1].summary, "data": members[0].summary["data"]})
    with pytest.raises(UsageError, match="different subjects"):
        at_common_vertices([members[0], same])
    none = dataclasses.replace(members[1].info.vertices, ids=members[1].info.vertices.ids + 100)
    apart = dataclasses.replace(members[1], info=dataclasses.replace(members[1].info, vertices=none))
    with pytest.raises(UsageError, match="no vertex"):
        at_common_vertices([members[0], apart])
    other = dataclasses.replace(members[1], info=dataclasses.replace(members[1].info, units="percent"))
    with pytest.raises(UsageError, match="one unit"):
        at_common_vertices([members[0], other])
    assert not (tmp_path / "x.onnx").exists()
