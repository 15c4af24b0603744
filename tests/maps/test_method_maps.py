"""Maps and charts of the method."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from brainkit.maps.colours import position_palette
from brainkit.maps.method_charts import draw_coverage, draw_layer_profiles
from brainkit.maps.method_maps import cluster_map, weight_maps
from brainkit.metrics.channel_clusters import ChannelClusters
from brainkit.metrics.coverage import image_coverage
from brainkit.metrics.layer_profile import layer_profile

pytest.importorskip("matplotlib", reason="charts are drawn with it")


def test_weights_of_layers_share_their_limits():
    weights = np.array([[0.9, 0.1], [0.8, 0.2], [np.nan, np.nan]])
    early, late = weight_maps(("a", "b"), weights)
    assert (early.name, late.name) == ("weight-a", "weight-b")
    np.testing.assert_array_equal(late.values, weights[:, 1])
    assert early.coding.low == late.coding.low == 0 and early.coding.high == late.coding.high >= 0.9


def test_clusters_are_classes_and_vertices_without_are_unknown():
    clusters = ChannelClusters(np.array([1, -1, 0, 1], np.int32), np.eye(2), np.array([[1.0, 0, 0], [-1, 0, 0]]))
    found = cluster_map(clusters)
    assert found.known.tolist() == [True, False, True, True]
    assert found.values[[0, 2, 3]].argmax(axis=1).tolist() == [1, 0, 1]
    assert found.coding.names == ("1", "2") and found.coding.palette.shape == (2, 3)


def test_near_clusters_have_near_colours():
    positions = np.random.default_rng(0).uniform(-1, 1, (20, 3))
    colours = position_palette(positions)
    assert colours.min() >= 0 and colours.max() <= 1
    away = np.linalg.norm(positions[:, None] - positions, axis=-1)
    apart = np.linalg.norm(colours[:, None] - colours, axis=-1)
    pairs = np.triu_indices(20, 1)
    assert np.corrcoef(away[pairs], apart[pairs])[0, 1] > 0.6


@pytest.mark.parametrize("regions", [0, 1, 9])
def test_charts_of_any_number_of_regions(regions, tmp_path):
    random = np.random.default_rng(0)
    names = [f"$V{number} <b>" for number in range(regions)]
    coverage = {name: image_coverage(random.uniform(-1, 1, (20, 2))) for name in names}
    coverage["empty"] = image_coverage(np.empty((0, 2)))
    sizes = dict.fromkeys(coverage, 20)
    profiles = {name: layer_profile(random.dirichlet(np.ones(4), 20)) for name in names}
    profiles["empty"] = layer_profile(np.empty((0, 4)))
    first = draw_coverage(tmp_path / "coverage.png", coverage, sizes, title="t", note="SIMULATED")
    second = draw_layer_profiles(tmp_path / "layers.png", profiles, tuple("abcd"), title="t")
    for path in (first, second):
        tall = Image.open(path).height
        assert np.asarray(Image.open(path).convert("L")).std() > 0 and tall < 1000
