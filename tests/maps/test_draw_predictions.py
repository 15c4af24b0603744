"""Predictions drawn next to their images."""

from __future__ import annotations

import os
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import V, call, encoder_info, write_encoder
from PIL import Image

from brainkit.cortex.vertices import Vertices
from brainkit.errors import DataError, UsageError
from brainkit.utils.files import write_json


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two photographs in it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.png", "a.png"):
        Image.new("RGB", (8, 6), (200, 30, 30)).save(folder / name)
    return folder


def record_figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Draw tiny pictures; the `MapSet` and the `BrainMap` of each figure are kept."""
    drawn: list[Any] = []

    def keep(maps: Any, brain_map: Any, picture: Any) -> np.ndarray:
        drawn.append((maps, brain_map))
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr("brainkit.maps.draw_predictions.draw_pixels", keep)
    return drawn


def test_predictions_are_drawn_row_by_row(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("nilearn")
    from brainkit.maps import draw_predictions

    drawn = record_figures(monkeypatch)
    columns = np.array([2, 3, 25])
    rows = np.arange(9, dtype=np.float32).reshape(3, 3)
    images = [photos / "a.png", photos / "b.png", photos / "a.png"]
    info = encoder_info()
    paths = draw_predictions.draw_predictions(info, rows, images, Path("figures"), columns=columns, max_maps=2)
    assert [path.name for path in paths] == ["0000-a.png", "0001-b.png"]
    assert [(each.coding.low, each.coding.high) for _, each in drawn] == [(-5.0, 5.0)] * 2
    assert "b.png" in drawn[1][1].title
    np.testing.assert_array_equal(drawn[1][1].values, rows[1])
    maps = drawn[0][0]
    np.testing.assert_array_equal(maps.vertices.ids, info.vertices.ids[columns])
    np.testing.assert_array_equal(maps.rois["early"], [0, 1])
    assert maps.note == "SIMULATED subject, not a brain"
    with pytest.raises(DataError, match="expected 3 rows"):
        draw_predictions.draw_predictions(info, rows, images, Path("figures"))


def test_a_prediction_file_is_drawn_with_its_own_columns(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("nilearn")
    from brainkit.maps import draw_predictions

    drawn = record_figures(monkeypatch)
    info = encoder_info()
    columns = np.array([1, 30])
    np.save("fmri.npy", np.array([[1.0, 2.0]], np.float32))
    write_json(
        "fmri.npy.json", {"images": [str(photos / "b.png")], "vertices": {"ids": info.vertices.ids[columns].tolist()}}
    )
    assert [path.name for path in draw_predictions.draw_prediction_file("fmri.npy", info, "figures")] == ["0000-b.png"]
    np.testing.assert_array_equal(drawn[0][0].vertices.ids, info.vertices.ids[columns])
    write_json("fmri.npy.json", [])
    with pytest.raises(DataError, match=r"fmri.npy.json"):
        draw_predictions.draw_prediction_file("fmri.npy", info, "figures")


def test_an_image_whose_name_is_not_utf8_is_drawn(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("nilearn")
    from brainkit.predict import Encoder

    try:
        os.rename(photos / "a.png", os.fsencode(photos) + b"/a\xff $x.png")
    except OSError:
        pytest.skip("this file system takes no such name")
    write_encoder(Path("encoder.onnx"))
    session: Any = types.SimpleNamespace(device="cpu", break_off=lambda thread: None)
    encoder = Encoder(Path("encoder.onnx"), encoder_info(), session)
    rows = iter(np.random.default_rng(0).standard_normal((2, 1, V)).astype(np.float32))
    monkeypatch.setattr(encoder, "run", lambda batch, columns=None: next(rows))
    monkeypatch.setattr("brainkit.predict.to_file.load", lambda path, device, **more: encoder)
    result = call(
        "predict", photos, *["--out", "fmri.npy", "--encoder", "encoder.onnx", "--maps", "figures", "--batch-size", "1"]
    )
    assert result.exit_code == 0, result.output
    assert "figures: 2 of 2 images" in result.stdout
    assert sorted(path.name for path in Path("figures").iterdir()) == ["0000-a_x.png", "0001-b.png"]
    assert "a\\\\xff $x.png" in Path("fmri.npy.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("place", ["deep/figures", "photos/a.png"])
def test_figures_need_a_folder(photos: Path, place: str) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("nilearn")
    from brainkit.maps.draw_predictions import check_drawable

    with pytest.raises(DataError, match=place):
        check_drawable(place, encoder_info())


def test_maps_need_a_surface(photos: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("nilearn")
    from brainkit.maps.draw_predictions import check_drawable

    info = encoder_info(vertices=Vertices("custom", np.arange(V, dtype=np.int32)))
    with pytest.raises(UsageError, match="fsaverage"):
        check_drawable("figures", info)
