"""Training: it learns, it can be stopped and gone on with bit for bit, and what it leaves can be trusted."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import csv
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from small_models import problem

from brainkit.errors import DataError, TrainingError, UsageError
from brainkit.training.checkpoint import load_best
from brainkit.training.datamodule import EpochOrder
from brainkit.training.fit import choose_device, fit
from brainkit.training.module import EncodingModule


def rows_of(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def weights_of(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)[
        "state_dict"
    ]
    return state


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


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
    module, data = problem(epochs=6, lr_weight=2.0, lr_selectors=0.1)  # too high, so that the score wanders
    states: list[dict[str, torch.Tensor]] = []
    fit(module, data, tmp_path, on_epoch=lambda row: states.append(weights_of(tmp_path)))
    scores = [row["val_r"] for row in rows_of(tmp_path)]
    best = int(np.argmax(scores))
    assert same(weights_of(tmp_path, "best"), states[best])
    load_best(module, tmp_path / "checkpoints" / "best.ckpt")
    assert torch.equal(module.model.weight, states[best]["model.weight"])


def test_backends_give_the_same_losses(tmp_path: Path) -> None:
    losses = []
    for backend in ("reference", "grouped"):
        module, data = problem()
        module.model.backend = backend
        (tmp_path / backend).mkdir()
        fit(module, data, tmp_path / backend)
        losses.append([row["train_loss"] for row in rows_of(tmp_path / backend)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][-1] != losses[0][0]


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_going_on_gives_the_same_weights_as_going_through(tmp_path: Path, stop_at: int) -> None:
    (tmp_path / "through").mkdir()
    (tmp_path / "halves").mkdir()
    module, data = problem()
    fit(module, data, tmp_path / "through")

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == stop_at:
            raise Stop

    module, data = problem()
    with pytest.raises(Stop):
        fit(module, data, tmp_path / "halves", on_epoch=stop)
    assert len(rows_of(tmp_path / "halves")) == stop_at
    module, data = problem()
    steps: list[int] = []
    fit(module, data, tmp_path / "halves", resume=True, on_step=steps.append)
    assert steps == list(range(3 * stop_at + 1, 13))
    for name in ("last", "best"):
        assert same(weights_of(tmp_path / "through", name), weights_of(tmp_path / "halves", name))
    tables = [
        [(row["epoch"], row["step"], row["train_loss"], row["val_r"]) for row in rows_of(tmp_path / half)]
        for half in ("through", "halves")
    ]
    assert tables[0] == tables[1]


def test_going_on_after_the_middle_of_an_epoch_starts_that_epoch_again(tmp_path: Path) -> None:
    (tmp_path / "through").mkdir()
    (tmp_path / "halves").mkdir()
    module, data = problem()
    fit(module, data, tmp_path / "through")

    def stop(step: int) -> None:
        if step == 8:
            raise Stop

    module, data = problem()
    with pytest.raises(Stop):
        fit(module, data, tmp_path / "halves", on_step=stop)
    module, data = problem()
    fit(module, data, tmp_path / "halves", resume=True)
    assert same(weights_of(tmp_path / "through"), weights_of(tmp_path / "halves"))
    assert [row["epoch"] for row in rows_of(tmp_path / "halves")] == [1, 2, 3, 4]


def test_resuming_a_complete_run_changes_nothing_and_without_a_checkpoint_starts_over(tmp_path: Path) -> None:
    module, data = problem(epochs=2)
    fit(module, data, tmp_path, resume=True)
    before, table = weights_of(tmp_path), rows_of(tmp_path)
    module, data = problem(epochs=2)
    fit(module, data, tmp_path, resume=True)
    assert same(weights_of(tmp_path), before)
    assert rows_of(tmp_path) == table


def test_a_seed_gives_the_same_weights_and_another_other_ones(tmp_path: Path) -> None:
    states = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        module, data = problem(seed=seed, epochs=2)
        fit(module, data, tmp_path / name)
        states.append(weights_of(tmp_path / name))
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


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


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, content: bytes | None) -> None:
    module, data = problem(epochs=1)
    fit(module, data, tmp_path)
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:2000] if content is None else content)
    with pytest.raises(DataError, match=r"last\.ckpt: expected a checkpoint"):
        fit(module, data, tmp_path, resume=True)
    with pytest.raises(DataError, match=r"gone\.ckpt: file not found"):
        load_best(module, tmp_path / "gone.ckpt")


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


def test_the_regulariser_decays_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    module, data = problem(epochs=10, regulariser=0.5, regulariser_end=0.4)
    batch = next(iter(data.train_dataloader()))
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    found = {}
    for step in (0, 3, 6, 11, 12, 20):
        monkeypatch.setattr(EncodingModule, "global_step", step)
        found[step] = float(module.training_step(batch, 0).detach())
    bare, term = found[20], float(module.model.selectors().regularity().detach())
    for step, loss in found.items():  # 30 steps are planned, so that it ends at step 12
        assert loss == pytest.approx(bare + 0.5 * max(0.0, 1 - step / 12) * term, rel=1e-5)
    assert term != 0


@pytest.mark.parametrize("loss", ["mse", "smooth_l1"])
def test_the_loss_is_on_responses_in_units_of_their_spread(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, data = problem(loss=loss, regulariser=0.0)
    batch = next(iter(data.train_dataloader()))
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    with torch.no_grad():
        miss = (module.model(*batch[:2]) - batch[2]) / module.model.response_std
    size = miss.abs()
    expected = miss.square() if loss == "mse" else torch.where(size < 0.1, miss.square() / 0.2, size - 0.05)
    assert float(module.training_step(batch, 0).detach()) == pytest.approx(float(expected.mean()), rel=1e-4)


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


def test_ctrl_c_comes_out_as_itself_and_can_be_gone_on_from(tmp_path: Path) -> None:
    module, data = problem()

    def interrupt(step: int) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    # A process that was started in the background ignores SIGINT, and so would this test.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(module, data, tmp_path, on_step=interrupt)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(rows_of(tmp_path)) == 1
    module, data = problem()
    fit(module, data, tmp_path, resume=True)
    assert len(rows_of(tmp_path)) == 4


def test_training_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    module, data = problem(epochs=1)
    assert not torch.are_deterministic_algorithms_enabled()
    fit(module, data, tmp_path)
    assert not torch.are_deterministic_algorithms_enabled()


def test_every_epoch_has_its_own_order() -> None:
    order = EpochOrder(10, 4, seed=3)
    epochs = []
    for epoch in (0, 1, 0):
        order.set_epoch(epoch)
        batches = list(order)
        assert [len(batch) for batch in batches] == [4, 4, 2]
        assert len(order) == 3
        epochs.append(np.concatenate(batches).tolist())
    assert epochs[0] == epochs[2] != epochs[1]
    assert sorted(epochs[1]) == list(range(10))
    assert list(EpochOrder(10, 4, seed=None)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_rows_of_tokens_and_responses_belong_together() -> None:
    _, data = problem()
    local, whole, response = next(iter(data.val_dataloader()))
    rows = np.arange(24, 32)
    expected_local, expected_whole = data.tokens.batch(rows)
    assert all(torch.equal(local[k], expected_local[k]) and torch.equal(whole[k], expected_whole[k]) for k in local)
    np.testing.assert_array_equal(response.numpy(), data.responses.rows(rows))
    assert len(next(iter(data.test_dataloader()))[2]) == 8


def test_devices() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") in ("cpu", "cuda", "mps")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="found: cpu"):
            choose_device("cuda")
