"""Early stopping, in a form that a stopped and resumed run repeats."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as lightning


class Patience(lightning.Callback):
    """Ends training after so many epochs without a better validation r.

    What it has seen is part of every checkpoint: a run that was interrupted stops at the same epoch, and one that had
    stopped trains no further when it is resumed.

    Parameters
    ----------
    epochs : int
        How many epochs may pass without a better score.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs, self.best, self.waited = epochs, -math.inf, 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.waited = state_dict["best"], state_dict["waited"]

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        held = checkpoint["callbacks"].get(self.state_key)
        trainer.should_stop = held is not None and held["waited"] >= self.epochs

    # Before the checkpoints of the epoch are written, which is at its end.
    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        score = float(trainer.callback_metrics["val_r"])
        better = score > self.best
        self.best, self.waited = (score, 0) if better else (self.best, self.waited + 1)
        if self.waited >= self.epochs:
            trainer.should_stop = True
