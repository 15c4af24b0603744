"""The benchmark of near-duplicates runs."""

from __future__ import annotations

import json
import sys

import pytest

pytest.importorskip("skimage")
pytest.importorskip("sklearn")

from bench import near_duplicates


def test_report(tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "cache"))
    name = str(tmp_path / "found")
    monkeypatch.setattr(sys, "argv", ["near_duplicates", "--images", "40", "--copies", "6", "--name", name])
    near_duplicates.main()
    report = json.loads((tmp_path / "found.json").read_text())
    assert report["copies"]["half the size"]["found"] > 0.5 and report["different_pairs"] > 700
