"""Scores against numpy, scikit-learn and by hand; ceilings against simulation."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.errors import UsageError
from brainkit.metrics.scores import (
    StreamingScore,
    bootstrap_interval,
    noise_ceiling_from_ncsnr,
    noise_ceiling_from_repetitions,
    official_score,
)


def pair(n=83, vertices=7, seed=0):
    random = np.random.default_rng(seed)
    response = random.normal(size=(n, vertices))
    prediction = response * random.uniform(0, 1, vertices) + random.normal(size=(n, vertices))
    return prediction, response


def streamed(prediction, response, sizes):
    score = StreamingScore(prediction.shape[1])
    start = 0
    for size in sizes:
        score.update(prediction[start : start + size], response[start : start + size])
        start += size
    assert start == len(prediction) == score.n
    return score


@pytest.mark.parametrize("sizes", [[83], [1] * 83, [40, 43], [1, 0, 80, 2], [32, 32, 19]])
def test_streaming_score_equals_numpy_and_sklearn(sizes):
    sklearn = pytest.importorskip("sklearn.metrics")
    prediction, response = pair()
    score = streamed(prediction, response, sizes)
    expected = [np.corrcoef(prediction[:, v], response[:, v])[0, 1] for v in range(7)]
    np.testing.assert_allclose(score.r, expected, rtol=1e-12)
    np.testing.assert_allclose(
        score.R2, sklearn.r2_score(response, prediction, multioutput="raw_values"), rtol=1e-12, atol=1e-13
    )


def test_streaming_score_does_not_depend_on_the_order_of_rows():
    prediction, response = pair()
    response[0] += 50  # an extreme first row is the hard case for shifted sums
    order = np.random.default_rng(1).permutation(len(response))
    one = streamed(prediction, response, [10, 73])
    other = streamed(prediction[order], response[order], [50, 33])
    np.testing.assert_allclose(one.r, other.r, rtol=1e-11)
    np.testing.assert_allclose(one.R2, other.R2, rtol=1e-11)


@pytest.mark.parametrize("offset", [1e6, -1e9])
def test_streaming_score_survives_large_offsets(offset):
    prediction, response = pair(n=500)
    plain = streamed(prediction, response, [250, 250])
    moved = streamed(prediction + offset, response + offset, [32] * 15 + [20])
    # The inputs themselves lose digits when the offset is added: 1e9 keeps 1e-7 of a unit.
    np.testing.assert_allclose(moved.r, plain.r, atol=1e-6)
    np.testing.assert_allclose(moved.R2, plain.R2, atol=1e-6)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e7 / 3])
def test_constant_columns_have_no_correlation(constant):
    prediction, response = pair()
    prediction[:, 0] = constant
    response[:, 1] = constant
    score = streamed(prediction, response, [3, 7, 73])
    assert np.isnan(score.r[:2]).all()
    assert np.isfinite(score.r[2:]).all()
    assert np.isfinite(score.R2[0])
    assert np.isnan(score.R2[1])
    assert np.isfinite(score.R2[2:]).all()


def test_a_nan_stays_in_its_vertex():
    prediction, response = pair()
    clean = streamed(prediction, response, [40, 43])
    prediction[50, 2] = np.nan
    response[3, 4] = np.inf
    score = streamed(prediction, response, [40, 43])
    assert np.isnan(score.r[[2, 4]]).all()
    assert np.isnan(score.R2[2])
    others = [0, 1, 3, 5, 6]
    np.testing.assert_array_equal(score.r[others], clean.r[others])


def test_a_perfect_prediction_scores_one_and_never_more():
    _, response = pair(n=1000)
    score = streamed(response.astype(np.float32), response.astype(np.float32), [100] * 10)
    np.testing.assert_allclose(score.r, 1, atol=1e-14)
    assert (score.r <= 1).all()
    assert (score.R2 == 1).all()


def test_streaming_score_before_any_data_and_with_wrong_shapes():
    score = StreamingScore(3)
    assert np.isnan(score.r).all()
    assert np.isnan(score.R2).all()
    score.update(np.zeros((0, 3)), np.zeros((0, 3)))
    assert score.n == 0
    with pytest.raises(UsageError, match=r"\(b, 3\)"):
        score.update(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(UsageError, match=r"\(b, 3\)"):
        score.update(np.zeros((3,)), np.zeros((3,)))


def test_ncsnr_formula_and_its_ends():
    np.testing.assert_allclose(noise_ceiling_from_ncsnr([1.0, 2.0], (5, 0, 0)), [1 / (1 + 1 / 3), 4 / (4 + 1 / 3)])
    noise = (100 / 3 + 50 / 2 + 20) / 170
    np.testing.assert_allclose(noise_ceiling_from_ncsnr([0.7], (100, 50, 20)), 0.49 / (0.49 + noise))
    got = noise_ceiling_from_ncsnr([0.0, np.inf, np.nan], (1, 1, 1))
    assert got[0] == 0
    assert got[1] == 1
    assert np.isnan(got[2])
    for counts in [(0, 0, 0), (-1, 2, 3), (1, 2), "abc"]:
        with pytest.raises(UsageError, match="counts"):
            noise_ceiling_from_ncsnr([1.0], counts)
    with pytest.raises(UsageError, match="negative"):
        noise_ceiling_from_ncsnr([-1.0], (1, 1, 1))


def test_ceiling_from_repetitions_is_what_the_true_signal_reaches():
    random = np.random.default_rng(0)
    repetitions, images, deviations = 3, 20000, np.array([0.2, 0.5, 1.0, 2.0])
    signal = random.normal(size=(images, 4)) * deviations
    trials = signal + random.normal(size=(repetitions, images, 4)) + 1e4
    ceiling = noise_ceiling_from_repetitions(trials)
    np.testing.assert_allclose(ceiling, noise_ceiling_from_ncsnr(deviations, (images, 0, 0)), atol=0.02)
    score = StreamingScore(4)
    score.update(signal, trials.mean(0))
    np.testing.assert_allclose(ceiling, score.r**2, atol=0.02)


def test_ceiling_from_repetitions_at_its_ends():
    random = np.random.default_rng(0)
    image = random.normal(size=50)
    trials = np.stack([np.full((2, 50), 0.1), np.stack([image, image]), random.normal(size=(2, 50))], -1)
    constant, noiseless, noise = noise_ceiling_from_repetitions(trials)
    assert constant == 0
    assert noiseless == 1
    assert 0 <= noise < 0.5
    trials[0, 0, 0] = np.nan
    assert np.isnan(noise_ceiling_from_repetitions(trials)[0])
    with pytest.raises(UsageError, match="repetitions >= 2"):
        noise_ceiling_from_repetitions(trials[:1])


def test_official_score_by_hand():
    r = [0.5, -0.9, 0.9, 0.3, np.nan, 0.8]
    ceiling = [0.5, 0.5, 0.5, 0.9, 0.4, 0.0]
    # 50, 0 (negative), 100 (over the ceiling), 10, 0 (no correlation); the last has no ceiling
    got = official_score(r, ceiling)
    assert got.n == 5
    assert got.mean == pytest.approx((50 + 0 + 100 + 10 + 0) / 5)
    assert got.median == pytest.approx(10)


def test_official_score_without_ceilings_and_with_bad_ones():
    empty = official_score([0.5, 0.5], [0.0, np.nan])
    assert empty.n == 0
    assert np.isnan(empty.mean)
    assert np.isnan(empty.median)
    with pytest.raises(UsageError, match="divide percent by 100"):
        official_score([0.5], [35.0])
    with pytest.raises(UsageError, match="shape"):
        official_score([0.5], [0.3, 0.4])


def test_bootstrap_interval():
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
