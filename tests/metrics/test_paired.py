"""Accuracies over resampled and exchanged images, against the same computed image by image."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.metrics.paired import (
    draw_exchanges,
    draw_runs,
    exchanged_scores,
    paired_test,
    resampled_scores,
    sign_flip_p,
)

N, V = 30, 7


@pytest.fixture
def values() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((N, V))
    noise = [signal + size * rng.standard_normal((N, V)) for size in (0.7, 1.0, 0.5)]
    return {"a": 3 + 0.4 * noise[0], "b": noise[1] - 1, "responses": 5 + 2 * noise[2]}


def scores(p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r = np.array([np.corrcoef(p[:, v], y[:, v])[0, 1] for v in range(V)])
    R2 = 1 - ((y - p) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)
    return r, R2


def test_weights_count_images(values: dict[str, np.ndarray]) -> None:
    a, _, y = values.values()
    weights = np.random.default_rng(1).integers(0, 3, (4, N)).astype(np.float32)
    r, R2 = resampled_scores([a], y, weights)
    for draw, counts in enumerate(weights.astype(int)):
        p, drawn = np.repeat(a, counts, 0), np.repeat(y, counts, 0)
        expected = 1 - ((drawn - p) ** 2).sum(0) / ((drawn - y.mean(0)) ** 2).sum(0)
        np.testing.assert_allclose([r[draw], R2[draw]], [scores(p, drawn)[0], expected], atol=2e-5)


def test_the_runs_of_a_model_are_averaged_and_can_be_weighed(values: dict[str, np.ndarray]) -> None:
    a, b, y = values.values()
    once, shares = np.ones((1, N), np.float32), np.array([[0.25, 0.75]])
    of_a, of_b = (np.array(resampled_scores([each], y, once)) for each in (a, b))
    np.testing.assert_allclose(resampled_scores([a, b], y, once), (of_a + of_b) / 2, atol=1e-6)
    np.testing.assert_allclose(resampled_scores([a, b], y, once, shares), 0.25 * of_a + 0.75 * of_b, atol=1e-6)


def test_exchanges_are_those_of_the_images_themselves(values: dict[str, np.ndarray]) -> None:
    a, b, y = values.values()
    exchanges = np.random.default_rng(2).random((5, N)) < 0.5
    exchanges[0] = False
    found = exchanged_scores([a], [b], y, exchanges)
    p, q = ((each - each.mean(0)) / each.std(0) for each in (a, b))
    for draw, swapped in enumerate(exchanges[..., None]):
        for (r, R2), standardised, raw in (
            (found[0], np.where(swapped, q, p), np.where(swapped, b, a)),
            (found[1], np.where(swapped, p, q), np.where(swapped, a, b)),
        ):
            np.testing.assert_allclose(r[draw], scores(standardised, y)[0], atol=1e-5)
            np.testing.assert_allclose(R2[draw], scores(raw, y)[1], atol=1e-5)
    np.testing.assert_allclose(found[0][0][0], scores(a, y)[0], atol=1e-6)


def test_runs_are_exchanged_pair_by_pair(values: dict[str, np.ndarray]) -> None:
    a, b, y = values.values()
    other = a + b
    exchanges = np.random.default_rng(5).random((5, N)) < 0.5
    both = np.array(exchanged_scores([a, other], [b], y, exchanges))
    single = np.array([exchanged_scores([each], [b], y, exchanges) for each in (a, other)])
    np.testing.assert_allclose(both, single.mean(0), atol=1e-6)


def test_the_scale_of_predictions_does_not_matter_to_the_test_of_r(values: dict[str, np.ndarray]) -> None:
    a, b, y = values.values()
    exchanges = np.random.default_rng(3).random((5, N)) < 0.5
    one, other = (exchanged_scores([a], [c], y, exchanges) for c in (b, 100 * b - 7))
    np.testing.assert_allclose(one[0][0], other[0][0], atol=1e-6)
    np.testing.assert_allclose(one[1][0], other[1][0], atol=1e-6)


def test_constant_predictions_have_no_correlation_but_can_be_exchanged(values: dict[str, np.ndarray]) -> None:
    a, _, y = values.values()
    exchanges = np.random.default_rng(4).random((5, N)) < 0.5
    exchanges[0] = False
    (r_a, _), (r_b, R2_b) = exchanged_scores([a], [np.full_like(a, 2.0)], y, exchanges)
    assert np.isnan(r_b[0]).all() and np.isfinite(R2_b).all()
    assert np.isfinite(r_a).all() and np.isfinite(r_b[1:]).all()


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
    null = rng.standard_normal((999, 600)) * np.r_[100.0, np.ones(599)]  # more than a block of vertices
    observed = np.r_[0.0, 6.0, np.zeros(597), np.nan]
    p, p_max = paired_test(observed, lambda block: null[:, block], len(null))
    assert p_max[1] <= 0.005 and p_max[0] == 1 and np.isnan(p_max[-1])
    np.testing.assert_array_equal(p, sign_flip_p(observed, null))
    largest = np.abs(null / np.sqrt((null**2).mean(0)))[:, :-1].max(1)
    moderate = np.r_[np.zeros(598), 3.2, np.nan]  # in the second block; the largest of most exchanges is in the first
    p_max = paired_test(moderate, lambda block: null[:, block], len(null))[1]
    size = 3.2 / np.sqrt((null[:, 598] ** 2).mean())
    assert p_max[598] == (1 + (largest >= size).sum()) / 1000
