"""The Lightning module: what a training step minimises and what a validation epoch scores."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import pytorch_lightning as lightning
import torch
from torch import Tensor

from brainkit.config import TrainConfig
from brainkit.metrics.correlation import StreamingCorrelation
from brainkit.model.factor_topy import FactorTopy
from brainkit.training import distributed, schedule
from brainkit.training.callbacks import Patience, WeightAverage
from brainkit.training.datamodule import Batch, EncodingData
from brainkit.training.loss import SumOverProcesses, misfit
from brainkit.training.running_stats import LossWatch, streaming_correlation
from brainkit.training.shares import Share

_FUSED = ("cpu", "cuda")  # devices for which torch has AdamW in one pass


class Stepper(Protocol):
    """Makes the optimiser's steps in place of the trainer: see `brainkit.training.cuda_graph`."""

    regulariser: Tensor | None  # weight of the regulariser in this step

    def run(self, staged_batches: Iterable[tuple[Tensor, ...]]) -> None:
        """Make a step for each batch that a batch source has staged."""

    def complete_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put into a checkpoint what it would hold if the trainer had made the steps."""


class StepLoss(NamedTuple):
    """What a step minimises, and the part of it that is reported: the misfit without the regulariser. Scalars."""

    total: Tensor
    misfit: Tensor


class EncodingModule(lightning.LightningModule):
    """Trains a :class:`FactorTopy`; usable with any ``Trainer``.

    Parameters
    ----------
    model : FactorTopy
        With its token statistics and response scale set.
    config : TrainConfig
        Loss, learning rates, regulariser.
    planned_steps : int
        All optimiser steps of the run: the schedule and the regulariser's decay are fractions of it.

    Attributes
    ----------
    stepper : Stepper, optional
        Makes the steps in chunks, if `fit` has set one; otherwise the trainer does.
    shares : EncodingData, optional
        Knows this process's share of a batch; set by `fit` if that is not all of it.
    priors : list of Tensor or None
        For each model, the ``weight`` (V, D) to which a refit may shrink its own, see
        :func:`brainkit.training.refit.refit`; empty by default.
    all_reduce : callable, optional
        Sums over the processes that share every batch, if there are several; set by `fit`.
    """

    def __init__(self, model: FactorTopy, config: TrainConfig, planned_steps: int) -> None:
        super().__init__()
        self.model, self.config, self.planned_steps = model, config, planned_steps
        self.watch = LossWatch(torch.device("cpu"))
        self.validation: StreamingCorrelation | None = None
        self.stepper: Stepper | None = None
        self.shares: EncodingData | None = None
        self.priors: list[Tensor | None] = []
        self.all_reduce: SumOverProcesses | None = None

    def models(self) -> list[FactorTopy]:
        """The trained models, one for each subject."""
        return [self.model]

    def parts(self, data: EncodingData) -> list[tuple[FactorTopy, EncodingData]]:
        """Each subject's model and data."""
        return [(self.model, data)]

    def setup(self, stage: str) -> None:
        """Start to count losses, before a checkpoint may restore the count."""
        self.watch = LossWatch(self.device)

    def training_step(self, batch: Any, batch_index: int) -> Tensor | None:
        """Loss on responses in units of their own s.d., plus the decaying regulariser."""
        if self.stepper is not None:
            self.stepper.run(batch)
            return None
        share = self._share("train", batch_index, batch)
        loss = self.step_loss(batch, share)
        self.watch.add(loss.misfit.detach(), share.images)
        return loss.total

    def step_loss(self, batch: Batch, share: Share | None = None, model: FactorTopy | None = None) -> StepLoss:
        """The loss of a batch, or of this process's share of it; of several subjects, that of `model`."""
        model = self.model if model is None else model
        local, whole, response = batch
        selectors = model.selectors()
        prediction = model.standardised(local, whole, selectors)
        target = (response - model.response_mean) / model.response_std
        minimised, reported = misfit(self.config, prediction, target, share, self.all_reduce)
        if model.offsets is not None:
            minimised = minimised + self.config.offset_penalty / self._images() * model.offsets.penalty()
        weight = self.regulariser_weight()
        if weight is None:
            return StepLoss(minimised, reported)
        c = self.config
        regulariser = weight * selectors.regularity(entropy=c.regulariser_entropy, middle=c.regulariser_scale)
        return StepLoss(minimised + regulariser, reported)

    def _images(self) -> float:
        """About how many training images an epoch has: the loss is their mean, and so is less of a prior's weight."""
        return self.planned_steps / self.config.epochs * self.config.batch_size

    def regulariser_weight(self) -> float | Tensor | None:
        """Weight of the regulariser in this step; None once it is 0. A tensor where a stepper makes the steps."""
        if self.stepper is not None:
            return self.stepper.regulariser
        return schedule.regulariser_weight(self.config, self.global_step, self.planned_steps) or None

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_index: int) -> None:
        """Log the mean loss of the epoch with its last batch; until then it stays on the device."""
        if self.trainer.is_last_batch:
            self.log(
                "train_loss", distributed.merged_losses(self.watch).mean(), on_step=False, on_epoch=True, batch_size=1
            )

    def on_train_epoch_end(self) -> None:
        """Start the mean of the next epoch's losses."""
        self.watch.next_epoch()

    def on_validation_epoch_start(self) -> None:
        """Start the streamed score."""
        self.validation = streaming_correlation(len(self.model.weight), self.device)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Add a batch to the streamed score."""
        local, whole, response = batch
        assert self.validation is not None
        if self._share("validation", batch_index, batch).images:
            self.validation.update(self.model(local, whole), response)

    def on_validation_epoch_end(self) -> None:
        """Log the mean correlation over vertices; a vertex that never varied counts as 0."""
        assert self.validation is not None
        self.validation = distributed.merged_correlation(self.validation)
        self.log("val_r", self.validation.r.nan_to_num(0.0).mean().float())

    def configure_callbacks(self) -> list[lightning.Callback]:
        """The average of the weights and early stopping, if the settings ask for them; any Trainer picks them up."""
        chosen: list[lightning.Callback] = [WeightAverage(self.config.ema)] if self.config.ema else []
        return chosen + ([Patience(self.config.patience)] if self.config.patience else [])

    def configure_optimizers(self) -> Any:
        """AdamW with a learning rate for each part, linear warm-up and the schedule."""
        groups: dict[str, list[Tensor]] = {"selectors": [], "free": [], "weight": [], "bottleneck": [], "bias": []}
        seen: set[int] = set()
        for model in self.models():
            for name, parameter in model.named_parameters():
                if id(parameter) in seen:
                    continue  # shared by several subjects
                seen.add(id(parameter))
                if "_bottleneck." in name:
                    groups["bottleneck"].append(parameter)
                elif name.startswith(("free_selectors.", "offsets.")):
                    groups["free"].append(parameter)
                else:
                    groups[name if name in ("weight", "bias") else "selectors"].append(parameter)
        c = self.config
        rates = {
            "selectors": (c.lr_selectors, c.weight_decay_selectors),
            "free": (c.lr_free_selectors, c.weight_decay_selectors),
            "weight": (c.lr_weight, c.weight_decay),
            "bottleneck": (c.lr_bottleneck, c.weight_decay),
            "bias": (c.lr_bottleneck, 0.0),
        }
        optimizer = torch.optim.AdamW(
            [
                {"params": groups[part], "lr": lr, "weight_decay": decay}
                for part, (lr, decay) in rates.items()
                if groups[part]
            ],
            fused=self.device.type in _FUSED,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._learning_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the epoch's losses so far; a stepper saves what the trainer would."""
        checkpoint["losses"] = distributed.merged_losses(self.watch).state_dict()
        if self.stepper is not None:
            self.stepper.complete_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the losses; the optimiser is fused where this device has that, whatever device saved it."""
        if "losses" in checkpoint:
            self.watch.load_state_dict(distributed.own_losses(checkpoint["losses"]))
        for state in checkpoint.get("optimizer_states", []):
            for group in state["param_groups"]:
                group["fused"] = self.device.type in _FUSED

    def _learning_rate_factor(self, step: int) -> float:
        return schedule.learning_rate_factor(self.config, step, self.planned_steps)

    def _share(self, side: str, batch_index: int, batch: Batch) -> Share:
        return Share(1.0, len(batch[2])) if self.shares is None else self.shares.share(side, batch_index)
