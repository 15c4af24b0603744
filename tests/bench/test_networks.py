"""The example of docs/networks.md: the script, and the page that is written from what it finds."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import copy
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_runs import SMALL

for needed in ("pytorch_lightning", "timm", "matplotlib"):
    pytest.importorskip(needed)

from bench import networks
from brainkit.cli import group

NAMES = ("efficientnet_lite0", "efficientnet_lite1", "random")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_sample: Path) -> Path:
    """A small study in one process: two networks and a control."""
    spec = importlib.util.spec_from_file_location("compare_networks", networks.SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folder = tmp_path_factory.mktemp("study")

    def brainkit(*words: object) -> None:
        with pytest.raises(SystemExit) as end:
            group.main([str(word) for word in words])
        assert end.value.code == 0

    settings = [part for setting in SMALL for part in ("--set", setting)]
    chosen = ["--networks", *NAMES[:2], "--repeats", "2", "--random", "2", "--epochs", "2", *settings]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "brainkit", brainkit)
        patch.setattr("brainkit.maps.draw.draw_maps", draw_nothing)
        for _ in range(2):  # the second goes on where the first stopped: it has only to compare
            script.main(["--data", str(tiny_sample), "--out", str(folder), *chosen])
    return folder


def draw_nothing(folder: Path, maps: Any) -> list[Path]:
    paths = [folder / f"{name}.png" for name in maps.names]
    for path in paths:
        path.touch()
    return paths


def comparison(study: Path, order: tuple[str, ...]) -> dict[str, Any]:
    """What the study found, but the models are this good in this order."""
    found = json.loads((study / "comparison" / "comparison.json").read_text(encoding="utf-8"))
    for place, name in enumerate(order):
        found["models"][name]["accuracy"]["all"][networks.MEASURE]["mean"] = 0.9 - 0.1 * place
    return found | {"CPU seconds": 100}


def test_the_study_compares_all_runs(study: Path) -> None:
    assert set(json.loads((study / "leaderboard" / "comparison.json").read_text())["models"]) == set(NAMES)
    found = comparison(study, NAMES)
    assert set(found["models"]) == set(NAMES) and len(found["pairs"]) == 3
    assert len(found["models"]["random"]["runs"]) == 2
    assert found["models"][NAMES[0]]["hierarchy"]["interval_over"] == "images and seeds"
    for source in networks.FIGURES.values():
        assert (study / source.partition("/")[2]).is_file()


def test_the_page_says_what_was_found(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "OTHER_TRUTH", NAMES[1])
    page = Path(shutil.copy(networks.ROOT / "docs" / "networks.md", tmp_path))
    about = {"processor": "P", "brainkit": "1", "torch": "2"}
    found: dict[str, Any] = {"machine": about, NAMES[0]: comparison(study, NAMES)}
    found[NAMES[1]] = comparison(study, (NAMES[1], NAMES[0], NAMES[2]))
    networks.write_page(found, page)
    text = page.read_text(encoding="utf-8")
    assert f"`{NAMES[0]}` explains 0.900" in text and f"`{NAMES[1]}` explains 0.900" in text
    networks.write_page(found, page)
    assert page.read_text(encoding="utf-8") == text  # marks are kept

    lucky = copy.deepcopy(found)
    lucky[NAMES[0]] = comparison(study, NAMES[::-1])
    with pytest.raises(SystemExit, match="expected efficientnet_lite0 first"):
        networks.write_page(lucky, page)
    assert page.read_text(encoding="utf-8") == text


def test_a_difference_is_read_from_either_side(study: Path) -> None:
    found = comparison(study, NAMES)
    one, other = (networks.difference(found, *pair, "all") for pair in (NAMES[:2], NAMES[1::-1]))
    assert one["difference"] == -other["difference"]
    assert (one["low"], one["high"]) == (-other["high"], -other["low"])
    assert one["low"] <= one["difference"] <= one["high"]


def test_every_figure_is_on_the_page() -> None:
    folder = networks.ROOT / "docs" / "networks"
    text = (networks.ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    assert set(networks.FIGURES) == {path.name for path in folder.iterdir()}
    assert all(f"](networks/{name})" in text for name in networks.FIGURES)
