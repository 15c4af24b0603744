"""Finished runs compared on the images that they share."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import quiet

from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.runs.compare import Settings, compare
from brainkit.runs.compare_output import check_output, write_comparison
from brainkit.runs.compare_tables import leaderboard, tables
from brainkit.runs.compared import match_images
from brainkit.runs.predictions import Predictions, read_predictions
from brainkit.utils.files import read_json, write_json

FAST = Settings(bootstrap=100, permutations=99, rotations=19, order="early,midventral+midlateral+midparietal")


def copy_run(run: Path, folder: Path, *, noise: float = 0.0, subject: str | None = None, **changes: Any) -> Path:
    """The run again, with other predictions, selectors that follow them, or as of another subject."""
    shutil.copytree(run, folder)
    stored = read_predictions(folder)
    rng = np.random.default_rng(len(folder.name))
    size = noise * stored.predictions.std()
    predictions = stored.predictions + size * rng.standard_normal(stored.predictions.shape).astype(np.float32)
    dataclasses.replace(stored, predictions=predictions, **changes).write(folder)
    if subject is not None:
        summary = read_json(folder / "run.json")
        summary["data"]["name"] = subject
        write_json(folder / "run.json", summary)
    return folder


@pytest.fixture(scope="module")
def run(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run, as if it had learnt much."""
    folder = tmp_path_factory.mktemp("good") / "run"
    shutil.copytree(finished.path, folder)
    stored = read_predictions(folder)
    noise = np.random.default_rng(0).standard_normal(stored.predictions.shape)
    predictions = (stored.responses() + 0.5 * noise).astype(np.float32)
    dataclasses.replace(stored, predictions=predictions).write(folder)
    return folder


@pytest.fixture
def noisy(run: Path, tmp_path: Path) -> Path:
    return copy_run(run, tmp_path / "noisy", noise=1.0)


def go(*runs: str | Path, settings: Settings = FAST) -> Any:
    return compare(runs, settings=settings, say=quiet)


@pytest.mark.slow
def test_two_runs_are_compared_and_written(run: Path, noisy: Path, tmp_path: Path) -> None:
    result = go(run, noisy)
    files = {path.name for path in write_comparison(result, tmp_path / "out")}
    assert {"comparison.json", "comparison.csv", "comparison.npz", "accuracy-by-roi.png", "difference.png"} <= files
    assert {"hierarchy.png", "layers-by-roi.png"} <= files
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    (pair,) = written["pairs"]
    assert (pair["a"], pair["b"]) == ("run", "noisy")
    line = pair["groups"]["all"]["r"]
    assert {"difference", "low", "high", "p"} <= set(line)
    assert line["difference"] == pytest.approx(result.single.pairs["run", "noisy"].groups["all"]["r"]["difference"])
    assert line["a"] > line["b"]
    assert "left hemisphere" in pair["groups"] and "early" in pair["groups"]
    assert set(written["models"]["run"]["hierarchy"]["areas"]) == {"early", "midventral+midlateral+midparietal"}
    facts = written["models"]["run"]["runs"][0]
    assert facts["data_hash"] and facts["encoder"] and facts["predictions"]
    assert written["provenance"]["command"].startswith("brainkit compare run=run noisy=noisy")
    with np.load(tmp_path / "out" / "comparison.npz") as arrays:
        vertices = len(arrays["vertices"])
        assert arrays["difference_r"].shape == arrays["q"].shape == (1, vertices)
        assert arrays["depth.run"].shape == (vertices,)
        assert arrays["layers_by_roi.run"].shape == (len(arrays["layers.run"]), len(arrays["rois"]))
    with (tmp_path / "out" / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["measure"] for row in rows} == {"r", "R2", "explained"}
    assert tables(result)[0].rows


@pytest.mark.slow
def test_the_same_comparison_gives_the_same_bytes(run: Path, noisy: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_comparison(go(run, noisy), tmp_path / name)
    one, other = (sorted((tmp_path / name).iterdir()) for name in ("one", "other"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    assert str(tmp_path) not in (tmp_path / "one" / "comparison.json").read_text()


def test_only_shared_images_count_whatever_their_order(run: Path, tmp_path: Path) -> None:
    stored = read_predictions(run)
    kept = np.random.default_rng(0).permutation(len(stored.rows))[:15]
    shuffled = _take(stored, kept)
    shutil.copytree(run, tmp_path / "part")
    shuffled.write(tmp_path / "part")
    for runs in ((run, tmp_path / "part"), (tmp_path / "part", run)):
        result = go(*runs)
        (pair,) = result.single.pairs.values()
        assert pair.n_images == 15
        assert np.abs(pair.difference["r"]).max() < 1e-3
    assert result.single.shared.images == {"part": 15, "run": len(stored.rows)}


def test_runs_without_a_common_image_are_refused(run: Path, tmp_path: Path) -> None:
    stored = read_predictions(run)
    other = copy_run(run, tmp_path / "other", pixels=np.array([f"{value}x" for value in stored.pixels]))
    with pytest.raises(DataError, match=rf"\b0\b.*\b{len(stored.rows)}\b"):
        go(run, other)


def test_other_vertices_are_refused(run: Path, tmp_path: Path) -> None:
    stored = read_predictions(run)
    other = copy_run(run, tmp_path / "other", vertices=stored.vertices + np.int32(1))
    with pytest.raises(DataError):
        go(run, other)


@pytest.mark.parametrize("runs", [["{run}"], ["a={run}", "a={noisy}"], ["{run}", "{run}"], ["=x", "{run}"]])
def test_too_few_different_runs_are_refused(runs: list[str], run: Path, noisy: Path) -> None:
    with pytest.raises(UsageError):
        go(*(text.format(run=run, noisy=noisy) for text in runs))


def test_runs_of_different_subjects_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        go(run, copy_run(run, tmp_path / "other", subject="another"))


def test_an_unknown_area_is_told_before_the_work(run: Path, noisy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr("brainkit.runs.compare.open_shared", work)
    for order in ("early,nowhere", "rois"):  # the sample subject has streams only
        with pytest.raises(UsageError):
            go(run, noisy, settings=dataclasses.replace(FAST, order=order))


def test_an_old_run_says_how_to_keep_predictions(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "old")
    (tmp_path / "old" / "predictions.npz").unlink()
    with pytest.raises(BrainkitError, match="brainkit evaluate"):
        go(run, tmp_path / "old")
    with pytest.raises(BrainkitError, match="--data 'a place'"):
        compare([run, tmp_path / "old"], data=["a place"], settings=FAST, say=quiet)


def test_runs_of_one_name_are_one_model(run: Path, noisy: Path, tmp_path: Path) -> None:
    again = copy_run(run, tmp_path / "again", noise=0.1)
    result = go(f"net={run}", f"net={again}", f"other={noisy}")
    assert [model.name for model in result.models] == ["net", "other"]
    assert list(result.pairs) == [("net", "other")]
    found = result.hierarchy("net")
    assert found["runs"] == 2 and found["interval_over"] == "seeds" and found["slope"]["low"] is not None


@pytest.mark.slow
def test_several_subjects_are_a_random_effect(run: Path, noisy: Path, tmp_path: Path) -> None:
    second, worse = (copy_run(run, tmp_path / name, noise=size, subject="two") for name, size in (("s", 0), ("w", 2)))
    result = go(f"a={run}", f"a={second}", f"b={noisy}", f"b={worse}")
    assert result.single is None and len(result.subjects) == 2
    line = result.pair(("a", "b"))["all"]["r"]
    own = [each.pairs["a", "b"].groups["all"]["r"]["difference"] for each in result.subjects.values()]
    assert line["n"] == 2 and line["difference"] == pytest.approx(np.mean(own))
    assert list(line["values"].values()) == pytest.approx(own)
    assert result.hierarchy("a")["slope"]["values"].keys() == result.subjects.keys()
    files = write_comparison(result, tmp_path / "out")
    assert sum(path.name == "comparison.npz" for path in files) == 2
    assert "subjects" in json.loads((tmp_path / "out" / "comparison.json").read_text())["pairs"][0]
    assert tables(result)[0].rows


@pytest.mark.slow
def test_a_baseline_of_a_run_is_compared_with_it(run: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(run, own)
    baseline = own / "baselines" / "mean"
    baseline.mkdir(parents=True)
    stored = read_predictions(run)
    dataclasses.replace(stored, predictions=np.ones_like(stored.predictions)).write(baseline)
    result = go(own, baseline)
    assert [model.name for model in result.models] == ["own", "mean"]
    line = result.pair(("own", "mean"))["all"]
    assert line["r"]["difference"] is None and line["explained"]["difference"] > 0
    assert result.hierarchy("mean") is None
    write_comparison(result, tmp_path / "out")


def test_a_leaderboard_ranks_and_compares_with_the_best(run: Path, noisy: Path, tmp_path: Path) -> None:
    worst = copy_run(run, tmp_path / "worst", noise=20.0)
    result = go(worst, run, noisy, settings=dataclasses.replace(FAST, leaderboard=True))
    rows = leaderboard(result)
    assert [row["model"] for row in rows] == ["run", "noisy", "worst"]
    assert rows[0]["difference_to_best"] is None and rows[1]["difference_to_best"] < 0
    assert set(result.pairs) == {("noisy", "run"), ("worst", "run")}
    files = {path.name for path in write_comparison(result, tmp_path / "out")}
    assert {"leaderboard.csv", "leaderboard.png"} <= files
    assert tables(result)[0].rows


@pytest.mark.slow
def test_a_leaderboard_of_several_subjects_has_one_best(run: Path, tmp_path: Path) -> None:
    first = run, copy_run(run, tmp_path / "b1", noise=0.1)
    second = (
        copy_run(run, tmp_path / "a2", noise=3.0, subject="other"),
        copy_run(run, tmp_path / "b2", noise=0.1, subject="other"),
    )
    runs = [f"{name}={path}" for pair in (first, second) for name, path in zip("ab", pair, strict=True)]
    result = go(*runs, settings=dataclasses.replace(FAST, leaderboard=True))
    assert [model.name for model in result.models] == ["b", "a"]  # though a is ahead in the first subject
    assert result.pairs == (("a", "b"),)
    difference = result.pair(("a", "b"))["all"]["r"]
    assert difference["n"] == 2 and min(difference["values"].values()) < 0 < max(difference["values"].values())
    assert leaderboard(result)[1]["difference_to_best"] == result.pair(("a", "b"))["all"]["explained"]["difference"]


def test_images_are_matched_by_pixels_as_often_as_both_have_them() -> None:
    one, other = match_images([np.array(["a", "b", "a", "c"]), np.array(["a", "x", "c", "a", "a"])])
    assert one.tolist() == [0, 2, 3] and other.tolist() == [0, 3, 2]


def test_results_are_not_overwritten_unasked(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert check_output(folder, overwrite=False) == folder
    folder.mkdir()
    (folder / "comparison.json").write_text("{}")
    with pytest.raises(UsageError):
        check_output(folder, overwrite=False)
    assert check_output(folder, overwrite=True) == folder
    with pytest.raises(DataError):
        check_output(tmp_path / "none" / "out", overwrite=False)


def test_a_folder_that_nothing_can_be_written_into_is_told_first(tmp_path: Path, read_only: None) -> None:
    with pytest.raises(DataError, match="out: "):
        check_output(tmp_path / "out", overwrite=False)
    assert not (tmp_path / "out").exists()


def _take(stored: Predictions, rows: np.ndarray) -> Predictions:
    names = ("predictions", "rows", "images", "pixels", "groups")
    return dataclasses.replace(stored, **{name: getattr(stored, name)[rows] for name in names})
