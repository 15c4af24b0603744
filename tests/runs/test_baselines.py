"""Baselines of a whole run: files, the table, what is kept and what is computed again, refusals."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("himalaya")
pytest.importorskip("pytorch_lightning")
pytest.importorskip("matplotlib")

from small_runs import SMALL, make_own_data, quiet

from brainkit.data.split import Split
from brainkit.errors import DataError, UsageError
from brainkit.evaluation.baselines.catalog import compute
from brainkit.runs import baselines
from brainkit.runs.baselines import compute_baselines
from brainkit.runs.predictions import read_predictions
from brainkit.runs.train import train

CONTROLS = ("no-topography", "no-layer-selector", "no-location-selector", "no-scale-selector", "shuffled-images")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_own_data(tmp_path_factory.mktemp("data") / "data", images=80, vertices=12)


@pytest.fixture(scope="module")
def run(net: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a plug-in network on data with colours that responses follow, with all its baselines."""
    folder = tmp_path_factory.mktemp("baselines") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        train(net, data=data, out=folder, epochs=2, maps=False, overrides=(*SMALL, "data.test=0.3"), say=quiet)
        compute_baselines(folder, say=quiet)
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def rows_of(run: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads((run / "baselines.json").read_text())["baselines"]}


def computed(run: Path, *only: str, **options: Any) -> list[str]:
    """The titles of the baselines that are computed, and not found."""
    titles: list[str] = []

    def record(baseline: Any, work: Any) -> Any:
        titles.append(baseline.title)
        return compute(baseline, work)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "compute", record)
        compute_baselines(run, only, say=quiet, **options)
    return titles


@pytest.mark.slow
def test_every_baseline_keeps_its_predictions_and_has_a_row(run: Path) -> None:
    rows, split = rows_of(run), Split.read(run / "split.json")
    assert list(rows)[:4] == ["factor-topy", "mean", "pixels", "gabor"]
    assert {"ridge-layer-1", "ridge-layer-2", "best-layer", "banded", "stacked", *CONTROLS} < set(rows)
    assert "random-network" not in rows  # a plug-in brings its own weights
    own = read_predictions(run)
    for name in list(rows)[1:]:
        kept = read_predictions(run / "baselines" / name)
        np.testing.assert_array_equal(kept.rows, split.test)
        np.testing.assert_array_equal(kept.pixels, own.pixels)
        assert kept.predictions.shape == own.predictions.shape and np.isfinite(kept.predictions).all()
        assert rows[name]["cpu_seconds"] >= 0 and rows[name]["parameters"] > 0
    r = {name: row["evaluation"]["groups"]["all"]["r"]["median"] for name, row in rows.items()}
    assert r["mean"] is None and r["pixels"] > 0.5  # responses follow the mean colour
    fitted = set(rows) - {"mean", "shuffled-images", "gabor"}
    assert min(r[name] for name in fitted) > 0.3 > r["shuffled-images"]
    parameters = {name: row["parameters"] for name, row in rows.items()}
    assert parameters["no-layer-selector"] < parameters["factor-topy"]


@pytest.mark.slow
def test_the_files_are_for_people_and_programs(run: Path) -> None:
    with (run / "baselines.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["group"] for row in table} >= {"all"}
    assert {row["name"] for row in table} == set(rows_of(run))
    for figure in ("baselines.png", "agreement.png"):
        assert (run / figure).read_bytes().startswith(b"\x89PNG")
    agreement = json.loads((run / "agreement.json").read_text())
    assert set(agreement["groups"]["all"]) == {"r", "low", "high", "reliability", "n"}
    assert agreement["spin_test"]["p"] is None and agreement["spin_test"]["missing"]
    with np.load(run / "agreement.npz") as file:
        assert file["banded_shares"].shape == (12, 2) and file["depth"].shape == (12,)
    for name in ("baselines.json", "agreement.json"):
        provenance = json.loads((run / name).read_text())["provenance"]
        assert provenance["data"] == json.loads((run / "run.json").read_text())["data"]["hash"]
        assert str(run.parent) not in json.dumps(provenance)


@pytest.mark.slow
def test_what_is_computed_is_kept_and_gives_the_same_bytes(copy: Path) -> None:
    names = ("baselines.json", "baselines.csv", "baselines.png", "agreement.json", "agreement.png")
    before = {name: (copy / name).read_bytes() for name in names}
    assert computed(copy) == []
    assert {name: (copy / name).read_bytes() for name in names} == before


@pytest.mark.slow
def test_an_interrupted_command_goes_on_with_the_next_one(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("banded", "stacked"):
        shutil.rmtree(copy / "baselines" / name)

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(baselines, "evaluate", stop)
        with pytest.raises(KeyboardInterrupt):
            compute_baselines(copy, ["banded"], say=quiet)
    assert not (copy / "baselines" / "banded" / "baseline.json").exists()
    assert computed(copy, "banded") == ["all tokens, banded ridge"]
    assert "stacked" not in rows_of(copy)
    assert len(computed(copy)) == 1 and "stacked" in rows_of(copy)


@pytest.mark.slow
def test_a_changed_method_or_setting_is_computed_again(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("lr_weight: 0.2", "lr_weight: 0.1"))
    assert computed(copy, "ridge-all", "no-topography") == ["FactorTopy without topography"]
    monkeypatch.setattr(baselines, "DRAWS", 100)
    assert computed(copy, "mean") == ["mean response"]


@pytest.mark.slow
def test_wrong_requests_are_refused_in_one_line(run: Path, data: Path, tmp_path: Path) -> None:
    for only, reason in (("bandedd", "banded"), ("random-network", "of your own")):
        with pytest.raises(UsageError, match=reason):
            compute_baselines(run, [only], say=quiet)
    with pytest.raises(DataError, match="no such run"):
        compute_baselines(tmp_path / "nothing", say=quiet)
    moved = Path(shutil.copytree(data, tmp_path / "moved"))
    assert computed(run, "mean", data=moved) == []
    responses = np.load(moved / "responses.npy")
    np.save(moved / "responses.npy", responses + 1)
    with pytest.raises(DataError, match="changed"):
        compute_baselines(run, ["mean"], data=moved, say=quiet)


def test_an_old_run_says_how_to_keep_predictions_of_data_that_moved(finished: Any, tmp_path: Path) -> None:
    old = Path(shutil.copytree(finished.path, tmp_path / "old"))
    (old / "predictions.npz").unlink()
    with pytest.raises(DataError) as failure:
        compute_baselines(old, ["mean"], say=quiet)
    assert "brainkit evaluate" in str(failure.value) and "--data" not in str(failure.value)
    with pytest.raises(DataError, match="--data moved"):
        compute_baselines(old, ["mean"], data="moved", say=quiet)


def test_a_run_that_nothing_can_be_written_into_is_told_first(finished: Any, read_only: None) -> None:
    with pytest.raises(DataError, match="baselines: "):
        compute_baselines(finished.path, ["mean"], say=quiet)
    assert not (finished.path / "baselines").exists()
