"""Early stopping and the average of the weights, over interruptions and with a trainer of one's own."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from small_models import problem
from small_runs import checkpoint_of, identical, rows_of

from brainkit.metrics.correlation import StreamingCorrelation
from brainkit.training.fit import fit
from brainkit.training.module import EncodingModule


class Stop(Exception):
    """Stands for whatever ends a process in the middle of a run."""


def weights(module: EncodingModule) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Validation scores as given, one an epoch."""

    def score(self: EncodingModule) -> None:
        self.log("val_r", torch.tensor(scores[self.current_epoch]))

    monkeypatch.setattr(EncodingModule, "on_validation_epoch_end", score)


def test_training_stops_once_patience_is_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [0.1, 0.3, 0.2, 0.3, 0.4, 0.1, 0.1, 0.1, 0.9, 0.9])
    module, data = problem(epochs=10, patience=3)
    fitted = fit(module, data, tmp_path)
    best = fitted.best
    assert (fitted.epochs, fitted.steps, fitted.stopped_early) == (8, 24, True)
    assert [row["epoch"] for row in rows_of(tmp_path)] == list(range(1, 9))
    assert checkpoint_of(tmp_path, "best")["epoch"] == 4
    module, data = problem(epochs=10, patience=3)
    held = best.read_bytes()
    again = fit(module, data, tmp_path, resume=True)  # nothing is left to train
    assert again == dataclasses.replace(fitted, cpu_seconds=None)
    assert len(rows_of(tmp_path)) == 8
    assert best.read_bytes() == held


def test_patience_goes_on_over_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [0.5, 0.1, 0.1, 0.1, 0.1, 0.1])

    def stop(step: int) -> None:
        if step == 7:  # in the third epoch
            raise Stop

    module, data = problem(epochs=6, patience=3)
    with pytest.raises(Stop):
        fit(module, data, tmp_path, on_step=stop)
    module, data = problem(epochs=6, patience=3)
    fit(module, data, tmp_path, resume=True)
    assert len(rows_of(tmp_path)) == 4


def test_the_average_is_what_is_validated_kept_and_left(tmp_path: Path) -> None:
    module, data = problem(epochs=3, ema=0.6, refit=False)
    average = weights(module)
    seen: list[dict[str, torch.Tensor]] = []

    def follow(step: int) -> None:
        decay = min(0.6, step / (9 + step))
        for name, weight in module.named_parameters():
            average[name] = decay * average[name] + (1 - decay) * weight.detach()
        seen.append({name: value.clone() for name, value in average.items()})

    fit(module, data, tmp_path, on_step=follow)
    assert len(seen) == 9
    held = checkpoint_of(tmp_path)
    trained = held["callbacks"]["WeightAverage"]["weights"]
    for (name, value), last in zip(module.named_parameters(), trained, strict=True):
        torch.testing.assert_close(value.detach(), seen[-1][name], rtol=1e-5, atol=1e-6)
        assert torch.equal(held["state_dict"][name], value.detach())
        assert not torch.equal(last, value.detach())

    best = int(np.argmax([row["val_r"] for row in rows_of(tmp_path)]))
    state = checkpoint_of(tmp_path, "best")["state_dict"]
    for name, value in seen[3 * best + 2].items():
        torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-6)
    module.load_state_dict(state)
    score = StreamingCorrelation(len(module.model.weight))
    with torch.inference_mode():
        predicted = module.model.eval()(*data.tokens.batch(data.split.validation)).numpy()
    score.update(predicted, data.responses.rows(data.split.validation))
    assert score.r.mean() == pytest.approx(rows_of(tmp_path)[best]["val_r"], abs=1e-6)


def test_the_average_does_not_change_what_is_trained(tmp_path: Path) -> None:
    trained = []
    for name, ema in (("plain", 0.0), ("averaged", 0.9)):
        (tmp_path / name).mkdir()
        module, data = problem(ema=ema)
        fit(module, data, tmp_path / name)
        trained.append(checkpoint_of(tmp_path / name))
    plain = [trained[0]["state_dict"][name] for name, _ in module.named_parameters()]
    assert identical(plain, trained[1]["callbacks"]["WeightAverage"]["weights"])
    assert identical(trained[0]["optimizer_states"], trained[1]["optimizer_states"])


@pytest.mark.parametrize("save_minutes", [0.0, 1e-9])  # at the end of every epoch, and at every step
@pytest.mark.parametrize("stop_at", [2, 5, 9])
def test_a_resumed_average_is_the_same_bit_for_bit(tmp_path: Path, stop_at: int, save_minutes: float) -> None:
    for name in ("through", "halves"):
        (tmp_path / name).mkdir()
    module, data = problem(ema=0.9, save_minutes=save_minutes)
    fit(module, data, tmp_path / "through")

    def stop(step: int) -> None:
        if step == stop_at:
            raise Stop

    module, data = problem(ema=0.9, save_minutes=save_minutes)
    with pytest.raises(Stop):
        fit(module, data, tmp_path / "halves", on_step=stop)
    module, data = problem(ema=0.9, save_minutes=save_minutes)
    fit(module, data, tmp_path / "halves", resume=True)
    for name in ("last", "best"):
        one, other = checkpoint_of(tmp_path / "through", name), checkpoint_of(tmp_path / "halves", name)
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks"):
            assert identical(one[part], other[part]), (name, part)


def test_a_trainer_of_ones_own_averages_too(tmp_path: Path) -> None:
    module, data = problem(epochs=3, ema=0.9, patience=50)
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, datamodule=data)  # with its check of validation before training
    left = weights(module)
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    state = torch.load(tmp_path / "own.ckpt", weights_only=True)
    assert all(torch.equal(state["state_dict"][name], value) for name, value in left.items())
    assert not identical(state["callbacks"]["WeightAverage"]["weights"], list(left.values()))
    trainer.validate(module, datamodule=data, verbose=False)
    assert identical(weights(module), left)
