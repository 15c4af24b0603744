"""Means and variances of rows that come in blocks."""

from __future__ import annotations

import numpy as np

from brainkit.metrics.moments import Moments


def test_moments_of_blocks_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    rows = (1e6 + rng.normal(size=(1000, 4)) * [1, 1e-3, 10, 0]).astype(np.float64)
    moments = Moments(4)
    assert np.isnan(moments.variance).all()
    for start, stop in ((0, 1), (1, 1), (1, 300), (300, 1000)):
        moments.add(rows[start:stop])
    assert moments.count == 1000
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-14)
    np.testing.assert_allclose(moments.variance, rows.var(0, ddof=1), rtol=1e-6)
