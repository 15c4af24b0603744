"""Bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.errors import UsageError
from brainkit.metrics.intervals import bootstrap_interval


def test_bootstrap_interval() -> None:
    values = np.random.default_rng(0).normal(3, 1, 400)
    low, high = bootstrap_interval(values, np.mean, seed=3)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert bootstrap_interval(values, np.mean, seed=3) == (low, high) != bootstrap_interval(values, np.mean, seed=4)
    wide = bootstrap_interval(values, np.mean, level=0.99, seed=3)
    assert wide[0] < low
    assert high < wide[1]
    assert bootstrap_interval([1.0, np.nan, 1.0]) == (1.0, 1.0)
    assert np.isnan(bootstrap_interval([np.nan])).all()
    for bad in ({"level": 1.0}, {"samples": 0}):
        with pytest.raises(UsageError, match=next(iter(bad))):
            bootstrap_interval(values, **bad)
