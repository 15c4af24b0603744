"""Which images drive a region most: the ranking against sorting, and the sheet that shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from click.testing import CliRunner

from brainkit.cli import group
from brainkit.errors import UsageError
from brainkit.predict import load, predict_to_file
from brainkit.predict.top_images import contact_sheet
from brainkit.predict.top_images.ranking import TopImages
from brainkit.predict.top_images.writer import check_sheets, positions_of

REGIONS = {"FFA": np.arange(4), "PPA": np.array([2])}


def look_up(row: int) -> tuple[str, Any]:
    return f"folder/image-{row}.png", row


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of one colour each, and some files that are none."""
    rng = np.random.default_rng(1)
    folder = tmp_path_factory.mktemp("photos")
    for index in range(12):
        Image.new("RGB", (30 + index, 20), tuple(rng.integers(0, 256, 3).tolist())).save(folder / f"{index:02d}.png")
    for name in ("00b.png", "05b.png", "05c.png"):
        (folder / name).write_text("no image")
    return folder


@pytest.mark.parametrize("k", [1, 3, 40])
def test_the_ranking_is_that_of_sorting(k: int) -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(size=(70, 2)).round(1).astype(np.float32)  # rounded: there are equal ones
    means[5] = np.nan
    means[6, 0] = np.inf
    top = TopImages(REGIONS, k)
    for start in (0, 1, 8, 60):
        top.add(means[start : {0: 1, 1: 8, 8: 60, 60: 70}[start]])
    for column, (name, ranking) in enumerate(top.finish(look_up).items()):
        finite = [row for row in range(70) if np.isfinite(means[row, column])]
        best = sorted(finite, key=lambda row: (-means[row, column], row))[:k]
        worst = sorted(finite, key=lambda row: (means[row, column], row))[:k]
        assert [one.row for one in ranking.highest] == best
        assert [one.row for one in ranking.lowest] == (worst if len(finite) >= 2 * k else [])
        assert [one.rank for one in ranking.highest] == list(range(1, len(best) + 1))
        assert ranking.highest[0].name == f"folder/image-{best[0]}.png" and ranking.highest[0].image == best[0]
        assert (ranking.region, ranking.vertices, ranking.images) == (name, len(REGIONS[name]), len(finite))
        assert ranking.mean == pytest.approx(means[finite, column].mean(dtype=np.float64))
        assert ranking.sd == pytest.approx(means[finite, column].std(ddof=1, dtype=np.float64))


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(UsageError, match=r"1 to 100 .* 101"):
        TopImages(REGIONS, 101)
    with pytest.raises(UsageError, match="regions"):
        TopImages({}, 3)
    with pytest.raises(UsageError, match="FFA"):
        TopImages({"FFA": np.empty(0, np.int64)}, 3)


def test_rows_are_found_in_the_list_that_they_come_from() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        bad = set(rng.choice(30, rng.integers(0, 12), replace=False).tolist())
        good = [position for position in range(30) if position not in bad]
        rows = sorted(rng.choice(len(good), 5, replace=False).tolist())
        assert positions_of(rows, sorted(bad)) == [good[row] for row in rows]


def draw(folder: Path, k: int, count: int, note: str | None = None, region: str = "FFA") -> tuple[Path, Image.Image]:
    rng = np.random.default_rng(2)
    top = TopImages({region: np.arange(4)}, k)
    top.add(rng.normal(size=(count, 1)).astype(np.float32))
    ranking = top.finish(look_up)[region]

    def opener(row: int) -> Image.Image:
        if row == 1:
            raise OSError("gone")
        return Image.new("RGB", (50 + 20 * row, 300), (10, 200, row))

    path = contact_sheet.draw_contact_sheet(
        folder / "sheet.png", ranking, source="dinov2", units="s.d.", note=note, opener=opener
    )
    with Image.open(path) as image:
        assert image.format == "PNG" and image.mode == "RGB"
        return path, image.copy()


def test_a_sheet_has_one_tile_an_image_and_white_around(tmp_path: Path) -> None:
    _, image = draw(tmp_path, 8, 30)
    pixels = np.asarray(image).astype(int)
    assert image.width == 2 * 56 + 4 * 232 + 3 * 24  # two rows of four, not six and two
    edge = np.concatenate([pixels[:20].reshape(-1, 3), pixels[:, :20].reshape(-1, 3), pixels[-12:].reshape(-1, 3)])
    assert (edge == 255).all()
    # Opened images are green; each tile's bed is 232 pixels wide.
    green = (pixels[..., 1] == 200) & (pixels[..., 0] == 10)
    bed = (pixels == (241, 243, 245)).all(-1)
    tile_rows = np.flatnonzero((green | bed).any(1))
    assert len(np.split(tile_rows, np.flatnonzero(np.diff(tile_rows) > 1) + 1)) == 4
    across = np.flatnonzero((green | bed)[tile_rows[116]])
    assert [len(part) for part in np.split(across, np.flatnonzero(np.diff(across) > 1) + 1)] == [232] * 4


def test_a_note_is_seen(tmp_path: Path) -> None:
    warning = (166, 60, 6)
    for note, there in ((None, False), ("SIMULATED subject", True)):
        _, image = draw(tmp_path, 2, 9, note)
        assert (np.asarray(image) == warning).all(-1).any() == there


@pytest.mark.parametrize(("k", "count"), [(1, 1), (1, 2), (100, 3), (3, 7)])
def test_few_images_make_a_sheet_too(tmp_path: Path, k: int, count: int) -> None:
    _, image = draw(tmp_path, k, count, region="日本語, ü " + "very long " * 20)
    assert 300 < image.width < 2000 and 300 < image.height < 2000


def test_text_is_cut_in_its_middle_and_never_wider_than_its_room() -> None:
    image = Image.new("RGB", (400, 40), "white")
    contact_sheet._write(ImageDraw.Draw(image), (10, 30), "image-" * 40 + "0042.png\nsecond", 15, "#000000", 232)
    dark = np.flatnonzero((np.asarray(image.convert("L")) < 128).any(0))
    assert dark.min() >= 9 and 200 < dark.max() <= 10 + 232


def test_the_legend_is_whole_on_a_narrow_sheet_too(tmp_path: Path) -> None:
    _, image = draw(tmp_path, 3, 9)
    ranking = TopImages({"FFA": np.arange(4)}, 1)
    ranking.add(np.float32([[1], [2], [3]]))
    found = ranking.finish(look_up)["FFA"]
    for room, lines in ((image.width - 2 * 56, 2), (1500, 1)):
        legend = contact_sheet._legend(found, "z-scored percent signal change", room)
        assert len(legend) == lines
        assert all(contact_sheet._font(15).getlength(line) <= room for line in legend)
        assert "z-scored" in legend[0] and legend[-1].endswith("tick: the mean of all")


def test_letters_that_no_font_has_are_question_marks() -> None:
    text, _ = contact_sheet._drawable("\U000e0fff-a.png", 15)
    assert text == "?-a.png"
    assert contact_sheet._drawable("a.png", 15)[0] == "a.png"
    if contact_sheet._other_font(15) is not None:
        assert contact_sheet._drawable("ü\ufffe.png", 15)[0] == "ü?.png"


def test_sheets_next_to_the_predictions(path: Path, photos: Path, tmp_path: Path) -> None:
    encoder = load(path, "cpu")
    done = predict_to_file(photos, tmp_path / "fmri.npy", encoder, rois=["V1", "PPA"], top=3, batch_size=4)
    assert [sheet.name for sheet in done.sheets] == ["fmri-top-V1.png", "fmri-top-PPA.png"]
    assert all(sheet.parent == tmp_path and sheet.is_file() for sheet in done.sheets)
    description = json.loads((tmp_path / "fmri.npy.json").read_text("utf-8"))
    fmri = np.load(tmp_path / "fmri.npy")
    for name in ("V1", "PPA"):
        means = fmri[:, description["rois"][name]].mean(1)
        order = np.argsort(-means, kind="stable")
        for key, rows in (("highest", order[:3]), ("lowest", order[::-1][:3])):
            listed = description["top"][name][key]
            assert [one["row"] for one in listed] == rows.tolist()
            assert [one["image"] for one in listed] == [description["images"][row] for row in rows]
            np.testing.assert_allclose([one["mean"] for one in listed], means[rows], atol=1e-6)
        # The image shown is the one named: the first tile has its colour.
        first = description["top"][name]["highest"][0]["image"]
        with Image.open(first) as image, Image.open(tmp_path / description["top"][name]["sheet"]) as sheet:
            assert sheet.getpixel((56 + 116, 150 + 28 + 48 + 116)) == image.getpixel((0, 0))
    best = encoder.top([Path(name) for name in description["images"]], "PPA", k=3)
    assert [one.row for one in best] == [one["row"] for one in description["top"]["PPA"]["highest"]]


def test_existing_sheets_are_kept_and_regions_are_needed(path: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "fmri-top-PPA.png").write_text("precious")
    with pytest.raises(UsageError, match=r"fmri-top-PPA\.png"):
        predict_to_file(photos, tmp_path / "fmri.npy", path, device="cpu", rois=["PPA"], top=3)
    assert (tmp_path / "fmri-top-PPA.png").read_text() == "precious"
    with pytest.raises(UsageError, match=r"--roi NAME; .*V1v, V1d, PPA$"):
        predict_to_file(photos, tmp_path / "fmri.npy", path, device="cpu", top=3)
    with pytest.raises(UsageError, match=r"--roi NAME; .*a, b, c, d, e, f and 2 more"):
        check_sheets(tmp_path / "fmri.npy", None, 3, overwrite=False, known=list("abcdefgh"))
    with pytest.raises(UsageError, match="1 to 100"):
        predict_to_file(photos, tmp_path / "fmri.npy", path, device="cpu", rois=["PPA"], top=0)
    out = tmp_path / "means.csv"
    command = ["predict", str(photos), "--out", str(out), "--encoder", str(path), "--roi", "PPA", "--top", "2"]
    done = CliRunner().invoke(group, command)
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "means-top-PPA.png") in done.output


def test_regions_whose_sheets_would_be_one_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a b and a_b"):
        check_sheets(tmp_path / "fmri.npy", ["a b", "V1", "a_b"], 3, overwrite=False)
    check_sheets(tmp_path / "fmri.npy", ["V1", "v1"], 3, overwrite=False)
