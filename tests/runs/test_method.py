"""`brainkit map --method`."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import numpy as np
import pytest

for needed in ("onnx", "onnxruntime", "matplotlib", "nilearn"):
    pytest.importorskip(needed)

from command_line import call, one_line
from pixel_encoder import V, save_images, write_encoder

from brainkit.cortex.vertices import Vertices


@pytest.fixture
def encoder(tmp_path):
    vertices = Vertices("fsaverage5", np.r_[np.arange(V // 2), 10242 + np.arange(V // 2)])
    return write_encoder(tmp_path, vertices=vertices)


@pytest.mark.slow
def test_an_encoder_file_gets_maps_charts_and_pictures(encoder, tmp_path):
    (tmp_path / "photos").mkdir()
    save_images(tmp_path / "photos", 5)
    result = call("map", encoder, "--method", "--images", tmp_path / "photos")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "encoder-maps" / "method"
    names = {path.name for path in folder.iterdir()}
    expected = {"clusters", "weight-pixels", "coverage", "layers-by-roi", "top-channels", "cluster-images"}
    assert names == {f"{name}.png" for name in expected}
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    call("map", encoder, "--method", "--images", tmp_path / "photos")
    assert first == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_without_images_no_pictures_and_in_a_folder_of_ones_own(encoder, tmp_path):
    assert call("map", encoder, "--method", "--out", tmp_path / "figures").exit_code == 0
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert "coverage.png" in names and "top-channels.png" not in names


def test_format_theme_size_and_rois_are_of_all_figures(encoder, tmp_path):
    out = tmp_path / "figures"
    options = ("--format", "svg", "--theme", "dark", "--size", "single", "--rois", "PPA", "--view", "inflated-lateral")
    assert call("map", encoder, "--method", "--only", "clusters,layers-by-roi", "--out", out, *options).exit_code == 0
    assert {path.name for path in out.iterdir()} == {"clusters.svg", "layers-by-roi.svg"}
    for path in sorted(out.iterdir()):
        text = path.read_text()
        assert "252pt" in text.split("viewBox")[0] and "#15181c" in text and ">V1v<" not in text
    assert ">PPA<" in text


@pytest.mark.parametrize(
    "options",
    [
        ("--only", "top-channels"),
        ("--only", "clusterz"),
        ("--only", "coverage", "--rois", ""),
        ("--only", "coverage", "--view", "inflated"),
        ("--size", "7x5"),
        ("--format", "gifti"),
        ("--rois", "nowhere"),
        ("--vmin", "0"),
    ],
)
def test_what_means_nothing_is_one_line_and_writes_nothing(encoder, tmp_path, options):
    one_line(call("map", encoder, "--method", *options), 2)
    assert not (tmp_path / "encoder-maps").exists()


def test_wrong_requests_are_one_line(encoder, tmp_path):
    one_line(call("map", encoder, encoder, "--method"), 2)
    one_line(call("map", encoder, "--images", tmp_path), 2)
    one_line(call("map", encoder, "--format", "mp4"), 2)
    assert not (tmp_path / "encoder-maps").exists()
