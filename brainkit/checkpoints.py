"""What a training keeps as it goes: the last and the best state, and the table of epochs."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from brainkit.errors import SaidElsewhere, TrainingError
from brainkit.files import write_beside
from brainkit.model import read_checkpoint


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints are written beside and renamed, and read without running any code in them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        # Through memory: on a full disk torch's own writer fails with a riddle, and Python's says what it is.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with write_beside(path) as beside:
            beside.write_bytes(content.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))


class Keeper(lightning.Callback):
    """Keeps the last and the best state, and the table of epochs; stops a run whose loss is no number."""

    def __init__(
        self,
        checkpoints: Path,
        table: Path,
        on_epoch: Callable[[dict[str, float]], None] | None,
        on_step: Callable[[int], None] | None,
    ) -> None:
        self.checkpoints, self.table = checkpoints, table
        self.on_epoch, self.on_step = on_epoch, on_step
        self.best = -math.inf
        self.rows: list[dict[str, float]] = []
        self.started = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.rows = state_dict["best"], state_dict["rows"]

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.started = time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, *rest: Any
    ) -> None:
        if self.on_step is not None and trainer.is_global_zero:
            self.on_step(trainer.global_step)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Runs after validation: the epoch is complete, and what is saved here can be gone on from."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if not all(math.isfinite(values.get(name, math.nan)) for name in ("train_loss", "val_r")):
            if not trainer.is_global_zero:
                raise SaidElsewhere("the loss is no longer finite")
            last = self.checkpoints / "last.ckpt"
            good = f"the last good state is {last}" if last.is_file() else "no good state was reached"
            raise TrainingError(
                f"the loss is no longer finite by step {trainer.global_step} (epoch {trainer.current_epoch + 1}); "
                f"{good}; a lower learning rate may help, for example --set train.lr_weight=0.01"
            )
        self.rows.append(
            {
                "epoch": trainer.current_epoch + 1,
                "step": trainer.global_step,
                "train_loss": values["train_loss"],
                "val_r": values["val_r"],
                "seconds": time.monotonic() - self.started,
            }
        )
        improved = values["val_r"] > self.best
        self.best = max(self.best, values["val_r"])
        if improved:
            trainer.save_checkpoint(self.checkpoints / "best.ckpt")
        trainer.save_checkpoint(self.checkpoints / "last.ckpt")
        if not trainer.is_global_zero:
            return
        with write_beside(self.table) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)
        if self.on_epoch is not None:
            self.on_epoch(self.rows[-1])
