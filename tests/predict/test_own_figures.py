"""Figures that brainkit drew lie next to the images, and are not predicted; a user's images with such names are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from image_inputs import listed, names, png, save

from brainkit.errors import UsageError
from brainkit.insilico.contrast import contrast
from brainkit.predict import Encoder, list_images, predict_to_file
from brainkit.predict.inputs import remote
from brainkit.predict.top_images.contact_sheet import draw_contact_sheet
from brainkit.predict.top_images.ranking import Ranked, Ranking
from brainkit.utils.own_figures import figure_mark

PHOTOS = ["B.png", "a.jpg", "b.png", "sub/a.png", "sub/deep/c.png", "sub2/x.png"]


def draw_figure(path: Path | str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), "green").save(path, pnginfo=figure_mark())


@pytest.fixture
def inside(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder is that of the images."""
    folder = working_folder / "photos"
    monkeypatch.chdir(folder)
    return folder


def test_predicting_twice_in_a_folder_gives_the_same(inside: Path, encoder: Encoder) -> None:
    """With sheets, maps, the figures of other outputs, of a contrast and of a run, wherever they lie."""
    rows, said, digests = [], [], []
    for k in (2, 1):
        digests.append(listed(".").digest)
        predict_to_file(
            ["."], "fmri.npy", encoder, rois=["PPA"], top=k, overwrite=True, order="sorted", say=said.append
        )
        rows.append(np.load("fmri.npy"))
        assert json.loads(Path("fmri.npy.json").read_text())["images"] == PHOTOS
        for name in ("maps/0000-B.png", "maps/0001-a.png", "0000-B.png", "encoder-maps/layer.png"):
            draw_figure(name)
        for name in ("runs/first/maps/accuracy.png", "effect-size.png", "of any name.png"):
            draw_figure(name)
    np.testing.assert_array_equal(*rows)
    assert digests[0] == digests[1]
    assert len(said) == 1 and " 7 more" in said[0]
    assert [note["path"] for note in json.loads(Path("fmri.npy.json").read_text())["notes"]] == [".", "0000-B.png"]


def test_an_interrupted_output_is_resumed_though_figures_were_drawn(inside: Path, encoder: Encoder) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 2:
            raise Stop

    with pytest.raises(Stop):
        predict_to_file(".", "a.npy", encoder, batch_size=2, progress=stop)
    predict_to_file(".", "b.npy", encoder, rois=["PPA"], top=2)
    draw_figure("maps/0000-B.png")
    seen: list[int] = []
    predict_to_file(".", "a.npy", encoder, batch_size=2, progress=lambda done, total: seen.append(done))
    assert seen[0] == 4 and len(np.load("a.npy")) == 6


def test_a_figure_that_is_named_is_predicted(inside: Path, encoder: Encoder) -> None:
    figure = "maps/0000-B.png"
    draw_figure(figure)
    draw_figure("maps/0001-a.png")
    for arguments in ((figure,), (figure, "maps"), ("maps", figure)):
        assert names(*arguments) == [figure]
        assert any(line.startswith(f"{figure}: ") and "predicted" in line for line in listed(*arguments).remarks())
    Path("list.txt").write_text(f"{figure}\n")
    assert names("list.txt") == [figure] and names("maps", "list.txt") == [figure, figure]
    assert list(list_images(["maps", figure]).names()) == [figure, figure]
    with pytest.raises(UsageError, match="brainkit"):
        names("maps/*.png")
    with pytest.warns(UserWarning, match="is named"):
        assert len(encoder.predict(figure)) == 1
    with pytest.warns(UserWarning, match="0000-B"):
        assert len(encoder.predict(".")) == 6


def test_the_shell_may_name_the_sheets_of_the_same_output(inside: Path, encoder: Encoder) -> None:
    """``brainkit predict *.png --top 2`` twice."""
    said: list[str] = []
    for _ in range(2):
        given = sorted(map(str, Path().glob("[!.]*.png")))
        predict_to_file(
            given, "my.fmri.npy", encoder, rois=["PPA"], top=1, overwrite=True, order="sorted", say=said.append
        )
        assert json.loads(Path("my.fmri.npy.json").read_text())["images"] == ["B.png", "b.png"]
    assert given == ["B.png", "b.png", "my.fmri-top-PPA.png"]
    assert len(said) == 1 and "ignored" in said[0]
    # Of another output it is predicted, and that is said.
    predict_to_file(given, "other.npy", encoder, order="sorted", say=said.append)
    assert len(np.load("other.npy")) == 3 and "predicted" in said[1]


def test_images_with_such_names_are_images(inside: Path) -> None:
    files = ["0000-cat.png", "0001-dog.png", "crop-top-blue.png", "layer.png", "x/0000-a.png"]
    for seed, name in enumerate(files):
        save(Path("mine", name), seed)
    draw_figure("mine/0000-0001-dog.png")
    draw_figure("mine/fmri-top-V1.png")
    assert names("mine") == [f"mine/{name}" for name in files]


def test_an_animation_is_left_out_and_a_pipe_not_waited_for(inside: Path) -> None:
    frames = [Image.new("P", (20, 20), colour) for colour in (0, 1)]
    frames[0].save("layer-training.gif", save_all=True, append_images=frames[1:], comment="brainkit")
    frames[0].save("c.gif", save_all=True, append_images=frames[1:], comment="somebody")
    assert names(".") == sorted([*PHOTOS, "c.gif"], key=lambda name: name.split("/"))
    os.mkfifo("pipe.png")
    assert "pipe.png" in names("*.png")


def test_contrasts_and_remote_folders_leave_them_out(
    inside: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_figure("sub/0000-a.png")
    draw_figure("sub/effect-size.png")
    save(Path("sub2/y.png"), 50)
    found = contrast("sub", "sub2", encoder)
    assert found.a.images == ("sub/a.png", "sub/deep/c.png")
    assert len(found.a.notes) == 1
    system: Any = pytest.importorskip("fsspec").filesystem("memory")
    system.store.clear()
    system.pipe("/bucket/a.png", png(1))
    system.pipe("/bucket/fmri-top-V1.png", Path("sub/effect-size.png").read_bytes())
    read: list[str] = []
    monkeypatch.setattr(remote, "read", lambda file, *more, of=remote.read: read.append(file) or of(file, *more))
    try:
        assert [name.rpartition("/")[2] for name in names("memory://bucket")] == ["a.png"]
        assert [file.rpartition("/")[2] for file in read] == ["fmri-top-V1.png"]  # each look is a request
        assert names("memory://bucket/fmri-top-V1.png") == ["memory://bucket/fmri-top-V1.png"]
    finally:
        system.store.clear()


def test_contact_sheets_are_marked(inside: Path) -> None:
    one = Ranked(1, 0, "a.png", 0.5, "b.png")
    draw_contact_sheet(Path("fmri-top-V1.png"), Ranking("V1", 1, 1, 0.5, 0.1, (one,), ()), source="x")
    assert names(".") == PHOTOS
