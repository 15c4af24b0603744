"""Epochs of a run in TensorBoard."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from brainkit.config import TrainConfig
from brainkit.errors import MissingDependency
from brainkit.training.callbacks import check_tensorboard, open_tensorboard

ROWS = [
    {"epoch": 1, "step": 10, "train_loss": 0.9, "val_r": 0.1, "seconds": 2.0},
    {"epoch": 2, "step": 20, "train_loss": 0.7, "val_r": 0.3, "seconds": 1.5},
]


def test_each_epoch_is_an_event(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = TrainConfig(epochs=2, tensorboard="on")
    check_tensorboard(config)
    for row in ROWS:  # the second time as in a resumed run
        with open_tensorboard(tmp_path / "tensorboard", config, 20) as write:
            write(row)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        *("train_loss", "val_r", "seconds"),
        *(f"learning_rate/{part}" for part in ("weight", "bottleneck", "selectors")),
    }
    # In one second, the names of the two files need not be in the order of their writing.
    assert sorted((event.step, round(event.value, 6)) for event in events.Scalars("val_r")) == [(10, 0.1), (20, 0.3)]
    rates = [
        value for _, value in sorted((event.step, event.value) for event in events.Scalars("learning_rate/weight"))
    ]
    assert 0 < rates[1] < rates[0] < config.lr_weight


@pytest.mark.parametrize(("mode", "installed"), [("off", True), ("auto", False)])
def test_no_tensorboard(mode: str, installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "brainkit.training.callbacks.importlib.util.find_spec", lambda name: object() if installed else None
    )
    with open_tensorboard(tmp_path / "tensorboard", TrainConfig(tensorboard=mode), 20) as write:
        write(ROWS[0])
    assert not (tmp_path / "tensorboard").exists()


def test_tensorboard_that_is_required_and_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    check_tensorboard(TrainConfig(tensorboard="auto"))
    with pytest.raises(MissingDependency, match=r"brainkit\[log\]"):
        check_tensorboard(TrainConfig(tensorboard="on"))
