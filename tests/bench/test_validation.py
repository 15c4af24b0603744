"""The validation page: every part runs at tiny sizes, the page is made from kept results, simulations notice errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pytorch_lightning")
pytest.importorskip("himalaya")

from bench import agreement, calibration, recovery, validation
from bench.validation_page import write_page


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str) -> str:
    """Run bench.validation, and read its page."""
    places = ("--results", str(folder / "validation.json"), "--docs", str(folder), "--folder", str(folder / "cache"))
    monkeypatch.setattr(sys, "argv", ["validation", "--quick", *places, *options])
    validation.main()
    return (folder / "validation.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_part_runs_and_the_page_is_made_from_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = run(monkeypatch, tmp_path)
    assert set(validation.PARTS) <= set(json.loads((tmp_path / "validation.json").read_text()))
    figures = sorted(path.name for path in (tmp_path / "validation").iterdir())
    assert all(f"(validation/{name})" in page for name in figures) and len(figures) == page.count("](validation/")
    monkeypatch.setattr(validation, "_train_cell", None)  # what is kept is not trained again
    assert run(monkeypatch, tmp_path, "--parts", "recovery").count("\n| ") == page.count("\n| ")
    assert run(monkeypatch, tmp_path, "--parts").count("\n| ") == page.count("\n| ")


@pytest.mark.slow
def test_every_metric_is_that_of_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(row.difference <= row.allowed for row in agreement.agreements())
    monkeypatch.setattr(agreement, "false_discovery_rate", lambda p: 1.001 * p)
    with pytest.raises(SystemExit, match="nothing is reported: q is not that of"):
        validation.agreement()


@pytest.mark.slow
def test_intervals_cover_and_the_simulation_notices_those_that_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "DESIGNS", calibration.DESIGNS[:1])
    monkeypatch.setattr(calibration, "DRAWS", 400)
    rates = {row["measure"]: row["rate"] for row in calibration.coverage(40, lambda line: None)}
    control = f"r of a vertex, {calibration.IGNORED}"
    assert rates.pop(control) < 0.91
    assert all(0.9 <= rate <= 1 for rate in rates.values()), rates
    assert 0.93 <= rates["r of a vertex"] <= 0.97


@pytest.mark.slow
def test_the_spin_test_holds_its_level_where_independent_vertices_do_not() -> None:
    found = {name: np.array(p) for name, p in calibration.spin_level(60, lambda line: None, draws=99)["p"].items()}
    assert (found["spin test"] <= 0.1).mean() < 0.25
    assert (found["vertices as independent"] <= 0.1).mean() > 0.5


def test_the_page_has_a_section_for_each_part_that_has_results(tmp_path: Path) -> None:
    rows = dict.fromkeys(("all", "early", "mid", "high"), 0.5)
    worlds = {f"near-{k}": {"default": {"explained": rows}, "ridge": {"explained": rows}} for k in range(3)}
    write_page({"worlds": {"worlds": worlds}, "official": validation.official()}, tmp_path)
    page = (tmp_path / "validation.md").read_text(encoding="utf-8")
    assert [path.name for path in (tmp_path / "validation").iterdir()] == ["worlds.png"]
    assert "| ridge | 0.500 | 0.500 | 0.500 | 0.500 | 0.000 (0.000 to 0.000) |  |  | 3 |" in page
    assert "38.0, the mean" in page and "30.0, the" in page


def test_simulated_correlations_are_those_asked_for() -> None:
    rng, r = np.random.default_rng(0), np.array([0.0, 0.2, 0.6])
    for design in calibration.DESIGNS:
        many = calibration.Design(design.name, 4000, design.images, design.heavy)
        data = calibration.draw(rng, many, r, r[::-1].copy())
        for predicted, truth in ((data.a, r), (data.b, r[::-1])):
            found = [np.corrcoef(predicted[:, v], data.responses[:, v])[0, 1] for v in range(3)]
            np.testing.assert_allclose(found, truth, atol=0.06)


def test_the_recovery_table_has_mean_interval_and_worst() -> None:
    rows = [{name: {"value": value, "constant": 0.1} for name in recovery.GOALS} for value in (0.2, 0.4)]
    lines = recovery.table({str(seed): {"rows": row} for seed, row in enumerate(rows)}).splitlines()
    location = next(line for line in lines if line.startswith("| location_median"))
    scale = next(line for line in lines if line.startswith("| scale_r"))
    assert [cell.strip() for cell in location.split("|")[2:5]] == ["0.300", "-0.971 to 1.571", "0.400"]
    assert scale.split("|")[4].strip() == "0.200"
