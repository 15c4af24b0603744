"""A run from the data to its folder: what is in it, and that it is what was trained."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")
pytest.importorskip("timm")
pytest.importorskip("nilearn")

from small_runs import SMALL, make_own_data, quiet

from brainkit.backbones import load_backbone
from brainkit.config import Config
from brainkit.data import Algonauts
from brainkit.data.split import Split
from brainkit.errors import TrainingError, UsageError
from brainkit.evaluation.model_scores import score
from brainkit.evaluation.recovery import ROW_NAMES
from brainkit.features import extract_tokens
from brainkit.runs.folder import load_model
from brainkit.runs.latest import latest_run
from brainkit.runs.network import load_network
from brainkit.runs.train import train

NET = "efficientnet_lite0"


def read_summary(run: Path) -> Any:
    return json.loads((run / "run.json").read_text())


@pytest.mark.slow
def test_files_in_the_run_folder(finished: Any) -> None:
    run, lines = finished
    arrays = ("selectors.npz", "scores.npz", "predictions.npz", "image_hashes.npz", "parity.npz")
    tables = ("config.yaml", "split.json", "metrics.csv", "rois.json", "recovery.json", "run.json", "log.txt")
    boards = [path.relative_to(run).as_posix() for path in run.glob("tensorboard/events.out.tfevents.*")]
    maps = [f"maps/{name}.png" for name in ("accuracy", "explained", "layer", "location", "scale")]
    assert {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()} == {
        *(*arrays, *tables, *boards, *maps, "checkpoints/best.ckpt", "checkpoints/last.ckpt")
    }
    assert bool(boards) == (importlib.util.find_spec("tensorboard") is not None)
    assert latest_run(run.parent / "runs") == run
    log = (run / "log.txt").read_text(encoding="utf-8")
    assert all(line in log for line in lines) and "epoch 2/2" in log
    assert "SIMULATED" in "\n".join(lines) and ROW_NAMES["depth_r"] in "\n".join(lines)


@pytest.mark.slow
def test_contents_of_the_run_folder(finished: Any, tiny_sample: Path) -> None:
    run = finished.path
    config = Config.read(run / "config.yaml")
    assert config.data.path == str(tiny_sample.resolve())
    assert (config.train.epochs, config.model.bottleneck, config.backbone.name) == (2, 4, NET)
    split = Split.read(run / "split.json")
    assert len(split.test) == 20 and split.test.min() == 60
    with (run / "metrics.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    with np.load(run / "selectors.npz") as selectors, np.load(tiny_sample / "truth.npz") as truth:
        for name in ("layer_weights", "locations", "scale", "vertices", "layers"):
            assert selectors[name].shape == truth[name].shape
        np.testing.assert_array_equal(selectors["vertices"], truth["vertices"])
        assert selectors["vertices"].dtype == np.int32
        assert selectors["layers"].tolist() == truth["layers"].tolist()
    summary = read_summary(run)
    assert summary["backbone"]["layers"] == [f"stage{k}" for k in range(1, 8)]
    assert summary["backbone"]["pretrained"] is True
    assert "SIMULATED" in summary["note"]
    assert summary["gauge"] == "unit"
    assert summary["scores"]["all"]["vertices"] == 60
    assert set(summary["seconds"]) == set(summary["memory"]["phases"]) == {"tokens", "training", "evaluation", "maps"}
    assert summary["tokens"]["images"] == 80 and summary["tokens"]["bytes"] > 80 * 65 * 784  # two bytes a number
    assert summary["training"]["backend"] in ("cpu", "grouped") and summary["training"]["images_per_second"] > 0
    assert set(summary["scores"]["rois"]) == set(json.loads((run / "rois.json").read_text()))
    recovery = json.loads((run / "recovery.json").read_text())
    assert set(recovery["rows"]) == {"depth_r", "depth_within_one", "location_median", "scale_r", "accuracy_share"}


@pytest.mark.slow
def test_the_loaded_model_has_the_scores_that_were_written(finished: Any, tiny_sample: Path) -> None:
    run = finished.path
    model, subject = load_model(run), Algonauts(tiny_sample)
    assert not model.training
    tokens = extract_tokens(load_backbone(NET), subject.images)
    scores = score(model, tokens, subject.responses, Split.read(run / "split.json").test, None)
    with np.load(run / "scores.npz") as file:
        np.testing.assert_allclose(file["r"], scores.r, atol=1e-5)
        np.testing.assert_array_equal(file["noise_ceiling"], subject.noise_ceiling)
    with np.load(run / "selectors.npz") as file:
        np.testing.assert_allclose(file["locations"], model.selectors().locations.detach().numpy(), atol=1e-6)


@pytest.mark.slow
def test_statistics_are_of_the_training_images_only(finished: Any, tiny_sample: Path) -> None:
    model, split = load_model(finished.path), Split.read(finished.path / "split.json")
    rows = Algonauts(tiny_sample).responses.rows(split.train)
    np.testing.assert_allclose(model.response_mean.numpy(), rows.mean(0), atol=1e-5)
    np.testing.assert_allclose(model.response_std.numpy(), rows.std(0), rtol=1e-4)


def test_own_data_on_no_surface(own_run: Any) -> None:
    run, lines = own_run
    assert not (run / "maps").exists() and not (run / "recovery.json").exists()
    assert any("no maps" in line for line in lines)
    summary = read_summary(run)
    assert (summary["space"], summary["note"], summary["vertices"]) == ("custom", None, 6)
    assert summary["scores"]["official"] is None
    assert latest_run(run.parent / "runs") == run
    with np.load(run / "scores.npz") as file:
        assert np.isnan(file["noise_ceiling"]).all()


def test_vertices_without_usable_responses_are_excluded_and_counted(net: str) -> None:
    data = make_own_data(Path("data"))
    responses = np.load(data / "responses.npy")
    responses[3, 1], responses[:, 4] = np.nan, 0.5
    np.save(data / "responses.npy", responses)
    lines: list[str] = []
    train(net, data=data, out="run", epochs=1, overrides=SMALL, say=lines.append)
    assert "1 constant vertex and 1 with missing values" in "\n".join(lines)
    assert read_summary(Path("run"))["data"]["excluded"] == {"constant": 1, "nan": 1}
    with np.load("run/scores.npz") as file:
        assert file["r"].shape == (4,)


def test_data_by_default(net: str, own_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINKIT_DATA", str(own_data))
    lines: list[str] = []
    train(net, out="a", epochs=1, overrides=SMALL, say=lines.append)
    assert any("$BRAINKIT_DATA" in line for line in lines)
    assert Config.read("a/config.yaml").data.path == str(own_data.resolve())
    monkeypatch.delenv("BRAINKIT_DATA")
    monkeypatch.setattr("brainkit.sample.default_sample", lambda say: own_data)
    lines.clear()
    train(net, out="b", epochs=1, overrides=SMALL, say=lines.append)
    assert any("simulated" in line and str(own_data) in line for line in lines)


def test_random_weights_are_a_control(own_data: Path) -> None:
    lines: list[str] = []
    options: dict[str, Any] = {"data": own_data, "random_weights": True, "say": lines.append}
    run = train("resnet10t", epochs=1, overrides=[*SMALL, "backbone.size=64"], **options)
    assert any("RANDOM weights" in line for line in lines)
    assert run.parent == Path("runs") and run.name.endswith("-resnet10t")
    assert latest_run().resolve() == run.resolve()
    assert read_summary(run)["backbone"]["pretrained"] is False
    with pytest.raises(UsageError, match="exists already"):
        train("resnet10t", **options)


def test_a_network_with_drawn_weights_can_be_loaded_again(own_data: Path) -> None:
    network = load_backbone("resnet10t", random_weights=True, size=64, seed=4)
    run = train(network, data=own_data, epochs=1, overrides=SMALL, say=quiet)
    held = Config.read(run / "config.yaml")
    assert (held.backbone.random_weights, held.backbone.weights_seed) == (True, 4)
    assert load_network(held).weights_hash == network.weights_hash


def test_constant_selectors_fail_the_run(net: str, tiny_sample: Path) -> None:
    # With hardly a step taken the selectors are as initialised: the same everywhere.
    rates = ("train.lr_selectors=1e-30", "train.lr_weight=1e-30", *SMALL)
    with pytest.raises(TrainingError, match="selectors are constant"):
        train(net, data=tiny_sample, out="run", epochs=1, overrides=rates, say=quiet)
    assert not Path("run/run.json").exists() and not Path("runs").exists()
