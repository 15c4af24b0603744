"""Training takes the fast operator by itself, and learns what it would with the reference."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")
pytest.importorskip("timm")
pytest.importorskip("nilearn")

from brainkit.errors import BrainkitError
from brainkit.ops import available_backends, cpu
from brainkit.runs.train import train

NET = "efficientnet_lite0"
SHORT = ("train.batch_size=8", "model.bottleneck=8", "model.selector_width=16")


def losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file)]


@pytest.mark.skipif(available_backends()["cpu"] is not None, reason=f"needs C++: {available_backends()['cpu']}")
def test_the_loss_curve_on_the_sample_is_that_of_the_reference(
    tiny_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    used: list[str] = []

    def counted(name: str) -> Any:
        original = getattr(cpu, name)

        def call(*inputs: Any, **how: Any) -> Any:
            used.append(name)
            return original(*inputs, **how)

        return call

    for name in ("forward", "backward"):
        monkeypatch.setattr(cpu, name, counted(name))
    common = dict(data=tiny_sample, epochs=6, say=lambda line: None)
    train(NET, out="fast", overrides=(*SHORT, "train.device=cpu"), **common)
    steps = used.count("backward")
    assert used.count("forward") > steps > 20
    train(NET, out="plain", overrides=(*SHORT, "train.device=cpu", "model.backend=reference"), **common)
    assert used.count("backward") == steps, "the reference was asked for"
    fast, plain = losses(tmp_path / "fast"), losses(tmp_path / "plain")
    assert fast == pytest.approx(plain, rel=1e-3)
    assert plain[-1] < 0.9 * plain[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.precision=bfloat16"], "train.device must be cuda for model.precision 'bfloat16', got cpu"),
        (["model.precision=tf32"], "train.device must be cuda for model.precision 'tf32', got cpu"),
        (
            ["model.precision=bf16x3", "model.backend=grouped"],
            "model.backend must be auto or cpu for model.precision 'bf16x3', got 'grouped'",
        ),
        pytest.param(
            ["model.precision=bf16x3"],
            f"model.precision 'bf16x3' cannot run here: {cpu.why_no_bf16x3()}",
            marks=pytest.mark.skipif(cpu.why_no_bf16x3() is None, reason="this processor has AMX"),
        ),
    ],
)
def test_a_precision_that_cannot_be_trained_in_leaves_no_folder(
    tiny_sample: Path, tmp_path: Path, settings: list[str], message: str
) -> None:
    with pytest.raises(BrainkitError) as caught:
        train(
            NET,
            data=tiny_sample,
            out=tmp_path / "run",
            overrides=["train.device=cpu", *settings],
            say=lambda line: None,
        )
    assert str(caught.value) == message
    assert not (tmp_path / "run").exists()
