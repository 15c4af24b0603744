"""Predictions written to a file: rows and their description, images that cannot be read, outputs that exist."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from click.testing import CliRunner
from pixel_encoder import V, expected_rows

from brainkit import encoder_file
from brainkit.cli import group
from brainkit.cortex.vertices import from_ranges
from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.predict import Encoder, predict_to_file
from brainkit.predict.outputs.npy import NpyRows


@pytest.fixture
def folder(readable: list[Path], tmp_path: Path) -> Path:
    """Ten images in two folders, and three files that are none."""
    folder = tmp_path / "photographs"
    (folder / "more").mkdir(parents=True)
    for index, path in enumerate(readable):
        (folder / ("more" if index % 3 == 0 else "") / path.name).write_bytes(path.read_bytes())
    (folder / "broken.png").write_bytes(readable[1].read_bytes()[:60])
    (folder / "more" / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no image")
    return folder


def images_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("image-*.png"), key=lambda path: path.parts)


def test_rows_and_their_description(path: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "fmri.npy"
    seen: list[tuple[int, int]] = []
    result = predict_to_file(
        [folder], out, path, device="cpu", batch_size=5, progress=lambda done, total: seen.append((done, total))
    )
    paths = images_of(folder)
    fmri = np.load(out, mmap_mode="r")
    assert fmri.dtype == np.float32
    assert fmri.flags.c_contiguous
    np.testing.assert_allclose(fmri, expected_rows(paths), atol=1e-5)
    assert (result.path, result.n, result.description) == (out, 10, tmp_path / "fmri.npy.json")
    assert list(result.images) == paths and result.images[-1] == paths[-1] and result.images[2:4] == paths[2:4]
    assert result.seconds > 0
    skipped = sorted(["broken.png", "empty.jpg", "text.jpg"])
    assert sorted(image.name for image, _ in result.skipped) == skipped
    assert seen[-1] == (13, 13)
    assert seen == sorted(seen)

    description = json.loads((tmp_path / "fmri.npy.json").read_text(encoding="utf-8"))
    assert description["images"] == [str(image) for image in paths]
    assert sorted(Path(entry["path"]).name for entry in description["skipped"]) == skipped
    assert all(entry["reason"] and entry["path"] not in entry["reason"] for entry in description["skipped"])
    assert description["shape"] == [10, V]
    assert (description["units"], description["space"]) == ("z-scored percent signal change", "fsaverage5")
    assert description["encoder"]["sha256"] == encoder_file.read(path).digest
    assert description["note"] == "simulated"
    assert "ids" not in description["vertices"]
    assert sorted(os.listdir(tmp_path)) == ["fmri.npy", "fmri.npy.json", "photographs"]


def test_regions_keep_their_vertices(path: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "fmri.npy"
    predict_to_file(folder, out, path, device="cpu", rois=["V1", "ppa"])
    np.testing.assert_allclose(np.load(out), expected_rows(images_of(folder))[:, [1, 3, 7, 19]], atol=1e-5)
    description = json.loads((tmp_path / "fmri.npy.json").read_text())
    assert from_ranges(description["vertices"]["ranges"]).tolist() == [1000, 3000, 7000, 19000]
    assert description["rois"] == {"V1": [0, 1, 2], "ppa": [0, 3]}
    for roi in ("V9", "absent"):
        with pytest.raises(UsageError, match=roi):
            predict_to_file(folder, out, path, device="cpu", rois=roi, overwrite=True)


def test_nothing_is_overwritten_unasked(path: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "fmri.npy"
    for name in ("fmri.npy", "fmri.npy.json"):
        (tmp_path / name).write_text("precious")
        with pytest.raises(UsageError, match=f"{name}: exists"):
            predict_to_file(folder, out, path, device="cpu")
        assert (tmp_path / name).read_text() == "precious"
        (tmp_path / name).unlink()
    out.write_text("old")
    assert predict_to_file(folder, out, path, device="cpu", overwrite=True).n == 10
    assert np.load(out).shape == (10, V)


def test_paths_that_cannot_be_written(path: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        predict_to_file(folder, tmp_path / "nowhere" / "fmri.npy", path)
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(UsageError, match=r"folder\.npy"):
        predict_to_file(folder, tmp_path / "folder.npy", path, overwrite=True)


def test_no_readable_image_leaves_nothing(path: Path, folder: Path, tmp_path: Path) -> None:
    for bad in ([folder / "text.jpg"], [folder / "text.jpg", folder / "broken.png"]):
        with pytest.raises(BrainkitError, match=r"text\.jpg|broken\.png") as caught:
            predict_to_file(bad, tmp_path / "fmri.npy", path, device="cpu")
        assert caught.value.exit_code == 1
        assert "\n" not in str(caught.value)
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="none"):
        predict_to_file(tmp_path / "none", tmp_path / "fmri.npy", path)
    assert sorted(os.listdir(tmp_path)) == ["none", "photographs"]


def test_an_error_leaves_no_output_and_no_thread(
    encoder: Encoder, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = {thread.name for thread in threading.enumerate()}
    with pytest.raises(KeyboardInterrupt):
        predict_to_file(folder, tmp_path / "fmri.npy", encoder, batch_size=1, progress=interrupted)
    assert (tmp_path / ".fmri.npy.partial").is_dir()  # what was done is kept: test_resume.py

    def full(self: Any, rows: np.ndarray, names: Any = ()) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(NpyRows, "append", full)
    with pytest.raises(BrainkitError, match="No space left"):
        predict_to_file(folder, tmp_path / "other.npy", encoder)
    assert sorted(os.listdir(tmp_path)) == [".fmri.npy.partial", "photographs"]
    assert {thread.name for thread in threading.enumerate()} == before


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_names_that_are_not_utf8_or_hold_newlines(path: Path, readable: list[Path], tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    for name in (b"a\nb.png", b"caf\xe9.png", "ü.png".encode()):
        (odd / os.fsdecode(name)).write_bytes(readable[0].read_bytes())
    (odd / os.fsdecode(b"bad\xff.png")).write_bytes(b"no image")
    result = predict_to_file(odd, tmp_path / "fmri.npy", path, device="cpu")
    assert (result.n, len(result.skipped)) == (3, 1)
    names = [Path(image).name for image in json.loads((tmp_path / "fmri.npy.json").read_text("utf-8"))["images"]]
    assert set(names) == {"a\nb.png", "caf\\xe9.png", "ü.png"}


def test_engines_that_cannot_be(path: Path, photos: Path, tmp_path: Path) -> None:
    for options, match in (({"engine": "spark"}, "spark"), ({"workers": 2}, "workers")):
        with pytest.raises(UsageError, match=match):
            predict_to_file(photos, tmp_path / "fmri.npy", path, **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_the_options_of_the_command(path: Path, photos: Path, tmp_path: Path) -> None:
    command = ["predict", str(photos), "--encoder", str(path), "--out"]
    done = CliRunner().invoke(group, [*command, str(tmp_path / "pred_test.npy"), "--hemispheres"])
    assert done.exit_code == 0, done.output
    files = ", ".join(str(tmp_path / name) for name in ("lh_pred_test.npy", "rh_pred_test.npy"))
    assert done.stdout.startswith(f"{files}: 10 images in ")  # the files that exist, and no other name
    assert str(tmp_path / "pred_test.npy.json") in done.output
    done = CliRunner().invoke(group, [*command, str(tmp_path / "fmri")])
    assert done.exit_code == 2 and str(tmp_path / "fmri") in done.output
    for name, more in (("fmri.npz", []), ("fmri.npy", ["--hemispheres"])):
        done = CliRunner().invoke(group, [*command, str(tmp_path / name), *more, "--maps", str(tmp_path / "maps")])
        assert done.exit_code != 0
    assert sorted(os.listdir(tmp_path)) == ["lh_pred_test.npy", "pred_test.npy.json", "rh_pred_test.npy"]
