"""Files and folders given to commands that are missing, damaged or something else: one line, nothing left."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import call, one_line, write_encoder

from brainkit import doctor


def test_no_newest_run(photos: Path) -> None:
    line = one_line(call("predict", photos, "--out", "fmri.npy"), 1)
    assert "runs/latest" in line and "--encoder FILE" in line


def test_newest_run_is_gone(photos: Path) -> None:
    Path("runs").mkdir()
    Path("runs/latest").write_text("monday\n")
    assert "monday" in one_line(call("predict", photos, "--out", "fmri.npy"), 1)


def test_newest_run_is_not_exported(photos: Path) -> None:
    Path("runs/monday").mkdir(parents=True)
    Path("runs/latest").write_text("monday\n")
    assert "brainkit export" in one_line(call("predict", photos, "--out", "fmri.npy"), 1)


@pytest.mark.parametrize("command", ["info", "predict", "map"])
@pytest.mark.parametrize("kind", ["missing", "empty", "text", "folder", "plain onnx", "truncated", "changed"])
def test_files_that_are_not_encoders(photos: Path, command: str, kind: str) -> None:
    encoder = Path("encoder.onnx")
    write_encoder(encoder)
    whole = encoder.read_bytes()
    encoder.unlink()
    if kind == "folder":
        encoder.mkdir()
    elif kind != "missing":
        content = {
            "empty": b"",
            "text": b"not an encoder\n" * 40,
            "plain onnx": doctor._identity_model(),
            "truncated": whole[: len(whole) // 2],
            "changed": whole[:60] + bytes([whole[60] ^ 1]) + whole[61:],
        }
        encoder.write_bytes(content[kind])
    arguments = {
        "info": ["info", encoder],
        "predict": ["predict", photos, "--out", "fmri.npy", "--encoder", encoder],
        "map": ["map", encoder, "--out", "figures"],
    }
    assert "encoder.onnx" in one_line(call(*arguments[command]), 1)
    assert sorted(path.name for path in Path().iterdir()) == [*["encoder.onnx"][kind == "missing" :], "photos"]


def test_images_that_do_not_exist(photos: Path) -> None:
    write_encoder(Path("encoder.onnx"))
    assert "holiday" in one_line(call("predict", "holiday", "--out", "fmri.npy", "--encoder", "encoder.onnx"), 2)
    Path("none").mkdir()
    assert "none" in one_line(call("predict", "none", "--out", "fmri.npy", "--encoder", "encoder.onnx"), 2)
    assert not Path("fmri.npy").exists()


def test_an_output_folder_that_does_not_exist(photos: Path) -> None:
    write_encoder(Path("encoder.onnx"))
    line = one_line(call("predict", photos, "--out", "deep/fmri.npy", "--encoder", "encoder.onnx"), 1)
    assert "deep" in line
    line = one_line(call("predict", photos, "--out", "fmri.npy", "--encoder", "encoder.onnx", "--maps", "deep/maps"), 1)
    assert "deep" in line
    assert not Path("deep").exists()
    assert not Path("fmri.npy").exists()
