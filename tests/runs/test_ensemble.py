"""Runs with different seeds as one ensemble: what they must have in common, its scores and its file."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import copy
import dataclasses
import shutil
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
from brainkit.config import Config, DataConfig
from brainkit.cortex.vertices import Vertices
from brainkit.data.split import Split
from brainkit.encoder_file.describe import describe
from brainkit.errors import UsageError
from brainkit.runs import export as run_export
from brainkit.runs.ensemble import Member, build_ensemble, check_members
from brainkit.utils.files import read_json, write_json

SMALL = ("train.batch_size=8", "model.bottleneck=4", "model.selector_width=8", "backbone.size=40")
SEEDS = (0, 1, 2)


def make_data(folder: Path, images: int = 60, vertices: int = 12) -> Path:
    """Images of one colour each and responses that follow it, on no known surface."""
    draw = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    colours = draw.integers(0, 256, (images, 3), dtype=np.uint8)
    for row, colour in enumerate(colours):
        noise = draw.integers(0, 40, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(folder / "images" / f"{row:03d}.png")
    responses = colours / 128.0 @ draw.standard_normal((3, vertices)) + 0.3 * draw.standard_normal((images, vertices))
    np.save(folder / "responses.npy", responses.astype(np.float32))
    np.save(folder / "coordinates.npy", draw.uniform(-50, 50, (vertices, 3)).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three seeds on one split, and one on a split of its own."""
    place = tmp_path_factory.mktemp("runs")
    data, network = make_data(place / "data"), tiny.make_backbone()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)

        def run(name: str, seed: int, *more: str) -> brainkit.Run:
            options = {"out": place / name, "epochs": 2, "overrides": [*SMALL, *more], "say": lambda line: None}
            return brainkit.fit(network, data, seed=seed, **options)

        shared = [run(f"seed{seed}", seed, "data.split_seed=7") for seed in SEEDS]
        alone = run("alone", 5)
    return SimpleNamespace(place=place, data=data, network=network, shared=shared, alone=alone)


def export(runs: Any, first: Path, *others: Path, **options: Any) -> tuple[Any, list[str]]:
    said: list[str] = []
    exported = run_export.export(first, ensemble=others, backbone=runs.network, say=said.append, **options)
    return exported, said


def test_seeds_share_a_split_where_that_is_asked_for(runs: Any) -> None:
    splits = [Split.read(run.path / "split.json") for run in (*runs.shared, runs.alone)]
    assert [split.seed for split in splits] == [7, 7, 7, 5]
    for split in splits[:3]:
        for side in ("train", "validation", "test"):
            np.testing.assert_array_equal(getattr(split, side), getattr(splits[0], side))
    assert not np.array_equal(splits[3].test, splits[0].test)
    assert [run.summary["split"]["seed"] for run in (*runs.shared, runs.alone)] == [7, 7, 7, 5]
    assert Config().data.split_seed == -1
    for seed in (-2, 2**63):
        with pytest.raises(UsageError, match="split_seed must be -1, or 0 or greater"):
            DataConfig(split_seed=seed)


@pytest.mark.slow
def test_runs_of_one_split_become_an_ensemble_with_scores(runs: Any) -> None:
    first, *others = runs.shared
    exported, said = export(runs, first.path, *(run.path for run in others))
    assert exported.path == first.path / "ensemble.onnx"  # the run's own file is left alone
    info = encoder_file.read(exported.path)
    assert info.ensemble is not None and info.ensemble["members"] == 3
    assert [run["seed"] for run in info.ensemble["runs"]] == [0, 1, 2] == info.provenance["seed"]
    assert {run["data"] for run in info.ensemble["runs"]} == {first.summary["data"]["hash"]}
    assert info.ensemble["runs"][1]["scores"]["r"] == others[0].summary["scores"]["all"]["r"]
    assert info.ensemble["depth_sd"] > 0
    assert info.uncertainty is not None and (info.uncertainty.basis, info.uncertainty.runs) == ("seeds", 3)
    assert (info.uncertainty.depth_se > 0).all()
    # The scores are those of the mean of the members on the test images that all of them left out.
    rows = Split.read(first.path / "split.json").test
    paths = [sorted((runs.data / "images").iterdir())[row] for row in rows]
    mean, sd = predict.load(exported.path, "cpu").predict_with_spread(paths)
    responses = np.load(runs.data / "responses.npy")[rows]
    r = [np.corrcoef(mean[:, v], responses[:, v])[0, 1] for v in range(12)]
    np.testing.assert_allclose(info.r, r, atol=5e-3)  # tokens were kept as float16
    assert info.provenance["scores"]["images"] == len(rows)
    assert info.provenance["scores"]["all"]["r"] == pytest.approx(np.median(info.r), abs=1e-6)
    assert (sd > 0).all()
    singles = [run.model() for run in runs.shared]
    for name in ("layer_weights", "locations", "scale"):
        members = [np.asarray(getattr(model.folded(), name)) for model in singles]
        np.testing.assert_allclose(getattr(info, name), np.mean(members, axis=0), atol=5e-4)
    assert any(line.startswith("mean of 3 runs: test scores on") for line in said)
    assert "seeds 0, 1, 2" in dict(describe(exported.path).facts)["ensemble"]


@pytest.mark.slow
def test_runs_of_other_splits_are_not_scored_and_say_why(runs: Any, tmp_path: Path) -> None:
    exported, said = export(runs, runs.shared[0].path, runs.alone.path, out=tmp_path / "x.onnx")
    info = encoder_file.read(exported.path)
    assert np.isnan(info.r).all() and np.isnan(info.R2).all() and info.provenance["scores"] is None
    (why,) = [line for line in said if "not scored" in line]
    assert "may be a training image of" in why and "data.split_seed" in why and "\n" not in why
    assert exported.certificate["largest"] < 1e-4


def test_data_that_is_gone_or_another_is_not_scored_on(
    runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (run.path for run in runs.shared[:2])
    monkeypatch.setattr("brainkit.evaluation.model_scores.score", None)  # is not called

    def why(*places: Path) -> str:
        said: list[str] = []
        info = build_ensemble([Member.open(place) for place in places], runs.network, said.append)[1]
        assert np.isnan(info.r).all() and np.isnan(info.R2).all()
        (line,) = said
        assert line.startswith("the ensemble is not scored: ") and "\n" not in line
        return line

    runs.data.rename(runs.place / "elsewhere")
    try:
        assert "its data cannot be opened" in why(first, second)
    finally:
        (runs.place / "elsewhere").rename(runs.data)
    other = shutil.copytree(second, tmp_path / "other")
    summary = read_json(other / "run.json")
    summary["data"]["hash"] = "0" * 64
    write_json(other / "run.json", summary)
    assert "were trained on different data" in why(first, other)
    (other / "split.json").unlink()
    assert "training images" in why(first, other)


def test_runs_that_differ_are_refused_by_name(runs: Any) -> None:
    first, second = (Member.open(run.path) for run in runs.shared[:2])
    check_members([first, second])

    def refused(*others: Member) -> str:
        with pytest.raises(UsageError) as caught:
            check_members([first, *others])
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def other(what: str, **changes: Any) -> str:
        return refused(dataclasses.replace(second, **{what: dataclasses.replace(getattr(second, what), **changes)}))

    assert f"different runs, got {first.folder} twice" in refused(second, first)
    backbone = {**second.summary["backbone"], "weights_hash": "1" * 64}
    found = refused(dataclasses.replace(second, summary={**second.summary, "backbone": backbone}))
    assert "one backbone (weights), got" in found and found.endswith(f"in {second.folder}")
    assert "one gauge, got unit in" in other("info", gauge="published")
    assert "one unit, got" in other("info", units="percent")
    assert "one choice of layers, got patches, mixed in" in other("info", layers=("mixed", "patches"))
    preprocessing = dataclasses.replace(second.info.preprocessing, fit="crop")
    assert "one preprocessing, got" in other("info", preprocessing=preprocessing)
    assert "one space, got custom in" in other("info", vertices=Vertices("fsaverage5", np.arange(12)))
    assert "the same vertices, got 12 in" in other("info", vertices=Vertices("custom", np.arange(11)))
    moved = copy.deepcopy(second.model)
    moved.coordinates[3] += 1
    assert "the same vertices" in refused(dataclasses.replace(second, model=moved))
    for what, value, message in (("grid", (4, 4), "one token grid, got 8 x 8"), ("resize", "bilinear", "one way of")):
        changed = copy.deepcopy(second.model)
        setattr(changed, what, value)
        assert message in refused(dataclasses.replace(second, model=changed))
    wide = copy.deepcopy(second.model)
    wide.weight = torch.nn.Parameter(torch.zeros(12, 5))
    assert "one number of channels (model.bottleneck), got 4" in refused(dataclasses.replace(second, model=wide))


def test_an_ensemble_is_of_runs_of_one_subject(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (run.path for run in runs.shared[:2])
    monkeypatch.setattr(run_export, "run_folders", lambda run: [first, second])
    with pytest.raises(UsageError, match="an ensemble must be of runs of one subject, got 2"):
        run_export.export_all(first, ensemble=[second])


def test_only_the_onnx_form_is_an_ensemble_or_smaller(runs: Any) -> None:
    first, second, _ = runs.shared
    for form, options, message in (
        ("pt2", {"ensemble": [second]}, "form must be onnx for an ensemble, got pt2"),
        ("torchscript", {"storage": "float16"}, "the form must be onnx for storage float16, got torchscript"),
    ):
        with pytest.raises(UsageError, match=message):
            first.export(form=form, **options)


@pytest.mark.slow
def test_runs_as_objects(runs: Any) -> None:
    first, second, _ = runs.shared
    said: list[str] = []
    options = {"ensemble": [second], "storage": "float16", "vertices": np.array([2, 5, 9])}
    exported = first.export(say=said.append, **options)
    assert exported.path == first.path / "ensemble-subset.onnx"
    info = encoder_file.read(exported.path)
    assert info.ensemble is not None and info.ensemble["members"] == 2 and info.storage == "float16"
    assert len(info.vertices) == 3 and np.isfinite(info.r).all()
    (line,) = [line for line in said if line.startswith("stored as float16: ")]
    assert exported.drift is not None and f"{exported.drift['median']:.1e} of a vertex's s.d." in line
