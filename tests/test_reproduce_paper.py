"""The scripts for the tables and figures of the paper, on the sample subject."""

from __future__ import annotations

import csv
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_runs import SMALL, draw_one_map

for needed in ("torch", "pytorch_lightning", "timm", "himalaya"):
    pytest.importorskip(needed)

SCRIPTS = Path(__file__).resolve().parents[1] / "examples" / "reproduce_paper"
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py"))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where all scripts work, so that each finds the runs of the ones before."""
    folder = tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(SCRIPTS))
        patch.setattr("brainkit.maps.draw.draw_maps", draw_one_map)
        yield folder
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture
def run(place: Path, tiny_sample: Path) -> Any:
    def run(name: str, *options: str) -> Path:
        settings = [part for setting in SMALL for part in ("--set", setting)]
        shared = ["--data", str(tiny_sample), "--out", "out", "--epochs", "2", *settings]
        importlib.import_module(name).main([*shared, *options])
        return place / "out"

    return run


def table(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_maps_of_each_network(run: Any) -> None:
    out = run("maps", "--repeats", "2")
    for network in ("efficientnet_lite0", "random-efficientnet_lite0"):
        assert (out / f"maps-{network}" / "layer.png").is_file()
        assert (out / network / "uncertainty.npz").is_file()


def test_ablations_by_region(run: Any) -> None:
    rows = table(run("ablations") / "ablations-efficientnet_lite0.csv")
    assert rows[0][:2] == ["", "all"] and "early" in rows[0]
    assert [row[0] for row in rows[1:]] == list(importlib.import_module("ablations").ROWS.values())
    assert all(re.fullmatch(r"-?\d+\.\d{3}", cell) for row in rows[1:] for cell in row[1:2])


def test_depth_against_the_order_of_areas(run: Any) -> None:
    out = run("hierarchy", "--repeats", "2", "--draws", "100")
    rows = table(out / "hierarchy" / "hierarchy.csv")
    assert {row[0] for row in rows[1:]} == {"efficientnet_lite0", "random-efficientnet_lite0"}
    assert all(re.match(r"-?\d", cell) for row in rows[1:] for cell in row[1:])
    assert (out / "hierarchy" / "comparison.json").is_file()


def test_accuracy_by_number_of_images(run: Any) -> None:
    rows = table(run("training_images", "--shares", "0.3", "0.8") / "training-images-efficientnet_lite0.csv")
    assert int(rows[1][0]) < int(rows[2][0])


def test_each_script_is_in_the_readme_and_says_what_differs() -> None:
    readme = (SCRIPTS / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"`{name}.py`" in readme
        text = (SCRIPTS / f"{name}.py").read_text(encoding="utf-8")
        assert name == "common" or ("paper" in text and "Different from the paper" in text)
