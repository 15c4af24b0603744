"""Several subjects as one model: the same bottlenecks, their own readouts, every image once an epoch."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from small_models import two_subjects
from small_runs import assert_same_run

from brainkit.model.factor_topy import FactorTopy
from brainkit.training.datamodule import EpochOrder
from brainkit.training.fit import fit
from brainkit.training.joint import SHARED, JointModule


def test_bottlenecks_are_the_same_objects_and_are_kept_once() -> None:
    module, _ = two_subjects()
    first, second = module.models()
    for name in SHARED:
        assert getattr(first, name) is getattr(second, name)
    assert first.weight is not second.weight
    state = module.state_dict()
    assert not [key for key in state if "subjects.1.local" in key or "subjects.1.global" in key]
    other, _ = two_subjects()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    other.load_state_dict(state)
    for name, value in module.named_parameters():
        assert torch.equal(dict(other.named_parameters())[name], value)
    # Each is a whole model, as its folder will hold it.
    alone = FactorTopy(second.widths, second.coordinates, bottleneck=6, grid=second.grid, selector_width=16)
    alone.load_state_dict(second.state_dict())
    trained = {id(p) for group in module.configure_optimizers()["optimizer"].param_groups for p in group["params"]}
    assert trained == {id(parameter) for parameter in module.parameters()}


def test_every_image_of_every_subject_comes_once_an_epoch() -> None:
    _, data = two_subjects()
    assert data.steps == 6
    for part, sizes in zip(data.parts, ([4] * 6, [1] * 5 + [0]), strict=True):
        order = part._order("train")
        assert len(order) == 6 and [part.share("train", k).images for k in range(6)] == sizes
        seen = [position for k, batch in enumerate(order) for position in batch if part.share("train", k).images]
        assert sorted(seen) == list(range(len(part.split.train)))
    near_equal = EpochOrder(23, 99, seed=0, batches=5)
    assert [len(batch) for batch in near_equal] == [5, 5, 5, 4, 4]
    later = EpochOrder(23, 99, seed=0, start=3, batches=5)
    assert list(later) == list(near_equal)[3:] and len(later) == 2 and later.share(1).images == 4


def test_the_loss_is_the_mean_of_the_subjects(monkeypatch: pytest.MonkeyPatch) -> None:
    module, data = two_subjects(regulariser=0.0)

    class Attached:
        global_step = 0

    monkeypatch.setattr(JointModule, "trainer", Attached())
    module.shares = data  # type: ignore[assignment]
    batches = list(data.train_dataloader())
    full, without = batches[0], batches[-1]  # in the last step there is no image of the second subject
    alone = [
        module.step_loss(part, None, model).misfit.item() for model, part in zip(module.models(), full, strict=True)
    ]
    assert module.training_step(full, 0).item() == pytest.approx(np.mean(alone), rel=1e-6)
    assert float(module.watch.mean()) == pytest.approx((4 * alone[0] + alone[1]) / 5, rel=1e-6)
    module.zero_grad()
    module.training_step(without, 5).backward()
    first, second = module.models()
    assert first.weight.grad is not None and first.weight.grad.abs().sum() > 0
    assert second.weight.grad is not None and not second.weight.grad.any()


@pytest.mark.parametrize("options", [{}, {"loss": "pearson", "ema": 0.9}])
def test_two_subjects_are_learned_and_resumed(tmp_path: Path, options: dict[str, Any]) -> None:
    for name in ("through", "halves"):
        (tmp_path / name).mkdir()
    module, data = two_subjects(**options)
    seen: list[dict[str, float]] = []
    fit(module, data, tmp_path / "through", on_epoch=seen.append)  # type: ignore[arg-type]
    assert seen[-1]["train_loss"] < seen[0]["train_loss"]
    assert seen[-1]["step"] == 18

    class Stop(Exception):
        pass

    def stop(step: int) -> None:
        if step == 9:
            raise KeyboardInterrupt

    module, data = two_subjects(**options, save_minutes=1e-9)  # every step is kept
    with pytest.raises(KeyboardInterrupt):
        fit(module, data, tmp_path / "halves", on_step=stop)  # type: ignore[arg-type]
    module, data = two_subjects(**options)
    fit(module, data, tmp_path / "halves", resume=True)  # type: ignore[arg-type]
    states = [
        torch.load(tmp_path / name / "checkpoints" / f"{which}.ckpt", weights_only=True)["state_dict"]
        for name in ("through", "halves")
        for which in ("last", "best")
    ]
    for through, halves in zip(states[:2], states[2:], strict=True):
        assert list(through) == list(halves)
        assert all(torch.equal(through[key], halves[key]) for key in through)


@pytest.mark.slow
def test_two_processes_train_two_subjects_as_one_does(tmp_path: Path) -> None:
    for count in (1, 2):
        (tmp_path / str(count)).mkdir()
        module, data = two_subjects(epochs=2, devices=count)
        fit(module, data, tmp_path / str(count))  # type: ignore[arg-type]
    assert_same_run(tmp_path / "1", tmp_path / "2")
