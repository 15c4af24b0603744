"""Running sums on the device."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from brainkit.training.running_stats import LossWatch, streaming_correlation


def test_correlations_are_summed_in_the_precision_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype in (torch.float64, torch.float32):  # the second as on Apple's GPUs
        monkeypatch.setattr("brainkit.training.running_stats.sum_dtype", lambda device, dtype=dtype: dtype)
        correlation = streaming_correlation(3, torch.device("cpu"))
        correlation.update(torch.randn(5, 3), torch.randn(5, 3))
        assert correlation.r.dtype == dtype


def test_losses_are_watched() -> None:
    watch = LossWatch(torch.device("cpu"))
    for loss, images in ((1.0, 8), (3.0, 8), (5.0, 4)):
        watch.add(torch.tensor(loss), images)
    assert float(watch.mean()) == pytest.approx((8 + 24 + 20) / 20)
    assert watch.first_bad() == 0
    other = LossWatch(torch.device("cpu"))
    other.load_state_dict(watch.state_dict())
    for each in (watch, other):
        each.add(torch.tensor(2.0), 8)
        assert float(each.mean()) == pytest.approx((52 + 16) / 28)
        each.next_epoch()
        each.add(torch.tensor(torch.inf), 8)
        each.add(torch.tensor(torch.nan), 8)
        assert each.first_bad() == 5
