"""The benchmark of preparing a subject of NSD runs, and stops if the numbers are wrong."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("h5py")

from bench import data


def test_report(tmp_path, monkeypatch):
    sizes = ["--sessions", "2", "--trials", "30", "--vertices", "50", "--rounds", "1"]
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "cache"))
    name = str(tmp_path / "data")
    monkeypatch.setattr(sys, "argv", ["data", *sizes, "--folder", str(tmp_path / "work"), "--name", name])
    data.main()
    report = json.loads((tmp_path / "data.json").read_text())
    assert report["headline"]["share"] > 0 and report["bytes"] > 2 * 2 * 30 * 50
    assert "peak memory" in (tmp_path / "data.md").read_text()


def test_wrong_means_are_noticed(tmp_path):
    data.make_subject(tmp_path / "nsd", 1, 20, "nativesurface", trials=30)
    np.save(tmp_path / "responses.npy", np.zeros((10, 20), np.float32))
    with pytest.raises(SystemExit, match="differ"):
        data.check(f"nsd:{tmp_path / 'nsd'}", (), tmp_path)
