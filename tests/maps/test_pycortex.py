"""Maps by pycortex; what runs it is skipped where it is not installed."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from brainkit.cortex.cortical_surface import average_surface
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import SPACES, Vertices
from brainkit.errors import BrainkitError, DataError, MissingDependency, UsageError
from brainkit.maps.brain_map import BrainMap, Categorical, Continuous, Location, MapSet
from brainkit.maps.pycortex import run
from brainkit.maps.pycortex.run import write_dataset, write_quickflat, write_viewer
from brainkit.maps.pycortex.single_file import single_file
from brainkit.maps.pycortex.subject import write_subject
from brainkit.utils.files import cache_folder

pytest.importorskip("nilearn", reason="the meshes come with nilearn")

N = SPACES["fsaverage5"]
needs_pycortex = pytest.mark.skipif(
    importlib.util.find_spec("cortex") is None, reason="pycortex is not installed (brainkit[pycortex])"
)


@pytest.fixture
def maps():
    y = np.concatenate(
        [average_surface("fsaverage5").hemisphere(name).points["pial"][:, 1] for name in ("left", "right")]
    )
    vertices = Vertices("fsaverage5", np.flatnonzero(y < -60))
    count = len(vertices)
    classes = Categorical(("early", "<late>"), np.array([[1.0, 0, 0], [0, 0, 1]]), "layer")
    shares = np.stack([np.arange(count) % 2, 1 - np.arange(count) % 2], axis=1).astype(float)
    values = np.linspace(-1, 1, count)
    values[3] = np.nan
    return MapSet(
        "net %",
        vertices,
        RoiTable({"V1, $x$": np.flatnonzero(y[vertices.ids] < -85), "none": np.array([], int)}, count),
        (
            BrainMap("numbers", "numbers", values, Continuous("magma", 0, 1, "r"), reliable=values > -0.5),
            BrainMap("layer", "layer", shares, classes, strength=np.full(count, 0.5)),
            BrainMap("location", "location", np.stack([values, values], axis=1), Location()),
        ),
        "SIMULATED",
    )


@pytest.fixture(autouse=True)
def users_settings(tmp_path_factory, monkeypatch):
    """A configuration left by a dead environment, which must neither matter nor change."""
    home = tmp_path_factory.mktemp("home")
    (home / "pycortex").mkdir(parents=True)
    stale = home / "pycortex" / "options.cfg"
    stale.write_text("[basic]\nfilestore = /gone/db\n[webgl]\ncolormaps = /gone/colormaps\n")
    before = stale.read_text()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("BRAINKIT_CACHE", str(home.parent / f"{home.name}-cache"))
    yield
    assert stale.read_text() == before and list(stale.parent.iterdir()) == [stale]
    assert "cortex" not in sys.modules


def test_the_subject_is_written_once_and_kept(tmp_path):
    surface = average_surface("fsaverage5")
    assert write_subject(tmp_path / "db", surface) == "fsaverage5"
    folder = tmp_path / "db" / "fsaverage5"
    assert {path.name for path in (folder / "surfaces").iterdir()} == {
        f"{shape}_{side}.gii" for shape in ("pia", "wm", "inflated", "flat") for side in ("lh", "rh")
    }
    mark = folder / "overlays.svg"
    mark.write_text("the user's")
    write_subject(tmp_path / "db", surface)
    assert mark.read_text() == "the user's" and [each.name for each in (tmp_path / "db").iterdir()] == ["fsaverage5"]


def test_no_face_of_the_closed_mesh_lies_across_a_cut(tmp_path):
    import nibabel

    surface = average_surface("fsaverage5")
    write_subject(tmp_path, surface)
    for name, side in (("lh", surface.left), ("rh", surface.right)):
        points, faces = nibabel.load(tmp_path / "fsaverage5" / "surfaces" / f"flat_{name}.gii").agg_data()
        on = np.zeros(N, bool)
        on[faces] = True
        drawn = side.faces[on[side.faces].all(axis=1)]
        assert {tuple(sorted(face)) for face in drawn.tolist()} == {tuple(sorted(face)) for face in faces.tolist()}
        assert not points[~on].any() and len(faces) > 0.98 * len(side.flat_faces)


def test_a_subject_with_other_vertices_is_refused(tmp_path):
    write_subject(tmp_path, average_surface("fsaverage5"))
    (tmp_path / "fsaverage5").rename(tmp_path / "fsaverage6")
    with pytest.raises(DataError, match="10242"):
        write_subject(tmp_path, average_surface("fsaverage6"))


def test_a_page_answers_its_own_requests(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "index.html").write_text("<html><head><title>a</title></head></html>")
    (tmp_path / "data" / "a.png").write_bytes(b"\x01\x02")
    (tmp_path / "b.json").write_text("</script>")
    page = single_file(tmp_path)
    files = json.loads(re.search(r"const files = (.*);\n", page)[1])
    assert set(files) == {"data/a.png", "b.json"} and files["data/a.png"] == "data:image/png;base64,AQI="
    assert page.index("<script>") < page.index("<title>")


def test_what_is_missing_is_said(maps, tmp_path, monkeypatch):
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"brainkit\[pycortex\]"):
        write_quickflat(tmp_path / "new", maps)
    assert not (tmp_path / "new").exists()


def test_custom_vertices_are_refused(maps, tmp_path):
    custom = MapSet("", Vertices.custom(2), RoiTable({}, 2), ())
    with pytest.raises(UsageError, match="custom"):
        write_viewer(tmp_path / "a.html", custom)


@needs_pycortex
@pytest.mark.slow
def test_quickflat_draws_each_map_and_leaves_the_users_settings_alone(maps, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "file" / "cache"))  # cannot be created
    files = write_quickflat(tmp_path / "out", maps)
    assert [file.name for file in files] == ["numbers.png", "layer.png", "location.png"]
    pixels = np.asarray(Image.open(files[1]).convert("RGB")).astype(int)
    red = ((pixels[..., 0] - pixels[..., 2]) > 60).mean()
    blue = ((pixels[..., 2] - pixels[..., 0]) > 60).mean()
    assert red > 0.002 and blue > 0.002  # of both classes, half the vertices each


@needs_pycortex
@pytest.mark.slow
def test_the_viewer_is_one_file_that_asks_for_nothing(maps, tmp_path):
    path = write_viewer(tmp_path / "viewer.html", maps)
    page = path.read_text(encoding="utf-8")
    files = json.loads(re.search(r"const files = (.*);\n", page)[1])
    assert {name.rsplit(".", 1)[-1] for name in files} == {"ctm", "json", "svg", "png"}
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=.(https?:)?//", page)
    assert (cache_folder() / "pycortex" / "fsaverage5").is_dir()


@needs_pycortex
@pytest.mark.slow
def test_a_dataset_is_read_back_by_pycortex_with_every_value(maps, tmp_path):
    write_dataset(tmp_path / "maps.hdf", maps, subject="mine")
    store = tmp_path / "store"
    write_subject(store, average_surface("fsaverage5"))
    (store / "fsaverage5").rename(store / "mine")
    (tmp_path / "config" / "pycortex").mkdir(parents=True)
    (tmp_path / "config" / "pycortex" / "options.cfg").write_text(f"[basic]\nfilestore = {store}\n")
    code = (
        "import cortex, numpy, sys; d = cortex.load(sys.argv[1]); v = d.numbers\n"
        "assert v.subject == 'mine' and sorted(d.views) == ['layer', 'location', 'numbers'], (v.subject, d.views)\n"
        "numpy.save(sys.argv[2], v.data)"
    )
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "maps.hdf", tmp_path / "back.npy"],
        env=os.environ | {"XDG_CONFIG_HOME": str(tmp_path / "config"), "MPLBACKEND": "Agg"},
        check=True,
    )
    back = np.load(tmp_path / "back.npy").ravel()
    np.testing.assert_array_equal(back[maps.vertices.ids], maps["numbers"].values.astype(np.float32))
    assert np.isnan(np.delete(back, maps.vertices.ids)).all()


@needs_pycortex
@pytest.mark.slow
def test_when_pycortex_fails_nothing_is_left(maps, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_WORKER", tmp_path / "worker.py")
    (tmp_path / "worker.py").write_text("raise ValueError('no')")
    with pytest.raises(BrainkitError, match="no"):
        write_viewer(tmp_path / "viewer.html", maps)
    assert not (tmp_path / "viewer.html").exists()
