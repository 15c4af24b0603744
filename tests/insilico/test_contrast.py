"""Contrasts: the statistics against SciPy's, the files, the figure, and what is refused."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")
stats = pytest.importorskip("scipy.stats", reason="the statistics are compared with SciPy's")

from click.testing import CliRunner
from pixel_encoder import V, write_encoder

from brainkit import predict
from brainkit.cli import group
from brainkit.errors import DataError, UsageError
from brainkit.insilico.contrast import COLUMNS, Contrast, contrast
from brainkit.insilico.contrast_output import draw_contrast, table_lines, write_contrast
from brainkit.maps.figure import MapFigure


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def encoder(path: Path) -> predict.Encoder:
    return predict.load(path, "cpu")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Nine light images and seven dark ones, and in each folder one file that is no image."""
    rng = np.random.default_rng(1)
    folder = tmp_path_factory.mktemp("sets")
    for name, count, low in (("light", 9, 60), ("dark", 7, 0)):
        (folder / name).mkdir()
        for index in range(count):
            pixels = rng.integers(low, low + 190, (12, 14, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
        (folder / name / "broken.png").write_bytes(b"")
    return folder / "light", folder / "dark"


def test_a_contrast_is_that_of_the_predictions(
    encoder: predict.Encoder, sets: tuple[Path, Path], tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    found = contrast(*sets, encoder, batch_size=4, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (18, 18) and seen == sorted(seen)
    a, b = (encoder.predict(sorted(folder.glob("?.png"))) for folder in sets)
    reference = stats.ttest_ind(a.astype(np.float64), b.astype(np.float64), equal_var=False)
    arrays = found.arrays()
    assert list(arrays) == list(COLUMNS)
    np.testing.assert_allclose(arrays["mean_a"], a.mean(0, dtype=np.float64), atol=1e-6)
    np.testing.assert_allclose(arrays["sd_b"], b.std(0, ddof=1, dtype=np.float64), atol=1e-6)
    np.testing.assert_allclose(arrays["t"], reference.statistic, rtol=1e-4)
    np.testing.assert_allclose(arrays["p"], reference.pvalue, rtol=1e-3)
    assert (found.a.name, found.b.name) == ("light", "dark")
    assert [Path(name).name for name, _ in found.a.skipped] == ["broken.png"]
    table = {row["region"]: row for row in found.table()}
    assert list(table) == ["all", "V1v", "V1d", "PPA"]
    assert table["PPA"]["mean_hedges_g"] == pytest.approx(arrays["hedges_g"][[1, 19]].mean())
    assert table["all"]["share_significant"] == pytest.approx((arrays["q"] < 0.05).mean())

    beside = write_contrast(found, tmp_path / "contrast.npz")
    with np.load(tmp_path / "contrast.npz") as file:
        for name, values in arrays.items():
            np.testing.assert_array_equal(file[name], values)
        np.testing.assert_array_equal(file["vertices"], encoder.vertices.ids)
    said = json.loads(beside.read_text("utf-8"))
    assert "over images" in said["about_p"] and "not over subjects" in said["about_p"]
    assert set(said["arrays"]) == set(arrays)
    assert (said["note"], said["units"]) == ("simulated", "z-scored percent signal change")
    assert len(said["a"]["images"]) == 9 and len(said["b"]["skipped"]) == 1


def test_a_table_of_some_regions(encoder: predict.Encoder, sets: tuple[Path, Path], tmp_path: Path) -> None:
    whole = contrast(*sets, encoder)
    some = contrast(*sets, encoder, rois=["V1", "PPA"])
    columns = [1, 3, 7, 19]
    np.testing.assert_allclose(some.statistics.t, whole.statistics.t[columns], rtol=1e-3)
    np.testing.assert_allclose(some.statistics.q, stats.false_discovery_control(some.statistics.p), rtol=1e-9)
    assert [row["region"] for row in some.table()] == ["all", "V1", "PPA"]
    write_contrast(some, tmp_path / "contrast.csv")
    rows = list(csv.DictReader((tmp_path / "contrast.csv").open(newline="")))
    assert [(row["vertex"], row["hemisphere"]) for row in rows] == [
        ("1000", "left"),
        ("3000", "left"),
        ("7000", "left"),
        ("19000", "right"),
    ]
    np.testing.assert_allclose([float(row["p"]) for row in rows], some.statistics.p, rtol=1e-8)


def test_what_is_refused(encoder: predict.Encoder, sets: tuple[Path, Path], tmp_path: Path) -> None:
    light, dark = sets
    (tmp_path / "linked").symlink_to(light)
    for a, b, words in (
        (light, light, "is in both sets"),
        (light, tmp_path / "linked", "10 images are in both"),
        (light, [dark, light / "3.png"], "1 image is in both"),
        (light, dark / "1.png", "at least 2 readable images"),
        (light, dark / "nothing", "no such file"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            contrast(a, b, encoder)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"broken\.png"):
        contrast(light, dark / "broken.png", encoder)
    assert_content_decides(light, dark, encoder, tmp_path)
    found = contrast(light, dark, encoder)
    (tmp_path / "linked").unlink()
    for name in ("contrast.npy", "contrast", ".npz"):
        with pytest.raises(UsageError, match="must end in"):
            write_contrast(found, tmp_path / name)
    (tmp_path / "contrast.npz.json").write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        write_contrast(found, tmp_path / "contrast.npz")
    assert os.listdir(tmp_path) == ["contrast.npz.json"]


def assert_content_decides(light: Path, dark: Path, encoder: predict.Encoder, folder: Path) -> None:
    """The same picture under another name, in another format or in a shard."""
    copied = folder / "copied"
    copied.mkdir()
    with Image.open(light / "3.png") as image:
        image.save(copied / "other-name.bmp")
    with tarfile.open(folder / "shard.tar", "w") as shard:
        shard.add(light / "4.png", "another.png")
    for extra in (copied, folder / "shard.tar"):
        with pytest.raises(UsageError, match="in both sets") as caught:
            contrast(light, [dark, extra], encoder, batch_size=2)
        assert "light" in str(caught.value) and "\n" not in str(caught.value)
    # Within a set it counts once.
    once, twice = contrast(light, dark, encoder), contrast([light, copied], dark, encoder, batch_size=2)
    np.testing.assert_allclose(once.statistics.t, twice.statistics.t, rtol=1e-6)
    assert len(twice.a.images) == len(once.a.images) == 9 and len(twice.a.skipped) == 2
    shutil.rmtree(copied)
    (folder / "shard.tar").unlink()


def drawn(result: Contrast, folder: Path, **options: Any) -> np.ndarray:
    with Image.open(draw_contrast(result, folder, **options)) as image:
        return np.asarray(image.convert("RGB"), np.int64)


def vivid(figure: np.ndarray) -> int:
    """How many pixels of the map are red or blue: without the colour bar at the right, and the note at the foot."""
    height, width, _ = figure.shape
    return int((np.ptp(figure[: height * 9 // 10, : width * 2 // 3], axis=2) > 60).sum())


@pytest.mark.slow
def test_the_figure_is_pale_where_no_vertex_passes(
    encoder: predict.Encoder, sets: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("nilearn")
    texts: list[str] = []
    write = MapFigure.text
    monkeypatch.setattr(
        MapFigure, "text", lambda self, x, y, text, **how: texts.append(text) or write(self, x, y, text, **how)
    )
    found = contrast(*sets, encoder)
    counts = {}
    for name, q in {"none": 0.5, "some": np.where(np.arange(V) % 2, 0.01, 0.5), "all": 0.01}.items():
        statistics = dataclasses.replace(found.statistics, q=np.broadcast_to(q, V))
        texts.clear()
        counts[name] = vivid(drawn(dataclasses.replace(found, statistics=statistics), tmp_path))
        said = {"none": "no vertex passes", "some": f"{V // 2} of {V} vertices pass", "all": f"all {V} vertices pass"}
        assert said[name] in texts[0]  # the title
    assert counts["none"] == 0 < counts["some"] < counts["all"]
    # Another threshold lets all pass.
    statistics = dataclasses.replace(found.statistics, q=np.full(V, 0.2))
    assert vivid(drawn(dataclasses.replace(found, statistics=statistics), tmp_path, max_q=0.3)) == counts["all"]
    assert any(f"all {V} vertices pass q < 0.3" in text for text in texts)


@pytest.mark.slow
def test_the_command_and_its_figure(path: Path, sets: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("nilearn")
    coloured = []
    more: list[str] = []
    for number in range(2):
        out, maps = tmp_path / f"{number}.npz", tmp_path / f"maps-{number}"
        command = ["contrast", *map(str, sets), "--encoder", str(path), "--out", str(out), "--maps", str(maps), *more]
        done = CliRunner().invoke(group, command)
        assert done.exit_code == 0, done.output
        assert "light (9 images) vs dark (7 images)" in done.output
        assert "not over subjects" in done.output
        assert "q < 0.05" in done.output and "PPA" in done.output
        with Image.open(maps / "effect-size.png") as image:
            figure = np.asarray(image.convert("RGB"), np.int64)
        # Red and blue are what is drawn; with a threshold that half of the vertices pass there is less of it.
        coloured.append(int((np.ptp(figure, axis=2) > 60).sum()))
        with np.load(out) as file:
            more = ["--max-q", str(np.median(file["q"]))]
    assert 0 < coloured[1] < coloured[0]


def test_a_threshold_without_a_figure_is_refused(path: Path, sets: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "contrast.npz"
    command = ["contrast", *map(str, sets), "--encoder", str(path), "--out", str(out), "--max-q", "0.1"]
    done = CliRunner().invoke(group, command)
    assert done.exit_code != 0 and not out.exists()


def test_means_of_all_vertices_have_a_row(encoder: predict.Encoder, sets: tuple[Path, Path]) -> None:
    lines = table_lines(contrast(*sets, encoder, names=("bright", "night")))
    assert lines[0].split()[:2] == ["region", "vertices"]
    assert lines[1].split()[:2] == ["all", str(V)]
    assert len({len(line) for line in lines}) == 1
