"""Runs on images that are stored twice, shared under other names, or cannot be read."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from small_runs import SMALL, make_own_data, quiet

import brainkit
from brainkit.cli import group
from brainkit.config import Config, TrainConfig
from brainkit.data import open_subject
from brainkit.data.split import Split
from brainkit.data.splits import common_stimuli, leaked_images, make_split
from brainkit.errors import DataError
from brainkit.features import extract_tokens
from brainkit.runs import stages, subjects
from brainkit.runs.train import train
from brainkit.utils.files import read_json


class Stop(Exception):
    pass


def stop(*_: object, **__: object) -> None:
    raise Stop


def fit(net: str, data: Any, **options: Any) -> Path:
    return train(net, data=data, **{"out": "run", "epochs": 1, "overrides": SMALL, "say": quiet, **options})


def stored_twice(folder: Path, images: int = 30) -> Path:
    """Every image a second time, under another name, with responses of noise."""
    make_own_data(folder, images)
    for path in sorted((folder / "images").iterdir()):
        Image.open(path).save(folder / "images" / f"copy-{path.name}", compress_level=0)
    np.save(folder / "responses.npy", np.random.default_rng(1).standard_normal((2 * images, 6)).astype(np.float32))
    return folder


def split_of(folder: str | Path) -> Split:
    return Split.read(Path(folder) / "split.json")


def by_names(data: list[Any], seed: int, fractions: tuple[float, float], **_: object) -> list[Split]:
    """As brainkit 0.1.0 split a subject."""
    (subject,) = data
    names = [path.name for path in subject.images]
    return [make_split(subject.names, subject.official_test, seed, fractions, names=names)]


def test_a_run_keeps_copies_on_one_side(net: str) -> None:
    data = stored_twice(Path("data"))
    fit(net, data)
    split = split_of("run")
    assert leaked_images([split], [open_subject(data).groups]) == 0
    assert any("30 images" in note for note in split.notes)
    log = Path("run/log.txt").read_text()
    assert all(note in log for note in split.notes) and "WARNING" not in log


def test_subjects_of_a_joint_run_share_pictures_and_not_names(net: str) -> None:
    make_own_data(Path("a"))
    shutil.copytree("a", "b")
    order = np.random.default_rng(0).permutation(24)
    for position, row in enumerate(order):
        Image.open(f"a/images/{row:03d}.png").save(f"b/images/{position:03d}.png", compress_level=0)
    np.save("b/responses.npy", np.load("a/responses.npy")[order])
    run = brainkit.fit(net, ["a", "b"], out="run", epochs=1, overrides=SMALL, say=quiet)
    splits = [split_of(each.path) for each in run.subjects.values()]
    assert leaked_images(splits, common_stimuli([open_subject("a"), open_subject("b")])) == 0
    rows = [{int(row) for row in split.test} for split in splits]
    assert {int(order[position]) for position in rows[1]} == rows[0]


def test_a_run_of_an_earlier_version_resumes_with_its_split(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = stored_twice(Path("data"))
    with monkeypatch.context() as patch:
        patch.setattr(subjects, "split_subjects", by_names)
        patch.setattr(stages, "score_models", stop)  # the checkpoint is there, the results are not
        with pytest.raises(Stop):
            fit(net, data, epochs=2)
    before = Path("run/split.json").read_bytes()
    lines: list[str] = []
    train(net, out="run", resume=True, say=lines.append)
    assert Path("run/split.json").read_bytes() == before and Path("run/run.json").is_file()
    leaked = leaked_images([split_of("run")], [open_subject(data).groups])
    assert leaked and any("WARNING" in line and f"{leaked} test image" in line for line in lines)


def test_a_split_of_your_own_that_leaks(net: str) -> None:
    subject = open_subject(stored_twice(Path("data")))
    network = brainkit.load_backbone(net)
    tokens = extract_tokens(network, subject.images)
    for k, groups in enumerate((subject.groups, subject.names)):
        split = make_split(groups, subject.official_test)
        model = brainkit.FactorTopy(tokens.widths, subject.coordinates, bottleneck=4)
        module = brainkit.EncodingModule(model, TrainConfig(epochs=1), 4)
        data = brainkit.EncodingData(tokens, subject.responses, split)
        lines: list[str] = []
        run = brainkit.save_run(f"run{k}", module, data, backbone=network, subject=subject, say=lines.append)
        assert any("WARNING" in line for line in lines) == (k == 1)
        assert any("WARNING" in note for note in split_of(run.path).notes) == (k == 1)


def test_an_ensemble_of_runs_that_leak_is_not_scored(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from brainkit.runs.ensemble import Member, build_ensemble

    data = stored_twice(Path("data"))
    for version in ("earlier", "now"):
        with monkeypatch.context() as patch:
            if version == "earlier":
                patch.setattr(subjects, "split_subjects", by_names)
            for seed in (0, 1):
                fit(net, data, out=f"{version}{seed}", seed=seed, overrides=[*SMALL, "data.split_seed=3"])
        lines: list[str] = []
        members = [Member.open(f"{version}{seed}") for seed in (0, 1)]
        _, info = build_ensemble(members, brainkit.load_backbone(net), lines.append)
        assert any("not scored" in line for line in lines) == (version == "earlier")
        assert np.isnan(info.r).all() == (version == "earlier")


# ---- images that cannot be read


def with_unreadable(folder: Path, rows: tuple[int, ...] = (3, 20)) -> Path:
    make_own_data(folder)
    for row in rows:
        (folder / "images" / f"{row:03d}.png").write_bytes(b"no picture")
    return folder


def test_unreadable_images_are_an_error_that_names_the_option(net: str) -> None:
    with_unreadable(Path("data"))
    result = CliRunner().invoke(group, ["train", "--backbone", net, "--data", "data", "--out", "run"])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "003.png" in line and "2 of 24 images" in line and "--skip-unreadable" in line
    assert not Path("run").exists()
    with pytest.raises(DataError, match=r"003\.png.*skip_unreadable=True"):
        brainkit.fit(net, "data", out="run", say=quiet)


def test_unreadable_images_are_left_out_counted_and_listed(net: str) -> None:
    data = with_unreadable(Path("data"))
    arguments = ["train", "--backbone", net, "--data", "data", "--out", "run", "--epochs", "1", "--skip-unreadable"]
    result = CliRunner().invoke(group, [*arguments, *(word for each in SMALL for word in ("--set", each))])
    assert result.exit_code == 0, result.output
    assert Config.read("run/config.yaml").data.skip_unreadable
    summary = read_json("run/run.json")
    assert summary["data"]["images"] == 22
    assert [(image["row"], image["name"]) for image in summary["data"]["skipped"]] == [(3, "003.png"), (20, "020.png")]
    assert all(image["reason"] for image in summary["data"]["skipped"])
    for text in (result.stdout, Path("run/log.txt").read_text()):
        assert all(f"{name}: " in text for name in ("003.png", "020.png")) and "2 unreadable images" in text

    # The run is the one of the same data without these images and rows.
    shutil.copytree(data, "rest")
    for name in ("003.png", "020.png"):
        Path("rest/images", name).unlink()
    kept = [row for row in range(24) if row not in (3, 20)]
    np.save("rest/responses.npy", np.load("data/responses.npy")[kept])
    fit(net, Path("rest"), out="rest-run")
    assert read_json("rest-run/run.json")["data"]["skipped"] == []
    for name in ("selectors.npz", "scores.npz"):
        with np.load(Path("run") / name) as one, np.load(Path("rest-run") / name) as other:
            assert all(np.array_equal(one[key], other[key], equal_nan=one[key].dtype.kind == "f") for key in one.files)
    assert summary["scores"] == read_json("rest-run/run.json")["scores"]


def test_a_run_without_unreadable_images_is_resumed(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_unreadable(Path("data"))
    with monkeypatch.context() as patch:
        patch.setattr(stages, "score_models", stop)
        with pytest.raises(Stop):
            fit(net, data, skip_unreadable=True, epochs=2)
    train(net, out="run", resume=True, say=quiet)  # the setting is the run's
    assert read_json("run/run.json")["data"]["images"] == 22
    # Repaired images are other data.
    Path("run/run.json").unlink()
    shutil.copy(data / "images/004.png", data / "images/003.png")
    with pytest.raises(DataError, match=r"split\.json"):
        train(net, out="run", resume=True, say=quiet)


def test_unreadable_images_of_a_joint_run(net: str) -> None:
    with_unreadable(Path("a"))
    make_own_data(Path("b"))
    with pytest.raises(DataError, match=r"a.images.003\.png.*2 of 24 images"):
        fit(net, ["a", "b"])
    run = brainkit.fit(net, ["a", "b"], out="run", epochs=1, overrides=SMALL, say=quiet, skip_unreadable=True)
    skipped = {name: [image["row"] for image in each.summary["data"]["skipped"]] for name, each in run.subjects.items()}
    assert skipped == {"a": [3, 20], "b": []}


def test_an_opened_subject_without_its_unreadable_images(net: str) -> None:
    subject = open_subject(with_unreadable(Path("data"))).skip_unreadable()
    fit(net, subject)
    assert [image["row"] for image in read_json("run/run.json")["data"]["skipped"]] == [3, 20]


def test_an_ensemble_of_runs_without_unreadable_images_is_scored(net: str) -> None:
    from brainkit.runs.ensemble import Member, build_ensemble

    data = with_unreadable(Path("data"))
    for seed in (0, 1):
        fit(net, data, out=f"run{seed}", seed=seed, skip_unreadable=True, overrides=[*SMALL, "data.split_seed=3"])
    lines: list[str] = []
    _, info = build_ensemble([Member.open(f"run{seed}") for seed in (0, 1)], brainkit.load_backbone(net), lines.append)
    assert info.provenance["scores"]["images"] == len(split_of("run0").test), lines


def test_many_unreadable_images_fill_the_log_and_not_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from brainkit.runs.log import RunLog

    make_own_data(Path("data"), images=40)
    for row in range(15):
        (Path("data/images") / f"{row:03d}.png").write_bytes(b"")
    subject = open_subject("data").skip_unreadable()
    lines: list[str] = []
    with RunLog(lines.append) as log:
        stages.report_subject(log, subject)
        log.open_file(Path("log.txt"))
    assert sum(".png: " in line for line in lines) == 10 and any("5 more" in line for line in lines)
    assert Path("log.txt").read_text().count(".png: ") == 15
    assert "15 unreadable images" in subject.describe()
