"""Training that is killed, stopped or out of room, and gone on with: the result is that of a run left alone."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import csv
import dataclasses
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from small_models import problem

from brainkit.errors import BrainkitError, DataError, StoppedTraining, TrainingError
from brainkit.training import checkpoint
from brainkit.training.checkpoint import RunCheckpoints, check_identity, read_position, read_state
from brainkit.training.fit import fit
from brainkit.training.module import EncodingModule
from brainkit.training.signals import StopSignals
from brainkit.utils import files

EVERY_STEP = 1e-9  # minutes
IDENTITY = {"responses": "a" * 64, "backbone layers": "early, late"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was left alone: 4 epochs of 3 steps."""
    folder = tmp_path_factory.mktemp("alone")
    module, data = problem()
    fit(module, data, folder, identity=IDENTITY)
    return folder


def table(folder: Path) -> list[list[str]]:
    """The table of epochs, but for the seconds."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [row[:-1] for row in csv.reader(file)]


def same_result(folder: Path, other: Path) -> bool:
    """Whether two runs ended with the same weights, optimiser and table, to the bit."""
    for name in ("last.ckpt", "best.ckpt"):
        held, true = (torch.load(run / "checkpoints" / name, weights_only=True) for run in (folder, other))
        assert list(held["state_dict"]) == list(true["state_dict"])
        if not all(torch.equal(held["state_dict"][key], true["state_dict"][key]) for key in true["state_dict"]):
            return False
        moments, others = (run["optimizer_states"][0]["state"] for run in (held, true))
        if not all(torch.equal(moments[k][key], others[k][key]) for k in others for key in others[k]):
            return False
        assert held["brainkit"]["position"] == true["brainkit"]["position"]
    return table(folder) == table(other)


def go_on(send: Callable[[int], None], folder: Path, **options: Any) -> None:
    module, data = problem(**options)
    fit(module, data, folder, resume=True, on_step=send, identity=IDENTITY)


@pytest.fixture
def handlers() -> Iterator[None]:
    """Python's own handlers: a process that was started in the background ignores SIGINT, and so would these tests."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    for number, handler in before.items():
        signal.signal(number, handler)


# --- kill -9 ------------------------------------------------------------------------------------------------------


class Fate:
    """Kills its process at a certain event: a step, a piece of a file, a renaming."""

    def __init__(self, events: int) -> None:
        self.left = events

    def event(self, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            found = work(*arguments, **options)
            self.event()
            return found

        return watched


def train_until_killed(folder: Path, events: int, save_minutes: float) -> None:
    fate = Fate(events)
    checkpoint._Writer.write = fate.watch(checkpoint._Writer.write)  # type: ignore[method-assign]
    files.os.replace = fate.watch(os.replace)  # type: ignore[assignment]
    module, data = problem(save_minutes=save_minutes)
    fit(module, data, folder, resume=True, on_step=fate.event, identity=IDENTITY)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL and no fork server")
def test_a_run_killed_again_and_again_ends_as_if_left_alone(tmp_path: Path, alone: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "pytorch_lightning", "brainkit.training.fit"])
    draw = random.Random(4)
    last = tmp_path / "checkpoints" / "last.ckpt"
    deaths: list[int] = []
    while True:
        # Too few events would not reach the next state that is kept; so they grow with the deaths.
        events = draw.randrange(1, 2500) + 800 * len(deaths)
        child = context.Process(target=train_until_killed, args=(tmp_path, events, draw.choice([0.0, EVERY_STEP])))
        child.start()
        child.join(300)
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        deaths.append(read_position(last).steps if last.is_file() else 0)  # whenever it is there, it is whole
    assert len(deaths) >= 3
    assert any(steps % 3 for steps in deaths)  # within an epoch too
    assert same_result(tmp_path, alone)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "metrics.csv"]


# --- asked to stop ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 3, 5, 11, 12])
def test_ctrl_c_keeps_the_very_step(tmp_path: Path, alone: Path, handlers: None, step: int) -> None:
    def send(now: int) -> None:
        if now == step:
            os.kill(os.getpid(), signal.SIGINT)

    last = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(KeyboardInterrupt, match=rf"stopped by Ctrl-C; step {step} of 12 is saved in {last}"):
        go_on(send, tmp_path)
    # The last step of an epoch is kept with the epoch.
    assert read_position(last) == (step // 3, step % 3, step)
    steps: list[int] = []
    go_on(steps.append, tmp_path)
    assert steps == list(range(step + 1, 13))
    assert same_result(tmp_path, alone)


@pytest.mark.parametrize("options", [{}, {"ema": 0.9, "patience": 1, "loss": "pearson", "lr_weight": 5.0}])
def test_every_step_can_be_the_last_of_a_process(tmp_path: Path, handlers: None, options: dict[str, Any]) -> None:
    for name in ("alone", "stopped"):
        (tmp_path / name).mkdir()
    go_on(lambda step: None, tmp_path / "alone", **options)
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    for step in range(1, read_position(tmp_path / "alone" / "checkpoints" / "last.ckpt").steps + 1):
        with pytest.raises(KeyboardInterrupt):
            go_on(lambda step: os.kill(os.getpid(), signal.SIGINT), tmp_path / "stopped", **options)
        assert read_position(last).steps == step
    go_on(lambda step: pytest.fail("there is nothing left to do"), tmp_path / "stopped", **options)
    assert same_result(tmp_path / "stopped", tmp_path / "alone")


def test_sigterm_keeps_the_very_step(tmp_path: Path, alone: Path, handlers: None) -> None:
    def send(now: int) -> None:
        if now == 4:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)  # as `timeout` does

    with pytest.raises(StoppedTraining, match="stopped by SIGTERM; step 4 of 12 is saved in "):
        go_on(send, tmp_path)
    go_on(lambda step: None, tmp_path)
    assert same_result(tmp_path, alone)


def test_a_second_ctrl_c_does_not_wait(
    tmp_path: Path, alone: Path, handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(module: EncodingModule, batch: Any, index: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(EncodingModule, "validation_step", twice)
        with pytest.raises(KeyboardInterrupt, match="stopped by Ctrl-C before the first step was saved"):
            go_on(lambda step: None, tmp_path)
    go_on(lambda step: None, tmp_path)
    assert same_result(tmp_path, alone)


def test_ignored_signals_stay_ignored(tmp_path: Path, alone: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        go_on(lambda step: os.kill(os.getpid(), signal.SIGINT), tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert same_result(tmp_path, alone)


# --- states that are kept -------------------------------------------------------------------------------------------


def test_states_are_saved_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock[0])
    kept: list[int] = []

    def minute(step: int) -> None:
        clock[0] += 60.0
        last = tmp_path / "checkpoints" / "last.ckpt"
        kept.append(read_position(last).steps if last.is_file() else 0)

    module, data = problem(epochs=1, save_minutes=2.0)
    data.batch_size, module.planned_steps = 3, 8
    fit(module, data, tmp_path, on_step=minute)
    assert kept == [0, 0, 2, 2, 4, 4, 6, 6]


def test_the_state_of_random_numbers_is_kept(tmp_path: Path) -> None:
    module, data = problem(epochs=1)
    fit(module, data, tmp_path, on_step=lambda step: torch.rand(3))
    expected = torch.rand(4)
    torch.manual_seed(99)
    module, data = problem(epochs=1)
    fit(module, data, tmp_path, resume=True)
    assert torch.equal(torch.rand(4), expected)


def test_changed_data_is_noticed(alone: Path) -> None:
    last = alone / "checkpoints" / "last.ckpt"
    assert check_identity(last, IDENTITY) == (4, 0, 12)
    line = r"other responses \(was aaaaaaaaaaaa, is bbbbbbbbbbbb\), other backbone layers \(was early, late, is late\);"
    with pytest.raises(DataError, match=line):
        check_identity(last, {"responses": "b" * 64, "backbone layers": "late"})


def test_a_complete_run_stays_as_it_is(tmp_path: Path) -> None:
    module, data = problem(epochs=2)
    first = fit(module, data, tmp_path, resume=True)  # there is nothing to resume yet
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    module, data = problem(epochs=2)
    again = fit(module, data, tmp_path, resume=True)
    assert again == dataclasses.replace(first, cpu_seconds=None)  # of a resumed run they are not known
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_table_that_the_state_is_ahead_of_is_written_again(tmp_path: Path) -> None:
    module, data = problem(epochs=2)
    fit(module, data, tmp_path)
    whole = (tmp_path / "metrics.csv").read_text()
    (tmp_path / "metrics.csv").write_text("".join(whole.splitlines(keepends=True)[:2]))
    module, data = problem(epochs=2)
    fit(module, data, tmp_path, resume=True)
    assert (tmp_path / "metrics.csv").read_text() == whole


def test_a_damaged_state_says_what_to_do(tmp_path: Path) -> None:
    module, data = problem(epochs=2)
    fit(module, data, tmp_path)
    last = tmp_path / "checkpoints" / "last.ckpt"
    for content in (last.read_bytes()[:5000], b"", b"no checkpoint"):
        last.write_bytes(content)
        with pytest.raises(DataError, match=r"last\.ckpt: expected a checkpoint, .*copy best\.ckpt"):
            fit(module, data, tmp_path, resume=True)
    torch.save({"state_dict": {}}, last)
    with pytest.raises(DataError, match=r"last\.ckpt: expected the state of a training"):
        fit(module, data, tmp_path, resume=True)


def test_a_flipped_byte_is_found(tmp_path: Path, alone: Path) -> None:
    content = (alone / "checkpoints" / "last.ckpt").read_bytes()
    whole = torch.load(alone / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    place = tmp_path / "last.ckpt"
    key = max(whole, key=lambda name: whole[name].numel())
    held = content.index(whole[key].numpy().tobytes())
    draw = random.Random(0)
    found = 0
    for position in (held, held + 101, *(draw.randrange(len(content)) for _ in range(40))):
        place.write_bytes(content[:position] + bytes([content[position] ^ 0x41]) + content[position + 1 :])
        try:
            state = read_state(place)["state_dict"]
        except DataError as error:
            found += "last.ckpt: expected" in str(error)
        else:  # a byte that means nothing: padding, a date
            assert all(torch.equal(state[name], whole[name]) for name in whole)
            assert position not in (held, held + 101)
    assert found > 20


def test_the_best_state_can_be_gone_on_from(tmp_path: Path) -> None:
    # The score's best is not its last; a readout that was refitted is not one to go on from.
    wandering = dict(epochs=6, lr_weight=5.0, lr_selectors=0.1, weight_decay=0.003, refit=False)
    module, data = problem(**wandering)
    fit(module, data, tmp_path)
    scores = [float(row[3]) for row in table(tmp_path)[1:]]
    assert scores.index(max(scores)) < 5
    (tmp_path / "checkpoints" / "best.ckpt").replace(tmp_path / "checkpoints" / "last.ckpt")
    module, data = problem(**wandering)
    fit(module, data, tmp_path, resume=True)
    assert [float(row[3]) for row in table(tmp_path)[1:]] == scores


# --- no room ------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_one_line_and_leaves_the_state_before(tmp_path: Path, alone: Path) -> None:
    resource = pytest.importorskip("resource")  # Windows has none
    last = tmp_path / "checkpoints" / "last.ckpt"
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step: int) -> None:
        if step == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))

    try:
        with pytest.raises(BrainkitError, match=r"(last|best)\.ckpt: cannot be written: File too large") as failure:
            go_on(fill, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert "\n" not in str(failure.value)
    assert read_position(last) == (1, 0, 3)
    assert sorted(path.name for path in last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]
    go_on(lambda step: None, tmp_path)
    assert same_result(tmp_path, alone)


def test_weights_that_are_no_numbers_are_never_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, data = problem(save_minutes=EVERY_STEP)

    def spoil(step: int) -> None:
        if step == 5:  # as a step with a finite loss and an infinite gradient does
            with torch.no_grad():
                module.model.bias[0] = torch.inf

    with pytest.raises(TrainingError, match=r"the weights are no longer finite at step 5; .* \(step 4\); a lower"):
        fit(module, data, tmp_path, on_step=spoil)
    assert read_position(tmp_path / "checkpoints" / "last.ckpt").steps == 4


def test_losses_on_a_gpu_are_looked_at_whatever_steps_the_chunks_end_at(tmp_path: Path) -> None:
    checkpoints = RunCheckpoints(
        tmp_path, tmp_path / "metrics.csv", None, None, save_minutes=0, identity={}, stop=StopSignals()
    )
    looked: list[int] = []
    trainer: Any = SimpleNamespace(global_step=0, is_last_batch=False, world_size=1)
    watch = SimpleNamespace(first_bad=lambda: looked.append(trainer.global_step))
    module: Any = SimpleNamespace(device=torch.device("cuda"), watch=watch)
    for trainer.global_step in range(19, 1100, 32):  # never a multiple of 256
        checkpoints.on_train_batch_end(trainer, module, None)
    assert looked == [275, 531, 787, 1043]
