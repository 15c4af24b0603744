"""Several processes train what one trains, write one set of files, and end together."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from small_models import problem
from small_runs import SAME, assert_same_run, weights_of

from brainkit.config import TrainConfig
from brainkit.errors import FailedElsewhere, TrainingError, UsageError
from brainkit.training import distributed, launcher
from brainkit.training.datamodule import EncodingData, EpochOrder
from brainkit.training.fit import fit
from brainkit.training.module import EncodingModule
from brainkit.training.shares import positions_of, share_of
from brainkit.training.worker import reported_error


def small(batch_size: int = 7, **train: Any) -> tuple[EncodingModule, EncodingData]:
    """24 training images in batches of 7, 7, 7 and 3, and 8 images to validate on."""
    module, data = problem(**train)
    data.batch_size = batch_size
    module.planned_steps = -(-24 // batch_size) * module.config.epochs
    return module, data


@pytest.mark.parametrize("images", [1, 2, 3, 7, 32])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_make_up_the_batch(images: int, count: int) -> None:
    batch = np.arange(100, 100 + images)
    parts = [positions_of(batch, rank, count) for rank in range(count)]
    shares = [share_of(images, rank, count) for rank in range(count)]
    assert all(len(part) for part in parts) and all(share.images <= images for share in shares)
    worked_on = [part for part, share in zip(parts, shares, strict=True) if share.weight]
    np.testing.assert_array_equal(np.concatenate(worked_on), batch)
    values = np.random.default_rng(0).standard_normal(200)
    mean = sum(share.weight * values[part].mean() for part, share in zip(parts, shares, strict=True)) / count
    assert mean == pytest.approx(values[batch].mean())


def test_the_order_of_one_process_is_what_it_was_and_the_shares_are_of_the_same_batches() -> None:
    alone, shared = EpochOrder(10, 4, seed=3), [EpochOrder(10, 4, 3, 0, rank, 2) for rank in range(2)]
    batches = list(alone)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    for index, (batch, *parts) in enumerate(zip(batches, *shared, strict=True)):
        assert [position for part in parts for position in part] == batch
        assert [order.share(index).weight for order in shared] == [1.0, 1.0]
        assert alone.share(index) == (1.0, len(batch))


@pytest.mark.parametrize("share_name", ["misfit", "gradient"])
def test_the_mean_over_processes_is_the_gradient_of_the_batch(share_name: str) -> None:
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
        if share_name == "misfit":
            torch.testing.assert_close(torch.stack([loss for loss, _ in parts]).mean(), whole[0])
        else:
            for k, expected in enumerate(whole[1]):
                mean = torch.stack([gradients[k] for _, gradients in parts]).mean(0)
                torch.testing.assert_close(mean, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["mse", "pearson"])
def test_two_processes_train_what_one_trains(tmp_path: Path, loss: str) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    options: dict[str, Any] = {"loss": loss} | ({"ema": 0.9, "epochs": 2} if loss == "pearson" else {})
    module, data = small(**options)
    fit(module, data, tmp_path / "one")
    module, data = small(**options, devices=2)
    before = module.model.weight.detach().clone()
    seen: list[dict[str, float]] = []
    steps: list[int] = []
    said: list[str] = []
    fitted = fit(module, data, tmp_path / "two", on_epoch=seen.append, on_step=steps.append, say=said.append)
    assert fitted.best == tmp_path / "two" / "checkpoints" / "best.ckpt"
    assert torch.equal(module.model.weight, before)
    assert_same_run(tmp_path / "one", tmp_path / "two")
    epochs = module.config.epochs
    assert [row["epoch"] for row in seen] == list(range(1, epochs + 1))
    assert steps == sorted(steps) and steps[-1] <= 4 * epochs
    assert (fitted.epochs, fitted.steps, fitted.stopped_early) == (epochs, 4 * epochs, False)
    assert fitted.tokens_on == ("host",) and fitted.steps_per_chunk == 0
    assert len(said) == 2  # once, not by each process


def test_ctrl_c_saves_the_step_and_any_number_goes_on(tmp_path: Path) -> None:
    """Stopped within an epoch by two processes, gone on with by one, and the other way round.

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

        pressed: list[int] = []

        def interrupt(step: int, pressed: list[int] = pressed) -> None:
            if not pressed:
                signal.raise_signal(signal.SIGINT)
            pressed.append(step)

        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt, match=r"stopped by Ctrl-C; step \d+ of 48 is saved in .*last\.ckpt"):
                fit(module, data, folder, on_step=interrupt)
        finally:
            signal.signal(signal.SIGINT, before)
        module, data = small(**long, devices=then)
        fit(module, data, folder, resume=True)
        assert_same_run(tmp_path / "one", folder)


class Broken(EncodingData):
    """Data of which one process cannot read its share."""

    how = ""

    def share(self, side: str, batch_index: int) -> Any:
        if side == "train" and batch_index == 2 and self.rank == 1:
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise UsageError("images must be images, got something else")
        return super().share(side, batch_index)


@pytest.mark.parametrize(
    ("how", "error", "line"),
    [
        ("usage", UsageError, "images must be images, got something else"),
        ("killed", TrainingError, r"training process 2 of 2 was ended by SIGKILL; brainkit train --resume"),
    ],
)
def test_when_one_fails_all_end_with_its_line(tmp_path: Path, how: str, error: type[Exception], line: str) -> None:
    module, data = small(devices=2)
    broken = Broken(data.tokens, data.responses, data.split, batch_size=7)
    broken.how = how
    with pytest.raises(error, match=line):
        fit(module, broken, tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_errors_travel_as_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    told = reported_error(ValueError("one\nof a kind"))
    assert type(told) is TrainingError
    assert str(told).startswith("training process 2 of 3 failed: ValueError: one") and "\n" not in str(told)
    assert str(reported_error(ValueError())).endswith("ValueError")
    assert isinstance(reported_error(MemoryError("64 GB", object())), MemoryError)
    lost = reported_error(RuntimeError("Connection closed by peer [127.0.0.1]:4242"))
    assert isinstance(lost, FailedElsewhere)
    # The cause is what is told, not what follows from it elsewhere.
    own, killed = UsageError("mine"), TrainingError("process 1 was ended by SIGKILL")
    assert min([lost, killed, own], key=launcher._rank_of_explanation) is own
    assert min([lost, killed], key=launcher._rank_of_explanation) is killed


def test_an_error_here_ends_the_processes(tmp_path: Path) -> None:
    module, data = small(epochs=200, devices=2)
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> Any:
        started.append(popen(*arguments, **options))
        return started[-1]

    def interrupt(row: dict[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcher.subprocess, "Popen", start)
        with pytest.raises(KeyboardInterrupt):
            fit(module, data, tmp_path, on_epoch=interrupt)
    assert len(started) == 2 and all(process.poll() is not None for process in started)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


CHILD = """
import sys
sys.path[:0] = {path!r}
from brainkit.training.launcher import run_processes
from waiting import Waiting
run_processes(Waiting({place!r}), 1, {{}})
"""
WAITING = """
import os, pathlib, time
class Waiting:
    def __init__(self, place):
        self.place = place
    def __call__(self, report):
        pathlib.Path(self.place, "started").write_text(str(os.getpid()))
        try:
            time.sleep(600)
        finally:
            pathlib.Path(self.place, "cleared up").write_text("")
"""


def test_no_process_outlives_the_one_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(WAITING)
    code = CHILD.format(path=[str(tmp_path), *sys.path], place=str(tmp_path))
    parent = subprocess.Popen([sys.executable, "-c", code])
    started = tmp_path / "started"
    while not (started.is_file() and started.read_text()):
        assert parent.poll() is None
        time.sleep(0.05)
    child = int(started.read_text())
    parent.kill()
    parent.wait()
    while alive(child):
        time.sleep(0.05)  # the test ends when the process does
    assert (tmp_path / "cleared up").is_file()


def alive(process: int) -> bool:
    """Whether it runs; one that has ended may wait for somebody to take note of it."""
    status = Path(f"/proc/{process}/stat")
    if Path("/proc/self/stat").exists():
        return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


# --- processes that something else started ------------------------------------------------------------------------


TOGETHER = """
import sys
sys.path[:0] = {path!r}
import test_distributed as t
t.one_of_several(t.Path({place!r}))
"""


def one_of_several(place: Path) -> None:
    """What each process of a run does whose processes were started from outside, down to who writes what."""
    config = TrainConfig(devices=2, device="cpu")
    world = distributed.join(config, lambda: "cpu")
    with world.together():
        made = world.in_turn(lambda: place.joinpath("made").write_text("once") and "first", lambda: "other")
        assert made == ("first" if world.first else "other") and (place / "made").is_file()
        module, data = small(devices=2)
        fit(module, data, place)
        world.once(lambda: place.joinpath(f"finished by {world.rank}").write_text(""))
        assert (place / "finished by 0").is_file()

        def fail() -> None:
            raise UsageError("what the first process finds")

        world.once(fail)


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
    module, data = small()
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


def test_who_says_what(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_memory_maps_travel_as_their_place(tmp_path: Path) -> None:
    import io
    import pickle

    array = np.arange(4000, dtype=np.float32).reshape(100, 40)
    np.save(tmp_path / "array.npy", array)
    mapped = np.load(tmp_path / "array.npy", mmap_mode="r")
    for value in (mapped, mapped[7:90], mapped[11]):
        content = io.BytesIO()
        launcher._Pickler(content).dump(value)
        assert content.tell() < 1000
        back = pickle.loads(content.getvalue())
        assert isinstance(back, np.memmap)
        np.testing.assert_array_equal(back, value)
    content = io.BytesIO()
    launcher._Pickler(content).dump(mapped[:, ::3])
    np.testing.assert_array_equal(pickle.loads(content.getvalue()), array[:, ::3])
