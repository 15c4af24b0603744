"""`brainkit map --format` and `--pycortex`: maps as files for other tools."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from command_line import call, one_line

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.maps.brain_map import BrainMap, Continuous, MapSet
from brainkit.maps.files.formats import write_maps

for needed in ("matplotlib", "nilearn"):
    pytest.importorskip(needed)


@pytest.fixture
def files(tmp_path):
    vertices = Vertices("fsaverage5", np.r_[:900, 10242 + np.arange(800)])
    numbers = BrainMap("numbers", "numbers", np.linspace(0.1, 1, 1700), Continuous("magma", 0, 1, "r"))
    return write_maps(tmp_path, MapSet("", vertices, RoiTable({}, 1700), (numbers,)), "gifti")[0]


def test_maps_are_written_and_no_picture_is_drawn(files, tmp_path):
    result = call("map", *files, "--out", tmp_path / "out", "--format", "npz,mgz")
    assert result.exit_code == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "maps.npz" in names and len(names) == 3 and all(name in result.output for name in names)
    with np.load(tmp_path / "out" / "maps.npz") as found:
        (values,) = (found[name] for name in found.files if name not in ("space", "vertices", "description"))
        np.testing.assert_allclose(values[np.isfinite(values)], np.linspace(0.1, 1, 1700), rtol=1e-6)


def test_a_picture_and_a_file_at_once(files, tmp_path):
    assert call("map", *files, "--out", tmp_path / "out", "--format", "png,npz").exit_code == 0
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".png", ".npz"}


@pytest.mark.parametrize("options", ["--format annot", "--format nifti", "--format gif", "--subject a"])
def test_what_cannot_be_written_is_refused_before_anything_is(options, files, tmp_path):
    result = call("map", *files, "--out", tmp_path / "out", *options.split())
    one_line(result, 2)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("cortex") is None, reason="pycortex is not installed")
def test_pycortex_writes_figures_and_a_dataset(files, tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "cache"))
    assert call("map", *files, "--out", tmp_path / "out", "--pycortex", "--filestore", tmp_path / "db").exit_code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pycortex"]
    assert {path.suffix for path in (tmp_path / "out" / "pycortex").iterdir()} == {".png", ".hdf"}
    assert (tmp_path / "db" / "fsaverage5").is_dir() and not (tmp_path / "cache").exists()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("cortex") is None, reason="pycortex is not installed")
def test_pycortex_viewer_is_one_file(files, tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "cache"))
    arguments = ("--out", tmp_path / "viewer.html", "--pycortex", "--filestore", tmp_path / "db")
    assert call("view", *files, *arguments).exit_code == 0
    assert "numbers" in (tmp_path / "viewer.html").read_text(encoding="utf-8")


def test_pycortex_viewer_refuses_what_it_cannot_show(files, tmp_path):
    one_line(call("view", *files, "--pycortex", "--surface", tmp_path), 2)
    one_line(call("view", *files, "--filestore", tmp_path), 2)


def test_figures_that_would_have_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "x.npy", np.zeros(2 * 10242))
    one_line(call("map", tmp_path / "a" / "x.npy", tmp_path / "b" / "x.npy", "--out", tmp_path / "out"), 2)
    assert not (tmp_path / "out").exists()
