"""What follows the steps and epochs of a run: the average of the weights, early stopping, TensorBoard.

Why not Lightning's own callbacks, tried with 2.6.6: its EarlyStopping does not save that it has stopped, so a resumed
run trains another epoch; its WeightAveraging keeps a second copy of the whole module, buffers too, and restarts the
average from a checkpoint of brainkit 0.1. Checkpoints hold the callbacks' state under their class names: keep these.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from brainkit.config import TrainConfig
from brainkit.errors import require
from brainkit.training import schedule

Row = dict[str, float]


class WeightAverage(lightning.Callback):
    """Exponential moving average of all parameters over the steps.

    After step n (from 0) ``average = d * average + (1 - d) * weights`` with ``d = min(decay, (1 + n) / (10 + n))``: it
    starts as the initial weights, and soon forgets them. Validation uses the average, ``state_dict`` in every
    checkpoint holds it, and the module has it when training ends. The weights that are trained are in the callback's
    own part of a checkpoint; a resumed run continues from them.

    Parameters
    ----------
    decay : float
        In (0, 1): about 1 / (1 - decay) steps are averaged.
    """

    def __init__(self, decay: float) -> None:
        self.decay, self.steps = decay, 0
        # The average; while the module has the average, the weights that are trained.
        self.other: list[Tensor] = []
        self.swapped = False
        self.resumed: list[Tensor] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps, self.resumed = state_dict["steps"], state_dict.get("weights")

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not self.other:
            return  # nothing was trained here
        weights = {name: weight.detach() for name, weight in pl_module.named_parameters()}
        if not self.swapped:
            checkpoint["state_dict"].update(zip(weights, self.other, strict=True))
        checkpoint["callbacks"][self.state_key]["weights"] = self.other if self.swapped else list(weights.values())

    @torch.no_grad()
    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        weights: list[Tensor] = list(pl_module.parameters())
        self.other = [weight.clone() for weight in weights]
        if self.resumed is not None:  # the module has the average, from the checkpoint
            for weight, trained in zip(weights, self.resumed, strict=True):
                weight.copy_(trained)
            self.resumed = None

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, *rest: Any
    ) -> None:
        if trainer.global_step == self.steps:
            return  # gradients are accumulated over several batches
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        get_ema_multi_avg_fn(decay)(self.other, [weight.detach() for weight in pl_module.parameters()], self.steps)
        self.steps = trainer.global_step

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._swap(pl_module, True)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._swap(pl_module, False)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._swap(pl_module, True)

    @torch.no_grad()
    def _swap(self, pl_module: lightning.LightningModule, averaged: bool) -> None:
        if averaged == self.swapped or not self.other:
            return
        weights: list[Tensor] = list(pl_module.parameters())
        before = [weight.clone() for weight in weights]
        # In place: an optimiser or a captured graph refers to the memory of these tensors.
        torch._foreach_copy_(weights, self.other)
        torch._foreach_copy_(self.other, before)
        self.swapped = averaged


class Patience(lightning.Callback):
    """Stops training after so many epochs without a better validation r.

    Its state is part of every checkpoint: an interrupted run stops at the same epoch, and one that had stopped trains
    no further when it is resumed.

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
        saved = checkpoint["callbacks"].get(self.state_key)
        trainer.should_stop = saved is not None and saved["waited"] >= self.epochs

    # Before the epoch's checkpoints are written, at its end.
    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        score = float(trainer.callback_metrics["val_r"])
        better = score > self.best
        self.best, self.waited = (score, 0) if better else (self.best, self.waited + 1)
        if self.waited >= self.epochs:
            trainer.should_stop = True


def check_tensorboard(config: TrainConfig) -> None:
    """Check before the work that TensorBoard is installed, if it is asked for.

    Raises
    ------
    MissingDependency
        If ``train.tensorboard`` is on and it is not installed.
    """
    if config.tensorboard == "on":
        require("tensorboard", extra="log", purpose="train.tensorboard=on")


@contextlib.contextmanager
def open_tensorboard(folder: Path, config: TrainConfig, planned_steps: int) -> Iterator[Callable[[Row], None]]:
    """Write each epoch's loss, validation r, learning rates and seconds as it ends.

    Parameters
    ----------
    folder : Path
        Where event files are written; created here. A resumed run adds one.
    config : TrainConfig
        Whether to write at all, and the learning rates.
    planned_steps : int
        All steps of the run.

    Yields
    ------
    callable
        Called with a row of ``metrics.csv``.
    """
    wanted = config.tensorboard == "on" or (
        config.tensorboard == "auto" and importlib.util.find_spec("tensorboard") is not None
    )
    if not wanted:
        yield lambda row: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:

        def write(row: Row) -> None:
            step = int(row["step"])
            factor = schedule.learning_rate_factor(config, step - 1, planned_steps)  # of the epoch's last step
            scalars = {
                "train_loss": row["train_loss"],
                "val_r": row["val_r"],
                "seconds": row["seconds"],
                "learning_rate/weight": factor * config.lr_weight,
                "learning_rate/bottleneck": factor * config.lr_bottleneck,
                "learning_rate/selectors": factor * config.lr_selectors,
            }
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)
            writer.flush()  # so that the run can be watched

        yield write
