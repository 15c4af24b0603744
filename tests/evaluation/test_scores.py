"""Scores against NumPy, their summary, and what is unknown in it."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small_models import Responses, memory_tokens, small_model

import brainkit
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.evaluation.model_scores import score
from brainkit.evaluation.scores import Scores, add_intervals, json_ready, score_table, summarise


def test_scores_by_numpy() -> None:
    tokens = memory_tokens(n=30)
    model = small_model(tokens, vertices=6)
    rows = np.array([3, 29, 7, 11, 0, 18, 22, 5, 9])
    with torch.inference_mode():
        prediction = model(*tokens.batch(np.arange(30))).numpy()
    responses = prediction + np.random.default_rng(0).standard_normal(prediction.shape) * 0.5
    responses[:, 4] = 2.0
    found = score(model, tokens, Responses(responses), rows, None, batch_size=4)
    for v in (0, 1, 2, 3, 5):
        p, y = prediction[rows, v].astype(float), responses[rows, v].astype(np.float32).astype(float)
        assert found.r[v] == pytest.approx(np.corrcoef(p, y)[0, 1], abs=1e-5)
        assert found.R2[v] == pytest.approx(1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum(), abs=1e-5)
    assert np.isnan(found.r[4]) and np.isnan(found.noise_ceiling).all()
    assert found.images == 9


def test_share_is_r_squared_over_the_ceiling() -> None:
    scores = Scores(
        r=np.array([0.5, -0.5, np.nan, 0.5, 0.5, 0.9]),
        R2=np.zeros(6),
        noise_ceiling=np.array([0.5, 0.5, 0.5, 0.0, np.nan, 0.4]),
        images=3,
    )
    np.testing.assert_allclose(scores.share, [0.5, 0, 0, np.nan, np.nan, 1])


def table_of(noise_ceiling: np.ndarray, images: int = 50) -> dict[str, Any]:
    r = np.array([0.1, 0.2, np.nan, 0.6])
    scores = Scores(r, r - 0.1, noise_ceiling, images)
    return summarise(scores, RoiTable({"one": np.array([3]), "none": np.array([], int), "two": np.array([1, 2])}, 4))


def test_unknown_numbers_are_null_in_the_summary() -> None:
    table = table_of(np.array([0.3, 0.3, 0.3, np.nan]))
    read = json.loads(json.dumps(json_ready(table), allow_nan=False))
    assert read["images"] == 50
    assert read["all"]["vertices"] == 4
    assert read["all"]["r"] == pytest.approx(0.2)
    unknown = dict.fromkeys(("r_interval", "R2_interval", "share_interval", "share"))
    assert read["rois"]["one"] == unknown | {"vertices": 1, "r": 0.6, "R2": pytest.approx(0.5)}
    assert read["rois"]["none"] == unknown | {"vertices": 0, "r": None, "R2": None}
    assert read["rois"]["two"]["r"] == 0.2
    shown = score_table(read)
    assert [row[0] for row in shown.rows] == ["all", "one", "two"]
    assert shown.rows[1] == ("one", "1", "0.600", "0.500", "-")


def test_intervals_are_over_stimuli() -> None:
    rng = np.random.default_rng(0)
    shared = np.repeat(rng.standard_normal((30, 4)), 2, axis=0)  # two images of each stimulus
    p, y = shared, shared + rng.standard_normal((60, 4)).round(2)
    rois = RoiTable({"one": np.array([3]), "all": np.array([0])}, 4)
    scores = Scores(np.full(4, 0.7), np.full(4, 0.5), np.full(4, 0.8), 60)
    table = summarise(add_intervals(scores, p, y, rois, np.repeat(np.arange(30), 2)), rois)
    assert table["stimuli"] == 30
    wanted = brainkit.evaluate(
        p, y, noise_ceiling=scores.noise_ceiling, rois={"one": [3]}, groups=np.repeat(np.arange(30), 2)
    ).groups["one"]
    for key, measure in (("r", "r"), ("R2", "R2"), ("share", "explained")):
        assert table["rois"]["one"][f"{key}_interval"] == [wanted[measure]["low"], wanted[measure]["high"]]
    assert "[" in score_table(json_ready(table)).rows[1][2]
    assert summarise(add_intervals(scores, p[:1], y[:1], rois, [0]), rois)["all"]["r_interval"] is None


def test_summary_without_ceilings() -> None:
    table = table_of(np.full(4, np.nan))
    assert table["official"] is None
    assert table["all"]["share"] is None
    assert score_table(table).notes == ()


def test_scores_on_few_images_say_what_chance_gives() -> None:
    ceiling = np.full(4, np.nan)
    assert score_table(table_of(ceiling, images=30)).notes == ()
    (note,) = score_table(table_of(ceiling, images=17)).notes
    assert note.startswith("17 test images") and "0.49" in note  # 1.96 / sqrt(16)


def test_official_score_is_named_by_mean_and_median() -> None:
    table = table_of(np.array([0.5, 0.1, 0.2, 0.0]))
    expected = [2.0, 40.0, 0.0]  # 100 r^2 / ceiling where there is one; no correlation counts as none
    assert table["official"] == {
        "mean": pytest.approx(np.mean(expected)),
        "median": pytest.approx(2.0),
        "vertices": 3,
    }


def test_json_has_plain_numbers() -> None:
    assert json_ready({"x": np.float32(0.5), "y": np.int64(3), "z": [np.nan, np.inf]}) == {
        "x": 0.5, "y": 3, "z": [None, None],
    }  # fmt: skip


def test_scores_are_written_with_their_vertices(tmp_path: Path) -> None:
    ids = np.array([4, 9, 10242 + 3])
    Scores(np.ones(3), np.zeros(3), np.full(3, np.nan), 7).write(tmp_path / "scores.npz", Vertices("fsaverage5", ids))
    with np.load(tmp_path / "scores.npz") as file:
        assert {name: file[name].dtype.kind for name in file.files} == {
            **dict.fromkeys(("r", "R2", "noise_ceiling"), "f"),
            **dict.fromkeys(("vertices", "images"), "i"),
            "space": "U",
        }
        np.testing.assert_array_equal(file["vertices"], ids)
