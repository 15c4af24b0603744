"""The permutation test: against all permutations, and by simulation."""

from __future__ import annotations

import itertools

import numpy as np

from brainkit.metrics.permutation import null_correlations, permutation_test
from brainkit.metrics.resampling import group_codes
from brainkit.metrics.significance import false_discovery_rate


def correlation(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    p, y = p - p.mean(0), y - y.mean(0)
    return (p * y).sum(0) / np.sqrt((p * p).sum(0) * (y * y).sum(0))


def unrelated(groups: np.ndarray, vertices: int, alike: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and responses without relation; images of a group are alike."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((2, groups.max() + 1, vertices))
    own = rng.standard_normal((2, len(groups), vertices))
    p, y = alike * shared[:, groups] + np.sqrt(1 - alike**2) * own
    return p, y


def test_as_over_all_permutations() -> None:
    p, y = np.random.default_rng(1).standard_normal((2, 6, 8))
    r, codes = correlation(p, y), np.arange(6)
    every = np.array([correlation(p[list(order)], y) for order in itertools.permutations(range(6))])
    found = permutation_test(p, y, r, codes, 20000, seed=0)
    np.testing.assert_allclose(found.p, (every >= r - 1e-9).mean(0), atol=0.012)
    np.testing.assert_allclose(found.p_max, (every.max(1)[:, None] >= r - 1e-9).mean(0), atol=0.012)
    null = null_correlations(p, y, codes, 20000, seed=0)
    assert null.shape == (20000, 8)
    assert np.abs(null[:, :1] - every[:, 0]).min(axis=1).max() < 1e-5  # each is one of the permutations
    np.testing.assert_allclose(
        np.quantile(null, [0.1, 0.5, 0.9], axis=0), np.quantile(every, [0.1, 0.5, 0.9], axis=0), atol=0.06
    )


def test_only_whole_groups_of_one_size_are_exchanged() -> None:
    codes = np.array([0, 0, 1, 2, 2, 3, 4, 4, 4])  # sizes 2, 1, 2, 1, 3
    p, y = np.random.default_rng(2).standard_normal((2, 9, 1))
    possible = []
    for swap_pairs, swap_singles in itertools.product((False, True), repeat=2):
        order = np.arange(9)
        if swap_pairs:
            order[[0, 1, 3, 4]] = order[[3, 4, 0, 1]]
        if swap_singles:
            order[[2, 5]] = order[[5, 2]]
        possible.append(correlation(p[order], y)[0])
    null = null_correlations(p, y, codes, 400, seed=0)[:, 0]
    nearest = np.abs(null[:, None] - possible)
    assert nearest.min(axis=1).max() < 1e-5
    assert (np.bincount(nearest.argmin(axis=1), minlength=4) > 60).all()  # 100 each


def test_nothing_can_be_permuted() -> None:
    p, y = np.random.default_rng(0).standard_normal((2, 6, 3))
    found = permutation_test(p, y, correlation(p, y), np.array([0, 1, 1, 2, 2, 2]), 50, seed=0)
    assert np.isnan(found.p).all() and np.isnan(found.p_max).all()


def test_vertices_without_r_do_no_harm() -> None:
    p, y = np.random.default_rng(0).standard_normal((2, 20, 3))
    with_nan = p.copy()
    with_nan[:, 1] = np.nan
    r = correlation(p, y)
    plain = permutation_test(p[:, ::2], y[:, ::2], r[::2], np.arange(20), 200, seed=0)
    found = permutation_test(with_nan, y, np.where([0, 1, 0], np.nan, r), np.arange(20), 200, seed=0)
    np.testing.assert_array_equal(found.p[::2], plain.p)
    np.testing.assert_array_equal(found.p_max[::2], plain.p_max)
    assert np.isnan(found.p[1]) and np.isnan(found.p_max[1])


def test_p_is_uniform_without_a_relation() -> None:
    for groups in (np.arange(25), np.repeat(np.arange(40), np.arange(40) % 4 + 1)):
        p, y = unrelated(groups, 3000, 0.95, seed=len(groups))
        found = permutation_test(p, y, correlation(p, y), group_codes(groups, len(groups)), 199, seed=0)
        for level in (0.05, 0.2, 0.5):
            assert abs((found.p <= level).mean() - level) < 3.5 * np.sqrt(level * (1 - level) / 3000)
    images_alone = permutation_test(p, y, correlation(p, y), np.arange(len(groups)), 199, seed=0)
    assert (images_alone.p <= 0.05).mean() > 0.1


def test_the_largest_statistic_holds_the_family_wise_level() -> None:
    """30 vertices that share noise, in each of 400 data sets."""
    hits = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        p, y = rng.standard_normal((2, 16, 30)) + rng.standard_normal((2, 16, 1))
        found = permutation_test(p, y, correlation(p, y), np.arange(16), 99, seed=seed)
        hits += (found.p_max <= 0.05).any()
    assert 0.02 < hits / 400 < 0.085


def test_false_discoveries_are_as_rare_as_promised() -> None:
    """A tenth of 200 vertices has a relation; of those that pass q < 0.2, at most a fifth has none, on average."""
    shares, found_any = [], 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        p, y = rng.standard_normal((2, 40, 200))
        y[:, :20] += p[:, :20]
        q = false_discovery_rate(permutation_test(p, y, correlation(p, y), np.arange(40), 999, seed=0).p)
        passing = q < 0.2
        shares.append(passing[20:].sum() / max(passing.sum(), 1))
        found_any += passing[:20].sum()
    assert 0.12 < np.mean(shares) < 0.21
    assert found_any > 60 * 15
