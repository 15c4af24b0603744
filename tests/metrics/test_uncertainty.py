"""Standard errors and reliability of maps: by simulation, where the right values are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from brainkit.errors import UsageError
from brainkit.metrics.depth import relative_depth
from brainkit.metrics.uncertainty import (
    MapUncertainty,
    map_reliability,
    se_from_halves,
    se_from_repeats,
)

N, DRAWS, VERTICES = 60, 4, 4000


def estimate(data: np.ndarray) -> np.ndarray:
    """An estimate that is not linear in the data (n, ...), as no selector is."""
    return np.asarray(np.tanh(data.mean(0)))


def halves(data: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Estimates on both halves of each draw, the same draws for all columns. (DRAWS, V) each"""
    orders = [draw.permutation(len(data)) for _ in range(DRAWS)]
    middle = len(data) // 2
    first = np.stack([estimate(data[order[:middle]]) for order in orders])
    return first, np.stack([estimate(data[order[middle:]]) for order in orders])


def test_halves_give_the_standard_error_of_the_whole_and_intervals_cover() -> None:
    draw = np.random.default_rng(0)
    truth = draw.normal(0.3, 0.3, VERTICES)
    # Every column is a simulation of its own.
    data = truth + draw.standard_normal((N, VERTICES))
    again = truth + draw.standard_normal((N, VERTICES))
    whole, se = estimate(data), se_from_halves(*halves(data, draw))
    true_variance = np.mean((whole - estimate(again)) ** 2) / 2
    assert np.mean(se**2) == pytest.approx(true_variance, rel=0.1)
    covered = np.abs(whole - np.tanh(truth)) <= t.ppf(0.975, DRAWS) * se
    assert 0.93 < covered.mean() < 0.97


def test_coordinates_have_standard_errors_of_their_own() -> None:
    first = np.array([[[0.0, 1.0]], [[0.0, 1.0]]])  # 2 draws, 1 vertex, x and y
    second = np.array([[[0.2, 1.0]], [[-0.2, 1.0]]])
    np.testing.assert_allclose(se_from_halves(first, second), [[0.1, 0.0]])
    with pytest.raises(UsageError, match="draw"):
        se_from_halves(np.zeros((0, 3)), np.zeros((0, 3)))


def test_repeats_give_the_standard_error_of_one_of_them() -> None:
    estimates = np.random.default_rng(0).normal(0, 0.2, (5, VERTICES))
    assert np.mean(se_from_repeats(estimates) ** 2) == pytest.approx(0.04, rel=0.05)
    with pytest.raises(UsageError, match="at least 2"):
        se_from_repeats(estimates[:1])


@pytest.mark.parametrize("columns", [(), (2,)])
def test_reliability_is_that_of_maps_from_all_data(columns: tuple[int, ...]) -> None:
    """Two maps from all data would correlate so; noise of a half has twice their variance."""
    draw = np.random.default_rng(0)
    shape = (VERTICES, *columns)
    offset = np.arange(2.0) if columns else 0.0  # x and y may have other means
    signal = draw.standard_normal(shape)

    def noisy(variance: float) -> np.ndarray:
        return signal + offset + np.sqrt(variance) * draw.standard_normal(shape)

    found = map_reliability(noisy(1.0), noisy(1.0))
    assert found == pytest.approx(1 / (1 + 0.5), abs=0.03)
    assert np.isnan(map_reliability(np.ones(5), signal.ravel()[:5]))


def test_depth_is_relative() -> None:
    weights = np.array([[1, 0, 0], [0, 0, 1], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    np.testing.assert_allclose(relative_depth(weights), [0, 1, 0.5, 0.25])
    assert np.isnan(relative_depth(np.ones((2, 1)))).all()


def test_errors_of_some_vertices_and_as_shares_of_the_range() -> None:
    errors = MapUncertainty(
        np.array([0.1, 0.2]), np.array([[0.3, 0.4], [0, 0]]), np.array([0.5, 0]), "halves", 4, max_se=0.3
    )
    np.testing.assert_allclose(errors.shares["location"], [0.25, 0])  # of an image that spans 2
    some = errors.select(np.array([1]))
    np.testing.assert_allclose(some.depth_se, [0.2])
    assert (some.basis, some.runs, some.max_se, some.location_se.shape) == ("halves", 4, 0.3, (1, 2))
