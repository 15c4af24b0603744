"""`brainkit.evaluate` on arrays."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import brainkit
from brainkit.errors import UsageError
from brainkit.evaluation.evaluation import Evaluation


def small(n: int = 40, vertices: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((n, vertices))
    return shared + rng.standard_normal((n, vertices)), 3 + 2 * shared + rng.standard_normal((n, vertices))


def evaluate(p: np.ndarray, y: np.ndarray, **options: object) -> Evaluation:
    return brainkit.evaluate(p, y, **{"bootstrap": 50, "permutations": 50} | options)


def test_the_same_numbers_as_scikit_learn_and_scipy() -> None:
    from scipy.stats import pearsonr
    from sklearn.metrics import r2_score

    p, y = small()
    found = evaluate(p, y, noise_ceiling=np.full(12, 0.6))
    np.testing.assert_allclose(found.r, pearsonr(p, y).statistic, rtol=1e-12)
    np.testing.assert_allclose(found.R2, r2_score(y, p, multioutput="raw_values"), rtol=1e-12)
    np.testing.assert_allclose(found.explained_raw, found.r.clip(0) ** 2 / 0.6)
    assert found.groups["all"]["r"]["median"] == pytest.approx(np.median(found.r))
    assert found.method == "BCa" and (found.r_low < found.r).all() and (found.r < found.r_high).all()


def test_twice_the_same_bytes_and_readable_files(tmp_path: Path) -> None:
    p, y = small()
    for name in ("a", "b"):
        evaluate(p, y, rois={"V1": [1, 2], "none": []}).save(tmp_path / name)
    for file in ("evaluation.json", "evaluation.npz", "evaluation.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    content = json.loads((tmp_path / "a" / "evaluation.json").read_text())
    assert content["groups"]["none"]["r"] == dict.fromkeys(
        ("median", "low", "high", "mean", "mean_low", "mean_high"), None
    ) | {"n": 0}
    with (tmp_path / "a" / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["group"] for row in rows[::3]] == ["all", "V1", "none"]
    assert float(rows[3]["median"]) == content["groups"]["V1"]["r"]["median"]


def test_refuses_what_does_not_fit() -> None:
    p, y = small()
    for bad, options in (
        ((p, y[:-1]), {}),
        ((p[:1], y[:1]), {}),
        ((p, y), {"noise_ceiling": np.ones(5)}),
        ((p, y), {"noise_ceiling": np.full(12, 35.0)}),
        ((p, y), {"noise_ceiling": np.full(12, -0.1)}),
        ((p, y), {"groups": ["a"] * 3}),
        ((p, y), {"rois": {"V1": [12]}}),
        ((p, y), {"rois": {"all": [1]}}),
        ((p, y), {"level": 95}),
    ):
        with pytest.raises(UsageError, match=r"^[^\n]*$"):
            evaluate(*bad, **options)
