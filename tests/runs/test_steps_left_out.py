"""Runs that do only a part: some regions, and no maps."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")
pytest.importorskip("timm")
pytest.importorskip("nilearn")

from small_runs import SMALL, draw_one_map, make_own_data, quiet

import brainkit
from brainkit.config import Config
from brainkit.data import open_subject
from brainkit.errors import UsageError
from brainkit.runs.draw import draw_run
from brainkit.runs.settings import Overrides
from brainkit.runs.train import train
from brainkit.utils.files import read_json


def fit(net: str, data: Any, **options: Any) -> Path:
    defaults = {"out": "run", "epochs": 1, "overrides": SMALL, "say": quiet, "maps": False}
    return train(net, data=data, **{**defaults, **options})


@pytest.fixture
def own_rois(workplace: Path) -> Path:
    data = make_own_data(workplace / "data")
    (data / "rois.json").write_text(json.dumps({"first": [0, 1], "last": [5], "none": []}))
    return data


@pytest.mark.slow
def test_only_some_regions_are_trained_scored_and_exported(net: str, tiny_sample: Path) -> None:
    whole = open_subject(tiny_sample)
    kept = whole.rois.union(["early", "ventral"])
    said: list[str] = []
    run = fit(net, tiny_sample, rois=["early", "Ventral"], threads=1, say=said.append)
    ids = whole.vertices.ids[kept]
    for file in ("selectors.npz", "scores.npz"):
        with np.load(run / file) as arrays:
            np.testing.assert_array_equal(arrays["vertices"], ids)
    summary = read_json(run / "run.json")
    assert summary["vertices"] == len(kept) < len(whole.vertices)
    assert summary["data"]["rois"] == ["early", "Ventral"] and summary["data"]["excluded"] == {"constant": 0, "nan": 0}
    assert set(summary["scores"]["rois"]) == {"early", "ventral"}
    assert summary["training"]["threads"] == 1
    assert Config.read(run / "config.yaml").data.rois == ("early", "Ventral")
    assert any("early, Ventral" in line for line in said)
    exported = brainkit.Run.open(run).export(say=quiet)
    encoder = brainkit.load(exported.path)
    np.testing.assert_array_equal(encoder.vertices.ids, ids)
    assert set(encoder.rois) == {"early", "ventral"}
    # The truth was planted in all vertices; it is compared where the run has some.
    assert read_json(run / "recovery.json")["vertices"] <= len(kept)


def test_unknown_and_empty_regions_are_refused_before_anything_is_written(net: str, own_rois: Path) -> None:
    for names, expected in ((["frist"], "first"), (["xyz"], "last"), (["none"], "none")):
        with pytest.raises(UsageError, match=rf"data: ROI .*{expected}"):
            fit(net, own_rois, rois=names)
        assert not Path("run").exists()


def test_regions_of_a_run_are_fixed_when_it_is_resumed(net: str, own_rois: Path) -> None:
    run = fit(net, own_rois, rois=["first"])
    (run / "run.json").unlink()
    with pytest.raises(UsageError, match=r"data\.rois was \['first'\], got \['last'\]"):
        fit(net, None, rois=["last"], resume=True)
    fit(net, None, resume=True)
    assert read_json(run / "run.json")["vertices"] == 2


def test_subjects_are_restricted_in_python_or_by_the_settings(net: str, own_rois: Path) -> None:
    subject = open_subject(own_rois).restrict(["first", "none"])
    run = fit(net, subject)
    assert Config.read(run / "config.yaml").data.rois == ("first", "none")
    # The same from a file of settings; the data and the tokens are those of before.
    again = fit(net, own_rois, out="again", overrides=[*SMALL, "data.rois=[first, none]"])
    assert read_json(run / "run.json")["data"] == read_json(again / "run.json")["data"]
    (run / "run.json").unlink()
    assert brainkit.fit(net, subject, out="run", overrides=SMALL, resume=True, say=quiet).summary["vertices"] == 2


def test_each_subject_of_a_joint_run_has_its_own_vertices_in_the_regions(net: str, own_rois: Path) -> None:
    other = own_rois.with_name("other")
    shutil.copytree(own_rois, other)
    (other / "rois.json").write_text(json.dumps({"first": [1, 2, 3]}))
    run = fit(net, [own_rois, other], rois=["first"])
    assert [read_json(run / name / "run.json")["vertices"] for name in ("data", "other")] == [2, 3]
    assert Config.read(run / "other" / "config.yaml").data.rois == ("first",)
    with pytest.raises(UsageError, match=r"^other: ROI 'last'"):
        fit(net, [own_rois, other], rois=["last"], out="never")
    one = open_subject(own_rois).restrict("first")
    with pytest.raises(UsageError, match="same ROIs"):
        fit(net, [one, other], out="never")
    fit(net, [one, other], rois=["first"], out="fine")


@pytest.mark.slow
def test_an_ensemble_of_some_regions_is_scored(net: str, own_rois: Path) -> None:
    same_split = [*SMALL, "data.split_seed=0", "data.test=0.3"]
    runs = [fit(net, own_rois, rois=["first"], out=f"{seed}", seed=seed, overrides=same_split) for seed in (0, 1)]
    said: list[str] = []
    exported = brainkit.Run.open(runs[0]).export(ensemble=runs[1:], say=said.append)
    info = brainkit.load(exported.path).info
    assert np.isfinite(info.r).all(), said


def test_no_maps_until_they_are_asked_for(net: str, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brainkit.maps.draw.draw_maps", draw_one_map)
    said: list[str] = []
    run = fit(net, tiny_sample, say=said.append)
    assert not (run / "maps").exists()
    assert any("brainkit map run" in line for line in said)
    summary = read_json(run / "run.json")
    assert "maps" not in summary["seconds"] and summary["memory"]["phases"]
    assert Config.read(run / "config.yaml").train.maps is False
    # A complete run stays as it is, unless maps are wanted now.
    lines: list[str] = []
    train(net, out=run, resume=True, say=lines.append)
    assert len(lines) == 1 and not (run / "maps").exists()
    draw_run(run, say=quiet)
    shutil.rmtree(run / "maps")
    train(net, out=run, resume=True, maps=True, say=quiet)
    assert (run / "maps" / "layer.png").is_file()


def test_a_run_without_maps_that_was_stopped_is_finished_without_them(
    net: str, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brainkit.maps.draw.draw_maps", draw_one_map)
    run = fit(net, tiny_sample)
    summary = read_json(run / "run.json")
    del summary["memory"]
    (run / "run.json").write_text(json.dumps(summary))  # stopped before its report
    said: list[str] = []
    train(net, out=run, resume=True, say=said.append)
    assert "memory" in read_json(run / "run.json") and not (run / "maps").exists()
    assert any(line.startswith("test scores on") for line in said)


def test_one_region_as_a_text() -> None:
    assert Overrides(rois="V1, ventral").apply(Config()).data.rois == ("V1, ventral",)
    assert Overrides(rois=["V1", "FFA"]).apply(Config()).data.rois == ("V1", "FFA")
