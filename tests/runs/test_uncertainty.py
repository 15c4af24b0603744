"""How sure maps are: repeats of a run on halves of its images, other seeds, and what cannot be compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import SMALL, make_own_data, quiet

for needed in ("torch", "pytorch_lightning", "timm"):
    pytest.importorskip(needed)

import brainkit  # noqa: E402
from brainkit.config import Config  # noqa: E402
from brainkit.data.split import Split  # noqa: E402
from brainkit.errors import DataError, StoppedTraining, UsageError  # noqa: E402
from brainkit.export.vertex_subset import VertexSubset, select_vertices  # noqa: E402
from brainkit.metrics.depth import relative_depth  # noqa: E402
from brainkit.runs.ensemble import Member  # noqa: E402
from brainkit.runs.latest import latest_run  # noqa: E402
from brainkit.runs.uncertainty import ensemble_uncertainty, measure_uncertainty, repeat_settings  # noqa: E402

SETTINGS = (*SMALL, "data.test=0.2")
OPTIONS: dict[str, Any] = {"epochs": 2, "overrides": SETTINGS, "maps": False, "say": quiet}


@pytest.fixture(scope="module")
def place(net: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with four repeats, and one of another seed on the same images."""
    folder = tmp_path_factory.mktemp("repeated")
    make_own_data(folder / "data", images=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        brainkit.fit(net, "data", out="run", repeats=4, seed=5, **OPTIONS)
        other = {**OPTIONS, "overrides": (*SETTINGS, "data.split_seed=5")}
        for seed in (6, 7):
            brainkit.fit(net, "data", out=f"seed{seed}", seed=seed, **other)
        brainkit.fit(net, "data", out="elsewhere", seed=8, **OPTIONS)
    return folder


def depth_of(run: Path) -> np.ndarray:
    with np.load(run / "selectors.npz") as file:
        return relative_depth(file["layer_weights"])


def test_repeats_are_runs_on_complementary_halves_with_the_same_test_images(place: Path) -> None:
    whole = Split.read(place / "run" / "split.json")
    halves = [Split.read(place / "run" / "repeats" / f"0{k}" / "split.json") for k in range(4)]
    assert [half.half for half in halves] == ["a:0", "b:0", "a:1", "b:1"]
    for half in halves:
        np.testing.assert_array_equal(half.test, whole.test)
        np.testing.assert_array_equal(half.validation, whole.validation)
    for first, second in (halves[:2], halves[2:]):
        np.testing.assert_array_equal(np.sort(np.concatenate([first.train, second.train])), whole.train)
    assert halves[0].train.tolist() != halves[2].train.tolist()
    seeds = [Config.read(place / "run" / "repeats" / f"0{k}" / "config.yaml").seed for k in range(4)]
    assert len({5, *seeds}) == 5


def test_standard_errors_are_written_for_every_vertex(place: Path) -> None:
    found = measure_uncertainty(place / "run")
    depths = [depth_of(place / "run" / "repeats" / f"0{k}") for k in range(4)]
    expected = np.sqrt(((depths[0] - depths[1]) ** 2 + (depths[2] - depths[3]) ** 2) / 2) / 2
    np.testing.assert_allclose(found.errors.depth_se, expected, atol=1e-7)
    assert found.errors.location_se.shape == (6, 2) and found.errors.runs == 4
    stored = brainkit.Run.open(place / "run").uncertainty
    assert stored is not None
    np.testing.assert_allclose(stored["depth_se"], expected, atol=1e-6)
    summary = json.loads((place / "run" / "uncertainty.json").read_text())
    assert summary["basis"] == "halves" and summary["draws"] == 2
    assert summary["groups"]["all"]["depth_se"]["median"] == pytest.approx(np.median(expected))
    assert summary["groups"]["all"]["depth_reliability"]["n"] == 2
    assert found.table().rows[0][0] == "all"
    origin = summary["provenance"]
    assert [each["half"] for each in origin["repeats"]] == ["a:0", "b:0", "a:1", "b:1"]
    assert len({each["selectors"] for each in (origin["run"], *origin["repeats"])}) == 5


def test_equal_calls_give_equal_bytes(place: Path) -> None:
    def contents() -> list[bytes]:
        measure_uncertainty(place / "run")
        return [(place / "run" / f"uncertainty.{ending}").read_bytes() for ending in ("json", "npz")]

    assert contents() == contents()
    assert str(place).encode() not in contents()[0]


def test_reliable_vertices_are_predicted_and_have_small_errors(place: Path, tmp_path: Path) -> None:
    run = shutil.copytree(place / "run", tmp_path / "run")
    with np.load(run / "scores.npz") as file:
        scores = {key: file[key] for key in file.files}
    scores["r"] = np.array([0.99999] * 4 + [0.0, 0.0], np.float32)
    np.savez(run / "scores.npz", **scores)
    errors = measure_uncertainty(run).errors.depth_se
    limit = float(np.sort(errors[:4])[1] + 1e-9)
    found = measure_uncertainty(run, max_se=limit)
    assert found.reliable.tolist() == [*(errors[:4] <= limit), False, False]
    assert found.reliable.sum() == 2
    for bad in (0.0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="max_se"):
            measure_uncertainty(run, max_se=bad)


def test_the_newest_run_is_the_run_and_not_its_repeat(place: Path, net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place / "newest"
    folder.mkdir()
    monkeypatch.chdir(folder)
    run = brainkit.fit(net, place / "data", out="run", repeats=2, **OPTIONS)
    assert latest_run().resolve() == run.path.resolve()


def test_missing_repeats_are_trained_on_resume(
    place: Path, net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(place / "run", tmp_path / "run")
    shutil.rmtree(run / "repeats" / "03")
    (run / "uncertainty.npz").unlink()
    kept = (run / "repeats" / "00" / "selectors.npz").stat().st_mtime_ns
    with pytest.raises(UsageError, match="halves"):
        measure_uncertainty(run)
    brainkit.fit(net, out=run, resume=True, repeats=4, maps=False, say=quiet)
    assert (run / "uncertainty.npz").is_file()
    assert (run / "repeats" / "00" / "selectors.npz").stat().st_mtime_ns == kept
    np.testing.assert_allclose(depth_of(run / "repeats" / "03"), depth_of(place / "run" / "repeats" / "03"), atol=1e-3)


def test_a_stopped_repeat_says_how_to_resume_all(
    place: Path, net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lines = shutil.copytree(place / "run", tmp_path / "run"), []
    shutil.rmtree(run / "repeats")

    def stop(*_: object, **__: object) -> None:
        raise StoppedTraining("stopped")

    monkeypatch.setattr("brainkit.training.fit.fit", stop)
    monkeypatch.setattr("brainkit.runs.stages.fit", stop)
    with pytest.raises(StoppedTraining):
        brainkit.fit(net, out=run, resume=True, repeats=2, say=lines.append)
    assert any("--repeats 2" in line and str(run) in line for line in lines)


def test_other_seeds_on_the_same_images(place: Path, tmp_path: Path) -> None:
    run = shutil.copytree(place / "run", tmp_path / "run")
    others = [place / "seed6", place / "seed7"]
    found = measure_uncertainty(run, others)
    expected = np.std([depth_of(each) for each in (run, *others)], axis=0, ddof=1)
    np.testing.assert_allclose(found.errors.depth_se, expected, atol=1e-7)
    assert (found.errors.basis, found.errors.runs) == ("seeds", 3)
    assert "depth_reliability" not in found.summary["groups"]["all"]
    of_mean = ensemble_uncertainty([run, *others])
    assert of_mean is not None
    np.testing.assert_allclose(of_mean.depth_se, expected / np.sqrt(3), atol=1e-7)
    assert ensemble_uncertainty([run, place / "elsewhere"]) is None


def test_runs_that_repeat_nothing_are_refused(place: Path, own_run: Any, tmp_path: Path) -> None:
    run = shutil.copytree(place / "run", tmp_path / "run")
    half = run / "repeats" / "00"
    with pytest.raises(UsageError, match="split_seed"):
        measure_uncertainty(run, [place / "elsewhere"])
    with pytest.raises(UsageError, match="twice"):
        measure_uncertainty(run, [run])
    with pytest.raises(UsageError, match="both halves"):
        measure_uncertainty(run, [half])
    with pytest.raises(UsageError, match="both halves"):
        measure_uncertainty(run, [half, run / "repeats" / "01", place / "seed6"])
    with pytest.raises(UsageError, match="must have the data"):
        measure_uncertainty(run, [own_run.path])
    with pytest.raises(UsageError, match="training images of"):
        measure_uncertainty(place / "elsewhere", [half, run / "repeats" / "01"])
    with pytest.raises(DataError, match="no repeats"):
        measure_uncertainty(place / "seed6")
    shutil.rmtree(run / "repeats" / "03")
    shutil.copytree(run / "repeats" / "02", run / "repeats" / "03")
    with pytest.raises(UsageError, match="both halves"):
        measure_uncertainty(run)


def test_a_run_that_nothing_can_be_written_into_is_told_first(
    finished: Any, tmp_path: Path, read_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brainkit.runs.uncertainty._Maps.read", lambda _: pytest.fail("work was begun"))
    with pytest.raises(DataError, match="run: "):
        measure_uncertainty(finished.path, [tmp_path])


def test_repeats_have_the_network_of_the_run() -> None:
    """Whose weights may be drawn by the run's seed."""
    for settings, expected in ((Config(seed=4), 4), (Config().replace(["backbone.weights_seed=9"]), 9)):
        assert {each.backbone.weights_seed for each in repeat_settings(settings, 4)} == {expected}
    with pytest.raises(UsageError, match="weights_seed"):
        Config().replace(["backbone.weights_seed=-2"])


def test_repeats_come_in_pairs(place: Path, net: str) -> None:
    settings = Config()
    assert [each.data.half for each in repeat_settings(settings, 2)] == ["a:0", "b:0"]
    for count in (1, 3, -2):
        with pytest.raises(UsageError, match="even"):
            repeat_settings(settings, count)
    halved = settings.replace(["data.half=a:0"])
    with pytest.raises(UsageError, match="half"):
        repeat_settings(halved, 2)
    with pytest.raises(UsageError, match="even"):
        brainkit.fit(net, place / "data", out="odd", repeats=3, **OPTIONS)
    assert not Path("odd").exists()


@pytest.mark.slow
def test_subjects_trained_together_have_repeats_together(place: Path, net: str) -> None:
    make_own_data(Path("two"), images=30, vertices=4)
    run = brainkit.fit(net, [place / "data", "two"], out="joint", repeats=2, **OPTIONS)
    for subject, vertices in zip(run.subjects.values(), (6, 4), strict=True):
        assert subject.uncertainty is not None and len(subject.uncertainty["depth_se"]) == vertices


def test_encoder_files_carry_the_standard_errors(place: Path, tmp_path: Path) -> None:
    run = shutil.copytree(place / "run", tmp_path / "run")
    errors = measure_uncertainty(run, max_se=0.2).errors
    member = Member.open(run)
    carried = member.info.uncertainty
    assert carried is not None and (carried.basis, carried.runs, carried.max_se) == ("halves", 4, 0.2)
    np.testing.assert_allclose(carried.depth_se, errors.depth_se, atol=1e-6)
    some = select_vertices(member.model.folded(), member.info, VertexSubset(np.array([1, 4]), {}))[1].uncertainty
    assert some is not None
    np.testing.assert_allclose(some.location_se, errors.location_se[[1, 4]], atol=1e-6)
    with np.load(run / "uncertainty.npz") as file:
        stored = {key: file[key] for key in file.files}
    np.savez(run / "uncertainty.npz", **{**stored, "vertices": stored["vertices"] + 1})
    with pytest.raises(DataError, match="measure it again"):
        Member.open(run)
