"""What maps show: limits, summaries and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.errors import UsageError
from brainkit.maps import definitions
from brainkit.maps.brain_map import Categorical, Continuous
from brainkit.maps.catalog import evaluation_maps, trained_maps
from brainkit.maps.changes import Changes
from brainkit.maps.limits import round_up, same_limits, share_limits
from brainkit.maps.reliability import Predicted, Sure
from brainkit.metrics.scores import LEAST_CEILING

pytest.importorskip("matplotlib")


def limits(brain_map):
    assert isinstance(brain_map.coding, Continuous)
    return brain_map.coding.low, brain_map.coding.high


def test_maps_without_scores_leave_them_out(map_set):
    every = map_set().names
    assert every == ("accuracy", "explained", "layer", "location", "scale")
    unknown = np.full(600, np.nan)
    assert map_set(r=None, R2=None, noise_ceiling=None).names == map_set(r=unknown, R2=unknown).names == every[2:]
    assert map_set(noise_ceiling=unknown).names == ("accuracy", *every[2:])


def test_the_published_gauge_is_stated(map_set):
    maps = map_set(gauge="published")
    assert all("published" in maps[name].detail for name in ("layer", "scale"))
    assert "published" not in maps["location"].detail


@pytest.mark.parametrize("name", ["layer_weights", "locations", "r", "R2", "noise_ceiling"])
def test_shapes_that_do_not_fit_are_refused(subject, map_set, name):
    with pytest.raises(UsageError, match=name):
        map_set(**{name: subject[name][:-1]})


def test_shares_of_explainable_variance_at_the_ceiling_are_counted():
    r, ceiling = np.array([0.9, 0.9, 0.5, 0.5, 0.5]), np.full(5, 0.5)
    found = definitions.explained(r, ceiling)
    assert "40 %" in found.summary and found.coding.extend == "max"
    assert definitions.explained(r[2:], ceiling[2:]).coding.extend == "neither"
    ceiling[:] = [LEAST_CEILING / 2, np.nan, 0.5, 0.5, 0.5]
    assert "3 of 5" in definitions.explained(r, ceiling).summary


def test_confidence_is_0_for_equal_weights_and_1_for_one_layer():
    found = definitions.layer(("a", "b", "c"), np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [np.nan, 0, 0]]))
    np.testing.assert_allclose(found.strength, [1, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(found.known, [True, True, False])
    assert isinstance(found.coding, Categorical) and "confidence" in found.coding.strength_label
    assert definitions.layer(("a",), np.ones((4, 1))).strength.tolist() == [1] * 4


def test_infinite_values_are_counted_and_set_no_limit():
    found = definitions.anything("x", np.array([0.0, 1.0, np.inf, -np.inf, np.nan]))
    assert "2 infinite" in found.detail and limits(found) == (0.0, 1.0) and found.known.sum() == 2


def test_numbers_around_zero_diverge():
    found = definitions.anything("x", np.linspace(-2, 4, 100))
    assert limits(found) == (-4.0, 4.0) and found.coding.colours == definitions.DIVERGING


@pytest.mark.parametrize(("value", "top"), [(0.0, 0.1), (0.11, 0.15), (0.61, 0.8), (2.0, 2.0), (27, 30)])
def test_limits_are_round(value, top):
    assert round_up(value, 0.1) == pytest.approx(top)


def test_maps_to_be_compared_share_their_limits(map_set):
    low, high = definitions.accuracy(np.full(600, 0.2)), definitions.accuracy(np.full(600, 0.6))
    assert limits(low) != limits(high)
    assert [limits(each) for each in same_limits([low, high])] == [limits(high)] * 2
    sets = share_limits([map_set(R2=np.full(600, 0.2)), map_set(R2=np.full(600, 0.6))])
    assert limits(sets[0]["accuracy"]) == limits(sets[1]["accuracy"])
    assert sets[0]["layer"].coding.names == sets[1]["layer"].coding.names


def test_colours_around_0_are_shared_by_maps_without_negative_values():
    both, positive = (definitions.anything(name, np.array(values)) for name, values in (("a", [-1, 1]), ("b", [0, 5])))
    shared = same_limits([both, positive])
    assert [limits(each) for each in shared] == [(-5, 5)] * 2
    assert {each.coding.colours for each in shared} == {both.coding.colours}
    assert [each.coding.shared for each in shared] == [2, 2] and same_limits([both])[0].coding.shared == 0


def test_vertices_fade_evenly_with_the_standard_error():
    se = np.array([0.0, 0.05, 0.1, 0.3, np.nan])
    predicted = Predicted(np.array([0.0, 0.0, 0.0, 0.0, 1.0]), 40)
    for found in (
        definitions.scale(np.ones(5), Sure(se, 0.1, predicted)),
        definitions.layer(("a", "b"), np.full((5, 2), 0.5), Sure(se, 0.1, predicted)),
    ):
        np.testing.assert_allclose(found.strength, [1, 0.5, 0, 0, 0])
        np.testing.assert_array_equal(found.reliable, predicted.reliable)
    assert definitions.scale(np.ones(5), Sure(se, 0.1)).reliable is None


def test_an_evaluation_has_the_maps_that_it_can_have():
    r, p, nothing = np.array([0.5, 0.1, 0.3]), np.array([0.001, 0.4, np.nan]), np.full(3, np.nan)
    names = [each.name for each in evaluation_maps(r, p, p, np.full(3, 0.5), 40)]
    assert names == ["correlation", "explained", "significance"]
    (alone,) = evaluation_maps(r, nothing, nothing, nothing, 40)
    assert alone.name == "correlation" and alone.reliable is None


def test_a_map_says_why_it_is_empty():
    unreliable = Predicted(np.ones(3), 40)
    assert definitions.scale(np.ones(3)).empty == ""
    assert definitions.scale(np.ones(3), unreliable).empty == unreliable.none
    assert definitions.scale(np.full(3, np.nan), unreliable).empty != unreliable.none


def test_changes(map_set, subject):
    maps = map_set()
    changed = Changes(only=("scale", "layer"), rois=("early",), cmap="cividis", vmin=0.2, vmax=0.5).apply(maps)
    assert changed.names == ("scale", "layer") and list(changed.rois) == ["early"]
    assert limits(changed["scale"]) == (0.2, 0.5) and changed["scale"].coding.extend == "both"
    assert changed["scale"].coding.colours == "cividis"
    assert not np.allclose(changed["layer"].coding.palette, maps["layer"].coding.palette)
    assert len(Changes(rois=()).apply(maps).rois) == 0
    for wrong in (Changes(only=("layr",)), Changes(rois=("erly",)), Changes(cmap="virids"), Changes(vmin=2.0)):
        with pytest.raises(UsageError):
            wrong.apply(maps)
    with pytest.raises(UsageError, match="vmax"):
        Changes(vmax=np.inf)


def test_classes_from_names_numbers_and_shares():
    named = definitions.classes("x", np.array(["b", "a", "", "b"]))
    assert named.coding.names == ("a", "b") and named.known.tolist() == [True, True, False, True]
    numbered = definitions.classes("x", np.array([0, 2, -1]), ["a", "b", "c"])
    assert numbered.values.argmax(axis=1)[:2].tolist() == [0, 2] and not numbered.known[2]
    with pytest.raises(UsageError, match="labels"):
        definitions.classes("x", np.array([0, 5]), ["a"])
    with pytest.raises(UsageError, match="labels"):
        definitions.classes("x", np.ones((3, 4)), ["a"])


def test_an_effect_counts_what_passes():
    found = definitions.effect(np.array([1.0, -1.0]), np.array([0.01, 0.5]), ("faces", "x" * 60), (3, 4))
    assert "1 of 2" in found.title and found.reliable.tolist() == [True, False] and len(found.title) < 90
    assert found.coding.ends[1].endswith("faces")


def test_everything_comes_from_one_call(subject):
    values = {name: given for name, given in subject.items() if name not in ("vertices", "rois")}
    assert [each.name for each in trained_maps(**values)][:2] == ["accuracy", "explained"]
