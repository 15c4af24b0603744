"""Fitting the model: a Lightning module that only trains, and the trainer around it."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn import functional as F

from brainkit.config import TrainConfig
from brainkit.data.module import Batch, EncodingData
from brainkit.errors import TrainingError, UsageError
from brainkit.files import write_beside
from brainkit.metrics import StreamingScore
from brainkit.model import FactorTopy, read_checkpoint

SMOOTH_L1_BETA = 0.1


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
        if self.config.loss == "mse":
            misfit = F.mse_loss(prediction, target)
        else:
            misfit = F.smooth_l1_loss(prediction, target, beta=SMOOTH_L1_BETA)
        decay = max(0.0, 1 - self.global_step / (self.config.regulariser_end * self.planned_steps))
        if self.config.regulariser * decay == 0:
            return misfit, None
        return misfit, self.config.regulariser * decay * selectors.regularity()

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
        """AdamW with a learning rate for each part, linear warm-up and cosine fall."""
        groups: dict[str, list[Tensor]] = {"selectors": [], "weight": [], "bottleneck": [], "bias": []}
        for name, parameter in self.model.named_parameters():
            if "selector_mlp" in name:
                groups["selectors"].append(parameter)
            else:
                groups[name if name in ("weight", "bias") else "bottleneck"].append(parameter)
        c = self.config
        rates = {
            "selectors": (c.lr_selectors, c.weight_decay_selectors),
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
        warmup = min(1.0, (step + 1) / (self.config.warmup * self.planned_steps + 1))
        return warmup * 0.5 * (1 + math.cos(math.pi * min(step / self.planned_steps, 1.0)))


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
    keeper = _Keeper(checkpoints, folder / "metrics.csv", on_epoch, on_step)
    with _quiet_lightning(), _own_determinism():
        trainer = lightning.Trainer(
            accelerator={"cuda": "gpu"}.get(device, device),
            devices=1,
            max_epochs=module.config.epochs,
            gradient_clip_val=module.config.clip or None,
            callbacks=[keeper],
            plugins=[_AtomicCheckpoints()],
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
    return checkpoints / "best.ckpt"


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


class _AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints are written beside and renamed, and read without running any code in them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        # Through memory: on a full disk torch's own writer fails with a riddle, and Python's says what it is.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with write_beside(path) as beside:
            beside.write_bytes(content.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))


class _Keeper(lightning.Callback):
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
        if self.on_step is not None:
            self.on_step(trainer.global_step)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Runs after validation: the epoch is complete, and what is saved here can be gone on from."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if not all(math.isfinite(values.get(name, math.nan)) for name in ("train_loss", "val_r")):
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
        with write_beside(self.table) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)
        if self.on_epoch is not None:
            self.on_epoch(self.rows[-1])


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
