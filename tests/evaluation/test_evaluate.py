"""`brainkit.evaluate` on arrays."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from subprocesses import run_python

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
    from scipy.stats import false_discovery_control, pearsonr
    from sklearn.metrics import r2_score

    p, y = small()
    found = evaluate(p, y, noise_ceiling=np.full(12, 0.6))
    np.testing.assert_allclose(found.r, pearsonr(p, y).statistic, rtol=1e-12)
    np.testing.assert_allclose(found.R2, r2_score(y, p, multioutput="raw_values"), rtol=1e-12)
    np.testing.assert_allclose(found.q, false_discovery_control(found.p))
    np.testing.assert_allclose(found.explained_raw, found.r.clip(0) ** 2 / 0.6)
    assert found.groups["all"]["r"]["median"] == pytest.approx(np.median(found.r))
    assert found.method == "BCa" and (found.r_low < found.r).all() and (found.r < found.r_high).all()


def test_the_same_numbers_as_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional")

    p, y = small()
    found = evaluate(p, y)
    tensors = torch.from_numpy(p), torch.from_numpy(y)
    np.testing.assert_allclose(found.r, functional.pearson_corrcoef(*tensors), rtol=1e-9)
    np.testing.assert_allclose(found.R2, functional.r2_score(*tensors, multioutput="raw_values"), rtol=1e-9)


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
        ((p, y), {"level": "high"}),
        ((p, y), {"rois": ["V1"]}),
    ):
        with pytest.raises(UsageError, match=r"^[^\n]*$"):
            evaluate(*bad, **options)


def test_torch_is_not_needed() -> None:
    code = """
class NoTorch:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoTorch())
import numpy as np, brainkit
p = np.random.default_rng(0).standard_normal((12, 3))
print(brainkit.evaluate(p, p, bootstrap=20, permutations=20)._repr_html_())
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert "<table>" in done.stdout


def test_constants_are_nan_and_counted() -> None:
    p, y = small()
    p[:, 0], y[:, 1], p[2, 2] = 0.1, 0.1, np.nan
    found = evaluate(p, y, noise_ceiling=np.full(12, 0.5), rois={"V1": [0, 1, 3], "V2": [0]})
    for array in (found.r, found.r_low, found.p, found.q, found.p_max):
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(array)), [0, 1, 2])
    assert found.explained[0] == 0 and np.isnan(found.explained[1])  # a constant prediction explains nothing
    assert np.isnan(found.explained[2])  # a missing one is not known to
    assert np.isfinite(found.R2[0])
    assert (found.constant_predictions, found.constant_responses) == (1, 1)
    assert found.to_dict()["without_r"] == 3
    assert found.groups["V1"]["r"]["n"] == 1 and found.groups["V1"]["explained"]["n"] == 2
    assert np.isnan(found.groups["V2"]["r"]["median"]) and found.groups["V2"]["R2"]["n"] == 1
    assert any("3 vertices" in note for note in found.table().notes)


@pytest.mark.filterwarnings("error")
def test_intervals_are_withheld_below_ten_stimuli() -> None:
    p, y = small(n=18)
    found = evaluate(p, y, groups=np.arange(18) // 2)
    assert found.method is None and found.n_groups == 9 and np.isnan(found.r_low).all()
    assert np.isnan(found.groups["all"]["r"]["low"]) and np.isfinite(found.groups["all"]["r"]["median"])
    assert np.isfinite(found.p).all()
    assert any("9 stimuli are too few" in note for note in found.table().notes)
    assert evaluate(p, y).method == "percentile"
    assert evaluate(p, y, groups=["one"] * 18).n_groups == 1


def test_ceilings_that_are_too_low_are_doubted() -> None:
    p, y = small(n=200)
    assert not evaluate(p, y, noise_ceiling=np.full(12, 0.6)).ceilings_too_low
    found = evaluate(p, y, noise_ceiling=np.full(12, 0.6) ** 4)
    assert found.ceilings_too_low and found.to_dict()["ceilings_too_low"]
    assert evaluate(p, y, noise_ceiling=np.full(12, 0.6) ** 4, bootstrap=0).ceilings_too_low
    assert (found.explained == 1).all() and (found.explained_raw > 1.5).all()
    unrelated = evaluate(p[::-1][:15], y[:15], noise_ceiling=np.full(12, 0.05))  # above it by chance alone
    assert (unrelated.explained_raw > 1.5).any() and not unrelated.ceilings_too_low


def test_vertices_do_not_depend_on_others_and_order_does_not_matter() -> None:
    p, y = small(n=60, vertices=1300)  # more than one block
    whole = evaluate(p, y, groups=[f"g{k // 2}" for k in range(60)], rois={"part": np.arange(1200, 1300)})
    part = evaluate(p[:, 1200:], y[:, 1200:], groups=np.arange(60) // 2)
    np.testing.assert_array_equal(whole.p[1200:], part.p)
    np.testing.assert_allclose(whole.r_low[1200:], part.r_low, atol=1e-6)
    assert whole.groups["part"]["r"] == pytest.approx(part.groups["all"]["r"], abs=1e-6)
    mask = np.arange(1300) >= 1200
    masked = evaluate(p, y, groups=np.arange(60) // 2, rois={"part": mask})
    assert masked.groups["part"]["r"] == whole.groups["part"]["r"]


def test_memory_that_holds_few_draws_gives_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from brainkit.evaluation import evaluate as module

    p, y = small(vertices=30)
    wanted = evaluate(p, y)
    monkeypatch.setattr("brainkit.evaluation.resampled.DRAWN", 30 * 7)
    monkeypatch.setattr(module, "_BATCH", 30 * 4)
    np.save(tmp_path / "p.npy", p)
    found = evaluate(np.load(tmp_path / "p.npy", mmap_mode="r"), y)
    np.testing.assert_allclose(found.r_low, wanted.r_low, atol=1e-6)
    assert found.groups["all"]["R2"] == pytest.approx(wanted.groups["all"]["R2"], abs=1e-6)


def test_neither_intervals_nor_test_if_not_wanted() -> None:
    found = evaluate(*small(), bootstrap=0, permutations=0)
    assert found.method is None and np.isnan(found.p).all() and len(found.table().notes) == 0


@pytest.mark.slow
def test_intervals_of_medians_and_means_cover() -> None:
    """Over 150 data sets: 300 vertices whose noise is smooth over the cortex, r from 0.2 to 0.6."""
    from scipy.ndimage import gaussian_filter1d

    def smooth(values: np.ndarray) -> np.ndarray:
        blurred = gaussian_filter1d(values, 6, axis=1, mode="wrap")
        return blurred / blurred.std()

    truth, hits = np.tile(np.linspace(0.2, 0.6, 60), 5), []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        p, noise = (smooth(each) for each in rng.standard_normal((2, 150, 300)))
        y = truth * p + np.sqrt(1 - truth**2) * noise
        rows = evaluate(p, y, bootstrap=400, seed=seed).groups["all"]["r"]
        ends = (rows["low"], rows["high"]), (rows["mean_low"], rows["mean_high"])
        hits.append([low < 0.4 < high for low, high in ends])
    assert (np.mean(hits, axis=0) > 0.9).all() and (np.mean(hits, axis=0) < 0.99).all(), np.mean(hits, axis=0)


@pytest.mark.slow
def test_intervals_of_mean_explained_shares_cover_though_the_share_is_biased() -> None:
    """Over 60 data sets of 50 images, with r from 0 to 0.25: a square is at least 1 / n too large."""
    truth, hits = np.linspace(0, 0.25, 40), []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        p, noise = rng.standard_normal((2, 50, 40))
        y = truth * p + np.sqrt(1 - truth**2) * noise
        row = evaluate(p, y, noise_ceiling=np.full(40, 0.5), bootstrap=300, seed=seed).groups["all"]["explained"]
        hits.append(row["mean_low"] < (truth**2 / 0.5).mean() < row["mean_high"])
    assert np.mean(hits) > 0.85


def test_images_that_cannot_be_permuted_are_counted() -> None:
    p, y = small()
    groups = [0, 0, 0, *range(1, len(p) - 2)]  # one stimulus of three images
    found = evaluate(p, y, groups=groups)
    assert found.n_permuted == len(p) - 3
    assert len(found.table().notes) == len(evaluate(p, y).table().notes) + 1


def test_vertices_without_responses_explain_no_share() -> None:
    p, y = small()
    y[3, 1], y[:, 2] = np.nan, 5.0
    found = evaluate(p, y, noise_ceiling=np.full(12, 0.6))
    assert np.isnan(found.explained[[1, 2]]).all() and np.isfinite(np.delete(found.explained, [1, 2])).all()
    assert found.groups["all"]["explained"]["n"] == found.official["n"] == 10


@pytest.mark.parametrize("argument", ["predictions", "responses", "noise_ceiling"])
@pytest.mark.parametrize("kind", ["text", "complex", "ragged", "object"])
def test_values_must_be_numbers(argument: str, kind: str) -> None:
    p, y = small(n=12)
    arrays: dict[str, Any] = {"predictions": p, "responses": y, "noise_ceiling": np.full(12, 0.6)}
    wrong = {
        "text": arrays[argument].astype(str),
        "complex": arrays[argument] + 1j,
        "ragged": [[1.0], [1.0, 2.0]],
        "object": [[{}] * 12] * 12,
    }
    with pytest.raises(UsageError, match=rf"^{argument}: [^\n]*$"):
        brainkit.evaluate(**arrays | {argument: wrong[kind]}, bootstrap=0, permutations=0)
    arrays[argument] = arrays[argument].tolist()
    assert np.isfinite(brainkit.evaluate(**arrays, bootstrap=0, permutations=0).r).all()


@pytest.mark.parametrize("wrong", [{"bootstrap": 2.5}, {"permutations": -1}, {"seed": -1}])
def test_counts_are_whole_numbers(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        evaluate(*small(), **wrong)
