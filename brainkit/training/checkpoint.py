"""Checkpoints of a run: `RunCheckpoints` writes them and the table of epochs; functions that read and check them."""

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
from brainkit.training.lightning_internals import begin_after, datamodule_of
from brainkit.training.signals import StopSignals
from brainkit.utils.files import atomic_write

# On a GPU the host reads this often, in steps, whether a loss was not finite; on a CPU, every step.
CHECK_LOSSES_EVERY = 256
# Several processes agree this often, in steps, whether to save now.
AGREE_EVERY = 16


class Position(NamedTuple):
    """How far a training is: whole epochs, batches of the next one, and steps in all."""

    epochs: int
    batches: int
    steps: int


class Stopped(Exception):
    """The run was asked to stop, and its state is saved."""


class RunCheckpoints(Checkpoint):
    """Writes ``last.ckpt``, ``best.ckpt`` and the table of epochs; stops a run on request or if its loss is not finite.

    A checkpoint holds its position in whole epochs and batches of the next, and a trainer that resumes from it begins
    that epoch with the batches that are left: nothing depends on how Lightning's loops restart within an epoch.

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
        What is trained on, kept in each checkpoint, see `check_identity`.
    stop : StopSignals
        Whether to stop.
    writes : bool
        Whether this process, of perhaps several, writes the table and calls `on_epoch` and `on_step`.
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
        self.checkpoints, self.table, self.writes = checkpoints, table, writes
        self.on_epoch, self.on_step = on_epoch, on_step
        self.save_seconds, self.identity, self.stop = 60 * save_minutes, dict(identity), stop
        self.best = -math.inf
        self.rows: list[dict[str, float]] = []
        self.epochs = 0  # whole ones
        self.steps_before = 0  # in these epochs
        self.seconds_before = 0.0  # of this epoch, before it was interrupted
        self.checked_at = 0  # the last step at which the losses were checked
        self.started = self.saved = time.monotonic()
        self.interrupted = False  # by an exception that is Ctrl-C

    @property
    def last(self) -> Path:
        """The checkpoint that `--resume` resumes from."""
        return self.checkpoints / "last.ckpt"

    @property
    def state_key(self) -> str:
        """Its name in checkpoints, the class's of brainkit 0.1."""
        return "Keeper"

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.rows = state_dict["best"], state_dict["rows"]
        self._write_table()  # the run may have been killed between the checkpoint and the table

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        steps = trainer.global_step
        checkpoint["brainkit"] = {
            "position": list(Position(self.epochs, steps - self.steps_before, steps)),
            "seconds": self.seconds_before + time.monotonic() - self.started,
            "identity": self.identity,
            "random": torch.get_rng_state(),
        }
        begin_after(checkpoint, self.epochs, steps)

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        saved = checkpoint["brainkit"]
        position = Position(*saved["position"])
        self.epochs, self.steps_before = position.epochs, position.steps - position.batches
        self.seconds_before = saved["seconds"] if position.batches else 0.0
        datamodule_of(trainer).resume_at = (position.epochs, position.batches)
        torch.set_rng_state(saved["random"])

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Replace the trainer's own SIGTERM handler, which with several processes broadcasts from wherever each is."""
        self.stop.reinstall()

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.started = self.saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, *rest: Any
    ) -> None:
        """Runs after all other callbacks have seen the step."""
        step = trainer.global_step
        if self.on_step is not None and self.writes:
            self.on_step(step)
        # Not at multiples of a number: steps may come in chunks.
        if pl_module.device.type == "cpu" or step - self.checked_at >= CHECK_LOSSES_EVERY:
            self._check_losses(pl_module)
            self.checked_at = step
        if trainer.is_last_batch:
            return  # the end of the epoch follows, and saves more
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
            raise Stopped

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Runs after validation and after all other callbacks."""
        self._check_losses(pl_module)
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.epochs, self.steps_before = self.epochs + 1, trainer.global_step
        self.rows.append(
            {
                "epoch": self.epochs,
                "step": trainer.global_step,
                "train_loss": values["train_loss"],
                "val_r": values["val_r"],
                "seconds": self.seconds_before + time.monotonic() - self.started,
            }
        )
        self.seconds_before = 0.0
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
            raise Stopped

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Note Ctrl-C, which Lightning turns into SystemExit."""
        self.interrupted = isinstance(exception, KeyboardInterrupt)

    def _save(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, path: Path) -> None:
        """Save a checkpoint, but never one that cannot be resumed."""
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
        good = "no checkpoint was saved before"
        if self.last.is_file():
            good = f"the last good checkpoint is {self.last} (step {read_position(self.last).steps})"
        return TrainingError(
            f"the {what} no longer finite at step {step}; {good}; a lower learning rate may help, for example "
            "--set train.lr_weight=0.01"
        )

    def _write_table(self) -> None:
        if not self.rows or not self.writes:
            return
        with atomic_write(self.table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)


Keeper = RunCheckpoints  # its name in brainkit 0.1


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints are written to a file next to their own and renamed, and read without running any code in them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            writer = _Writer(file)
            torch.save(checkpoint, cast(IO[bytes], writer))
            if writer.error is not None:
                raise writer.error
            file.flush()
            os.fsync(file.fileno())  # the name must not reach the disk before the content

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_state(Path(path))


class _Writer:
    """A file for torch, whose own writer hides the reason when a disk is full: the first error is kept for later."""

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
        """Flushed once, after everything is written."""


def load_best(module: lightning.LightningModule, checkpoint: Path) -> None:
    """Load the weights of a checkpoint into the module."""
    module.load_state_dict(read_checkpoint(checkpoint)["state_dict"])


def read_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint that training can resume from.

    Raises
    ------
    DataError
        If it is damaged or something else; says what to do.
    """
    try:
        state = read_checkpoint(path)
    except DataError as error:
        best = path.with_name("best.ckpt")
        other = f"copy {best.name} over it to resume from the best epoch, or " if best.is_file() else ""
        raise DataError(f"{error}; {other}remove it to start over") from error
    if not isinstance(state.get("brainkit"), dict):
        raise DataError(f"{path}: expected the state of a training, found other weights; remove it to start over")
    return state


def read_position(path: Path) -> Position:
    """How far the training was when the checkpoint was saved."""
    return Position(*read_state(path)["brainkit"]["position"])


def check_identity(path: Path, now: Mapping[str, str]) -> Position:
    """Check that a resumed training continues with the data and network it started with.

    Parameters
    ----------
    path : Path
        The checkpoint to resume from.
    now : mapping of str to str
        What is trained on now, by the names that the message uses.

    Returns
    -------
    Position
        Where it would resume.

    Raises
    ------
    DataError
        If something differs; names it, with what it was and is.
    """
    saved = read_state(path)["brainkit"]
    was = {what: saved["identity"].get(what, "not recorded") for what in now}
    differing = [f"{what} (was {_short(was[what])}, is {_short(now[what])})" for what in now if was[what] != now[what]]
    if differing:
        raise DataError(
            f"{path}: this run started with other {', other '.join(differing)}; restore what it started with, or start "
            "a new run with another --out"
        )
    return Position(*saved["position"])


def _short(text: str) -> str:
    """The beginning of a hash; anything else unchanged."""
    return text[:12] if len(text) == 64 and set(text) <= set("0123456789abcdef") else text
