"""A running average of the weights, validated and kept in place of the weights of the last step."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage(lightning.Callback):
    """Exponential moving average of all parameters over the steps.

    After step n (from 0) ``average = d * average + (1 - d) * weights`` with ``d = min(decay, (1 + n) / (10 + n))``: the
    average begins with the weights at the start, and soon forgets them. Validation sees it, ``state_dict`` in every
    checkpoint holds it, and the module has it when training ends. The weights that are being trained are in the
    callback's own part of a checkpoint; a resumed run goes on from them.

    Parameters
    ----------
    decay : float
        In (0, 1): about 1 / (1 - decay) steps are averaged.
    """

    def __init__(self, decay: float) -> None:
        self.decay, self.steps = decay, 0
        # The average; while the module itself has the average, the weights that are being trained.
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
        if self.resumed is not None:  # what the checkpoint gave the module is the average
            for weight, held in zip(weights, self.resumed, strict=True):
                weight.copy_(held)
            self.resumed = None

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, *rest: Any
    ) -> None:
        if trainer.global_step == self.steps:
            return  # gradients are being gathered over several batches
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
        # In place: an optimiser, or a captured graph, knows these tensors by their memory.
        torch._foreach_copy_(weights, self.other)
        torch._foreach_copy_(self.other, before)
        self.swapped = averaged
