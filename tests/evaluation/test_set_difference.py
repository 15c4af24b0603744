"""Differences between scores on two sets of images."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.evaluation.evaluate import evaluate
from brainkit.evaluation.set_difference import ScoredSet, set_difference

ROIS = {"half": np.arange(10), "none": np.empty(0, int)}


def scored(name: str, n: int, noise: float, seed: int, *, groups: object = None, bootstrap: int = 200) -> ScoredSet:
    draw = np.random.default_rng(seed)
    signal = draw.normal(size=(n, 20))
    responses = signal + noise * draw.normal(size=(n, 20))
    labels = [f"{name}{k}" for k in range(n)] if groups is None else list(groups)  # type: ignore[call-overload]
    found = evaluate(
        signal,
        responses,
        rois=ROIS,
        noise_ceiling=np.full(20, 1 / (1 + noise**2)),
        groups=labels,
        bootstrap=bootstrap,
        permutations=0,
    )
    return ScoredSet(name, signal, responses, labels, found)


def test_a_difference_has_its_sign_and_its_interval() -> None:
    easy, hard = scored("easy", 120, 0.5, 0), scored("hard", 80, 2.0, 1)
    found = set_difference(easy, hard, ROIS)
    row = found.groups["all"]["r"]
    assert row["difference"] == pytest.approx(np.median(easy.evaluation.r) - np.median(hard.evaluation.r))
    assert 0 < row["low"] < row["difference"] < row["high"] < 1
    assert (row["n"], found.groups["half"]["r"]["n"], found.groups["none"]["r"]["n"]) == (20, 10, 0)
    assert np.isnan(found.groups["none"]["r"]["difference"])
    opposite = set_difference(hard, easy, ROIS).groups["all"]["r"]
    assert opposite["difference"] == pytest.approx(-row["difference"])
    assert "easy minus hard" in found.table().title


def test_a_set_does_not_differ_from_itself() -> None:
    one = scored("one", 60, 1.0, 0)
    for row in set_difference(one, one, ROIS).groups["all"].values():
        assert (row["difference"], row["low"], row["high"]) == pytest.approx((0, 0, 0), abs=1e-6)


def test_too_few_stimuli_give_no_interval() -> None:
    few = scored("few", 40, 1.0, 0, groups=np.arange(40) % 9)
    found = set_difference(few, scored("many", 40, 1.0, 1), ROIS)
    assert found.method is None and np.isnan(found.groups["all"]["r"]["low"])
    assert np.isfinite(found.groups["all"]["r"]["difference"])
    assert set_difference(scored("a", 40, 1, 0, bootstrap=0), scored("b", 40, 1, 1, bootstrap=0), ROIS).method is None


@pytest.mark.slow
def test_intervals_cover_the_true_difference() -> None:
    """95 % intervals of 120 pairs of sets with known correlations: 109 to 119 cover, but for one time in a thousand."""
    truth = 1 / np.sqrt(1 + 0.8**2) - 1 / np.sqrt(1 + 1.5**2)
    covered = 0
    for seed in range(120):
        pair = scored("a", 60, 0.8, 2 * seed), scored("b", 90, 1.5, 2 * seed + 1)
        row = set_difference(*pair, {}).groups["all"]["r"]
        covered += row["mean_low"] <= truth <= row["mean_high"]
    assert 106 <= covered <= 120


def test_the_smaller_set_decides_how_wide_an_interval_is() -> None:
    # 12 stimuli have few degrees of freedom, however many the other set has.
    few, many = scored("few", 12, 1.0, 0), scored("many", 300, 1.0, 1)
    assert set_difference(few, many, {}).method == set_difference(many, few, {}).method == "percentile"
