"""Batches: the order of every epoch, rows that belong together, shares of several processes."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from small_models import problem

from brainkit.training.datamodule import EpochOrder
from brainkit.training.shares import positions_of, share_of


def test_every_epoch_has_its_own_order() -> None:
    order = EpochOrder(10, 4, seed=3)
    epochs = []
    for epoch in (0, 1, 0):
        order.set_epoch(epoch)
        batches = list(order)
        assert [len(batch) for batch in batches] == [4, 4, 2]
        assert len(order) == 3
        epochs.append(np.concatenate(batches).tolist())
    assert epochs[0] == epochs[2] != epochs[1]
    assert sorted(epochs[1]) == list(range(10))
    assert list(EpochOrder(10, 4, seed=None)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_rows_of_tokens_and_responses_belong_together() -> None:
    _, data = problem()
    local, whole, response = next(iter(data.val_dataloader()))
    rows = np.arange(24, 32)
    expected_local, expected_whole = data.tokens.batch(rows)
    assert all(torch.equal(local[k], expected_local[k]) and torch.equal(whole[k], expected_whole[k]) for k in local)
    np.testing.assert_array_equal(response.numpy(), data.responses.rows(rows))
    assert len(next(iter(data.test_dataloader()))[2]) == 8


@pytest.mark.parametrize("images", [1, 2, 3, 7, 32])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_make_up_the_batch(images: int, count: int) -> None:
    batch = np.arange(100, 100 + images)
    parts = [positions_of(batch, rank, count) for rank in range(count)]
    shares = [share_of(images, rank, count) for rank in range(count)]
    assert all(len(part) for part in parts) and all(share.images <= images for share in shares)
    worked_on = [part for part, share in zip(parts, shares, strict=True) if share.weight]
    np.testing.assert_array_equal(np.concatenate(worked_on), batch)
    values = np.random.default_rng(0).standard_normal(200)
    mean = sum(share.weight * values[part].mean() for part, share in zip(parts, shares, strict=True)) / count
    assert mean == pytest.approx(values[batch].mean())


def test_the_order_of_one_process_is_what_it_was_and_the_shares_are_of_the_same_batches() -> None:
    alone, shared = EpochOrder(10, 4, seed=3), [EpochOrder(10, 4, 3, 0, rank, 2) for rank in range(2)]
    batches = list(alone)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    for index, (batch, *parts) in enumerate(zip(batches, *shared, strict=True)):
        assert [position for part in parts for position in part] == batch
        assert [order.share(index).weight for order in shared] == [1.0, 1.0]
        assert alone.share(index) == (1.0, len(batch))
