"""Rows and images in pairs: repeats of lists, what is dropped and said, and the order of numbered names."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from click.testing import CliRunner
from image_inputs import listed, names, notes, png, save, tar_bytes

from brainkit.cli import group
from brainkit.errors import UsageError
from brainkit.insilico.contrast import contrast
from brainkit.predict import Encoder, list_images, local_blocks, predict_to_file, resume
from brainkit.predict.inputs.row_order import OrderCheck

TRIALS = [f"photos/{name}" for name in ("b.png", "a.jpg", "b.png", "sub/a.png", "b.png")]


@pytest.fixture
def trials(working_folder: Path) -> Path:
    """A list of five trials of three images, in the working folder."""
    path = Path("trials.txt")
    path.write_text("\n".join(TRIALS) + "\n")
    return path


# --- lists --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["trials.txt", "@trials.txt", "-", "python"])
def test_a_list_gives_a_row_per_line(
    trials: Path, encoder: Encoder, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given == "-":
        monkeypatch.setattr("sys.stdin", trials.open())
    predict_to_file(TRIALS if given == "python" else given, "out.npy", encoder, batch_size=2)
    assert json.loads(Path("out.npy.json").read_text())["images"] == TRIALS
    rows = np.load("out.npy")
    np.testing.assert_allclose(rows[[2, 4]], rows[[0, 0]], atol=1e-5)
    np.testing.assert_allclose(rows, encoder.predict(TRIALS), atol=1e-5)
    np.testing.assert_allclose(rows, encoder.predict("trials.txt"), atol=1e-5)  # Python reads lists too


def test_python_keeps_the_order_of_all_that_is_given(working_folder: Path) -> None:
    given = ["photos/sub2", "photos/b.png", Path("photos/a.jpg"), "photos/sub2", "photos/*.png"]
    folder = "photos/sub2/x.png"
    expected = [folder, "photos/b.png", "photos/a.jpg", folder, "photos/B.png", "photos/b.png"]
    assert list(list_images(given).names()) == expected  # type: ignore[arg-type]
    Path("s.tar").write_bytes(tar_bytes([("z.png", png(1)), ("a.png", png(2))]))
    twice = list_images(["s.tar", "photos/b.png", "s.tar"])
    assert list(twice.names()) == ["s.tar/z.png", "s.tar/a.png", "photos/b.png", "s.tar/z.png", "s.tar/a.png"]
    assert not list(twice.notes())
    with pytest.raises(UsageError, match="order"):
        list_images("photos", order="random")


def test_lists_are_whole_whatever_else_is_given(trials: Path) -> None:
    for arguments in (("photos/b.png", "trials.txt"), ("trials.txt", "photos/b.png"), ("trials.txt", "trials.txt")):
        rows = names(*arguments)
        assert rows == (["photos/b.png", *TRIALS] if "photos/b.png" in arguments else TRIALS * 2)
    Path("s.tar").write_bytes(tar_bytes([("a.png", png(2))]))
    Path("shards.txt").write_text("s.tar\ns.tar\n")
    assert names("s.tar", "shards.txt", "s.tar") == ["s.tar/a.png"] * 3


def test_lines_without_a_row_are_told(trials: Path, encoder: Encoder) -> None:
    with trials.open("a") as file:
        file.write("\nphotos/absent.png\nphotos/a.jpg\nphotos/absent.png\n\n")
    said: list[str] = []
    predict_to_file(trials, "out.npy", encoder, say=said.append)
    description = json.loads(Path("out.npy.json").read_text())
    found = [note["note"] for note in description["notes"] if note["path"] == "trials.txt"]
    assert len(found) == 2 and [f"trials.txt: {note}" for note in found] == said
    assert "1 empty line " in found[0]  # not the one at the end
    assert "9 lines (1 empty), 6 rows" in found[1] and found[1].endswith("line 7, 9")
    assert len(description["images"]) == 6
    # And nothing is said of a list that is whole.
    predict_to_file("photos", "folder.npy", encoder, say=said.append)
    assert len(said) == 2


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".npy"])
def test_repeats_in_every_format(trials: Path, encoder: Encoder, suffix: str) -> None:
    predict_to_file(trials, f"out{suffix}", encoder)
    if suffix == ".csv":
        with Path("out.csv").open(newline="") as file:
            rows = list(csv.reader(file))[1:]
        assert [row[0] for row in rows] == TRIALS and rows[0] != rows[1]
        means = np.array([row[1:] for row in rows], float)
        np.testing.assert_allclose(means[[2, 4]], means[[0, 0]], atol=1e-5)
    elif suffix == ".npz":
        with np.load("out.npz") as found:
            assert found["images"].tolist() == TRIALS and len(found["fmri"]) == 5
    else:
        assert len(np.load("out.npy")) == 5


def test_an_interrupted_list_with_repeats_is_resumed(
    trials: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 3:
            raise Stop

    monkeypatch.setattr(resume, "_SAVE_SECONDS", 0)
    more: dict[str, Any] = {"batch_size": 1, "rois": ["PPA"], "top": 2}
    predict_to_file(trials, "whole.npy", encoder, **more)
    with pytest.raises(Stop):
        predict_to_file(trials, "fmri.npy", encoder, progress=stop, **more)
    seen: list[int] = []
    predict_to_file(trials, "fmri.npy", encoder, progress=lambda done, total: seen.append(done), **more)
    assert seen[0] == 4
    assert Path("fmri.npy").read_bytes() == Path("whole.npy").read_bytes()
    first, second = (json.loads(Path(f"{name}.npy.json").read_text()) for name in ("fmri", "whole"))
    assert first["images"] == second["images"] == TRIALS
    assert first["top"]["PPA"]["highest"] == second["top"]["PPA"]["highest"]
    # Another list with the same images is another input.
    trials.write_text("\n".join(TRIALS[:4]) + "\n")
    assert list_images(trials).digest != list_images(TRIALS).digest


def test_the_list_of_a_million_trials_stays_on_disk(working_folder: Path) -> None:
    images = list_images(["photos/b.png"] * 3000)
    assert len(images) == 3000
    assert [source.name for source in images.entries(2998, 3001)] == ["photos/b.png"] * 2
    assert list(images.repeated_rows()) == list(range(1, 3000))


def test_workers_get_repeats_too(trials: Path, encoder: Encoder) -> None:
    """As ray.py divides a list: chunks by position."""
    images = list_images(trials)
    names_of = [entry.name for start in (0, 2, 4) for entry in images.entries(start, start + 2)]
    assert names_of == TRIALS
    blocks = list(local_blocks(encoder, images, start=2, batch_size=2))
    assert [name for block in blocks for name in block.names] == TRIALS[2:]


# --- rankings -----------------------------------------------------------------------------------------------------


def test_a_ranking_has_every_image_once(trials: Path, encoder: Encoder) -> None:
    with trials.open("a") as file:
        file.write("photos/absent.png\nphotos/a.jpg\n")
    predict_to_file(trials, "out.npy", encoder, rois=["PPA"], top=5)
    description = json.loads(Path("out.npy.json").read_text())
    ranking = description["top"]["PPA"]
    ranked = [one["image"] for one in ranking["highest"]]
    assert sorted(ranked) == sorted(set(TRIALS)) and ranking["images"] == 3
    for one in ranking["highest"]:
        assert description["images"][one["row"]] == one["image"]
    three = list(dict.fromkeys(TRIALS))
    predict_to_file(three, "three.npy", encoder, rois=["PPA"], top=5)
    alone = json.loads(Path("three.npy.json").read_text())["top"]["PPA"]
    assert [one["image"] for one in alone["highest"]] == ranked
    assert (ranking["mean"], ranking["sd"]) == pytest.approx((alone["mean"], alone["sd"]))


@pytest.mark.parametrize("kind", ["paths", "list", "pillow", "arrays", "stack"])
def test_top_in_python_has_every_image_once(trials: Path, encoder: Encoder, kind: str) -> None:
    pictures = {name: Image.open(name) for name in set(TRIALS)}
    arrays = {name: np.asarray(picture) for name, picture in pictures.items()}
    given: Any = {
        "paths": [*TRIALS[:2], Path(TRIALS[2]).absolute(), *TRIALS[3:]],
        "list": "trials.txt",
        "pillow": [pictures[name] for name in TRIALS],
        "arrays": [arrays[name] for name in TRIALS],
        "stack": np.stack([arrays[name] for name in TRIALS]),
    }[kind]
    best = encoder.top(given, "PPA", k=5, batch_size=2)
    assert sorted(one.row for one in best) == [0, 1, 3]
    assert [one.rank for one in best] == [1, 2, 3]


def test_a_contrast_counts_every_image_once(trials: Path, encoder: Encoder) -> None:
    said: list[str] = []
    save(Path("photos/sub2/y.png"), 77)
    found = contrast(trials, "photos/sub2", encoder, say=said.append)
    assert found.a.images == ("photos/b.png", "photos/a.jpg", "photos/sub/a.png")
    assert len(said) == 1 and said[0].startswith("2 ") and said[0].endswith("photos/b.png")
    assert [path for path, _ in found.a.notes] == ["photos/b.png"] * 2


# --- named things: sorted, each once --------------------------------------------------------------------------------


def test_what_is_named_more_than_once_is_said(path: Path, working_folder: Path) -> None:
    arguments = ["photos/sub", "photos", "photos/b.png", "photos/*.jpg", "--encoder", str(path), "--out", "out.npy"]
    done = CliRunner().invoke(group, ["predict", *arguments])
    assert done.exit_code == 0, done.output
    assert len(np.load("out.npy")) == 6
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("4 ") and lines[0].endswith("photos/sub/a.png")
    described = json.loads(Path("out.npy.json").read_text())
    dropped = [note["path"] for note in described["notes"] if "more than once" in note["note"]]
    assert sorted(dropped) == ["photos/a.jpg", "photos/b.png", "photos/sub/a.png", "photos/sub/deep/c.png"]


def test_a_pattern_or_shard_may_be_given_twice(working_folder: Path) -> None:
    assert names("photos/*.png", "photos/*.png") == ["photos/B.png", "photos/b.png"]
    assert len(notes("photos/*.png", "photos/*.png")) == 2
    Path("s.tar").write_bytes(tar_bytes([("a.png", png(2))]))
    assert names("s.tar", "./s.tar", "*.tar") == ["s.tar/a.png"]
    assert listed("s.tar", "s.tar").remarks() != []


def test_a_folder_that_links_reach_is_listed_once(working_folder: Path) -> None:
    Path("alias").symlink_to("photos", target_is_directory=True)
    assert len(names("alias", "photos")) == len(names("photos")) == 6


# --- the order of numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "differs"),
    [
        (["1.png", "2.png", "10.png"], True),
        (["1_cat.png", "2_house.png", "10_dog.jpg"], True),
        (["sub-2/a.png", "sub-10/a.png"], True),
        (["img2.png", "img10.png", "x.png"], True),
        (["01.png", "02.png", "10.png"], False),
        (["cat.png", "cat1.png", "cat2.png"], False),
        (["contrast-0.25.png", "contrast-0.5.png", "contrast-1.png"], False),
        (["3f9a0c4d5e6b7a81.png", "10b2c3d4e5f60718.png"], False),
        (["B.png", "a.png"], False),
    ],
)
def test_text_order_that_is_not_numeric_order_is_said(
    path: Path, working_folder: Path, files: list[str], differs: bool
) -> None:
    for seed, name in enumerate(files):
        save(Path("numbered", name), seed)
    done = CliRunner().invoke(group, ["predict", "numbered", "--encoder", str(path), "--out", "out.npy"])
    assert done.exit_code == 0, done.output
    lines = done.stderr.splitlines()
    assert len(lines) == differs
    described = json.loads(Path("out.npy.json").read_text())
    in_text_order = sorted(f"numbered/{name}" for name in files)
    assert described["images"] == in_text_order
    if differs:
        assert lines[0].startswith("numbered")
        assert all(Path(name).name in lines[0] for name in in_text_order[:2])
        assert len(described["notes"]) == 1


def test_the_order_of_patterns_files_and_python_is_checked_too(working_folder: Path, encoder: Encoder) -> None:
    files = [f"numbered/{number}.png" for number in (1, 2, 10)]
    for seed, name in enumerate(files):
        save(Path(name), seed)
    assert len(listed("numbered/*.png").remarks()) == len(listed(*files).remarks()) == 1
    assert len(list_images("numbered").remarks()) == 1
    with pytest.warns(UserWarning, match=r"10\.png, 2\.png"):
        encoder.predict("numbered")
    # Orders that the user decides.
    Path("list.txt").write_text("\n".join(files) + "\n")
    Path("s.tar").write_bytes(tar_bytes([(name, png(1)) for name in ("2.png", "10.png", "1.png")]))
    for given in ("list.txt", files, files[::-1], "s.tar"):
        assert not list_images(given).remarks(), given
    # Of a contrast, the order plays no part.
    assert not list_images("numbered", order="any").remarks()


def test_the_check_looks_at_neighbours_of_a_group(working_folder: Path) -> None:
    def example(*given: tuple[int | None, str]) -> tuple[bytes, ...]:
        check = OrderCheck()
        for group_number, name in given:
            check.add(group_number, name.encode())
        return check.example

    assert example((0, "a/9"), (0, "b/1"), (0, "b/10"), (0, "b/2"), (0, "b/11")) == (b"b/1", b"b/10", b"b/2")
    assert example((0, "10"), (1, "2")) == example((None, "10"), (None, "2")) == ()
    assert example((0, "10"), (None, "x"), (0, "2")) == ()


def test_old_partial_outputs_of_folders_are_resumed(working_folder: Path) -> None:
    """The digest is in the state of partial outputs, and that of a folder is what it was."""
    for file in sorted(Path("photos").rglob("*.*")):
        os.utime(file, ns=(0, 1_700_000_000_000_000_000))
    images = list_images("photos")
    values = [
        [source.name.encode(), source.file.encode(), -1, source.size, f"{source.size} 1700000000000000000"]
        for source in images.entries(0, len(images))
    ]
    digest = hashlib.sha256("".join(map(repr, values)).encode()).hexdigest()
    assert images.digest == listed("photos").digest == digest
