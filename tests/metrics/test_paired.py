"""Differences in accuracy over resampled and exchanged images, against the same computed image by image."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.metrics.paired import (
    draw_exchanges,
    draw_runs,
    exchanged_differences,
    max_statistic_p,
    resampled_differences,
    sign_flip_p,
)
from brainkit.metrics.scores import explained_share

N, V = 30, 7


@pytest.fixture
def values() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((N, V))
    noise = [signal + size * rng.standard_normal((N, V)) for size in (0.7, 1.0, 0.5)]
    return {"a": 3 + 0.4 * noise[0], "b": noise[1] - 1, "responses": 5 + 2 * noise[2]}


def scores(p: np.ndarray, y: np.ndarray, ceiling: np.ndarray) -> dict[str, np.ndarray]:
    r = np.array([np.corrcoef(p[:, v], y[:, v])[0, 1] for v in range(V)])
    R2 = 1 - ((y - p) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)
    return {"r": r, "R2": R2, "explained": explained_share(r, ceiling)}


def test_weights_count_images(values: dict[str, np.ndarray]) -> None:
    a, b, y = values.values()
    weights = np.random.default_rng(1).integers(0, 3, (4, N)).astype(np.float32)
    ceiling = np.array([0.9, 0.8, 0.7, np.nan, 0.01, 0.95, 1.0])
    found = resampled_differences([a], [b], y, weights, ceiling)
    for draw, counts in enumerate(weights.astype(int)):
        first, second = (scores(np.repeat(p, counts, 0), np.repeat(y, counts, 0), ceiling) for p in (a, b))
        for name, difference in found.items():
            np.testing.assert_allclose(difference[draw], first[name] - second[name], atol=2e-5)
    assert np.isnan(found["explained"][:, 3:5]).all()


def test_the_runs_of_a_model_are_averaged_and_can_be_weighed(values: dict[str, np.ndarray]) -> None:
    a, b, y = values.values()
    once, ceiling = np.ones((1, N), np.float32), np.full(V, 0.9)
    both, of_a, of_b = (resampled_differences(runs, [], y, once, ceiling) for runs in ([a, b], [a], [b]))
    shares = np.array([[0.25, 0.75]])
    weighed = resampled_differences([a, b], [], y, once, ceiling, shares)
    for name, mean in both.items():
        np.testing.assert_allclose(mean, (of_a[name] + of_b[name]) / 2, atol=1e-6)
        np.testing.assert_allclose(weighed[name], 0.25 * of_a[name] + 0.75 * of_b[name], atol=1e-6)


def test_exchanges_are_those_of_the_images_themselves(values: dict[str, np.ndarray]) -> None:
    a, b, y = values.values()
    ceiling = np.full(V, 0.9)
    exchanges = np.random.default_rng(2).random((5, N)) < 0.5
    exchanges[0] = False
    found = exchanged_differences([a], [b], y, exchanges, ceiling)
    p, q = ((each - each.mean(0)) / each.std(0) for each in (a, b))
    for draw, swapped in enumerate(exchanges[..., None]):
        first, second = np.where(swapped, q, p), np.where(swapped, p, q)
        standardised = scores(first, y, ceiling), scores(second, y, ceiling)
        raw = scores(np.where(swapped, b, a), y, ceiling), scores(np.where(swapped, a, b), y, ceiling)
        for name, pair in {"r": standardised, "explained": standardised, "R2": raw}.items():
            np.testing.assert_allclose(found[name][draw], pair[0][name] - pair[1][name], atol=1e-5)
    observed = scores(a, y, ceiling)["r"] - scores(b, y, ceiling)["r"]
    np.testing.assert_allclose(found["r"][0], observed, atol=1e-6)


def test_the_scale_of_predictions_does_not_matter_to_the_test_of_r(values: dict[str, np.ndarray]) -> None:
    a, b, y = values.values()
    exchanges = np.random.default_rng(3).random((5, N)) < 0.5
    one, other = (exchanged_differences([a], [c], y, exchanges, np.full(V, 0.9))["r"] for c in (b, 100 * b - 7))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_constant_predictions_have_no_correlation_and_explain_nothing(values: dict[str, np.ndarray]) -> None:
    a, _, y = values.values()
    constant, ceiling = np.full_like(a, 2.0), np.full(V, 0.9)
    once, exchanges = np.ones((1, N), np.float32), np.random.default_rng(4).random((5, N)) < 0.5
    found = resampled_differences([a], [constant], y, once, ceiling)
    null = exchanged_differences([a], [constant], y, exchanges, ceiling)
    assert np.isnan(found["r"]).all()
    np.testing.assert_allclose(found["explained"][0], scores(a, y, ceiling)["explained"], atol=1e-5)
    assert np.isfinite(null["explained"]).all() and np.ptp(null["explained"]) > 0


def test_the_images_of_a_stimulus_are_exchanged_together() -> None:
    codes = np.repeat(np.arange(20), 3)
    drawn = draw_exchanges(codes, 50, seed=0)
    assert drawn.shape == (50, 60)
    assert (drawn.reshape(50, 20, 3) == drawn[:, ::3, None]).all()
    assert 0.4 < drawn.mean() < 0.6


def test_of_few_stimuli_all_exchanges_are_taken_once() -> None:
    drawn = draw_exchanges(np.arange(4), 50, seed=0)
    assert len(np.unique(drawn, axis=0)) == len(drawn) == 15
    assert drawn.any(1).all()


def test_the_mean_of_resampled_runs_has_the_variance_of_the_mean() -> None:
    shares = draw_runs(3, 20_000, seed=0)
    np.testing.assert_allclose(shares.sum(1), 1)
    runs = np.array([0.0, 1.0, 5.0])
    assert np.var(shares @ runs) == pytest.approx(np.var(runs, ddof=1) / 3, rel=0.05)


def test_p_counts_exchanges_with_at_least_the_difference() -> None:
    null = np.array([[1.0, 0.1], [-2.0, 0.2], [0.5, -0.1]])
    np.testing.assert_allclose(sign_flip_p(np.array([1.0, np.nan]), null), [3 / 4, np.nan])


def test_the_largest_difference_is_taken_in_units_of_each_vertex() -> None:
    rng = np.random.default_rng(0)
    null = rng.standard_normal((999, 50)) * np.r_[100.0, np.ones(49)]
    observed = np.r_[0.0, 6.0, np.zeros(47), np.nan]
    p = max_statistic_p(observed, null)
    assert p[1] <= 0.005 and p[0] == 1 and np.isnan(p[-1])
