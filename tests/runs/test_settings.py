"""Settings from one command to the encoder file, and files of settings."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

import brainkit
from brainkit.config import Config
from brainkit.errors import UsageError
from brainkit.runs.export import export
from brainkit.runs.folder import load_model
from brainkit.runs.train import train
from brainkit.training import schedule

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_unusual_settings_hold_from_training_to_the_encoder_file(tmp_path: Path, tiny_sample: Path) -> None:
    settings = [
        *("model.topography=false", "model.gauge=published", "model.standardise=false", "model.bottleneck=9"),
        *("model.grid=5", "backbone.size=96", "backbone.layers=[stage2, stage4, stage6]", "train.ema=0.8"),
        *("train.loss=pearson", "train.schedule=constant", "train.patience=2", "train.batch_size=16"),
    ]
    run = brainkit.fit(
        "efficientnet_lite0", tiny_sample, out=tmp_path / "run", epochs=3, overrides=settings, say=lambda line: None
    )
    assert run.summary["gauge"] == "published"
    assert run.summary["backbone"]["preprocessing"]["size"] == 96
    model = load_model(run.path)
    assert (model.gauge, model.grid, model.layers) == ("published", (5, 5), ("stage2", "stage4", "stage6"))
    assert model.free_selectors is not None and model.weight.shape == (60, 9)
    assert float(model.local_statistics["stage2"].mean.abs().max()) == 0  # type: ignore[union-attr]
    with np.load(run.path / "selectors.npz") as selectors:
        assert str(selectors["gauge"]) == "published"
        np.testing.assert_allclose(selectors["scale"], model.selectors().scale.detach().numpy(), atol=1e-6)
    exported = export(run.path, say=lambda line: None)
    assert exported.certificate["largest"] < 1e-3
    assert brainkit.load(exported.path).info.gauge == "published"
    (run.path / "run.json").unlink()
    with pytest.raises(UsageError, match=r"model\.topography was False, got True"):
        train(
            "efficientnet_lite0",
            data=tiny_sample,
            out=run.path,
            resume=True,
            overrides=["model.topography=true"],
            say=lambda line: None,
        )


@pytest.mark.slow
def test_the_published_settings_train(net: str, tiny_sample: Path) -> None:
    file = ROOT / "examples" / "published.yaml"
    settings = Config.read(file)
    assert (settings.train.loss, settings.train.batch_size, settings.model.gauge) == ("smooth_l1", 8, "published")
    assert {settings.train.lr_weight, settings.train.lr_bottleneck, settings.train.lr_selectors} == {1e-3}
    assert (
        schedule.learning_rate_factor(settings.train, 0, 100)
        == schedule.learning_rate_factor(settings.train, 99, 100)
        == 1
    )
    assert schedule.regulariser_weight(settings.train, 1000, 77) == pytest.approx(0.05)
    text = file.read_text(encoding="utf-8").replace("name: dinov2", f"name: {net}")
    Path("mine.yaml").write_text(text, encoding="utf-8")
    path = train(None, config="mine.yaml", data=tiny_sample, epochs=1, say=lambda line: None)
    assert path.name.endswith("-Colours")
    held = Config.read(path / "config.yaml")
    assert held.model == settings.model
    assert held.data.preset == "published"
    assert (path / "maps" / "layer.png").is_file()


def test_a_run_without_a_network_is_refused() -> None:
    with pytest.raises(UsageError, match="backbone must be named"):
        train(None)


def test_one_setting_may_be_given_as_a_text(net: str, tiny_sample: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean train\.epochs"):
        train(net, data=tiny_sample, overrides="epochs=5")


def test_settings_of_older_runs_still_load(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("model:\n  bottleneck: 64\n  grid: 8\ntrain:\n  loss: smooth_l1\n")
    settings = Config.read(tmp_path / "old.yaml")
    assert settings.model.topography and settings.model.gauge == "unit"
    assert (settings.train.smooth_l1_beta, settings.train.schedule, settings.train.ema) == (0.1, "cosine", 0.0)


def test_the_page_of_settings_is_made_of_their_texts() -> None:
    sys.path.insert(0, os.fspath(ROOT / "docs"))
    try:
        import make_settings
    finally:
        sys.path.pop(0)
    text = make_settings.PAGE.read_text(encoding="utf-8")
    assert make_settings.page(text) == text, "make it with: python docs/make_settings.py"
    assert "\n| `ema` | `0` |" in text
