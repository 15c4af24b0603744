"""The benchmark of the page runs: not how fast."""

from __future__ import annotations

import json
import sys

import pytest
from chromium import chromium

from bench import maps


@pytest.mark.slow
def test_it_turns_a_page_and_reports(tmp_path, monkeypatch):
    with chromium():
        pass  # skips where there is none
    monkeypatch.setattr(sys, "argv", ["maps", "--quick", "--name", str(tmp_path / "maps")])
    maps.main()
    (row,) = json.loads((tmp_path / "maps.json").read_text())["pages"].values()
    assert row["size, MB"] < 4
    assert row["layer, frames a second"] > 0
    assert "fsaverage5" in (tmp_path / "maps.md").read_text()
