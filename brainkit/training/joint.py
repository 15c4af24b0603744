"""Several subjects trained as one model: shared bottlenecks, and selectors and a readout for each subject."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn

from brainkit.config import TrainConfig
from brainkit.errors import UsageError
from brainkit.metrics.correlation import StreamingCorrelation
from brainkit.model.factor_topy import FactorTopy
from brainkit.training import distributed
from brainkit.training.datamodule import VALIDATION_BATCH, Batch, EncodingData, batches_done
from brainkit.training.lightning_internals import TrainerLoader
from brainkit.training.module import EncodingModule
from brainkit.training.running_stats import streaming_correlation
from brainkit.training.shares import Share
from brainkit.training.transfer import SHARED


class JointModel(nn.Module):
    """A :class:`FactorTopy` for each subject, whose bottlenecks and token statistics are the same objects.

    So each is a complete model, which is folded and exported like any other. The state dict holds the shared tensors
    once, with the first subject.

    Parameters
    ----------
    models : sequence of FactorTopy
        Of the same layers, widths, grid and bottleneck; they share those of the first one from now on.
    """

    def __init__(self, models: Sequence[FactorTopy]) -> None:
        super().__init__()
        first, *others = models
        for model in others:
            if (model.widths, model.grid, model.weight.shape[1]) != (first.widths, first.grid, first.weight.shape[1]):
                raise UsageError("models must have the same layers, widths, grid and bottleneck to share bottlenecks")
            for name in SHARED:
                setattr(model, name, getattr(first, name))
        self.subjects = nn.ModuleList(models)
        self.register_state_dict_post_hook(_drop_shared)
        self.register_load_state_dict_pre_hook(_restore_shared)

    def models(self) -> Iterator[FactorTopy]:
        """The subjects' models."""
        for model in self.subjects:
            assert isinstance(model, FactorTopy)
            yield model


class JointModule(EncodingModule):
    """Trains the models of several subjects: the loss of a step is the mean of theirs.

    Parameters
    ----------
    models : sequence of FactorTopy
        With their response scales set, and token statistics over the images of all subjects.
    config : TrainConfig
    planned_steps : int
        All optimiser steps of the run.
    """

    def __init__(self, models: Sequence[FactorTopy], config: TrainConfig, planned_steps: int) -> None:
        super().__init__(JointModel(models), config, planned_steps)  # type: ignore[arg-type]
        self.scores: list[StreamingCorrelation] = []

    def models(self) -> list[FactorTopy]:
        assert isinstance(self.model, JointModel)
        return list(self.model.models())

    def parts(self, data: Any) -> list[tuple[FactorTopy, EncodingData]]:
        return list(zip(self.models(), data.parts, strict=True))

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """Mean over subjects of their losses; a subject with no image in this batch adds nothing."""
        losses, misfits, images = [], [], 0
        for model, part, share in zip(self.models(), batch, self._shares("train", batch_index), strict=True):
            loss = self.step_loss(part, share, model)
            misfits.append(loss.misfit.detach() * share.images)
            images += share.images
            losses.append(loss.total)
        self.watch.add(torch.stack(misfits).sum() / max(images, 1), images)
        return torch.stack(losses).mean()

    def on_validation_epoch_start(self) -> None:
        """Start the streamed scores."""
        self.scores = [streaming_correlation(len(model.weight), self.device) for model in self.models()]

    def validation_step(self, batch: Any, batch_index: int) -> None:
        """Add a batch of each subject to its score."""
        shares = self._shares("validation", batch_index)
        for model, score, (local, whole, response), share in zip(
            self.models(), self.scores, batch, shares, strict=True
        ):
            if share.images:
                score.update(model(local, whole), response)

    def on_validation_epoch_end(self) -> None:
        """Log the mean over subjects of their mean correlation over vertices."""
        self.scores = [distributed.merged_correlation(score) for score in self.scores]
        each = torch.stack([score.r.nan_to_num(0.0).mean() for score in self.scores])
        self.log("val_r", each.mean().float())

    def _shares(self, side: str, batch_index: int) -> list[Share]:
        data: Any = self.shares
        return [part.share(side, batch_index) for part in data.parts]


class JointData(lightning.LightningDataModule):
    """Batches of several subjects: every step has some of each subject's images, spread evenly over the epoch.

    An epoch has as many steps as the subject with most images needs for batches of ``batch_size``, and has every image
    of every subject once.

    Parameters
    ----------
    parts : sequence of EncodingData
        One for each subject, with the same batch size.
    """

    def __init__(self, parts: Sequence[EncodingData]) -> None:
        super().__init__()
        self.parts = list(parts)
        self.batch_size = parts[0].batch_size
        self.resume_at = (0, 0)
        for part in self.parts:
            part.batches = (self.steps, max(-(-len(each.split.validation) // VALIDATION_BATCH) for each in parts))

    @property
    def steps(self) -> int:
        """Training steps of a whole epoch."""
        return max(-(-len(part.split.train) // self.batch_size) for part in self.parts)

    def divide(self, rank: int, processes: int) -> None:
        """From now on give process number `rank` of several its share of every batch."""
        for part in self.parts:
            part.divide(rank, processes)

    def train_dataloader(self) -> JointLoader:
        """Training batches of all subjects side by side."""
        first_batch = batches_done(self.resume_at, self.trainer)
        return JointLoader([part.train_batches(first_batch) for part in self.parts])

    def val_dataloader(self) -> JointLoader:
        """Validation batches of all subjects side by side."""
        return JointLoader([part.val_dataloader() for part in self.parts])


class JointLoader(TrainerLoader):
    """Several loaders side by side, as one.

    Parameters
    ----------
    loaders : sequence of loaders
        With the same number of batches, each with a ``sampler`` that has ``set_epoch``.
    """

    def __init__(self, loaders: Sequence[Any]) -> None:
        self.loaders = list(loaders)
        self.sampler = self

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        for loader in self.loaders:
            loader.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.loaders[0])

    def __iter__(self) -> Iterator[tuple[Batch, ...]]:
        return zip(*self.loaders, strict=True)


def _drop_shared(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    assert isinstance(module, JointModel)
    for key in _shared_keys(state, prefix, len(module.subjects)):
        del state[key]


def _restore_shared(
    module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any, strict: bool, *rest: Any
) -> None:
    assert isinstance(module, JointModel)
    first = f"{prefix}subjects.0."
    for key in [key for key in state if key.startswith(tuple(f"{first}{name}." for name in SHARED))]:
        for k in range(1, len(module.subjects)):
            state[f"{prefix}subjects.{k}.{key.removeprefix(first)}"] = state[key]


def _shared_keys(state: dict[str, Any], prefix: str, count: int) -> list[str]:
    starts = tuple(f"{prefix}subjects.{k}.{name}." for k in range(1, count) for name in SHARED)
    return [key for key in state if key.startswith(starts)] if starts else []
