"""Scores and the recovery table: perfect on the truth itself, an error on constants, honest about what is missing."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small_models import Responses, memory_tokens, small_model

from brainkit.cortex.surface import RoiTable, Vertices
from brainkit.errors import DataError, TrainingError
from brainkit.evaluation import scores as evaluation
from brainkit.evaluation.scores import (
    Scores,
    read_truth,
    recovery,
    recovery_lines,
    score,
    score_lines,
    summarise,
    write_summary,
)

V, L = 40, 5
LAYERS = ("a", "b", "c", "d", "e")


@pytest.fixture
def planted(tmp_path: Path) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    truth = {
        "layer_weights": draw.dirichlet(np.ones(L) * 0.3, V).astype(np.float32),
        "locations": draw.uniform(-0.9, 0.9, (V, 2)).astype(np.float32),
        "scale": draw.uniform(0.05, 0.7, V).astype(np.float32),
        "noise_ceiling": np.linspace(0.05, 0.71, V).astype(np.float32),
        "vertices": np.arange(100, 100 + V, dtype=np.int32),
        "space": np.array("fsaverage5"),
        "layers": np.array(LAYERS),
        "backbone": np.array("net"),
        "weights_hash": np.array("hash"),
    }
    np.savez(tmp_path / "truth.npz", **truth)
    return truth


def compare(
    folder: Path, truth: dict[str, np.ndarray], order: np.ndarray | None = None, **changes: Any
) -> dict[str, Any]:
    order = np.arange(V) if order is None else order
    ceiling = truth["noise_ceiling"][order].astype(float)
    arguments: dict[str, Any] = {
        "vertices": Vertices("fsaverage5", truth["vertices"][order]),
        "layers": LAYERS,
        "backbone": "net",
        "weights_hash": "hash",
        **{name: truth[name][order] for name in ("layer_weights", "locations", "scale")},
        "scores": Scores(np.sqrt(ceiling), ceiling, ceiling, 10),
    } | changes
    return recovery(read_truth(folder / "truth.npz"), **arguments)


def test_the_truth_itself_is_recovered_perfectly(tmp_path: Path, planted: dict[str, np.ndarray]) -> None:
    found = compare(tmp_path, planted)
    values = {name: row["value"] for name, row in found["rows"].items()}
    assert values == pytest.approx(
        {"depth_r": 1, "depth_within_one": 1, "location_median": 0, "scale_r": 1, "accuracy_share": 1}, abs=1e-5
    )
    assert found["vertices"] == int((planted["noise_ceiling"] > 0.3).sum()) < V
    assert found["left_out"] is None
    rows = found["rows"]
    assert rows["depth_r"]["constant"] == rows["scale_r"]["constant"] == rows["accuracy_share"]["constant"] == 0
    assert rows["location_median"]["constant"] > 0.3
    assert 0 < rows["depth_within_one"]["constant"] < 1
    text = "\n".join(recovery_lines(found))
    assert all(name in text for name in rows) and "constant" in text


def test_rows_by_hand(tmp_path: Path, planted: dict[str, np.ndarray]) -> None:
    good = planted["noise_ceiling"] > 0.3
    shifted = np.roll(planted["layer_weights"], 1, axis=1)
    found = compare(
        tmp_path,
        planted,
        layer_weights=shifted,
        locations=planted["locations"] + np.float32([0.3, 0.4]),
        scale=1 - planted["scale"],
        scores=Scores(np.full(V, -0.5), np.zeros(V), planted["noise_ceiling"].astype(float), 10),
    )["rows"]
    depth, other = planted["layer_weights"][good] @ np.arange(L), shifted[good] @ np.arange(L)
    assert found["depth_r"]["value"] == pytest.approx(np.corrcoef(depth, other)[0, 1])
    assert found["depth_within_one"]["value"] == pytest.approx(np.mean(np.abs(depth - other) <= 1))
    assert found["location_median"]["value"] == pytest.approx(0.5, abs=1e-5)
    assert found["scale_r"]["value"] == pytest.approx(-1)
    assert found["accuracy_share"]["value"] == 0  # a negative correlation explains nothing


def test_vertices_are_matched_by_their_names(tmp_path: Path, planted: dict[str, np.ndarray]) -> None:
    some = np.arange(3, V, 2)
    found = compare(tmp_path, planted, some)
    assert found["rows"]["depth_r"]["value"] == pytest.approx(1)
    assert found["rows"]["location_median"]["value"] == pytest.approx(0)
    with pytest.raises(DataError, match="no truth for vertex 5000"):
        compare(tmp_path, planted, vertices=Vertices("fsaverage5", np.arange(5000, 5000 + V)))


@pytest.mark.parametrize("what", ["layer_weights", "scale"])
def test_constant_selectors_are_a_failure_that_says_so(
    tmp_path: Path, planted: dict[str, np.ndarray], what: str
) -> None:
    constant = np.full_like(planted[what], 1 / 3)
    with pytest.raises(TrainingError, match="not a number: the selectors are constant"):
        compare(tmp_path, planted, **{what: constant})


def test_selectors_that_are_no_numbers_are_a_failure(tmp_path: Path, planted: dict[str, np.ndarray]) -> None:
    with pytest.raises(TrainingError, match="location_median"):
        compare(tmp_path, planted, locations=np.full((V, 2), np.nan))


@pytest.mark.parametrize(
    "changes", [{"backbone": "other", "weights_hash": "other"}, {"weights_hash": "random"}, {"layers": ("a", "b", "x")}]
)
def test_with_another_network_the_layer_rows_are_left_out(
    tmp_path: Path, planted: dict[str, np.ndarray], changes: dict[str, Any]
) -> None:
    found = compare(tmp_path, planted, **changes)
    assert set(found["rows"]) == {"location_median", "scale_r", "accuracy_share"}
    assert "planted in net" in found["left_out"]
    assert "left out: " in "\n".join(recovery_lines(found))


def test_too_few_vertices_to_compare(tmp_path: Path, planted: dict[str, np.ndarray]) -> None:
    low = Scores(np.ones(V), np.ones(V), np.full(V, 0.2), 10)
    found = compare(tmp_path, planted, scores=low)
    assert found["rows"] == {}
    assert "0 vertices have a noise ceiling above 0.3" in found["left_out"]


# --- scores -----------------------------------------------------------------------------------------------------


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


def table_of(noise_ceiling: np.ndarray) -> dict[str, Any]:
    r = np.array([0.1, 0.2, np.nan, 0.6])
    scores = Scores(r, r - 0.1, noise_ceiling, 5)
    return summarise(scores, RoiTable({"one": np.array([3]), "none": np.array([], int), "two": np.array([1, 2])}, 4))


def test_summary_survives_what_is_no_number(tmp_path: Path) -> None:
    table = table_of(np.array([0.3, 0.3, 0.3, np.nan]))
    write_summary(tmp_path / "scores.json", table)
    read = json.loads((tmp_path / "scores.json").read_text(), parse_constant=pytest.fail)
    assert read["images"] == 5
    assert read["all"]["vertices"] == 4
    assert read["all"]["r"] == pytest.approx(0.2)
    assert read["rois"]["one"] == {
        "vertices": 1,
        "r": 0.6,
        "r_interval": None,
        "R2": pytest.approx(0.5),
        "share": None,
    }
    assert read["rois"]["none"] == {"vertices": 0, "r": None, "r_interval": None, "R2": None, "share": None}
    assert read["rois"]["two"]["r"] == 0.2
    low, high = read["all"]["r_interval"]
    assert 0.1 <= low <= 0.2 <= high <= 0.6
    lines = "\n".join(score_lines(read))
    assert "one" in lines and "none" not in lines and "official score" in lines


def test_summary_without_ceilings() -> None:
    table = table_of(np.full(4, np.nan))
    assert table["official"] is None
    assert table["all"]["share"] is None
    assert not any("official" in line for line in score_lines(table))


def test_official_score_is_named_by_mean_and_median() -> None:
    table = table_of(np.array([0.5, 0.1, 0.2, 0.0]))
    expected = [2.0, 40.0, 0.0]  # 100 r^2 / ceiling where there is one; no correlation counts as none
    assert table["official"] == {
        "mean": pytest.approx(np.mean(expected)),
        "median": pytest.approx(2.0),
        "vertices": 3,
    }


def test_numbers_of_numpy_are_written_as_numbers(tmp_path: Path) -> None:
    write_summary(tmp_path / "a.json", {"x": np.float32(0.5), "y": np.int64(3), "z": [np.nan, np.inf]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 0.5, "y": 3, "z": [None, None]}


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
    assert evaluation.CEILING_FOR_RECOVERY == 0.3


def test_a_truth_of_another_make_is_refused(tmp_path: Path, planted: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "truth.npz", **{name: value for name, value in planted.items() if name != "weights_hash"})
    with pytest.raises(DataError, match=r"truth\.npz: expected .* found no weights_hash; make the sample subject anew"):
        compare(tmp_path, planted)
