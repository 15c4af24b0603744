"""Comparisons of two sets, against SciPy's of the rows themselves and against exact values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from brainkit.errors import UsageError
from brainkit.metrics.significance import (
    compare,
    describe_passing,
    false_discovery_rate,
    hedges_correction,
    positive_correlation_q,
)


@pytest.mark.parametrize(("n_a", "n_b"), [(2, 2), (3, 50), (40, 30), (5000, 7)])
def test_statistics_of_the_moments_are_those_of_the_rows(n_a: int, n_b: int) -> None:
    rng = np.random.default_rng(n_a)
    k = 300
    a = rng.normal(size=(n_a, k)) * rng.uniform(0.1, 10, k) + rng.normal(size=k)
    b = rng.normal(size=(n_b, k)) * rng.uniform(0.1, 10, k)
    a[:, 0] += 50  # a p far below what a double's 1 - x could hold
    found = compare(a.mean(0), a.var(0, ddof=1), n_a, b.mean(0), b.var(0, ddof=1), n_b)
    reference = stats.ttest_ind(a, b, equal_var=False)
    np.testing.assert_allclose(found.t, reference.statistic, rtol=1e-10)
    np.testing.assert_allclose(found.df, reference.df, rtol=1e-10)
    np.testing.assert_allclose(found.p, reference.pvalue, rtol=1e-9)
    np.testing.assert_allclose(found.q, stats.false_discovery_control(reference.pvalue), rtol=1e-9)
    df = n_a + n_b - 2
    pooled = np.sqrt((a.var(0) * n_a + b.var(0) * n_b) / df)
    np.testing.assert_allclose(found.cohens_d, (a.mean(0) - b.mean(0)) / pooled, rtol=1e-9)
    np.testing.assert_allclose(found.hedges_g, found.cohens_d * (1 - 3 / (4 * df - 1)), rtol=0.05 if df < 5 else 1e-2)


@pytest.mark.parametrize("unit", [1e-150, 1.0, 1e150])
def test_tiny_p_values_in_any_unit(unit: float) -> None:
    """Exact values: 2 * (1 - F(t)) of Student's t, by the incomplete beta function to 40 digits."""
    exact = [(2.869864952808703, 2, 0.1029974585612802), (400.0, 20, 1.639006243374235e-40)]
    assert [2 * stats.t.sf(t, df) for t, df, _ in exact] == pytest.approx([p for *_, p in exact], rel=1e-12)
    for t, df, _ in exact:
        n = df // 2 + 1  # equal variances and sizes: the degrees of freedom are 2 n - 2
        one = np.array([unit**2])
        found = compare(np.array([t * np.sqrt(2 / n) * unit]), one, n, np.zeros(1), one, n)
        assert found.df == pytest.approx(df, rel=1e-12)
        assert found.p == pytest.approx(2 * stats.t.sf(t, df), rel=1e-10)


def test_the_correction_of_hedges() -> None:
    # gamma(df/2) / (sqrt(df/2) gamma((df-1)/2))
    assert hedges_correction(4) == pytest.approx(1 / (np.sqrt(2) * 0.886226925452758), rel=1e-12)
    assert np.isnan(hedges_correction(1))


def test_columns_without_variance_are_no_tests() -> None:
    mean_a, mean_b = np.array([1.0, 2.0, 3.0, 1.0, np.nan, np.inf]), np.ones(6)
    variance = np.array([0.0, 0.0, 1.0, np.nan, 1.0, 1.0])
    found = compare(mean_a, variance, 10, mean_b, variance, 10)
    np.testing.assert_array_equal(found.difference, [0, 1, 2, 0, np.nan, np.inf])
    for values in (found.cohens_d, found.t, found.p, found.q):
        assert np.isfinite(values).tolist() == [False, False, True, False, False, False]
    assert np.isnan(found.df[:2]).all()
    assert found.q[2] == found.p[2]  # of one test
    with pytest.raises(UsageError, match="at least 2 members, got 1 and 10"):
        compare(mean_a, variance, 1, mean_b, variance, 10)


def test_false_discovery_rate() -> None:
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.5])
    np.testing.assert_allclose(false_discovery_rate(p), [0.04, np.nan, 0.16 / 3, 0.16 / 3, 0.5], rtol=1e-12)
    assert np.isnan(false_discovery_rate(np.full(3, np.nan))).all()
    assert len(false_discovery_rate(np.empty(0))) == 0


def test_correlations_above_zero() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 30, 40))
    y[:, :20] += x[:, :20]
    found = [stats.pearsonr(*pair, alternative="greater") for pair in zip(x.T, y.T, strict=True)]
    r, p = np.array([[each.statistic, each.pvalue] for each in found]).T
    np.testing.assert_allclose(positive_correlation_q(r, 30), stats.false_discovery_control(p), rtol=1e-6)
    edge = positive_correlation_q(np.array([1.0, -1.0, 0.0, np.nan]), 30)
    assert edge[0] == 0 and edge[1] == 1 and edge[2] == 0.75 and np.isnan(edge[3])


@pytest.mark.parametrize(
    ("q", "text"),
    [
        ([0.5, 0.05], "no vertex passes q < 0.05"),
        ([0.01, 0.05, np.nan], "1 of 2 vertices passes q < 0.05"),
        ([0.01, 0.02, np.nan], "all 2 vertices pass q < 0.05"),
        ([0.01], "the only vertex passes q < 0.05"),
        ([np.nan], "no vertex can be tested"),
    ],
)
def test_how_many_pass_in_words(q: list[float], text: str) -> None:
    assert describe_passing(np.array(q), 0.05) == text
