"""The bootstrap over groups of images: against other libraries, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.errors import UsageError
from brainkit.metrics.resampling import (
    bootstrap_weights,
    group_codes,
    interval,
    jackknife_weights,
    weighted_correlations,
    weighted_scores,
)


def correlated(n: int, vertices: int, r: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Independent vertices whose predictions and responses correlate by r."""
    rng = np.random.default_rng(seed)
    p, noise = rng.standard_normal((2, n, vertices))
    return p, r * p + np.sqrt(1 - r * r) * noise


def intervals_of_r(p: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None, draws: int = 1000):
    codes = group_codes(groups, len(p))
    weights = np.concatenate([np.ones((1, len(p))), jackknife_weights(codes), bootstrap_weights(codes, draws, 1)])
    r, first = weighted_correlations(p, y, weights), 1 + min(codes.max() + 1, 200)
    return interval(r[first:], r[0], r[1:first])


def covered(truth: float, ends: tuple[np.ndarray, np.ndarray, str | None]) -> float:
    return float(((ends[0] < truth) & (truth < ends[1])).mean())


def test_groups_are_numbered_by_appearance() -> None:
    assert group_codes(["b", "a", "b", "c"], 4).tolist() == [0, 1, 0, 2]
    assert group_codes(np.array([7, 7, 1]), 3).tolist() == [0, 0, 1]
    assert group_codes(None, 3).tolist() == [0, 1, 2]
    with pytest.raises(UsageError):
        group_codes(["a"], 2)


def test_images_of_a_group_move_together() -> None:
    codes = np.array([0, 1, 0, 2, 1, 0])
    weights = bootstrap_weights(codes, 500, seed=3)
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert weights[:, 3].mean() == pytest.approx(1, abs=0.15)
    np.testing.assert_array_equal(weights, bootstrap_weights(codes, 500, seed=3))
    np.testing.assert_array_equal(jackknife_weights(codes)[1], [1, 0, 1, 1, 0, 1])
    assert jackknife_weights(np.arange(1000)).shape == (200, 1000)


def test_weights_are_repetitions() -> None:
    p, y = correlated(25, 7, 0.6)
    p, y = 2 * p - 5000, y + 1000  # large offsets
    weights = bootstrap_weights(np.arange(25), 4, seed=0)
    r, R2 = weighted_scores(p, y - 6000, weights)
    for draw, each in enumerate(weights):
        rows = np.repeat(np.arange(25), each.astype(int))
        expected = [np.corrcoef(p[rows, v], y[rows, v])[0, 1] for v in range(7)]
        np.testing.assert_allclose(r[draw], expected, atol=3e-6)
        # Relative to the mean response of all images: to each sample's own, R2 would be too low by (1 - R2) / n.
        expected = 1 - ((y[rows] - 6000 - p[rows]) ** 2).sum(0) / ((y[rows] - y.mean(0)) ** 2).sum(0)
        np.testing.assert_allclose(R2[draw], expected, rtol=1e-5, atol=1e-5)


def test_what_has_no_correlation() -> None:
    p, y = correlated(12, 5, 0.5)
    p[:, 0], y[:, 1], p[3, 2] = 0.1, 0.1, np.nan
    y[:, 3] = np.arange(12) == 4  # constant without image 4
    r, R2 = weighted_scores(p, y, np.concatenate([np.ones((1, 12)), jackknife_weights(np.arange(12))]))
    assert np.isnan(r[:, :3]).all() and np.isfinite(r[:, 3:]).all()
    assert r[1 + 4, 3] == 0 and abs(r[0, 3]) > 0
    assert np.isfinite(R2[:, 0]).all() and np.isnan(R2[:, 1:3]).all()


def test_bca_as_in_scipy() -> None:
    from scipy.stats import bootstrap, pearsonr

    p, y = correlated(80, 1, 0.8)
    low, high, method = intervals_of_r(p, y, draws=9999)
    theirs = bootstrap(
        (p[:, 0], y[:, 0]), lambda a, b: pearsonr(a, b).statistic, paired=True, vectorized=False, rng=0, method="BCa"
    ).confidence_interval
    assert method == "BCa"
    width = theirs.high - theirs.low
    assert abs(low[0] - theirs.low) < 0.06 * width and abs(high[0] - theirs.high) < 0.06 * width


def test_method_depends_on_the_number_of_groups() -> None:
    for n, method in ((9, None), (10, "percentile"), (29, "percentile"), (30, "BCa")):
        low, high, found = intervals_of_r(*correlated(n, 3, 0.5), draws=200)
        assert found == method
        assert np.isnan([low, high]).all() == (method is None)
    assert intervals_of_r(*correlated(90, 3, 0.5), np.repeat(np.arange(9), 10))[2] is None


@pytest.mark.parametrize(("n", "r"), [(12, 0.0), (12, 0.7), (40, 0.0), (40, 0.9), (300, 0.4)])
def test_intervals_cover(n: int, r: float) -> None:
    assert 0.93 < covered(r, intervals_of_r(*correlated(n, 1500, r, seed=n))) < 0.97


def test_intervals_over_stimuli_cover_where_those_over_images_do_not() -> None:
    """Images of a stimulus are alike in their predictions and in what these miss."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), rng.integers(1, 6, 60))
    shared, own = rng.standard_normal((2, 60, 1000)), rng.standard_normal((2, len(groups), 1000))
    p, noise = 0.95 * shared[:, groups] + np.sqrt(1 - 0.95**2) * own
    ends = intervals_of_r(p, 0.5 * p + np.sqrt(0.75) * noise, groups)
    assert 0.92 < covered(0.5, ends) < 0.97
    assert covered(0.5, intervals_of_r(p, 0.5 * p + np.sqrt(0.75) * noise)) < 0.85


def test_biased_statistic() -> None:
    """All draws of a mean of squares lie above it: the interval moves down by twice the bias and keeps its width."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((100, 4000))
    truth, codes = 0.0, np.arange(100)

    def mean_square(weights: np.ndarray) -> np.ndarray:
        return np.square(weights @ data / weights.sum(axis=1, keepdims=True)).mean(axis=1, keepdims=True)

    draws, point = mean_square(bootstrap_weights(codes, 2000, 0)), mean_square(np.ones((1, 100)))[0]
    assert draws.min() > point
    low, high, method = interval(draws, point, mean_square(jackknife_weights(codes)))
    assert method == "BCa" and low < truth < high
    assert high - low == pytest.approx(np.diff(np.quantile(draws, [0.025, 0.975]))[0], rel=0.1)
