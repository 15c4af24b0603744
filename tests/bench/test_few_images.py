"""bench.few_images: its planted subjects, and the page."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("pytorch_lightning")
pytest.importorskip("skimage")  # the photographs
pytest.importorskip("nilearn")

from bench import few_images
from bench.few_images import KINDS, WAYS, interval, page


def test_the_page_has_a_row_for_each_number_of_images() -> None:
    runs = {
        seed: {kind: {"50": dict.fromkeys(WAYS, 0.2), "100": dict.fromkeys(WAYS, 0.4 + 0.1 * k)} for kind in KINDS}
        for k, seed in enumerate("12")
    }
    size = {"vertices": 40, "old_images": 40, "counts": [50, 100]}
    text = page({"runs": runs, "size": size, "machine": "one"})
    assert text.count("| 50 |") == text.count("| 100 |") == len(KINDS)
    assert "0.450 (" in text and "1.00 (1.00 to 1.00)" in text
    assert interval([0.5]) == "0.500"


@pytest.mark.slow
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = str(tmp_path / "few")
    options = ["few_images", "--quick", "--seeds", "1", "--folder", str(tmp_path / "pool"), "--name", name]
    monkeypatch.setattr(sys, "argv", options)
    few_images.main()
    report = json.loads((tmp_path / "few.json").read_text(encoding="utf-8"))
    assert set(report["runs"]["1"]) == set(KINDS)
    # What is measured is kept.
    monkeypatch.setattr(few_images, "measure", None)
    few_images.main()
