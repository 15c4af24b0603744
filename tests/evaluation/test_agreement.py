"""Depth by layer shares: the product measure, its depth, and the interval of its correlation."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.errors import UsageError
from brainkit.evaluation.agreement import depth_agreement
from brainkit.metrics.depth import relative_depth
from brainkit.metrics.spin import fit_sphere


def parts_and_responses(
    weights: np.ndarray, images: int = 120, noise: float = 0.5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Parts (L, n, V) of layers with these weights (V, L), and responses that are their sum with noise."""
    draw = np.random.default_rng(seed)
    parts = np.sqrt(weights.T)[:, None, :] * draw.standard_normal((weights.shape[1], images, len(weights)))
    return parts, parts.sum(0) + noise * draw.standard_normal((images, len(weights)))


def depths(vertices: int, layers: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(layers, 0.4), vertices)


def test_shares_are_himalayas_product_measure() -> None:
    scoring = pytest.importorskip("himalaya.scoring")
    parts, responses = parts_and_responses(depths(15))
    responses -= responses.mean(0)
    found = depth_agreement(np.zeros(15), parts, responses)
    np.testing.assert_allclose(found.shares.T, scoring.r2_score_split(responses, parts), atol=1e-5)
    residual = np.square(responses - parts.sum(0)).sum(0) / np.square(responses).sum(0)
    np.testing.assert_allclose(found.shares.sum(1), 1 - residual, atol=1e-5)


def test_equal_layer_weights_agree_and_others_do_not() -> None:
    weights = depths(200)
    parts, responses = parts_and_responses(weights)
    rois = {"few": np.arange(5), "half": np.arange(100)}
    same = depth_agreement(relative_depth(weights), parts, responses, rois=rois).groups
    assert same["all"]["r"] > 0.95 and same["half"]["r"] > 0.95 and same["all"]["reliability"] > 0.9
    assert np.isnan(same["few"]["r"])
    assert same["all"]["low"] < same["all"]["r"] < same["all"]["high"] < same["all"]["low"] + 0.1
    other = depth_agreement(relative_depth(depths(200, seed=5)), parts, responses)
    assert abs(other.groups["all"]["r"]) < 0.2


def test_vertices_without_explained_variance_are_left_out() -> None:
    weights = depths(40)
    parts, responses = parts_and_responses(weights)
    parts[:, :, :10] = np.random.default_rng(1).standard_normal((4, 120, 10)) * 3
    parts[:, :, 10] = 0
    found = depth_agreement(relative_depth(weights), parts, responses)
    assert not found.used[:11].any() and found.used[11:].all()
    assert found.groups["all"]["n"] == 29 and np.isnan(found.other[10])


@pytest.mark.slow
@pytest.mark.parametrize(("images", "noise"), [(40, 1.0), (80, 2.0)])
def test_the_interval_covers_the_mean_of_other_test_sets(images: int, noise: float) -> None:
    """Each stimulus has three images of the same signal and noise; without their groups the interval is too narrow."""
    weights, crops = depths(80), np.repeat(np.arange(images), 3)
    depth = 0.7 * relative_depth(weights) + 0.3 * relative_depth(depths(80, seed=5))
    found, alone = [], []
    for seed in range(200):
        parts, responses = (values[..., crops, :] for values in parts_and_responses(weights, images, noise, seed))
        found.append(depth_agreement(depth, parts, responses, groups=crops).groups["all"])
        alone.append(depth_agreement(depth, parts, responses).groups["all"])
    mean = np.tanh(np.mean([np.arctanh(each["r"]) for each in found]))

    def covered(intervals: list[dict[str, float]]) -> float:
        return float(np.mean([each["low"] <= mean <= each["high"] for each in intervals]))

    assert 0.91 < covered(found) < 0.985
    assert covered(alone) < covered(found) - 0.05


def test_the_reliability_bounds_the_correlation_of_noisy_shares() -> None:
    weights = depths(400)
    parts, responses = parts_and_responses(weights, 40, 3.0)
    found = depth_agreement(relative_depth(weights), parts, responses).groups["all"]
    assert 0.2 < found["reliability"] < 0.9
    assert found["r"] == pytest.approx(found["reliability"] ** 0.5, abs=0.12)  # the depths are equal but for noise


@pytest.mark.slow
def test_a_smooth_map_agrees_by_chance_and_the_spin_test_knows() -> None:
    """Both maps are smooth. Equal ones are told from unrelated ones, for which the test holds its level."""
    pytest.importorskip("scipy")
    draw = np.random.default_rng(0)
    points = draw.standard_normal((400, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    sphere = fit_sphere(points)
    basis = np.column_stack([points, points[:, :1] * points[:, 1:], points[:, 1] * points[:, 2]])

    def smooth(seed: int) -> np.ndarray:
        field = basis @ np.random.default_rng(seed).standard_normal((basis.shape[1], 4))
        weights = np.exp(2 * field / field.std())
        return np.asarray(weights / weights.sum(1, keepdims=True))

    def p(first: int, second: int) -> float:
        weights = smooth(first)
        parts, responses = parts_and_responses(weights, 40, 0.3, first)
        found = depth_agreement(relative_depth(smooth(second)), parts, responses, sphere=sphere, rotations=99)
        assert found.no_spin is None
        return found.p

    assert p(1, 1) <= 0.02
    null = [p(seed, 100 + seed) for seed in range(20)]
    assert 0.2 < np.mean(null) < 0.8 and np.mean(np.array(null) < 0.05) < 0.25


def test_few_stimuli_have_no_interval() -> None:
    weights = depths(30)
    parts, responses = parts_and_responses(weights, 40)
    found = depth_agreement(relative_depth(weights), parts, responses, groups=np.arange(40) // 5)
    assert np.isnan(found.groups["all"]["low"]) and found.groups["all"]["r"] > 0.5


def test_one_layer_has_no_depth() -> None:
    with pytest.raises(UsageError, match="2 layers"):
        depth_agreement(np.zeros(3), np.zeros((1, 10, 3)), np.zeros((10, 3)))
    np.testing.assert_allclose(relative_depth(np.eye(3)), [0, 0.5, 1])
