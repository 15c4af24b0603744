"""`brainkit view`: what it makes of encoder files, predictions and other values, and what it refuses."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from command_line import call
from PIL import Image
from pixel_encoder import V, expected_rows, save_images, write_encoder

from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.runs.view import view
from brainkit.utils.own_figures import figure_mark


def told(page):
    """What the page's JSON says."""
    return json.loads(re.search(r'id="content">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL).group(1))


@pytest.fixture(autouse=True)
def _quick(request, monkeypatch):
    """Still pictures take seconds: only tests marked slow draw them."""
    if not request.node.get_closest_marker("slow"):
        monkeypatch.setattr("brainkit.runs.view.draw_stills", lambda maps, most: ())


@pytest.fixture
def said():
    return []


@pytest.fixture
def encoder(tmp_path):
    return write_encoder(tmp_path)


@pytest.mark.slow
def test_an_encoder_file_with_photographs(tmp_path, encoder, said):
    paths = save_images(tmp_path / "photos", 3)
    page = view([encoder], out=tmp_path / "cortex.html", images=tmp_path / "photos", say=said.append)
    content = told(page)
    assert content["title"] == "pixels" and content["note"] == "simulated"
    assert [each["name"] for each in content["maps"]] == ["accuracy", "explained", "layer", "location", "scale"]
    assert [each["label"] for each in content["facts"]] == ["correlation on test images", "noise ceiling of r²"]
    assert content["photographs"]["names"] == [path.name for path in paths]
    assert content["photographs"]["step"] == pytest.approx(np.abs(expected_rows(paths)).max() / 127, rel=1e-4)
    assert any("sha256" in line for line in content["provenance"])
    assert page.read_text(encoding="utf-8").count("<figure>") == 5
    assert str(page) in said[-1]


def test_predictions_come_with_their_images_and_the_encoders_maps(tmp_path, encoder, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path / "photos", 2)
    result = call("predict", "photos", "--encoder", "encoder.onnx", "--out", "fmri.npy")
    assert result.exit_code == 0, result.output
    content = told(view(["fmri.npy"], out="cortex.html", say=said.append))
    assert content["photographs"]["names"] == ["image-000.png", "image-001.png"]
    assert "layer" in [each["name"] for each in content["maps"]]
    assert {each["name"] for each in content["rois"]} == {"V1v", "V1d", "PPA"}
    (tmp_path / "encoder.onnx").unlink()
    (tmp_path / "photos/image-000.png").unlink()
    content = told(view(["fmri.npy"], out="cortex.html", overwrite=True, say=said.append))
    assert content["maps"] == [] and len(content["photographs"]["names"]) == 2


def test_any_values_of_vertices(tmp_path, said):
    np.save(tmp_path / "thickness.npy", np.linspace(1, 4, 20_484))
    content = told(view([tmp_path / "thickness.npy"], out=tmp_path / "cortex.html", say=said.append))
    assert len(content["maps"]) == 1 and content["photographs"] is None


def test_more_images_than_a_page_holds_are_said(tmp_path, encoder, said, monkeypatch):
    monkeypatch.setattr("brainkit.runs.view.MOST_IMAGES", 2)
    save_images(tmp_path / "photos", 3)
    content = told(view([encoder], out=tmp_path / "c.html", images=tmp_path / "photos", say=said.append))
    assert len(content["photographs"]["names"]) == 2
    assert any("2 of 3 images" in line for line in said)


def test_figures_among_the_photographs_are_left_out_and_said(tmp_path, encoder, said):
    paths = save_images(tmp_path / "photos", 1)
    Image.new("RGB", (20, 20)).save(tmp_path / "photos/a figure.png", pnginfo=figure_mark())
    content = told(view([encoder], out=tmp_path / "c.html", images=tmp_path / "photos", say=said.append))
    assert content["photographs"]["names"] == [path.name for path in paths]
    assert any("a figure.png" in line for line in said)


def test_a_page_is_replaced_only_if_told(tmp_path, encoder, said):
    out = tmp_path / "cortex.html"
    out.write_text("mine")
    with pytest.raises(UsageError, match="overwrite"):
        view([encoder], out=out, say=said.append)
    assert out.read_text() == "mine"
    assert view([encoder], out=out, overwrite=True, say=said.append).read_text(encoding="utf-8") != "mine"


def test_what_cannot_be_shown_is_refused_and_nothing_written(tmp_path, encoder, said):
    np.save(tmp_path / "odd.npy", np.zeros(7))
    np.save(tmp_path / "whole.npy", np.zeros(20_484))
    out = tmp_path / "cortex.html"
    refused = [
        ([tmp_path / "odd.npy"], {}, DataError),
        ([tmp_path / "missing.onnx"], {}, BrainkitError),
        ([encoder, encoder], {}, UsageError),
        ([encoder], {"like": encoder}, UsageError),
        ([encoder], {"images": tmp_path / "nowhere"}, UsageError),
        ([encoder], {"surface": tmp_path}, DataError),
        ([tmp_path / "whole.npy"], {"images": tmp_path}, UsageError),
    ]
    for sources, options, error in refused:
        with pytest.raises(error):
            view(sources, out=out, say=said.append, **options)
        assert not out.exists()
    with pytest.raises(DataError):
        view([encoder], out=tmp_path / "no" / "cortex.html", say=said.append)


def test_vertices_without_a_surface_are_refused(tmp_path, said):
    from brainkit.cortex.vertices import Vertices

    encoder = write_encoder(tmp_path, vertices=Vertices.custom(V))
    with pytest.raises(UsageError, match="--surface"):
        view([encoder], out=tmp_path / "cortex.html", say=said.append)


@pytest.fixture
def voxels(tmp_path):
    """An encoder of voxels in the grey matter of a small surface, whose folder it also is."""
    from small_surface import small_surface, write_freesurfer

    from brainkit.cortex.vertices import Vertices
    from brainkit.cortex.volume import Volume

    surface = small_surface()
    write_freesurfer(tmp_path / "subject", surface, ("pial", "white", "inflated"))
    halves = [surface.hemisphere(name).points for name in ("left", "right")]
    middle = np.concatenate([((half["white"] + half["pial"]) / 2)[: V // 2] for half in halves])
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -64
    volume = Volume((64, 64, 64), affine, np.rint((middle + 64) / 2).astype(int))
    return write_encoder(tmp_path, vertices=Vertices.custom(V), volume=volume)


def test_responses_and_scores_of_voxels_are_projected(tmp_path, voxels, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path / "photos", 2)
    content = told(view([voxels], out="a.html", images="photos", surface="subject", say=said.append))
    assert [each["label"] for each in content["facts"]] == ["correlation on test images", "noise ceiling of r²"]
    assert content["photographs"]["names"] == ["image-000.png", "image-001.png"]
    assert call("predict", "photos", "--encoder", "encoder.onnx", "--out", "fmri.npy").exit_code == 0
    other = told(view(["fmri.npy"], out="b.html", surface="subject", say=said.append))
    assert other["photographs"]["step"] == content["photographs"]["step"]
    assert [each["name"] for each in other["maps"]] == [each["name"] for each in content["maps"]]
    assert {each["name"] for each in other["rois"]} == {"V1v", "V1d", "PPA"}
    voxels.unlink()  # the description of the predictions says which voxels they are
    alone = told(view(["fmri.npy"], out="c.html", surface="subject", say=said.append))
    assert alone["photographs"]["step"] == content["photographs"]["step"]


@pytest.mark.parametrize("source", ["encoder.onnx", "fmri.npy"])
def test_voxels_without_a_surface_are_refused(tmp_path, voxels, said, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path / "photos", 2)
    assert call("predict", "photos", "--encoder", "encoder.onnx", "--out", "fmri.npy").exit_code == 0
    with pytest.raises(UsageError, match="--surface"):
        view([source], out="a.html", say=said.append)


def test_the_command_passes_its_options(tmp_path, encoder, monkeypatch):
    given = {}
    monkeypatch.setattr("brainkit.runs.view.view", lambda sources, **options: given.update(options, sources=sources))
    options = ("--images", "photos", "--surface", "s", "--like", "r", "--overwrite")
    result = call("view", str(encoder), "--out", "x.html", *options)
    assert result.exit_code == 0 and given["overwrite"]
    assert [str(given[name]) for name in ("out", "images", "surface", "like")] == ["x.html", "photos", "s", "r"]
    assert [str(each) for each in given["sources"]] == [str(encoder)]


def test_a_page_does_not_replace_a_file_of_another_kind(tmp_path, encoder):
    data = tmp_path / "precious.npy"
    np.save(data, np.zeros(3))
    with pytest.raises(UsageError, match="HTML"):
        view([encoder], out=data, say=print)
    assert len(np.load(data)) == 3
