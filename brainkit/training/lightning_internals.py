"""Every private door of Lightning (and of torch) that training needs, each with its reason."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as lightning
import torch


def count_steps(trainer: lightning.Trainer, steps: int) -> None:
    """Add optimiser steps to ``trainer.global_step``, which has no setter; a stepper makes them itself."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total
    progress.ready, progress.completed = progress.ready + steps, progress.completed + steps


def begin_after(checkpoint: dict[str, Any], epochs: int, steps: int) -> None:
    """Let a trainer that loads this checkpoint begin the epoch after so many whole ones, counting from `steps`.

    Lightning's own loops restart in the middle of an epoch by skipping batches; our data starts at the right one.
    """
    loop = checkpoint["loops"]["fit_loop"]
    counts = ("ready", "started", "processed", "completed")
    loop["epoch_progress"] = {part: dict.fromkeys(counts, epochs) for part in ("total", "current")}
    done = {"ready": steps, "completed": steps}
    # Steps are counted in one of two places, depending on who makes them; a run may be resumed the other way.
    loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"] = dict(done)
    loop["epoch_loop.manual_optimization.optim_step_progress"]["total"] = dict(done)


class TrainerLoader:
    """Base of loaders that are no ``DataLoader``: a trainer reads ``batch_sampler`` of all that have a ``sampler``."""

    batch_sampler = None


def datamodule_of(trainer: lightning.Trainer) -> Any:
    """The data module of ``trainer.fit(..., datamodule=)``: an attribute that the trainer's types do not declare."""
    return trainer.datamodule  # type: ignore[attr-defined]


@contextlib.contextmanager
def restored_determinism() -> Iterator[None]:
    """Restore torch's deterministic mode after a trainer, which turns it on for the whole process.

    Meanwhile new memory is not filled first, as that mode would: everything is written before it is read.
    """
    before = torch.are_deterministic_algorithms_enabled()
    settings: Any = torch.utils.deterministic  # type: ignore[attr-defined]
    filled, settings.fill_uninitialized_memory = settings.fill_uninitialized_memory, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        settings.fill_uninitialized_memory = filled


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence the trainer's notices about hardware, loaders and tips."""
    loggers = [
        logging.getLogger(name) for name in ("pytorch_lightning", "lightning", "lightning_fabric", "lightning.pytorch")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning|lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
