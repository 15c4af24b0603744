"""Batches for training: tokens and responses of the images of one side of the split, in a seeded order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from brainkit.data.splits import Split

Batch = tuple[dict[str, Tensor], dict[str, Tensor], Tensor]


class TokenSource(Protocol):
    """Anything that gives the tokens of chosen images, as the token cache does."""

    def batch(self, rows: np.ndarray) -> tuple[dict[str, Tensor], dict[str, Tensor]]: ...


class ResponseSource(Protocol):
    """Anything that gives the responses (k, V) to chosen images."""

    def rows(self, index: np.ndarray) -> np.ndarray: ...


class EpochOrder(Sampler[list[int]]):
    """Batches of positions, shuffled anew every epoch by (seed, epoch) alone, so that a resumed run sees the same."""

    def __init__(self, count: int, batch_size: int, seed: int | None) -> None:
        self.count, self.batch_size, self.seed, self.epoch = count, batch_size, seed, 0

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
            yield order[start : start + self.batch_size].tolist()


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

    def train_dataloader(self) -> DataLoader[Batch]:
        """Training batches, shuffled by (seed, epoch)."""
        return self._loader(self.split.train, self.batch_size, self.seed)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Validation batches, in order."""
        return self._loader(self.split.validation, 64, None)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test batches, in order."""
        return self._loader(self.split.test, 64, None)

    def _loader(self, rows: np.ndarray, size: int, seed: int | None) -> DataLoader[Batch]:
        dataset = EncodingDataset(self.tokens, self.responses, rows)
        return DataLoader(dataset, batch_size=None, sampler=EpochOrder(len(dataset), size, seed))
