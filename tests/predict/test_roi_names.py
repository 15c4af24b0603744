"""ROIs whose names have commas: chosen as such by every command and in Python."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from click.testing import CliRunner
from pixel_encoder import V, write_encoder

from brainkit.cli import group
from brainkit.cortex.rois import RoiTable
from brainkit.encoder_file import read
from brainkit.predict import load

ROIS = RoiTable({"V1, ventral": [1, 3], "V1": [7], "ventral": [8, 9], "FFA-1": [2]}, V)


@pytest.fixture
def commas(tmp_path: Path) -> Path:
    (tmp_path / "encoder").mkdir()
    return write_encoder(tmp_path / "encoder", rois=ROIS)


def run(*arguments: object) -> None:
    result = CliRunner().invoke(group, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def test_python_takes_the_whole_name(commas: Path, readable: list[Path]) -> None:
    encoder = load(commas, "cpu")
    every = encoder.predict(readable[:2])
    np.testing.assert_allclose(encoder.predict(readable[:2], rois="V1, ventral"), every[:, [1, 3]], atol=1e-6)
    np.testing.assert_allclose(encoder.predict(readable[:2], rois="V1,FFA-1"), every[:, [2, 7]], atol=1e-6)
    assert list(encoder.roi_means(readable[:2], "V1, ventral,FFA-1")) == ["V1, ventral", "FFA-1"]
    assert encoder.top(readable[:3], "V1, ventral", k=1)[0].rank == 1


def test_predict_and_its_contact_sheets(commas: Path, readable: list[Path], tmp_path: Path) -> None:
    options = ("--encoder", commas, "--device", "cpu", "--roi", "V1, ventral,FFA-1", "--overwrite")
    run("predict", *readable[:3], "--out", tmp_path / "fmri.npy", "--top", 2, *options)
    description = json.loads(next(tmp_path.glob("fmri*.json")).read_text(encoding="utf-8"))
    assert description["rois"] == {"V1, ventral": [0, 2], "FFA-1": [1]}
    assert len(list(tmp_path.glob("fmri-top-*.png"))) == 2
    run("predict", *readable[:3], "--out", tmp_path / "means.csv", *options)
    with (tmp_path / "means.csv").open(newline="") as stream:
        assert next(csv.reader(stream))[1:] == ["V1, ventral", "FFA-1"]


def test_a_sheet_that_exists_is_named_before_images_are_predicted(
    commas: Path, readable: list[Path], tmp_path: Path
) -> None:
    arguments = ["predict", str(readable[0]), "--encoder", str(commas), "--roi", "V1,FFA-1", "--top", "1"]
    (tmp_path / "fmri-top-FFA-1.png").write_bytes(b"")
    result = CliRunner().invoke(group, [*arguments, "--out", str(tmp_path / "fmri.npy")])
    assert result.exit_code == 2
    assert "fmri-top-FFA-1.png" in result.output
    assert not (tmp_path / "fmri.npy").exists()


def test_contrast(commas: Path, readable: list[Path], tmp_path: Path) -> None:
    for name, some in (("a", readable[:3]), ("b", readable[3:6])):
        (tmp_path / name).mkdir()
        for image in some:
            (tmp_path / name / image.name).write_bytes(image.read_bytes())
    out = tmp_path / "contrast.npz"
    run("contrast", tmp_path / "a", tmp_path / "b", "--out", out, "--encoder", commas, "--roi", "v1, VENTRAL")
    with np.load(out) as arrays:
        assert len(arrays["hedges_g"]) == 2


def test_export() -> None:
    pytest.importorskip("torch", reason="exporting needs torch")
    from small_encoders import make_info, make_model

    from brainkit.export.vertex_subset import choose_subset

    info = make_info(make_model())
    count = len(info.vertices)
    info = dataclasses.replace(info, rois=RoiTable({"V1, ventral": [4, 2], "V1": [5]}, count))
    for given, positions in (("V1, ventral", [2, 4]), (("V1, ventral,V1",), [2, 4, 5]), ("V1", [5])):
        chosen = choose_subset(info, rois=given)
        assert chosen is not None and chosen.positions.tolist() == positions


def test_info_shows_it(commas: Path) -> None:
    assert "V1, ventral" in read(commas).rois
    result = CliRunner().invoke(group, ["info", str(commas)])
    assert result.exit_code == 0 and "V1, ventral" in result.output
