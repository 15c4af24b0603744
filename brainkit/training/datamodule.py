"""Batches for training: tokens and responses of one side of the split, in a seeded order."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from brainkit.data.split import Split
from brainkit.training.lightning_internals import TrainerLoader
from brainkit.training.shares import Share, positions_of, share_of

Batch = tuple[dict[str, Tensor], dict[str, Tensor], Tensor]  # local tokens, global tokens, responses (B, V)
VALIDATION_BATCH = 64  # images of a validation batch


class TokenSource(Protocol):
    """Anything that gives the tokens of chosen images, as the token cache does."""

    def batch(self, rows: np.ndarray) -> tuple[dict[str, Tensor], dict[str, Tensor]]: ...


class ResponseSource(Protocol):
    """Anything that gives the responses (k, V) to chosen images."""

    def rows(self, index: np.ndarray) -> np.ndarray: ...


class BatchSource(Protocol):
    """Gives the batches of chosen images faster than a loader does: see `brainkit.training.batch_source`."""

    def stage(self, rows: Iterable[np.ndarray]) -> Iterator[tuple[Tensor, ...]]:
        """Tensors on the device for each batch of rows, in order; the next ones may be read meanwhile."""

    def finish(self, staged: tuple[Tensor, ...]) -> Batch:
        """A batch from its staged tensors, by work on the device alone."""


class EpochOrder(Sampler[list[int]]):
    """Batches of positions, shuffled by (seed, epoch) alone, so that a resumed run sees the same.

    Parameters
    ----------
    count : int
        Images.
    batch_size : int
    seed : int, optional
        None keeps the images in order.
    start : int
        Batches at the start of the epoch that are left out, because an interrupted run has done them.
    rank, processes : int
        This process, and how many share every batch.
    batches : int, optional
        Cut the epoch into so many near-equal batches, whatever `batch_size`. If there are fewer images than that, an
        empty batch repeats one image, and its share counts none.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int | None,
        start: int = 0,
        rank: int = 0,
        processes: int = 1,
        batches: int | None = None,
    ) -> None:
        self.count, self.batch_size, self.seed, self.epoch = count, batch_size, seed, 0
        self.start, self.rank, self.processes = start, rank, processes
        full, rest = divmod(count, batch_size)
        self.sizes = [batch_size] * full + [rest] * (rest > 0)
        if batches is not None:
            self.sizes = [count // batches + (k < count % batches) for k in range(batches)]

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sizes) - self.start

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.count)
        if self.seed is not None:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        first = sum(self.sizes[: self.start])
        for size in self.sizes[self.start :]:
            batch = order[first : first + size] if size else order[:1]
            yield positions_of(batch, self.rank, self.processes).tolist()
            first += size

    def share(self, index: int) -> Share:
        """This process's share of a batch, counted from the first one that is not left out."""
        return share_of(self.sizes[self.start + index], self.rank, self.processes)


class EncodingDataset(Dataset[Batch]):
    """Images of one side of the split; indexed by a list of positions, it gives a whole batch at once."""

    def __init__(self, tokens: TokenSource, responses: ResponseSource, rows: np.ndarray) -> None:
        self.tokens, self.responses, self.row_index = tokens, responses, np.asarray(rows)

    def __len__(self) -> int:
        return len(self.row_index)

    def __getitem__(self, positions: list[int]) -> Batch:
        # Sorted, because the sources are memory-mapped; the order within a batch does not matter.
        rows = np.sort(self.row_index[positions])
        local, whole = self.tokens.batch(rows)
        return local, whole, torch.from_numpy(np.ascontiguousarray(self.responses.rows(rows)))


class SourceLoader(TrainerLoader):
    """Batches of one side of the split from a `BatchSource`, for a trainer in place of a ``DataLoader``.

    Parameters
    ----------
    source : BatchSource
    rows : int array
        The images of the side.
    sampler : EpochOrder
        Their order; the trainer sets its epoch.
    chunk : int
        0 gives finished batches; otherwise iterators over so many staged ones, for a module with a stepper.
    """

    def __init__(self, source: BatchSource, rows: np.ndarray, sampler: EpochOrder, chunk: int = 0) -> None:
        self.source, self.rows, self.sampler, self.chunk = source, np.asarray(rows), sampler, chunk

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.chunk) if self.chunk else len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        # Sorted, because memory maps are read forwards; the order within a batch does not matter.
        staged = self.source.stage(np.sort(self.rows[positions]) for positions in self.sampler)
        if not self.chunk:
            yield from map(self.source.finish, staged)
            return
        for _ in range(len(self)):
            yield itertools.islice(staged, self.chunk)


class EncodingData(lightning.LightningDataModule):
    """Loaders for the three sides of a split.

    Parameters
    ----------
    tokens : TokenSource
        Gives ``batch(rows)``, for example :class:`brainkit.features.extract.TokenCache`.
    responses : ResponseSource
        Gives ``rows(index)`` as float32 (k, V), for example ``subject.responses``.
    split : Split
        Rows for training, validation and test.
    batch_size : int
        Images of a training step.
    seed : int
        Decides the order of the training images.

    Attributes
    ----------
    source : BatchSource, optional
        Gives the batches of the training and validation sides in place of tokens and responses.
    chunk : int
        For a module with a stepper: how many steps it is given at a time.
    resume_at : (int, int)
        An epoch, from 0, and how many of its batches an interrupted run has done.
    """

    def __init__(
        self, tokens: TokenSource, responses: ResponseSource, split: Split, *, batch_size: int = 32, seed: int = 0
    ) -> None:
        super().__init__()
        self.tokens, self.responses, self.split = tokens, responses, split
        self.batch_size, self.seed = batch_size, seed
        self.source: BatchSource | None = None
        self.chunk = 0
        self.resume_at = (0, 0)
        self.first_batch = 0  # of the training epoch under way
        self.rank, self.processes = 0, 1
        # Batches of a training and a validation epoch, if not by size: see `brainkit.training.joint`.
        self.batches: tuple[int | None, int | None] = (None, None)

    def __repr__(self) -> str:
        return f"EncodingData({self.split!r}, batches of {self.batch_size})"

    def divide(self, rank: int, processes: int) -> None:
        """From now on give process number `rank` of several its share of every batch."""
        self.rank, self.processes = rank, processes

    def share(self, side: str, batch_index: int) -> Share:
        """This process's share of a batch of the ``train``, ``validation`` or ``test`` images."""
        return self._order(side).share(batch_index)

    @property
    def steps(self) -> int:
        """Training steps of a whole epoch."""
        return -(-len(self.split.train) // self.batch_size)

    def train_dataloader(self) -> DataLoader[Batch] | SourceLoader:
        """Training batches, shuffled by (seed, epoch); of a resumed epoch, those that are left."""
        return self.train_batches(batches_done(self.resume_at, self.trainer))

    def train_batches(self, first_batch: int) -> DataLoader[Batch] | SourceLoader:
        """Training batches without those before `first_batch`."""
        self.first_batch = first_batch
        return self._loader("train", self.chunk)

    def val_dataloader(self) -> DataLoader[Batch] | SourceLoader:
        """Validation batches, in order."""
        return self._loader("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test batches, in order, from the disk."""
        return self._from_disk("test")

    def _loader(self, side: str, chunk: int = 0) -> DataLoader[Batch] | SourceLoader:
        if self.source is None:
            return self._from_disk(side)
        return SourceLoader(self.source, getattr(self.split, side), self._order(side), chunk)

    def _from_disk(self, side: str) -> DataLoader[Batch]:
        dataset = EncodingDataset(self.tokens, self.responses, getattr(self.split, side))
        # With a generator of its own, because a loader draws a number whenever it begins: a resumed run would
        # otherwise draw other numbers than one that was not interrupted.
        generator = torch.Generator()
        return DataLoader(dataset, batch_size=None, sampler=self._order(side), generator=generator)

    def _order(self, side: str) -> EpochOrder:
        count, process = len(getattr(self.split, side)), (self.rank, self.processes)
        train, validation = self.batches
        if side != "train":
            return EpochOrder(count, VALIDATION_BATCH, None, 0, *process, validation if side == "validation" else None)
        return EpochOrder(count, self.batch_size, self.seed, self.first_batch, *process, train)


def batches_done(resume_at: tuple[int, int], trainer: lightning.Trainer | None) -> int:
    """How many batches of the trainer's current epoch an interrupted run has done."""
    epoch, done = resume_at
    return done if trainer is not None and trainer.current_epoch == epoch else 0
