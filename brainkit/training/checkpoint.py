"""What a training keeps as it goes: the last and the best state, and the table of epochs."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from brainkit.errors import DataError, TrainingError
from brainkit.model.checkpoint import read_checkpoint
from brainkit.training.lightning_internals import begin_after
from brainkit.training.signals import StopSignals
from brainkit.utils.files import write_beside

# On a GPU the host asks this often, in steps, whether a loss was not finite; on a CPU every step.
LOOK_EVERY = 256
# With several processes they agree this often, in steps, whether to save now.
AGREE_EVERY = 16


class Position(NamedTuple):
    """How far a training has come: whole epochs, batches of the next one, and steps in all."""

    epochs: int
    batches: int
    steps: int


class Stopped(Exception):
    """The run was asked to stop, and its state at this step is saved."""

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints are written beside and renamed, and read without running any code in them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with write_beside(path) as beside, beside.open("wb") as file:
            writer = _Writer(file)
            torch.save(checkpoint, cast(IO[bytes], writer))
            if writer.error is not None:
                raise writer.error
            file.flush()
            os.fsync(file.fileno())  # the name must not reach the disk before the content

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_state(Path(path))


class _Writer:
    """A file for torch, whose own writer makes a riddle of a full disk: the first error is kept and raised later."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        if self.error is None:
            try:
                self.file.write(content)
            except OSError as error:
                self.error = error
        return len(content)

    def flush(self) -> None:
        """What is left is flushed once all is written."""


class Keeper(Checkpoint):
    """Keeps the last and the best state, and the table of epochs; stops a run that is asked to, or whose loss is none.

    A state says where it was taken in whole epochs and batches of the next, and a trainer that resumes from it begins
    that epoch with the batches that are left: nothing rests on how a trainer's own loops restart in the middle.

    Parameters
    ----------
    checkpoints : Path
        Folder of ``last.ckpt`` and ``best.ckpt``.
    table : Path
        ``metrics.csv``.
    on_epoch, on_step : callable, optional
        See :func:`brainkit.training.fit.fit`.
    save_minutes : float
        How often to save within an epoch; 0 for never.
    identity : mapping of str to str
        What was trained on, kept in each state, see `check_identity`.
    stop : StopSignals
        Whether to stop.
    writes : bool
        Whether this is the process, of perhaps several, that writes and tells.
    """

    def __init__(
        self,
        checkpoints: Path,
        table: Path,
        on_epoch: Callable[[dict[str, float]], None] | None,
        on_step: Callable[[int], None] | None,
        *,
        save_minutes: float,
        identity: Mapping[str, str],
        stop: StopSignals,
        writes: bool = True,
    ) -> None:
        self.writes = writes
        self.checkpoints, self.table = checkpoints, table
        self.on_epoch, self.on_step = on_epoch, on_step
        self.save_seconds, self.identity, self.stop = 60 * save_minutes, dict(identity), stop
        self.best = -math.inf
        self.rows: list[dict[str, float]] = []
        self.epochs = 0  # whole ones
        self.before = 0  # steps in these
        self.spent = 0.0  # seconds on the epoch before it was interrupted
        self.looked = 0  # the last step at which the losses were looked at
        self.started = self.saved = time.monotonic()

    @property
    def last(self) -> Path:
        """The state that `--resume` goes on from."""
        return self.checkpoints / "last.ckpt"

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.rows = state_dict["best"], state_dict["rows"]
        self._write_table()  # the run may have been killed between the state and the table

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        steps = trainer.global_step
        checkpoint["brainkit"] = {
            "position": list(Position(self.epochs, steps - self.before, steps)),
            "seconds": self.spent + time.monotonic() - self.started,
            "identity": self.identity,
            "random": torch.get_rng_state(),
        }
        begin_after(checkpoint, self.epochs, steps)

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        held = checkpoint["brainkit"]
        at = Position(*held["position"])
        self.epochs, self.before = at.epochs, at.steps - at.batches
        self.spent = held["seconds"] if at.batches else 0.0
        trainer.datamodule.resume_at = (at.epochs, at.batches)  # type: ignore[attr-defined]
        torch.set_rng_state(held["random"])

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """With several processes a trainer answers SIGTERM by a broadcast, wherever each of them is: not here."""
        self.stop.take()

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.started = self.saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, *rest: Any
    ) -> None:
        """Runs after all other callbacks have seen the step."""
        step = trainer.global_step
        if self.on_step is not None and self.writes:
            self.on_step(step)
        # Not whenever `step` is a multiple: steps may come many at a time.
        if pl_module.device.type == "cpu" or step - self.looked >= LOOK_EVERY:
            self._check_losses(pl_module)
            self.looked = step
        if trainer.is_last_batch:
            return  # the end of the epoch is near, and saves more
        due = 0 < self.save_seconds <= time.monotonic() - self.saved
        stop = self.stop.received is not None
        if trainer.world_size > 1:
            if step % AGREE_EVERY:
                return
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
            due = trainer.strategy.reduce_boolean_decision(due, all=False)
        if due or stop:
            self._save(trainer, pl_module, self.last)
        if stop:
            raise Stopped(step)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Runs after validation and after all other callbacks."""
        self._check_losses(pl_module)
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.epochs, self.before = self.epochs + 1, trainer.global_step
        self.rows.append(
            {
                "epoch": self.epochs,
                "step": trainer.global_step,
                "train_loss": values["train_loss"],
                "val_r": values["val_r"],
                "seconds": self.spent + time.monotonic() - self.started,
            }
        )
        self.spent = 0.0
        improved = values["val_r"] > self.best
        self.best = max(self.best, values["val_r"])
        if improved:
            self._save(trainer, pl_module, self.checkpoints / "best.ckpt")
        self._save(trainer, pl_module, self.last)
        self._write_table()
        if self.on_epoch is not None and self.writes:
            self.on_epoch(self.rows[-1])
        stop = self.stop.received is not None
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            raise Stopped(trainer.global_step)

    def _save(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, path: Path) -> None:
        """Save a state, but never one that cannot be gone on from."""
        self._check_losses(pl_module)
        finite = torch.stack([parameter.isfinite().all() for parameter in pl_module.parameters()]).all()
        if not finite:
            raise self._no_longer_finite("weights are", trainer.global_step)
        trainer.save_checkpoint(path)
        self.saved = time.monotonic()

    def _check_losses(self, module: Any) -> None:
        if bad := module.watch.first_bad():
            raise self._no_longer_finite("loss is", bad)

    def _no_longer_finite(self, what: str, step: int) -> TrainingError:
        good = "no good state was reached"
        if self.last.is_file():
            good = f"the last good state is {self.last} (step {read_position(self.last).steps})"
        return TrainingError(
            f"the {what} no longer finite at step {step}; {good}; a lower learning rate may help, for example "
            "--set train.lr_weight=0.01"
        )

    def _write_table(self) -> None:
        if not self.rows or not self.writes:
            return
        with write_beside(self.table) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)


def load_best(module: lightning.LightningModule, checkpoint: Path) -> None:
    """Load the weights of a checkpoint into the module."""
    module.load_state_dict(read_checkpoint(checkpoint)["state_dict"])


def read_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint that training can go on from.

    Raises
    ------
    DataError
        If it is damaged, or is not one; says what to do.
    """
    try:
        state = read_checkpoint(path)
    except DataError as error:
        best = path.with_name("best.ckpt")
        other = f"copy {best.name} over it to go on from the best epoch, or " if best.is_file() else ""
        raise DataError(f"{error}; {other}remove it to begin anew") from error
    if not isinstance(state.get("brainkit"), dict):
        raise DataError(f"{path}: expected the state of a training, found other weights; remove it to begin anew")
    return state


def read_position(path: Path) -> Position:
    """Where a training was when it was saved."""
    return Position(*read_state(path)["brainkit"]["position"])


def check_identity(path: Path, now: Mapping[str, str]) -> Position:
    """See that a training would go on with what it began with.

    Parameters
    ----------
    path : Path
        The state to go on from.
    now : mapping of str to str
        What there is now, by what it is called in the message.

    Returns
    -------
    Position
        Where it would go on.

    Raises
    ------
    DataError
        If something differs; names it, with what it was and is.
    """
    held = read_state(path)["brainkit"]
    was = {what: held["identity"].get(what, "not noted") for what in now}
    differing = [f"{what} (was {_short(was[what])}, is {_short(now[what])})" for what in now if was[what] != now[what]]
    if differing:
        raise DataError(
            f"{path}: this run was begun with other {', other '.join(differing)}; bring back what it was begun with, "
            "or train anew with another --out"
        )
    return Position(*held["position"])


def _short(text: str) -> str:
    """A hash by its beginning, as people compare them; anything else as it is."""
    return text[:12] if len(text) == 64 and set(text) <= set("0123456789abcdef") else text
