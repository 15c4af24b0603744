"""Intervals of comparisons cover, and their tests hold their level; each bound is 3 standard errors wide or more."""

from __future__ import annotations

import numpy as np
import pytest

from bench.compare_calibration import difference_coverage, exchange_p, slope_coverage, spin_level


@pytest.mark.slow
@pytest.mark.parametrize("group_size", [1, 4])
def test_intervals_of_differences_cover(group_size: int) -> None:
    found = difference_coverage(300, images=60 * group_size, vertices=20, group_size=group_size, bootstrap=400)
    assert 0.92 < found["vertex"] < 0.97
    assert 0.9 < found["mean"] < 0.985 and 0.895 < found["explained"] < 0.985
    assert found["median"] > 0.905  # wider than need be


@pytest.mark.slow
@pytest.mark.parametrize("case", [{}, {"scale": 0.3}, {"alike": False}, {"group_size": 4}])
def test_p_of_equally_accurate_models_is_uniform(case: dict[str, float]) -> None:
    from scipy.stats import kstest

    p = exchange_p(600, **case)  # type: ignore[arg-type]
    assert 0.02 < np.mean(p <= 0.05) < 0.08
    assert kstest(p, "uniform").pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("case", [{}, {"runs": 2}, {"part": "random"}, {"part": "own"}])
def test_intervals_of_slopes_cover(case: dict[str, float]) -> None:
    assert 0.92 < slope_coverage(600, **case) < 0.98  # type: ignore[arg-type]


@pytest.mark.slow
def test_seeds_make_intervals_of_slopes_wider_never_narrower() -> None:
    assert slope_coverage(300, seed_noise=2.0) > 0.93


@pytest.mark.slow
@pytest.mark.parametrize("case", [{"cover": 1.0}, {}, {"mirrored": False}])
def test_the_spin_test_holds_its_level_where_the_plain_test_does_not(case: dict[str, float]) -> None:
    found = spin_level(150, rotations=99, **case)  # type: ignore[arg-type]
    assert found["spin"] <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)
    assert found["plain"] > 0.5
