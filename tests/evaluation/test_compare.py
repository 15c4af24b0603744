"""Two models compared on the same images."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.errors import UsageError
from brainkit.evaluation.compare import compare_predictions, over_subjects, summarise_accuracy
from brainkit.evaluation.evaluate import evaluate

SMALL = {"bootstrap": 200, "permutations": 199}


@pytest.fixture(scope="module")
def values() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((90, 30))
    clean = np.r_[np.full(15, 0.4), np.full(15, 1.5)]  # where model a is better, and where it is worse
    a, b = (signal + size * rng.standard_normal((90, 30)) for size in (clean, clean[::-1]))
    return {"a": a, "b": b, "responses": signal + 0.5 * rng.standard_normal((90, 30))}


ROIS = {"better": np.arange(15), "worse": np.arange(15, 30), "none": np.empty(0, int)}


def test_differences_are_found_where_they_are(values: dict[str, np.ndarray]) -> None:
    found = compare_predictions(**values, noise_ceiling=np.full(30, 0.8), rois=ROIS, **SMALL)
    better, worse, every = (found.groups[name]["r"] for name in ("better", "worse", "all"))
    assert 0 < better["low"] < better["difference"] < better["high"]
    assert worse["low"] < worse["difference"] < worse["high"] < 0
    assert better["p"] == worse["p"] == 1 / 200
    assert better["q"] <= 0.05 and every["n"] == 30
    assert better["a"] > better["b"]
    assert (found.q[:15] < 0.05).mean() > 0.9 and (found.p <= found.p_max).all()
    assert (found.low < found.difference["r"]).all() and (found.difference["r"] < found.high).all()
    assert found.groups["none"]["r"]["difference"] is None and found.groups["none"]["r"]["n"] == 0
    assert found.method == "BCa" and found.n_groups == 90


def test_the_models_can_be_given_in_either_order(values: dict[str, np.ndarray]) -> None:
    a, b, y = values.values()
    one, other = (compare_predictions(*pair, y, rois=ROIS, **SMALL) for pair in ((a, b), (b, a)))
    np.testing.assert_allclose(one.difference["r"], -other.difference["r"], atol=1e-6)
    np.testing.assert_allclose(one.p, other.p)
    assert one.groups["better"]["R2"]["difference"] == pytest.approx(-other.groups["better"]["R2"]["difference"])


def test_a_model_does_not_differ_from_itself(values: dict[str, np.ndarray]) -> None:
    found = compare_predictions(values["a"], values["a"], values["responses"], **SMALL)
    assert (found.p == 1).all() and found.groups["all"]["r"]["p"] == 1
    assert found.groups["all"]["r"]["difference"] == 0


def test_accuracy_is_that_of_evaluate(values: dict[str, np.ndarray]) -> None:
    ceiling = np.r_[np.full(29, 0.8), np.nan]
    found = summarise_accuracy(values["a"], values["responses"], noise_ceiling=ceiling, rois=ROIS, bootstrap=100)
    expected = evaluate(values["a"], values["responses"], noise_ceiling=ceiling, rois=ROIS, bootstrap=0, permutations=0)
    for group in ("all", "better"):
        for measure in ("r", "R2", "explained"):
            for key in ("median", "mean", "n"):
                assert found[group][measure][key] == pytest.approx(expected.groups[group][measure][key], abs=1e-5)


def test_few_stimuli_have_no_interval_but_all_their_exchanges(values: dict[str, np.ndarray]) -> None:
    groups = [f"photograph {row % 6}" for row in range(90)]
    found = compare_predictions(**values, groups=groups, **SMALL)
    line = found.groups["all"]["r"]
    assert found.method is None and np.isnan(found.low).all() and line["low"] is None
    assert found.n_groups == 6 and found.exchanges == 63
    assert line["p"] >= 2 / 64  # exchanging all stimuli gives the same difference with the other sign


def test_the_runs_of_a_model_count_as_one(values: dict[str, np.ndarray]) -> None:
    a, b, y = values.values()
    rng = np.random.default_rng(1)
    runs = [a + 0.1 * rng.standard_normal(a.shape) for _ in range(3)]
    found = compare_predictions(runs, [b], y, rois=ROIS, **SMALL)
    single = [compare_predictions(run, b, y, rois=ROIS, **SMALL).difference["r"] for run in runs]
    np.testing.assert_allclose(found.difference["r"], np.mean(single, axis=0), atol=1e-5)
    line = found.groups["better"]["r"]
    assert line["low"] < line["difference"] < line["high"] and line["p"] == 1 / 200


@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.parametrize(
    "draws", [50, 300]
)  # with 300, the differences of all vertices fit, the scores of all draws do not
def test_memory_that_holds_few_draws_gives_the_same(
    values: dict[str, np.ndarray], runs: int, draws: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, y = values.values()
    models = [a + 0.1 * k for k in range(runs)], [b] * runs
    wanted = compare_predictions(*models, y, rois=ROIS, **SMALL)
    for module in ("model_draws", "resampled"):
        monkeypatch.setattr(f"brainkit.evaluation.{module}.DRAWN", 30 * draws)
    found = compare_predictions(*models, y, rois=ROIS, **SMALL)
    for name, array in wanted.arrays().items():
        np.testing.assert_allclose(found.arrays()[name], array, atol=1e-6)
    for measure in ("r", "R2"):
        assert found.groups["better"][measure] == pytest.approx(wanted.groups["better"][measure], abs=1e-6)


def test_the_largest_difference_is_that_of_all_blocks_of_vertices(values: dict[str, np.ndarray]) -> None:
    """With more vertices than are tested at a time, those of other blocks count too."""
    a, b, y = (np.tile(each, 20) for each in values.values())
    found = compare_predictions(a, b, y, **SMALL)
    few = compare_predictions(*values.values(), **SMALL)
    np.testing.assert_allclose(found.p_max, np.tile(few.p_max, 20))
    np.testing.assert_allclose(found.p, np.tile(few.p, 20))


def test_unequal_shapes_and_single_images_are_refused(values: dict[str, np.ndarray]) -> None:
    a, b, y = values.values()
    with pytest.raises(UsageError):
        compare_predictions(a, b[:, :5], y)
    with pytest.raises(UsageError):
        compare_predictions(a[:1], b[:1], y[:1])


def test_subjects_are_a_random_effect() -> None:
    from scipy.stats import ttest_1samp

    values = {"subj01": 0.1, "subj02": 0.2, "subj03": 0.15, "subj04": None}
    found = over_subjects(values)
    test = ttest_1samp([0.1, 0.2, 0.15], 0)
    ends = test.confidence_interval(0.95)
    assert found["n"] == 3 and found["values"] == values
    assert [found["difference"], found["p"]] == pytest.approx([0.15, test.pvalue])
    assert [found["low"], found["high"]] == pytest.approx([ends.low, ends.high])
    one = over_subjects({"subj01": 0.1})
    assert one["difference"] == 0.1 and one["low"] is one["p"] is None


def test_vertices_with_a_missing_prediction_explain_no_share(values: dict[str, np.ndarray]) -> None:
    predictions = values["a"].copy()
    predictions[4, 1] = np.nan
    found = compare_predictions(predictions, values["b"], values["responses"], noise_ceiling=np.full(30, 0.8), **SMALL)
    assert np.isnan(found.difference["explained"][1]) and found.groups["all"]["explained"]["n"] == 29


def test_vertices_without_responses_explain_no_share(values: dict[str, np.ndarray]) -> None:
    responses = values["responses"].copy()
    responses[:, 0], responses[4, 1] = 2.0, np.nan
    ceiling = np.full(30, 0.8)
    found = compare_predictions(values["a"], values["b"], responses, noise_ceiling=ceiling, **SMALL)
    assert np.isnan(found.difference["explained"][:2]).all()
    assert found.groups["all"]["explained"]["n"] == 28
    assert (
        summarise_accuracy(values["a"], responses, noise_ceiling=ceiling, bootstrap=50)["all"]["explained"]["n"] == 28
    )
