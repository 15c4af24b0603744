"""The official score and the share of explainable variance."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.errors import UsageError
from brainkit.metrics.scores import explained_share, official_score


def test_official_score_by_hand() -> None:
    r = [0.5, -0.9, 0.9, 0.3, np.nan, 0.8]
    ceiling = [0.5, 0.5, 0.5, 0.9, 0.4, 0.0]
    # 50, 0 (negative), 100 (over the ceiling), 10, 0 (no correlation); the last has no ceiling
    got = official_score(r, ceiling)
    assert got.n == 5
    assert got.mean == pytest.approx((50 + 0 + 100 + 10 + 0) / 5)
    assert got.median == pytest.approx(10)


def test_official_score_without_ceilings_and_with_bad_ones() -> None:
    empty = official_score([0.5, 0.5], [0.0, np.nan])
    assert empty.n == 0
    assert np.isnan(empty.mean)
    assert np.isnan(empty.median)
    with pytest.raises(UsageError, match="divide percent by 100"):
        official_score([0.5], [35.0])
    with pytest.raises(UsageError, match="shape"):
        official_score([0.5], [0.3, 0.4])


def test_explained_share_by_hand() -> None:
    share = explained_share([0.5, -0.9, 0.9, np.nan, 0.5, 0.5], [0.5, 0.5, 0.5, 0.4, 0.04, np.nan])
    np.testing.assert_allclose(share, [0.5, 0, 1, 0, np.nan, np.nan])
