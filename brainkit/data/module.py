"""Batches for training: tokens and responses of the images of one side of the split, in a seeded order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from brainkit.data.shares import Share, share_of, weight_of
from brainkit.data.splits import Split

Batch = tuple[dict[str, Tensor], dict[str, Tensor], Tensor]


class TokenSource(Protocol):
    """Anything that gives the tokens of chosen images, as the token cache does."""

    def batch(self, rows: np.ndarray) -> tuple[dict[str, Tensor], dict[str, Tensor]]: ...


class ResponseSource(Protocol):
    """Anything that gives the responses (k, V) to chosen images."""

    def rows(self, index: np.ndarray) -> np.ndarray: ...


class EpochOrder(Sampler[list[int]]):
    """Batches of positions, shuffled anew every epoch by (seed, epoch) alone, so that a resumed run sees the same.

    With several processes each has its share of every batch, whatever their number.
    """

    def __init__(self, count: int, batch_size: int, seed: int | None, rank: int = 0, processes: int = 1) -> None:
        self.count, self.batch_size, self.seed, self.epoch = count, batch_size, seed, 0
        self.rank, self.processes = rank, processes

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.count)
        if self.seed is not None:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        for start in range(0, self.count, self.batch_size):
            yield share_of(order[start : start + self.batch_size], self.rank, self.processes).tolist()

    def share(self, batch_index: int) -> Share:
        """What this process does of a batch of the epoch."""
        images = min(self.batch_size, self.count - batch_index * self.batch_size)
        return weight_of(images, self.rank, self.processes)


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


class EncodingData(lightning.LightningDataModule):
    """Loaders for the three sides of a split.

    Parameters
    ----------
    tokens : TokenSource
        Gives ``batch(rows)``, for example :class:`brainkit.features.TokenCache`.
    responses : ResponseSource
        Gives ``rows(index)`` as float32 (k, V), for example ``subject.responses``.
    split : Split
        Rows for training, validation and test.
    batch_size : int
        Images of a training step.
    seed : int
        Decides the order of the training images.
    """

    def __init__(
        self, tokens: TokenSource, responses: ResponseSource, split: Split, *, batch_size: int = 32, seed: int = 0
    ) -> None:
        super().__init__()
        self.tokens, self.responses, self.split = tokens, responses, split
        self.batch_size, self.seed = batch_size, seed
        self.rank, self.processes = 0, 1

    def divide(self, rank: int, processes: int) -> None:
        """From now on give process number `rank` of several its share of every batch."""
        self.rank, self.processes = rank, processes

    def share(self, side: str, batch_index: int) -> Share:
        """What this process does of a batch of the ``train``, ``validation`` or ``test`` images."""
        return self._order(side).share(batch_index)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Training batches, shuffled by (seed, epoch)."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Batch]:
        """Validation batches, in order."""
        return self._loader("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test batches, in order."""
        return self._loader("test")

    def _loader(self, side: str) -> DataLoader[Batch]:
        dataset = EncodingDataset(self.tokens, self.responses, getattr(self.split, side))
        return DataLoader(dataset, batch_size=None, sampler=self._order(side))

    def _order(self, side: str) -> EpochOrder:
        count = len(getattr(self.split, side))
        size, seed = (self.batch_size, self.seed) if side == "train" else (64, None)
        return EpochOrder(count, size, seed, self.rank, self.processes)
