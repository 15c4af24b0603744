"""The benchmark of accuracy: measures, the same model with other gains, ridge regression, the page."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from small_models import GRID, Responses, memory_tokens, small_model

from bench import accuracy, accuracy_page
from bench.fitting import Sample, Trained
from brainkit.data.split import Split
from brainkit.evaluation.scores import Scores
from brainkit.features.cache import TokenCache

SPLIT = Split(np.arange(24), np.arange(24, 32), np.arange(32, 40), seed=0)


def sample(tokens: TokenCache, responses: np.ndarray, ceiling: float = 0.5) -> Sample:
    subject: Any = SimpleNamespace(groups=np.arange(len(responses)) // 2)
    return Sample(subject, tokens, Responses(responses), np.full(responses.shape[1], ceiling), {})  # type: ignore[arg-type]


def trained(tokens: TokenCache, gauge: str, seed: int = 0) -> Trained:
    model = small_model(tokens, gauge=gauge)
    with torch.no_grad():
        model.layer_selector_mlp[5].weight.normal_(generator=torch.Generator().manual_seed(seed))
    scores = Scores(np.full(20, 0.6), np.full(20, 0.3), np.full(20, 0.5), 8)
    return Trained(model.eval(), scores, 1.0, 1, 3)


def test_other_gains_move_the_layer_map_and_not_the_predictions() -> None:
    tokens = memory_tokens()
    found = accuracy.regauged(sample(tokens, np.zeros((40, 20))), SPLIT, trained(tokens, "published"))
    assert found["predictions_apart"] < 1e-4
    assert found["depth_apart"] > 1e-3
    assert found["depth_apart_most"] >= found["depth_apart"]
    unit = accuracy.regauged(sample(tokens, np.zeros((40, 20))), SPLIT, trained(tokens, "unit"))
    assert unit["predictions_apart"] < 1e-4


def test_agreement_of_expected_depth_location_and_scale() -> None:
    tokens = memory_tokens()
    one, other = trained(tokens, "unit"), trained(tokens, "unit", seed=1)
    subject = sample(tokens, np.zeros((40, 20)))
    itself = accuracy.agreement(subject, one, one)
    assert itself["depth_r"] == pytest.approx(1) and itself["scale_r"] == pytest.approx(1)
    assert itself["depth_apart"] == itself["location_apart"] == itself["scale_apart"] == 0
    found = accuracy.agreement(subject, one, other)  # only the layers differ
    weights = [run.model.selectors().layer_weights.detach().numpy()[:, 1] for run in (one, other)]
    assert found["depth_apart"] == pytest.approx(np.median(np.abs(weights[0] - weights[1])), rel=1e-5)
    assert found["location_apart"] == 0


def test_medians_are_over_vertices_with_a_ceiling_above_the_floor() -> None:
    scores = Scores(np.array([0.8, 0.6, np.nan, 0.1]), np.array([0.5, 0.3, -1, 0]), np.array([0.9, 0.8, 0.7, 0.1]), 8)
    found = accuracy.medians(scores)
    assert found["r"] == pytest.approx(0.6) and found["r_all"] == pytest.approx(0.35)
    assert found["R2"] == pytest.approx(0.3) and found["share"] == pytest.approx(0.36 / 0.8)


def test_noise_multiplies_the_ceiling_by_the_share() -> None:
    draw = np.random.default_rng(0)
    plain = sample(memory_tokens(), draw.standard_normal((4000, 3)))
    noisy = plain.noisier(0.35, seed=1)
    assert noisy.ceiling[0] == pytest.approx(0.175)
    assert noisy.responses.values.std() == pytest.approx(1, abs=0.02)
    r = np.corrcoef(noisy.responses.values[:, 0], plain.responses.values[:, 0])[0, 1]
    assert r**2 == pytest.approx(0.35, abs=0.04)


def test_ridge_finds_what_is_linear_in_the_tokens() -> None:
    pytest.importorskip("himalaya")
    from bench import ridge

    # Few features and many images, so that linear responses can be predicted.
    tokens = memory_tokens(n=160, widths={"early": 2, "late": 2}, grid=GRID)
    split = Split(np.arange(100), np.arange(100, 120), np.arange(120, 160), seed=0)
    local, whole = tokens.batch(np.arange(160))
    late = whole["late"].numpy()
    responses = np.column_stack([late @ [1, 2], local["early"].flatten(1).numpy() @ np.linspace(-1, 1, 24)])
    responses = (responses - responses.mean(0)) / responses.std(0)
    found = {name: scores.r for name, (scores, _) in ridge.baselines(sample(tokens, responses), split).items()}
    assert list(found) == list(ridge.TITLES.values())
    assert found["ridge, global tokens of all layers"][0] > 0.99
    assert abs(found["ridge, global tokens of all layers"][1]) < 0.6
    for name in list(found)[1:-1]:
        assert found[name].min() > 0.8, name


def test_published_settings_are_for_the_same_tokens_and_epochs() -> None:
    settings = accuracy.published_settings()
    assert (settings.model.gauge, settings.train.loss, settings.data.preset) == ("published", "smooth_l1", "")
    assert settings.train.epochs == accuracy.Config().train.epochs


def test_the_page_has_every_row(tmp_path: Path) -> None:
    maps = dict.fromkeys(
        ("depth_r", "depth_apart", "depth_within_one", "location_apart", "scale_r", "scale_apart"), 0.25
    )
    scores = dict.fromkeys(("share", "r", "R2", "r_all", "R2_all"), 0.5)
    gains = {"predictions_apart": 1e-6, "depth_apart": 1.5, "depth_apart_most": 2.0, "gains_largest_to_smallest": 3.0}
    common = {"images": 900, "vertices": 800, "machine": {"processor": "P"}}
    run = scores | maps | {"steps": 600, "best_epoch": 7, "seconds": 20.0}
    report = {
        "accuracy": common
        | {
            "seeds": {
                "101": {"default settings": run, "longer": run, "ridge": scores | {"seconds": 3.0}},
                "102": {"default settings": run | {"r": 0.7}, "ridge": scores | {"seconds": 3.0}},
            }
        },
        "maps": common
        | {
            "subject": 101,
            "parametrisations": {
                "open": {
                    "other seed": [maps],
                    "other half of the images": [maps],
                    "planted truth": [maps],
                    "same model, other gains": [gains],
                }
            },
        },
        "noise": common | {"seeds": [101], "shares": {"0.35": {"ceiling": [0.14], "default": [run]}}},
    }
    text = accuracy_page.page(report)
    assert "| default settings | **0.500** (0.500 0.500) | **0.600** (0.500 0.700) |" in text
    assert "| longer | 0.500 | 0.500 |" in text
    assert "| open | 1e-06 | 1.50 | 2.00 | 3.0 |" in text
    assert "### Ceilings x 0.35: median 0.14" in text
    assert "| ridge |" in text and text.count("processor P") == 3
