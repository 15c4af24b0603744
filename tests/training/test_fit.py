"""Training: it learns, with any backend, and what it leaves can be trusted."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from small_models import problem
from small_runs import identical, rows_of, weights_of

from brainkit.errors import TrainingError, UsageError
from brainkit.ops import available_backends, cpu
from brainkit.training.checkpoint import load_best
from brainkit.training.fit import choose_device, fit
from brainkit.training.module import EncodingModule


def test_the_loss_falls_and_the_validation_score_rises(tmp_path: Path) -> None:
    module, data = problem(epochs=30)
    seen: list[dict[str, float]] = []
    steps: list[int] = []
    fitted = fit(module, data, tmp_path, on_epoch=seen.append, on_step=steps.append)
    best = fitted.best
    assert (fitted.epochs, fitted.steps, fitted.stopped_early) == (30, 90, False)
    assert (fitted.tokens_on, fitted.steps_per_chunk) == (("host",), 0)
    assert steps == list(range(1, 91))
    assert [row["epoch"] for row in seen] == list(range(1, 31))
    assert seen[-1]["train_loss"] < 0.5 * seen[0]["train_loss"]
    assert seen[-1]["val_r"] > 0.5
    table = rows_of(tmp_path)
    assert [(row["epoch"], row["step"]) for row in table] == [(e, 3 * e) for e in range(1, 31)]
    assert [row["val_r"] for row in table] == pytest.approx([row["val_r"] for row in seen])
    assert best == tmp_path / "checkpoints" / "best.ckpt"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "metrics.csv"]
    assert sorted(path.name for path in best.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_the_best_state_is_that_of_the_best_validation_score(tmp_path: Path) -> None:
    # Rates are too high, so that the score wanders.
    module, data = problem(epochs=6, lr_weight=2.0, lr_selectors=0.1, refit=False)
    states: list[dict[str, torch.Tensor]] = []
    fit(module, data, tmp_path, on_epoch=lambda row: states.append(weights_of(tmp_path)))
    scores = [row["val_r"] for row in rows_of(tmp_path)]
    best = int(np.argmax(scores))
    assert identical(weights_of(tmp_path, "best"), states[best])
    load_best(module, tmp_path / "checkpoints" / "best.ckpt")
    assert torch.equal(module.model.weight, states[best]["model.weight"])


def test_backends_give_the_same_losses(tmp_path: Path) -> None:
    losses = []
    for backend in ("reference", "grouped", "auto"):
        module, data = problem()
        module.model.backend = backend
        (tmp_path / backend).mkdir()
        fit(module, data, tmp_path / backend)
        losses.append([row["train_loss"] for row in rows_of(tmp_path / backend)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0] == pytest.approx(losses[2], rel=1e-4)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.skipif(available_backends()["cpu"] is not None, reason=f"needs C++: {available_backends()['cpu']}")
def test_training_uses_the_fast_operator_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backward, called = cpu.backward, []
    monkeypatch.setattr(cpu, "backward", lambda *inputs, **options: called.append(1) or backward(*inputs, **options))
    module, data = problem(epochs=1)
    assert module.model.backend == "auto"
    fit(module, data, tmp_path)
    assert len(called) == 3  # once a step


def test_a_seed_gives_the_same_weights_and_another_other_ones(tmp_path: Path) -> None:
    states = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        module, data = problem(seed=seed, epochs=2)
        fit(module, data, tmp_path / name)
        states.append(weights_of(tmp_path / name))
    assert identical(states[0], states[1])
    assert not identical(states[0], states[2])


def test_checkpoints_hold_the_model_and_no_backbone(tmp_path: Path) -> None:
    module, data = problem(epochs=1)
    fit(module, data, tmp_path)
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    parts = {key.split(".")[1] for key in checkpoint["state_dict"]}
    assert all(key.startswith("model.") for key in checkpoint["state_dict"])
    assert parts == {
        *("local_token_bottleneck", "global_token_bottleneck", "local_statistics", "global_statistics"),
        *("space_selector_mlp", "layer_selector_mlp", "scale_selector_mlp", "weight", "bias"),
        *("response_mean", "response_std", "coordinates", "coordinate_lower", "coordinate_side"),
    }


@pytest.mark.parametrize("first_bad", [0, 7])
def test_a_loss_that_is_no_number_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_bad: int
) -> None:
    module, data = problem()
    step = EncodingModule.training_step

    def broken(self: EncodingModule, batch: Any, index: int) -> torch.Tensor:
        if self.global_step == first_bad:
            batch[2][0, 0] = math.nan
        return step(self, batch, index)

    monkeypatch.setattr(EncodingModule, "training_step", broken)
    with pytest.raises(TrainingError) as failure:
        fit(module, data, tmp_path)
    assert f"the loss is no longer finite at step {first_bad + 1};" in str(failure.value)
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert (f"{last} (step 6)" in str(failure.value)) == (first_bad == 7)
    if first_bad == 7:
        assert all(value.isfinite().all() for value in weights_of(tmp_path).values())


def test_every_parameter_has_its_learning_rate_and_schedule() -> None:
    module, _ = problem(lr_weight=0.1, lr_bottleneck=0.2, lr_selectors=0.3, weight_decay=0.4, warmup=0.25)
    chosen = module.configure_optimizers()
    optimizer = chosen["optimizer"]
    rates = {
        id(p): (group["initial_lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]
    }
    model = module.model
    assert len(rates) == len(list(model.parameters()))
    assert rates[id(model.weight)] == (0.1, 0.4)
    assert rates[id(model.bias)] == (0.2, 0.0)
    assert rates[id(model.local_token_bottleneck["late"].weight)] == (0.2, 0.4)
    assert rates[id(model.layer_selector_mlp[1].weight)] == (0.3, 0.01)
    shape = [module._learning_rate_factor(step) for step in range(13)]  # 12 steps are planned, 3 of them warm up
    assert 0 < shape[0] < shape[1] < shape[2]
    assert np.diff(shape[4:]).max() < 0
    assert shape[12] == pytest.approx(0, abs=1e-9)


def test_the_module_works_with_a_trainer_of_ones_own(tmp_path: Path) -> None:
    module, data = problem(epochs=3)
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    before = module.model.weight.detach().clone()
    trainer.fit(module, datamodule=data)
    assert float(trainer.callback_metrics["val_r"]) > -1
    assert not torch.equal(module.model.weight, before)


def test_training_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    module, data = problem(epochs=1)
    assert not torch.are_deterministic_algorithms_enabled()
    fit(module, data, tmp_path)
    assert not torch.are_deterministic_algorithms_enabled()


def test_devices() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") in ("cpu", "cuda", "mps")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="found: cpu"):
            choose_device("cuda")
