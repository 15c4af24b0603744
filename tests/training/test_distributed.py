"""Several processes train what one trains, write one set of files, and end together."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from small_models import problem
from small_runs import SAME, assert_same_run, weights_of

from brainkit.config import TrainConfig
from brainkit.errors import FailedElsewhere, TrainingError, UsageError
from brainkit.training import distributed, launcher
from brainkit.training.datamodule import EncodingData
from brainkit.training.fit import fit
from brainkit.training.module import EncodingModule

torch = pytest.importorskip("torch")


def small(batch_size: int = 7, **train: Any) -> tuple[EncodingModule, EncodingData]:
    """24 training images in batches of 7, 7, 7 and 3, and 8 images to validate on."""
    module, data = problem(**train)
    data.batch_size = batch_size
    module.planned_steps = -(-24 // batch_size) * module.config.epochs
    return module, data


def test_the_mean_over_processes_is_the_gradient_of_the_batch() -> None:
    """Batches of 3 among two and of 2 among four: unequal shares, and empty ones."""
    for images, count in ((3, 2), (2, 4)):
        module, data = small()
        data.split = type(data.split)(np.arange(images), data.split.validation, data.split.test, seed=0)

        def step(rank: int, processes: int, module: EncodingModule = module, data: EncodingData = data) -> Any:
            data.divide(rank, processes)
            module.shares = data
            module.zero_grad()
            module.log = lambda *_, **__: None  # type: ignore[assignment, method-assign]
            (batch,) = data.train_dataloader()
            loss = module.training_step(batch, 0)
            loss.backward()
            return loss.detach(), [parameter.grad.clone() for parameter in module.parameters()]

        whole, parts = step(0, 1), [step(rank, count) for rank in range(count)]
        torch.testing.assert_close(torch.stack([loss for loss, _ in parts]).mean(), whole[0])
        for k, expected in enumerate(whole[1]):
            mean = torch.stack([gradients[k] for _, gradients in parts]).mean(0)
            torch.testing.assert_close(mean, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_ctrl_c_saves_the_step_and_any_number_resumes(tmp_path: Path) -> None:
    """Stopped within an epoch by two processes and resumed by one, and the other way round.

    Batches of one image: of two processes one has none.
    """
    (tmp_path / "one").mkdir()
    long: dict[str, Any] = {"batch_size": 1, "epochs": 2}  # processes agree on stopping every 16 steps
    module, data = small(**long)
    fit(module, data, tmp_path / "one")
    for first, then in ((2, 1), (1, 2)):
        folder = tmp_path / f"{first} {then}"
        folder.mkdir()
        module, data = small(**long, devices=first)
        stopped: list[int] = []

        def interrupt(step: int, stopped: list[int] = stopped) -> None:
            if not stopped:
                signal.raise_signal(signal.SIGINT)
            stopped.append(step)

        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt, match=r"stopped by Ctrl-C; step \d+ of 48 is saved in .*last\.ckpt"):
                fit(module, data, folder, on_step=interrupt)
        finally:
            signal.signal(signal.SIGINT, before)
        module, data = small(**long, devices=then)
        weight = module.model.weight.detach().clone()
        rows: list[dict[str, float]] = []
        steps: list[int] = []
        lines: list[str] = []
        fitted = fit(module, data, folder, resume=True, on_epoch=rows.append, on_step=steps.append, say=lines.append)
        assert_same_run(tmp_path / "one", folder)
        # The same is reported by processes that fit starts as by itself.
        assert (fitted.best, fitted.epochs, fitted.steps) == (folder / "checkpoints" / "best.ckpt", 2, 48)
        assert (fitted.stopped_early, fitted.tokens_on, fitted.steps_per_chunk) == (False, ("host",), 0)
        assert rows[-1]["epoch"] == 2 and steps == sorted(steps) and steps[0] > stopped[0] and len(lines) == 2
        assert torch.equal(module.model.weight, weight) == (then == 2)  # the trained weights are in the checkpoints


class Broken(EncodingData):
    """Data that kill one of the processes."""

    def share(self, side: str, batch_index: int) -> Any:
        if side == "train" and batch_index == 2 and self.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().share(side, batch_index)


@pytest.mark.slow
def test_when_one_is_killed_all_end_with_one_line(tmp_path: Path) -> None:
    module, data = small(devices=2)
    broken = Broken(data.tokens, data.responses, data.split, batch_size=7)
    with pytest.raises(TrainingError, match=r"training process 2 of 2 was ended by SIGKILL"):
        fit(module, broken, tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []


TOGETHER = """
import sys
sys.path[:0] = {path!r}
import test_distributed as t
t.one_of_several(t.Path({place!r}))
"""


# All processes sum this loss together; the other test has the one that is a mean over images.
PEARSON: dict[str, Any] = {"loss": "pearson", "ema": 0.9, "epochs": 2}


def one_of_several(place: Path) -> None:
    """What each process of a run does whose processes were started from outside, down to who writes what."""
    config = TrainConfig(devices=2, device="cpu")
    world = distributed.join(config, lambda: "cpu")
    with world.together():
        made = world.in_turn(lambda: place.joinpath("made").write_text("once") and "first", lambda: "other")
        assert made == ("first" if world.first else "other") and (place / "made").is_file()
        module, data = small(devices=2, **PEARSON)
        fit(module, data, place)
        world.once(lambda: place.joinpath(f"finished by {world.rank}").write_text(""))
        assert (place / "finished by 0").is_file()

        def fail() -> None:
            raise UsageError("what the first process finds")

        world.once(fail)


@pytest.mark.slow
def test_processes_that_were_started_from_outside(tmp_path: Path) -> None:
    code = TOGETHER.format(path=[str(Path(__file__).parent), *sys.path], place=str(tmp_path))
    around = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(launcher._free_port()), "WORLD_SIZE": "2"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | around | {"RANK": str(rank), "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [1, 1]
    assert said[0].strip().endswith("UsageError: what the first process finds")
    assert "Error" not in said[1]
    (tmp_path / "alone").mkdir()
    module, data = small(**PEARSON)
    fit(module, data, tmp_path / "alone")
    left, right = weights_of(tmp_path / "alone"), weights_of(tmp_path)
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, **SAME)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("made", "finished by 0", "checkpoints", "metrics.csv", "alone"),
    }


def test_what_is_asked_for_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def join(device: str = "cpu", **train: int) -> distributed.World:
        return distributed.join(TrainConfig(**train), lambda: device)

    assert join().size == 1 and join(devices=2).size == 1
    # Processes share the cores of the machine, however few threads each may start.
    monkeypatch.setattr(distributed, "available_cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert join(devices=4).size == 1
    with pytest.raises(UsageError, match=r"train\.devices must be at most \d+, the processor cores of this machine"):
        join(devices=100_000)
    with pytest.raises(UsageError, match=r"train\.devices must be 1 on mps, got 2"):
        join("mps", devices=2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    with pytest.raises(UsageError, match=r"train\.devices must be at most 3, the GPUs of this machine, got 4"):
        join("cuda", devices=4)
    with pytest.raises(UsageError, match=r"train\.num_nodes must be 1 .* got 2"):
        join(num_nodes=2)
    around = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4"}
    for name, value in around.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="4 processes were started, expected 1; give --devices"):
        join()
    with pytest.raises(UsageError, match=r"must be the number of processes that were started, 4, got 2 \* 1"):
        join(devices=2)
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(UsageError, match=r"\$WORLD_SIZE must be a number of processes, got 'many'"):
        join()


def test_slurm_is_believed_within_srun_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SLURM"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_ID", "120042")
    assert distributed.cluster_environment() is None  # the batch script itself
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_PROCID", "3")
    with pytest.raises(UsageError, match=r"SLURM: .*--ntasks-per-node"):
        distributed.cluster_environment()
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    monkeypatch.setenv("SLURM_NODELIST", "node[7-8]")
    found = distributed.cluster_environment()
    assert found is not None
    monkeypatch.setattr(os, "environ", dict(os.environ))  # Lightning notes there what it finds
    assert (found.global_rank(), found.world_size(), found.main_address) == (3, 4, "node7")


def test_which_process_reports_an_error() -> None:
    def end(error: BaseException, rank: int) -> BaseException:
        try:
            with distributed.World(rank, 2).together():
                raise error
        except BaseException as raised:
            return raised

    lost = RuntimeError("[../third_party/gloo/pair.cc:534] Connection closed by peer [127.0.0.1]:4242")
    first = end(lost, 0)
    assert isinstance(first, TrainingError) and str(first) == distributed.peer_lost_message(2)
    silent = (end(lost, 1), end(FailedElsewhere("x"), 1), end(KeyboardInterrupt(), 1))
    assert [type(error) for error in silent] == [SystemExit] * 3
    assert [error.code for error in silent if isinstance(error, SystemExit)] == [1, 1, 130]
    assert isinstance(end(KeyboardInterrupt(), 0), KeyboardInterrupt)
    assert isinstance(end(ValueError("its own"), 1), ValueError)
    own = RuntimeError("something else")
    assert end(own, 0) is own
