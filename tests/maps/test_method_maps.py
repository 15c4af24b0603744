"""Maps and charts of the method."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from brainkit.maps.colours import position_palette
from brainkit.maps.method_charts import coverage_chart, layer_profile_chart
from brainkit.maps.method_maps import cluster_map, weight_maps
from brainkit.maps.style import DEFAULT, Style
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


@pytest.fixture
def charts():
    """Both charts of some ROIs in a style."""

    def make(rois, style=DEFAULT):
        random = np.random.default_rng(0)
        names = [f"$V{number} <b>" for number in range(rois)]
        coverage = {name: image_coverage(random.uniform(-1, 1, (20, 2))) for name in names}
        coverage["empty"] = image_coverage(np.empty((0, 2)))
        profiles = {name: layer_profile(random.dirichlet(np.ones(4), 20)) for name in names}
        profiles["empty"] = layer_profile(np.empty((0, 4)))
        return (
            coverage_chart(coverage, dict.fromkeys(coverage, 20), title="t", note="SIMULATED", style=style),
            layer_profile_chart(profiles, tuple("abcd"), title="t", style=style),
        )

    return make


@pytest.mark.parametrize("rois", [0, 1, 9])
def test_charts_of_any_number_of_rois(charts, rois, tmp_path):
    for chart in charts(rois):
        with Image.open(chart.write(tmp_path / "a.png")) as picture:
            assert np.asarray(picture.convert("L")).std() > 0 and picture.height < 1000


def test_charts_have_the_width_and_the_theme_of_the_style(charts):
    for theme, colour in (("dark", [0x15, 0x18, 0x1C]), ("light", [255] * 3)):
        for chart in charts(9, Style(theme, 5.0, dpi=40)):
            pixels = chart.render()
            assert pixels.shape[1] == 200 and pixels[0, 0].tolist() == colour
            for axes in chart.figure.axes:
                box = axes.get_position()
                assert box.x0 >= 0 and box.x1 <= 1 and box.y0 >= 0 and box.y1 <= 1
    assert all(chart.render().shape[2] == 4 for chart in charts(2, Style("transparent", dpi=40)))


def test_text_of_charts_is_text_in_svg(charts, tmp_path):
    for chart in charts(2):
        assert ">$V0 &lt;b&gt;<" in chart.write(tmp_path / "a.svg").read_text()
