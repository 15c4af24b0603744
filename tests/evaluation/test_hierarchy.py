"""Preferred depth against the order of areas."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.cortex.rois import RoiTable
from brainkit.errors import UsageError
from brainkit.evaluation.hierarchy import (
    AreaOrder,
    analyse_hierarchy,
    fit_line,
    layers_by_roi,
    order_areas,
    run_interval,
    shared_images,
)
from brainkit.metrics.spin import Spins


def table(**rois: list[int]) -> RoiTable:
    return RoiTable({name.replace("_", "-"): np.array(members, int) for name, members in rois.items()}, 20)


def test_the_order_is_found_from_the_names_of_the_field() -> None:
    rois = table(V1v=[0, 1], V1d=[2], V2v=[3], V3d=[4], hV4=[5], FFA_1=[6, 5], PPA=[7], early=[0, 1, 2], ventral=[6])
    found = order_areas(rois)
    assert found is not None
    assert found.names == ("V1", "V2", "V3", "V4", "higher")
    assert [each.tolist() for each in found.members] == [[0, 1, 2], [3], [4], [5], [6, 7]]
    assert found.steps.tolist() == [0, 0, 0, 1, 2, 3, 4, 4]
    streams = order_areas(rois, "streams")
    assert streams is not None and streams.names == ("early", "high")


def test_streams_are_the_order_where_there_are_no_early_areas() -> None:
    found = order_areas(table(early=[0], midventral=[1], midlateral=[2], ventral=[3], parietal=[4]))
    assert found is not None
    assert dict(zip(found.names, map(list, found.members), strict=True)) == {
        "early": [0],
        "mid": [1, 2],
        "high": [3, 4],
    }
    assert order_areas(table(mine=[0], other=[1])) is None


def test_an_order_can_be_named() -> None:
    rois = table(one=[0, 1], two=[2], three=[3])
    found = order_areas(rois, "three, two+one")
    assert found is not None and found.names == ("three", "two+one")
    assert [each.tolist() for each in found.members] == [[3], [0, 1, 2]]


@pytest.mark.parametrize("order", ["one", "one,four", "one,one", "streams", "one,empty"])
def test_an_order_that_cannot_be_is_refused(order: str) -> None:
    with pytest.raises(UsageError):
        order_areas(table(one=[0, 1], two=[2], empty=[]), order)


def test_lines_are_fitted_over_the_vertices_that_have_a_depth() -> None:
    steps = np.array([0.0, 0, 1, 1, 2, 2])
    depth = np.array([[0.1, 0.2, 0.3, 0.5, np.nan, 0.7], [0.5] * 6])
    slope, intercept, r = fit_line(steps, depth)
    known = np.isfinite(depth[0])
    expected = np.polyfit(steps[known], depth[0, known], 1)
    np.testing.assert_allclose([slope[0], intercept[0]], expected)
    assert r[0] == pytest.approx(np.corrcoef(steps[known], depth[0, known])[0, 1])
    assert np.isnan(slope[1]) and np.isnan(r[1])


def test_the_analysis_of_one_run_has_no_interval_and_of_several_has_one() -> None:
    order = AreaOrder(("early", "late"), (np.arange(5), np.arange(5, 10)))
    rng = np.random.default_rng(0)
    depth = np.r_[np.full(5, 0.2), np.full(5, 0.6)] + 0.05 * rng.standard_normal((4, 10))
    one = analyse_hierarchy(depth[:1], order)
    assert one["slope"]["low"] is None and one["slope"]["p"] is None and one["interval_over"] is None
    sources = np.array([rng.permutation(10) for _ in range(99)], np.int32)
    shared = np.full((4, 4), 0.5) + 0.5 * np.eye(4)
    found = analyse_hierarchy(depth, order, spins=Spins(sources, 99), shared=shared)
    assert found["interval_over"] == "images and seeds"
    assert found["slope"]["low"] < 0.4 < found["slope"]["high"]
    assert found["slope"]["value"] == pytest.approx(0.4, abs=0.1)
    assert 0 <= found["r2"]["low"] < found["r2"]["value"] <= found["r2"]["high"] <= 1
    assert found["slope"]["p"] == found["r2"]["p"] <= 0.05
    assert found["spin"]["slope_low"] < 0 < found["spin"]["slope_high"]
    area = found["areas"]["late"]
    assert area["low"] < area["depth"] < area["high"] and area["null_high"] < area["depth"]
    seeds = analyse_hierarchy(depth, order, shared=np.ones((4, 4)))
    assert seeds["interval_over"] == "seeds"


def test_intervals_over_runs_know_which_images_they_share() -> None:
    halves = shared_images([np.arange(50), np.arange(50, 100)])
    np.testing.assert_allclose(halves, np.eye(2))
    values = np.array([0.1, 0.3])
    # Two halves: the variance of their mean is that of a half over 2, with one degree of freedom.
    low, high = run_interval(values, halves)
    assert high - low == pytest.approx(2 * 12.7062 * np.sqrt(0.02 / 2), rel=1e-4)
    overlapping = shared_images([np.arange(50), np.arange(25, 75)])
    low, high = run_interval(values, overlapping)
    # Half shared: a run's variance is 0.02 / (1 - 0.5), that of the mean 1.5 / 2 of it.
    assert overlapping[0, 1] == 0.5 and high - low == pytest.approx(2 * 12.7062 * np.sqrt(0.03), rel=1e-4)
    assert np.isnan(run_interval(values[:1], np.ones((1, 1)))).all()


def test_layers_are_averaged_by_roi() -> None:
    weights = np.array([[1.0, 0], [0.5, 0.5], [0, 1]])
    found = layers_by_roi(weights, {"a": np.array([0, 1]), "none": np.empty(0, int)})
    np.testing.assert_allclose(found, [[0.75, np.nan], [0.25, np.nan]])
