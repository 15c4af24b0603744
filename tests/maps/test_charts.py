"""Charts of comparisons: drawn whatever is unknown, whatever names hold."""

from __future__ import annotations

import numpy as np

from brainkit.maps import comparison_charts as charts
from brainkit.maps.chart import Chart

POINT = {"value": 0.4, "low": 0.3, "high": 0.5, "q": 0.01}
BARE = {"value": 0.2, "low": None, "high": None, "q": 0.5}
NONE = {"value": None, "low": None, "high": None, "q": None}
ODD = "$\\alpha_b"  # no formula


def pixels(chart: Chart) -> np.ndarray:
    return chart.render()


def test_accuracy_by_group() -> None:
    arguments = {"measure": "r", "title": ODD, "note": "simulated"}
    accuracy = {ODD: {"V1": POINT, ODD: BARE}, "b": {"V1": BARE, "V2": NONE}}
    one, other = (
        pixels(
            charts.group_chart(
                accuracy=accuracy,
                differences={"b": {"V1": point}},
                difference="a minus b",
                **arguments,
            )
        )
        for point in (POINT, POINT | {"q": 0.2})
    )
    assert one.shape == other.shape and (one != other).any()  # filled, and open


def test_depth_along_the_cortex() -> None:
    line = {"value": 0.1, "low": None, "high": None, "p": None}
    area = {"depth": 0.3, "low": None, "high": None, "vertices": 5, "null_low": None, "null_high": None}
    bare = {"slope": line, "intercept": line, "r2": line, "areas": {"V1": area, ODD: area | {"depth": 0.4}}}
    known = area | {"low": 0.2, "high": 0.4, "null_low": 0.1, "null_high": 0.6}
    full = bare | {"slope": line | {"low": 0.0, "high": 0.2, "p": 0.01}, "areas": {"V1": known, "V2": known}}
    flat = bare | {"slope": line | {"value": None}, "areas": {"V1": area | {"depth": None}}}
    found = [pixels(charts.hierarchy_chart(hierarchies={ODD: each}, title="t")) for each in (bare, full, flat)]
    assert (found[0] != found[1]).any()
    many = pixels(charts.hierarchy_chart(hierarchies=dict.fromkeys("abcde", full), title="t"))
    assert many.shape[0] > found[0].shape[0]


def test_layers_by_roi() -> None:
    shares = {"a": np.array([[0.2, np.nan], [0.8, np.nan]]), "b": np.eye(3)[:, :2]}
    layers = {"a": ["one", ODD], "b": ["x", "y", "z"]}
    chart = charts.layers_by_roi_chart(shares=shares, layers=layers, rois=["V1", ODD], title="t")
    assert np.ptp(pixels(chart)) > 100


def test_a_leaderboard_of_one_and_of_many() -> None:
    rows = [("best", POINT, None), (ODD, BARE, {"value": -0.2, "low": None, "high": None, "p": 0.3})]
    one, two = (pixels(charts.leaderboard_chart(rows=rows[:count], measure="r", title="t")) for count in (1, 2))
    assert two.shape[0] > one.shape[0]
