"""Recovery of planted selectors: perfect for the truth itself, an error for constants, and what is left out."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from brainkit.cortex.vertices import Vertices
from brainkit.errors import DataError, TrainingError
from brainkit.evaluation.recovery import ROW_NAMES, compare_with_truth, read_truth, recovery_table
from brainkit.evaluation.scores import Scores

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
    return compare_with_truth(read_truth(folder / "truth.npz"), **arguments)


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
    assert [row[0] for row in recovery_table(found).rows] == list(ROW_NAMES.values())


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


def test_vertices_are_matched_by_their_ids(tmp_path: Path, planted: dict[str, np.ndarray]) -> None:
    some = np.arange(3, V, 2)
    found = compare(tmp_path, planted, some)
    assert found["rows"]["depth_r"]["value"] == pytest.approx(1)
    assert found["rows"]["location_median"]["value"] == pytest.approx(0)
    with pytest.raises(DataError, match=r"truth\.npz: .* vertex 5000"):
        compare(tmp_path, planted, vertices=Vertices("fsaverage5", np.arange(5000, 5000 + V)))


@pytest.mark.parametrize("what", ["layer_weights", "scale"])
def test_constant_selectors_are_a_failure_that_says_so(
    tmp_path: Path, planted: dict[str, np.ndarray], what: str
) -> None:
    constant = np.full_like(planted[what], 1 / 3)
    with pytest.raises(TrainingError, match="selectors are constant"):
        compare(tmp_path, planted, **{what: constant})


def test_selectors_that_are_nan_are_a_failure(tmp_path: Path, planted: dict[str, np.ndarray]) -> None:
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
    assert found["left_out"] in recovery_table(found).notes[0]


def test_too_few_vertices_to_compare(tmp_path: Path, planted: dict[str, np.ndarray]) -> None:
    low = Scores(np.ones(V), np.ones(V), np.full(V, 0.2), 10)
    found = compare(tmp_path, planted, scores=low)
    assert found["rows"] == {}
    assert found["left_out"] and found["vertices"] == 0


def test_a_truth_of_another_version_is_refused(tmp_path: Path, planted: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "truth.npz", **{name: value for name, value in planted.items() if name != "weights_hash"})
    with pytest.raises(DataError, match=r"truth\.npz: .* found no weights_hash"):
        compare(tmp_path, planted)
