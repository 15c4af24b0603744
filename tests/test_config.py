"""Settings: round trip, refusal of what is unknown or out of range, assignments from the command line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("yaml")

import brainkit.config
from brainkit.config import BackboneConfig, Config, DataConfig, ModelConfig, TrainConfig
from brainkit.errors import DataError, UsageError

CHANGED = Config(
    seed=7,
    backbone=BackboneConfig(name="net.py:Mine", layers=("stage1", "stage3"), size=96, random_weights=True),
    data=DataConfig(path="/data/1e3", validation=0.2, fit="crop"),
    model=ModelConfig(bottleneck=8, backend="reference"),
    train=TrainConfig(epochs=3, lr_weight=1e-7, loss="smooth_l1"),
)


@pytest.mark.parametrize("config", [Config(), CHANGED])
def test_a_file_brings_everything_back(tmp_path: Path, config: Config) -> None:
    config.write(tmp_path / "config.yaml")
    assert Config.read(tmp_path / "config.yaml") == config
    assert Config.from_dict(config.to_dict()) == config
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_every_setting_has_a_sentence() -> None:
    lines = Path(brainkit.config.__file__).read_text(encoding="utf-8").splitlines()
    for section in (ModelConfig, TrainConfig, DataConfig, BackboneConfig):
        for field in dataclasses.fields(section):
            row = next(i for i, line in enumerate(lines) if line.startswith(f"    {field.name}: "))
            assert lines[row + 1].lstrip().startswith('"""'), field.name


def test_what_a_file_leaves_out_keeps_its_default(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("train:\n  lr_weight: 1e-2\nbackbone:\n  layers: stage2\n")
    read = Config.read(tmp_path / "c.yaml")
    assert read.train == TrainConfig(lr_weight=0.01)  # YAML itself reads 1e-2 as text
    assert read.backbone.layers == ("stage2",)
    assert read.model == ModelConfig()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"trian": {}}, "did you mean 'train'"),
        ({"train": {"epoch": 3}}, "did you mean 'epochs'"),
        ({"epochs": 3}, r"did you mean train\.epochs"),
        ({"train": {"lr": 3}}, r"did you mean train\.lr_weight"),
        ({"model": {"layers": ["a"]}}, r"did you mean backbone\.layers"),
        ({"train": 3}, "train must be a section"),
        ({"train": {"epochs": "many"}}, "epochs must be a whole number"),
        ({"train": {"epochs": True}}, "epochs must be a whole number"),
        ({"train": {"epochs": 2.5}}, "epochs must be a whole number"),
        ({"train": {"epochs": 0}}, "epochs must be greater than 0"),
        ({"train": {"lr_weight": float("nan")}}, "lr_weight must be finite"),
        ({"train": {"clip": -1}}, "clip must be 0 or greater"),
        ({"train": {"loss": "l2"}}, "loss must be one of 'mse'"),
        ({"train": {"warmup": 1.0}}, "warmup must be at least 0 and below 1"),
        ({"train": {"schedule": "sine"}}, "schedule must be one of 'cosine'"),
        ({"train": {"ema": 1.0}}, "ema must be at least 0 and below 1"),
        ({"train": {"patience": -1}}, "patience must be 0 or greater"),
        ({"train": {"pateince": 1}}, "did you mean 'patience'"),
        ({"train": {"regulariser_steps": 0.4}}, "regulariser_steps must be a whole number"),
        ({"train": {"smooth_l1_beta": 0}}, "smooth_l1_beta must be greater than 0"),
        ({"train": {"loss": "pearson", "batch_size": 1}}, "batch_size must be 2 or greater for loss 'pearson'"),
        ({"model": {"topography": "off"}}, "topography must be true or false"),
        ({"model": {"gauge": "free"}}, "gauge must be one of 'unit', 'published'"),
        ({"model": {"backend": "fast"}}, "backend must be one of"),
        ({"model": {"bottleneck": 0}}, "bottleneck"),
        ({"data": {"validation": 0.0}}, "validation must lie between"),
        ({"data": {"fit": "squash"}}, "fit must be one of"),
        ({"backbone": {"layers": [1, 2]}}, "layers must be a list of names"),
        ({"backbone": {"random_weights": 1}}, "random_weights must be true or false"),
        ({"backbone": {"weights": "w.pt", "random_weights": True}}, "exclude each other"),
        ({"seed": -1}, "seed must be 0 or greater"),
        ({"seed": 2**63}, "seed must be below"),
        ({"seed": "0"}, "seed must be a whole number"),
    ],
)
def test_refusals(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as refusal:
        Config.from_dict(values, "c.yaml")
    assert "\n" not in str(refusal.value)


def test_assignments_are_read_as_yaml() -> None:
    changed = Config().replace(
        ["train.lr_weight=1e-3", "backbone.layers=[a, b]", "seed=4", "data.preset=", "backbone.random_weights=true"]
    )
    assert changed.train.lr_weight == 1e-3
    assert changed.backbone == BackboneConfig(layers=("a", "b"), random_weights=True)
    assert (changed.seed, changed.data.preset) == (4, "")
    assert changed.replace([]) == changed


def test_on_and_off_are_text() -> None:
    # YAML reads them as true and false.
    assert Config().replace(["train.tensorboard=on"]).train.tensorboard == "on"
    assert Config().replace(["train.tensorboard=off"]).train.tensorboard == "off"
    with pytest.raises(UsageError, match=r"tensorboard must be one of .*'maybe'"):
        Config().replace(["train.tensorboard=maybe"])


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("train.epochs", "KEY=VALUE"),
        ("train.epoch=3", r"did you mean train\.epochs"),
        ("trian.epochs=3", r"did you mean train\.epochs"),
        ("trian.zzzz=3", "did you mean 'train'"),
        ("train=3", "is a section; its keys: epochs"),
        ("epochs=5", r"did you mean train\.epochs"),
        ("epoch=5", r"did you mean train\.epochs"),
        ("train.bottleneck=5", r"did you mean model\.bottleneck"),
        ("lr=0.1", r"did you mean train\.lr_weight or train\.lr_bottleneck"),
        ("train.learning_rate=0.1", r"did you mean train\.lr_weight or "),
        ("train.lr=", r"did you mean train\.lr_weight or "),
        ("batch-size=8", r"did you mean train\.batch_size"),
        ("image_size=8", r"did you mean backbone\.size"),
        ("zzzz=1", "known: backbone"),
        ("seed.x=3", "no section"),
        ("train.epochs=[", "cannot read the value"),
        ("train.epochs=", "epochs must be a whole number"),
    ],
)
def test_assignments_that_are_refused(assignment: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        Config().replace([assignment])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "expected a mapping"),
        (b"- 1\n", "expected a mapping"),
        (b"a: [", "expected YAML"),
        (b"\xff\xfe\x00", "expected YAML"),
        (b"a: !!python/object/apply:os.getcwd []", "expected YAML"),
    ],
)
def test_files_that_are_no_settings(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(DataError, match=expected):
        Config.read(tmp_path / "c.yaml")
    with pytest.raises(DataError, match="cannot be read"):
        Config.read(tmp_path / "missing.yaml")


@pytest.mark.parametrize("value", [".inf", "inf", "-.inf", "1e999", ".nan", "nan", "1" + 400 * "0"])
def test_a_number_must_be_finite(value):
    with pytest.raises(UsageError, match=r"lr_weight must be (finite|a number), got"):
        Config().replace([f"train.lr_weight={value}"])
