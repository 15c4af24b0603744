"""Fitting the model: a Lightning module that only trains, and the trainer around it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from brainkit import objective
from brainkit.averaging import WeightAverage
from brainkit.calibration import calibrate_checkpoint
from brainkit.checkpoints import AtomicCheckpoints, Keeper
from brainkit.config import TrainConfig
from brainkit.data.module import Batch, EncodingData
from brainkit.errors import TrainingError, UsageError
from brainkit.metrics import StreamingScore
from brainkit.model import FactorTopy, read_checkpoint
from brainkit.stopping import Patience


class EncodingModule(lightning.LightningModule):
    """Trains a :class:`FactorTopy`; usable with any ``Trainer``.

    Parameters
    ----------
    model : FactorTopy
        Its token statistics and response scale are set already.
    config : TrainConfig
        Loss, learning rates, regulariser.
    planned_steps : int
        All optimiser steps of the run: the schedule and the regulariser's decay are shares of it.
    """

    def __init__(self, model: FactorTopy, config: TrainConfig, planned_steps: int) -> None:
        super().__init__()
        self.model, self.config, self.planned_steps = model, config, planned_steps
        self.validation: StreamingScore | None = None

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Loss on responses in units of their own s.d., plus the decaying regulariser."""
        misfit, regulariser = self.losses(batch)
        self.log("train_loss", misfit.detach(), on_step=False, on_epoch=True, batch_size=len(batch[2]))
        return misfit if regulariser is None else misfit + regulariser

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """What a step minimises: the misfit, a scalar, and the regulariser's share, None once it has decayed."""
        local, whole, response = batch
        selectors = self.model.selectors()
        prediction = self.model.standardised(local, whole, selectors)
        target = (response - self.model.response_mean) / self.model.response_std
        misfit = objective.misfit(self.config, prediction, target)
        weight = objective.regulariser_weight(self.config, self.global_step, self.planned_steps)
        if not weight:
            return misfit, None
        c = self.config
        return misfit, weight * selectors.regularity(entropy=c.regulariser_entropy, middle=c.regulariser_scale)

    def configure_callbacks(self) -> list[lightning.Callback]:
        """The average of the weights and early stopping, if asked for: any Trainer takes them up."""
        chosen: list[lightning.Callback] = [WeightAverage(self.config.ema)] if self.config.ema else []
        return chosen + ([Patience(self.config.patience)] if self.config.patience else [])

    def on_validation_epoch_start(self) -> None:
        """Start the streamed score anew."""
        self.validation = StreamingScore(len(self.model.weight))

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Add a batch to the streamed score."""
        local, whole, response = batch
        assert self.validation is not None
        self.validation.update(self.model(local, whole).float().cpu().numpy(), response.cpu().numpy())

    def on_validation_epoch_end(self) -> None:
        """Log the mean correlation over vertices; a vertex that never varied counts as 0."""
        assert self.validation is not None
        r = torch.from_numpy(self.validation.r).nan_to_num(0.0).mean()
        self.log("val_r", r.float())

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with a learning rate for each part, linear warm-up and the schedule."""
        groups: dict[str, list[Tensor]] = {"selectors": [], "weight": [], "bottleneck": [], "bias": []}
        for name, parameter in self.model.named_parameters():
            if "_bottleneck." in name:
                groups["bottleneck"].append(parameter)
            else:
                groups[name if name in ("weight", "bias") else "selectors"].append(parameter)
        c = self.config
        selectors = c.lr_selectors if self.model.free_selectors is None else c.lr_free_selectors
        rates = {
            "selectors": (selectors, c.weight_decay_selectors),
            "weight": (c.lr_weight, c.weight_decay),
            "bottleneck": (c.lr_bottleneck, c.weight_decay),
            "bias": (c.lr_bottleneck, 0.0),
        }
        optimizer = torch.optim.AdamW(
            [{"params": groups[part], "lr": lr, "weight_decay": decay} for part, (lr, decay) in rates.items()],
            fused=self.device.type in ("cpu", "cuda"),
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return OptimizerLRSchedulerConfig(optimizer=optimizer, lr_scheduler={"scheduler": schedule, "interval": "step"})

    def _rate(self, step: int) -> float:
        return objective.rate(self.config, step, self.planned_steps)


def fit(
    module: EncodingModule,
    data: EncodingData,
    folder: Path,
    *,
    device: str = "cpu",
    resume: bool = False,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Path:
    """Train, leaving ``checkpoints/last.ckpt``, ``checkpoints/best.ckpt`` and ``metrics.csv`` in `folder`.

    Parameters
    ----------
    module : EncodingModule
        What is trained, in place.
    data : EncodingData
        Where batches come from.
    folder : Path
        The run folder.
    device : str
        cpu, cuda or mps.
    resume : bool
        Go on from ``last.ckpt`` if there is one.
    on_epoch : callable, optional
        Called after each validation with ``epoch``, ``train_loss``, ``val_r``, ``seconds``.
    on_step : callable, optional
        Called after each optimiser step, with their number so far.

    Returns
    -------
    Path
        The best checkpoint by validation score.

    Raises
    ------
    TrainingError
        If the loss is no longer finite; names the step and the last good checkpoint.
    KeyboardInterrupt
        If it is stopped by Ctrl-C; ``last.ckpt`` holds the last complete epoch.
    """
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    last = checkpoints / "last.ckpt"
    keeper = Keeper(checkpoints, folder / "metrics.csv", on_epoch, on_step)
    with _quiet_lightning(), _own_determinism():
        trainer = lightning.Trainer(
            accelerator={"cuda": "gpu"}.get(device, device),
            devices=1,
            max_epochs=module.config.epochs,
            gradient_clip_val=module.config.clip or None,
            callbacks=[keeper],
            plugins=[AtomicCheckpoints()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
            deterministic=True,
        )
        start = str(last) if resume and last.is_file() else None
        _fit_or_interrupt(trainer, module, data, start)
    best = checkpoints / "best.ckpt"
    if module.config.loss == "pearson":
        calibrate_checkpoint(module, best, data)
    return best


def load_best(module: EncodingModule, checkpoint: Path) -> None:
    """Bring the module to the weights of a checkpoint, read with ``weights_only=True``."""
    module.load_state_dict(read_checkpoint(checkpoint)["state_dict"])


def choose_device(wanted: str) -> str:
    """Resolve ``auto``: CUDA, then Apple's MPS, then the CPU.

    Raises
    ------
    UsageError
        If a device is asked for that is not here.
    """
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if here[device])
    if not here.get(wanted, False):
        raise UsageError(f"device {wanted!r} is not here; found: {', '.join(d for d, ok in here.items() if ok)}")
    return wanted


@contextlib.contextmanager
def _own_determinism() -> Iterator[None]:
    """Put torch's deterministic mode back after a trainer, which turns it on for the whole process.

    Memory that is written before it is read need not be filled first, as that mode would.
    """
    before = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def _fit_or_interrupt(
    trainer: lightning.Trainer, module: EncodingModule, data: EncodingData, checkpoint: str | None
) -> None:
    """Run the trainer; Ctrl-C comes out as KeyboardInterrupt, where Lightning leaves by SystemExit."""
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    except SystemExit:
        if trainer.received_sigterm:
            raise TrainingError("stopped by SIGTERM; brainkit train --resume goes on from the last epoch") from None
        if not trainer.interrupted:
            raise
    if trainer.interrupted:
        raise KeyboardInterrupt


class _quiet_lightning:
    """Silence the trainer's notices about hardware, loaders and tips, and put the loggers back after."""

    names = ("pytorch_lightning", "lightning", "lightning_fabric", "lightning.pytorch")

    def __enter__(self) -> None:
        import logging
        import warnings

        self.levels = {name: logging.getLogger(name).level for name in self.names}
        for name in self.names:
            logging.getLogger(name).setLevel(logging.ERROR)
        self.warnings = warnings.catch_warnings()
        self.warnings.__enter__()
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning")
        os.environ.setdefault("PL_DISABLE_FORK", "1")

    def __exit__(self, *error: Any) -> None:
        import logging

        self.warnings.__exit__(None, None, None)
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)
