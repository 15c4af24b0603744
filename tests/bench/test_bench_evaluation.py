"""The benchmark of evaluation and comparison runs, and stops if the numbers are wrong."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import brainkit
from bench import evaluation


@pytest.mark.slow
def test_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ["--images", "40", "--vertices", "120", "--draws", "50", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["evaluation", *sizes, "--name", str(tmp_path / "evaluation")])
    evaluation.main()
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["headline"]["seconds"] > 0 and report["rounds"][0]["median_r"] > 0.3
    assert report["comparison"]["headline"]["seconds"] > 0 and report["comparison"]["rounds"][0]["median_r"] > 0.3
    assert "peak memory" in (tmp_path / "evaluation.md").read_text()


@pytest.mark.slow
def test_wrong_intervals_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = brainkit.evaluate

    def too_wide(*arrays: Any, **options: Any) -> Any:
        found = right(*arrays, **options)
        return replace(found, r_high=found.r_high + 0.2)

    monkeypatch.setattr(brainkit, "evaluate", too_wide, raising=False)
    with pytest.raises(SystemExit):
        evaluation.check()


@pytest.mark.slow
def test_wrong_tests_of_differences_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = evaluation.compare_predictions

    def too_sure(*arrays: Any, **options: Any) -> Any:
        found = right(*arrays, **options)
        return replace(found, p=found.p / 2)

    monkeypatch.setattr(evaluation, "compare_predictions", too_sure)
    with pytest.raises(SystemExit):
        evaluation.check_comparison()
