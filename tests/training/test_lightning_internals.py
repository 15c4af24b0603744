"""The private doors of Lightning: with which versions they were tried, and that each still opens."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import logging
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from packaging.version import Version
from small_models import problem
from small_runs import checkpoint_of

from brainkit.training.fit import fit
from brainkit.training.lightning_internals import quiet_lightning, restored_determinism

# With each of these the tests of this folder passed, and training gave the same weights bit for bit.
TRIED = ("2.4.0", "2.5.0", "2.5.6", "2.6.0", "2.6.6")
FIRST, BEYOND = "2.4", "2.7"  # the bounds in pyproject.toml


def test_the_installed_version_is_within_the_bounds() -> None:
    if not Version(FIRST) <= Version(lightning.__version__) < Version(BEYOND):
        pytest.fail(
            f"pytorch-lightning {lightning.__version__}: brainkit was tried with {', '.join(TRIED)}; if all of "
            "tests/training passes with it, widen the bounds here and in pyproject.toml"
        )


@pytest.mark.parametrize("steps_per_chunk", [0, 2])
def test_checkpoints_hold_what_a_trainer_resumes_from(tmp_path: Path, steps_per_chunk: int) -> None:
    module, data = problem(epochs=2)
    fitted = fit(module, data, tmp_path, steps_per_chunk=steps_per_chunk)
    checkpoint = checkpoint_of(tmp_path)
    assert fitted.steps == checkpoint["global_step"] == 6  # also of steps that the trainer did not make
    loop = checkpoint["loops"]["fit_loop"]
    assert loop["epoch_progress"]["total"]["completed"] == 2
    assert loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]["completed"] == 6
    assert loop["epoch_loop.manual_optimization.optim_step_progress"]["total"]["completed"] == 6


def test_checkpoints_name_callbacks_as_brainkit_0_1_did(tmp_path: Path) -> None:
    module, data = problem(epochs=1, ema=0.9, patience=2)
    fit(module, data, tmp_path)
    assert set(checkpoint_of(tmp_path)["callbacks"]) == {"WeightAverage", "Patience", "Keeper"}


def test_the_process_is_as_before() -> None:
    logger = logging.getLogger("pytorch_lightning")
    before = logger.level, torch.are_deterministic_algorithms_enabled()
    with quiet_lightning(), restored_determinism():
        torch.use_deterministic_algorithms(True)
        assert not torch.utils.deterministic.fill_uninitialized_memory
    assert before == (logger.level, torch.are_deterministic_algorithms_enabled())
    assert torch.utils.deterministic.fill_uninitialized_memory
