"""The benchmark of the page runs: not how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from chromium import chromium_program

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_it_turns_a_page_and_reports(tmp_path):
    chromium_program()
    # A process of its own: one that tests pages may have a browser open, and Playwright allows one at a time.
    command = [sys.executable, "-m", "bench.maps", "--quick", "--name", str(tmp_path / "maps")]
    subprocess.run(command, cwd=ROOT, check=True)
    report = json.loads((tmp_path / "maps.json").read_text())
    (row,) = report["pages"].values()
    assert row["size, MB"] < 4
    assert row["layer, frames a second"] > 0
    assert report["run"]["report, MB"] > 0.1 and report["run"]["prediction maps"] == 2
    assert "fsaverage5" in (tmp_path / "maps.md").read_text()
