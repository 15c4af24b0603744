"""Coverage of the image, layer profiles, clusters of channels."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.errors import UsageError
from brainkit.metrics.channel_clusters import cluster_channels
from brainkit.metrics.coverage import image_coverage
from brainkit.metrics.layer_profile import layer_profile


def test_coverage_of_one_location_is_a_gaussian_there():
    found = image_coverage(np.array([[0.5, -0.25]]), side=80, bandwidth=0.1)
    centres = (np.arange(80) + 0.5) / 40 - 1
    assert found.mean() == pytest.approx(1)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert centres[column] == pytest.approx(0.5, abs=0.03) and centres[row] == pytest.approx(-0.25, abs=0.03)
    expected = np.exp(-((centres - 0.5) ** 2) / 0.02)
    np.testing.assert_allclose(found[row] / found[row].max(), expected / expected.max(), atol=1e-4)


def test_even_locations_cover_evenly_up_to_the_edges():
    grid = (np.arange(60) + 0.5) / 30 - 1
    locations = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    np.testing.assert_allclose(image_coverage(locations, side=30), 1, atol=1e-3)


def test_coverage_weighs_vertices_and_leaves_out_unknown_ones():
    locations = np.array([[-0.5, 0], [0.5, 0], [np.nan, 0], [0, 0]])
    found = image_coverage(locations, np.array([1, 3, 1, np.nan]), side=40, bandwidth=0.05)
    assert found[:, 20:].sum() / found[:, :20].sum() == pytest.approx(3)
    assert np.isnan(image_coverage(locations, np.zeros(4))).all()
    with pytest.raises(UsageError, match="negative"):
        image_coverage(locations, np.array([1, -1, 1, 1]))


def test_profile_is_the_mean_with_an_interval_like_the_standard_error():
    weights = np.random.default_rng(0).dirichlet([3, 2, 1], 400)
    found = layer_profile(np.vstack([weights, [np.nan] * 3]))
    np.testing.assert_allclose(found.mean, weights.mean(axis=0))
    error = weights.std(axis=0, ddof=1) / 20
    np.testing.assert_allclose(found.high - found.low, 2 * 1.96 * error, rtol=0.15)
    assert found.vertices == 400 and ((found.low < found.mean) & (found.mean < found.high)).all()
    empty = layer_profile(np.empty((0, 3)))
    assert empty.vertices == 0 and np.isnan(empty.mean).all()


def planted(groups=4, each=60, noise=0.15, seed=0):
    random = np.random.default_rng(seed)
    directions = random.normal(size=(groups, 16))
    directions[1] = directions[0] + 0.5 * random.normal(size=16)  # near the first
    which = random.permutation(np.repeat(np.arange(groups), each))
    return (directions[which] + noise * random.normal(size=(groups * each, 16))) * random.uniform(
        0.1, 9, (len(which), 1)
    ), which


def test_planted_clusters_are_found_whatever_the_length_of_the_weights():
    weights, which = planted()
    found = cluster_channels(weights, 4)
    assert len(found) == 4
    pairs = set(zip(found.labels.tolist(), which.tolist(), strict=True))
    assert len(pairs) == 4  # one to one
    assert {found.labels.min(), found.labels.max()} == {0, 3}
    again = cluster_channels(weights, 4)
    np.testing.assert_array_equal(found.labels, again.labels)
    np.testing.assert_array_equal(found.embedding, again.embedding)
    cluster_of = {group: cluster for cluster, group in pairs}
    near = [found.embedding[cluster_of[group]] for group in range(4)]
    distance = np.array([[np.linalg.norm(one - other) for other in near] for one in near])
    np.fill_diagonal(distance, np.inf)
    assert distance.argmin() in (1, 4) and abs(cluster_of[0] - cluster_of[1]) == 1


def test_vertices_without_weights_belong_to_no_cluster():
    weights, _ = planted()
    weights[3], weights[5] = 0, np.nan
    found = cluster_channels(weights, 4)
    assert found.labels[3] == found.labels[5] == -1 and (np.delete(found.labels, [3, 5]) >= 0).all()
    with pytest.raises(UsageError, match="nothing"):
        cluster_channels(np.zeros((5, 3)))


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_fewer_rows_than_clusters(rows):
    found = cluster_channels(np.repeat(np.eye(5)[:rows], 2, axis=0), 20)
    assert len(found) == rows and (found.labels[::2] == found.labels[1::2]).all()
    assert len(set(found.labels.tolist())) == rows and np.isfinite(found.embedding).all()
