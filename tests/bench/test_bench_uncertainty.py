"""The benchmark of standard errors runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("pytorch_lightning")

from bench import uncertainty


@pytest.mark.slow
def test_standard_errors_of_each_selector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["uncertainty", "--quick", "--name", str(tmp_path / "tiny")])
    uncertainty.main()
    found = json.loads((tmp_path / "tiny.json").read_text())["selectors"]
    assert set(found) == {"depth", "location", "scale"}
    for row in found.values():
        assert row["estimated s.e."] > 0 and row["true s.e."] > 0
        assert 0 <= row["95 % cover the mean map"] <= 1
    assert "| true s.e. |" in (tmp_path / "tiny.md").read_text()
