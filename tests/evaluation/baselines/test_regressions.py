"""The regressions: what they find, what they choose on, and that nothing of the test images reaches them."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("himalaya")
pytest.importorskip("pytorch_lightning")

from small_models import GRID, Responses, arrays_of, memory_tokens

from brainkit.data.split import Split
from brainkit.errors import DataError, UsageError
from brainkit.evaluation.baselines import banded, kernels, ridge, stacked
from brainkit.evaluation.baselines.catalog import Workplace, catalog, choose, compute_all
from brainkit.evaluation.baselines.problem import Problem

REGRESSIONS = ("ridge-layers", "best-layer", "ridge-global", "ridge-all", "banded", "pca-ols", "stacked")
SPLIT = Split(np.arange(100), np.arange(100, 120), np.arange(120, 160), seed=0)


def linear_problem(noise: float = 0.3, seed: int = 0) -> Problem:
    """Vertex 0 reads the late global token, vertex 1 the early local ones, vertex 2 nothing."""
    tokens = memory_tokens(n=160, widths={"early": 2, "late": 2}, grid=GRID, seed=seed)
    local, whole = tokens.batch(np.arange(160))
    draw = np.random.default_rng(seed)
    signal = [whole["late"].numpy() @ [1, 2], local["early"].flatten(1).numpy() @ np.linspace(-1, 1, 24)]
    values = np.column_stack([*((each - each.mean()) / each.std() for each in signal), np.zeros(160)])
    values = values + noise * draw.standard_normal(values.shape) + [0, 5, -3]
    return Problem(tokens, [], Responses(values), [str(k // 2) for k in range(160)], SPLIT)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    problem = linear_problem()
    results = compute_all(REGRESSIONS, Workplace(problem))
    truth = problem.responses.rows(SPLIT.test)
    r = {name: ridge.column_correlation(result.predictions, truth) for name, (result, _) in results.items()}
    return {"problem": problem, "results": results, "r": r}


def test_every_regression_finds_what_is_linear_in_its_tokens(found: dict[str, Any]) -> None:
    r = found["r"]
    for name in ("ridge-layer-1", "best-layer", "ridge-all", "banded", "stacked"):
        assert r[name][1] > 0.8, name
    assert r["pca-ols"][:2].min() > 0.3  # 25 of the 52 components
    for name in ("ridge-layer-2", "best-layer", "ridge-global", "ridge-all", "banded", "stacked"):
        assert r[name][0] > 0.8, name
    for name in ("ridge-layer-1", "ridge-global"):
        assert r[name][0 if name == "ridge-layer-1" else 1] < 0.6, name
    assert all(abs(values[2]) < 0.5 for values in r.values())


def test_predictions_are_in_the_units_of_the_responses(found: dict[str, Any]) -> None:
    for result, _ in found["results"].values():
        assert result.predictions.shape == (40, 3)
        np.testing.assert_allclose(result.predictions.mean(0), [0, 5, -3], atol=0.6)


def test_the_chosen_layers_are_the_ones_that_carry_the_signal(found: dict[str, Any]) -> None:
    results = {name: result for name, (result, _) in found["results"].items()}
    assert results["best-layer"].arrays["layer"][:2].tolist() == [1, 0]
    assert (np.argmax(results["stacked"].arrays["layer_weights"], 1)[:2] == [1, 0]).all()
    bands = results["banded"].arrays["band_weights"]
    assert bands[0, 1, 1] > 0.4 and bands[1, 0, 0] > 0.4
    np.testing.assert_allclose(bands.sum((1, 2)), 1, rtol=1e-5)


def test_the_parts_of_banded_ridge_add_up_to_its_predictions(found: dict[str, Any]) -> None:
    result = found["results"]["banded"][0]
    total = result.arrays["layer_predictions"].astype(float).sum(0) * result.arrays["unit"] + result.arrays["mean"]
    np.testing.assert_allclose(total, result.predictions, atol=5e-3)


def test_test_responses_play_no_part_and_validation_only_chooses_the_layer(found: dict[str, Any]) -> None:
    problem = found["problem"]
    values = problem.responses.values.copy()
    values[SPLIT.test] = np.nan
    values[SPLIT.validation] = np.random.default_rng(1).standard_normal((20, 3))
    hidden = compute_all(REGRESSIONS, Workplace(replace(problem, responses=Responses(values))))
    for name, (result, _) in found["results"].items():
        same = np.array_equal(result.predictions, hidden[name][0].predictions)
        assert same or name == "best-layer", name


def test_folds_keep_the_images_of_a_stimulus_together() -> None:
    problem = linear_problem()
    for fit_on, held_out in problem.folds:
        groups = [{problem.groups[SPLIT.train[position]] for position in side} for side in (fit_on, held_out)]
        assert not groups[0] & groups[1]
    with pytest.raises(DataError, match="at least 2 stimuli"):
        _ = replace(problem, groups=["one"] * 160).folds


def test_kernels_are_the_products_of_standardised_features(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = linear_problem()
    local, whole = arrays_of(problem.tokens)
    for block in (2**27, 1):  # in one block, and channel by channel
        monkeypatch.setattr(kernels, "_BLOCK", block)
        pair = kernels.TokenKernels(problem).layer("late")
        for kernel, tokens in zip(pair, (local["late"].reshape(160, 2, -1), whole["late"][:, :, None]), strict=True):
            training = tokens[SPLIT.train]
            features = ((tokens - training.mean(0)) / training.std((0, 2))[:, None]).reshape(160, -1)
            expected = features @ features.T
            expected /= np.diag(expected)[:100].mean()
            np.testing.assert_allclose(kernel.values, expected, atol=2e-3)
            assert kernel.features == features.shape[1]


def test_constant_channels_and_constant_responses_are_no_trouble() -> None:
    problem = linear_problem()
    local, whole = arrays_of(problem.tokens)
    local["early"][:, 0] = 3
    values = problem.responses.values.copy()
    values[:, 2] = 7
    tokens = type(problem.tokens).of_arrays(local, whole)
    changed = replace(problem, tokens=tokens, responses=Responses(values))
    for name, (result, _) in compute_all(REGRESSIONS, Workplace(changed)).items():
        assert np.isfinite(result.predictions).all(), name
        np.testing.assert_allclose(result.predictions[:, 2], 7, atol=1e-4, err_msg=name)


def test_dual_weights_solve_the_ridge_equations() -> None:
    draw = np.random.default_rng(0)
    features = draw.standard_normal((30, 5))
    targets, alphas = draw.standard_normal((30, 4)), np.array([0.1, 1, 10, 100.0])
    dual = ridge.dual_weights(features @ features.T, targets, alphas)
    for vertex, alpha in enumerate(alphas):
        weights = np.linalg.solve(features.T @ features + alpha * np.eye(5), features.T @ targets[:, vertex])
        np.testing.assert_allclose(features.T @ dual[:, vertex], weights, atol=1e-8)


def test_convex_weights_minimise_the_error() -> None:
    draw = np.random.default_rng(0)
    errors = draw.standard_normal((6, 50, 3)) * [1.0, 2.0, 0.5]
    found = stacked.convex_weights(np.einsum("vnl,vnm->vlm", errors, errors))
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(1), 1)
    for weights, each in zip(found, errors, strict=True):
        best = np.square(each @ weights).sum()
        others = draw.dirichlet(np.ones(3), 2000)
        assert np.square(each @ others.T).sum(0).min() >= best * (1 - 1e-6)


def test_weightings_cover_equal_layers_and_each_alone() -> None:
    tried = banded.candidate_weights(3, 8)
    assert tried.shape == (12, 3, 2)
    np.testing.assert_allclose(tried.sum((1, 2)), 1)
    np.testing.assert_allclose(tried[0], 1 / 6)
    np.testing.assert_allclose(tried[1:4].sum(2), np.eye(3))
    np.testing.assert_array_equal(tried, banded.candidate_weights(3, 8))


def test_names_are_chosen_with_what_they_need() -> None:
    known = catalog(("a", "b"))
    assert choose((), known) == list(known)
    assert choose(["stacked"], known) == ["ridge-layer-1", "ridge-layer-2", "stacked"]
    assert choose(["ridge-layers,mean"], known) == ["mean", "ridge-layer-1", "ridge-layer-2"]
    with pytest.raises(UsageError, match="banded"):
        choose(["bandedd"], known)


def test_a_baseline_without_tokens_reads_images(tmp_path: Path) -> None:
    from PIL import Image

    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (160, 4, 4, 3), dtype=np.uint8)
    paths = []
    for row, image in enumerate(images):
        paths.append(tmp_path / f"{row}.png")
        Image.fromarray(image).resize((64, 64), Image.Resampling.NEAREST).save(paths[-1])
    values = np.column_stack([images[:, :2].mean((1, 2, 3)), images[:, :, :, 0].mean((1, 2))]) / 20
    problem = replace(linear_problem(), images=paths, responses=Responses(values))
    results = compute_all(["pixels", "mean"], Workplace(problem))
    r = ridge.column_correlation(results["pixels"][0].predictions, values[SPLIT.test])
    assert r.min() > 0.8
    mean = results["mean"][0]
    np.testing.assert_allclose(mean.predictions, np.tile(values[SPLIT.train].mean(0), (40, 1)), rtol=1e-5)
    assert mean.parameters == 2
