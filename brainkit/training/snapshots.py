"""What vertices select, kept a few dozen times while a run trains, for an animation of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch

from brainkit.utils.files import atomic_write

COUNT = 36  # snapshots of a run, besides that of its start


class SelectorSnapshots(lightning.Callback):
    """Writes ``<step>.npz`` with layer weights, locations and scale of every vertex, denser at the start of training.

    It belongs to the trainer, not to the module, and looks at whatever steps the trainer reports: steps are made in
    chunks as without it. It draws no random numbers and changes no weights, so the result stays the same.

    Parameters
    ----------
    folders : sequence of Path
        One for each of the module's models. Created here.
    planned_steps : int
        All steps of the run.
    """

    def __init__(self, folders: Sequence[Path], planned_steps: int) -> None:
        self.folders = folders
        self.due = np.unique(np.rint(planned_steps * (np.arange(COUNT + 1) / COUNT) ** 1.5).astype(np.int64))

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        for folder in self.folders:
            folder.mkdir(exist_ok=True)
        step = trainer.global_step
        if step:  # resumed
            self.due = self.due[self.due > step]
        else:
            self._write_due(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, *rest: Any
    ) -> None:
        self._write_due(trainer, pl_module)

    @torch.no_grad()
    def _write_due(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        step = trainer.global_step
        if not len(self.due) or step < self.due[0]:
            return
        self.due = self.due[self.due > step]
        for folder, model in zip(self.folders, pl_module.models(), strict=True):
            selectors = model.selectors()
            with atomic_write(folder / f"{step:08d}.npz") as temporary:
                np.savez_compressed(
                    temporary,
                    # 1/255 is finer than any figure shows.
                    layer_weights=(255 * selectors.layer_weights).round().byte().cpu().numpy(),
                    locations=selectors.locations.half().cpu().numpy(),
                    scale=selectors.scale.half().cpu().numpy(),
                )
