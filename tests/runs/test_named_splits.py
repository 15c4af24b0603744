"""Runs on splits by name: what is trained, kept and scored."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from small_runs import SMALL, make_own_data, quiet

import brainkit
from brainkit.data import open_subject
from brainkit.data.split import Split
from brainkit.errors import DataError, UsageError
from brainkit.runs.evaluate import evaluate_on_data
from brainkit.utils.files import read_json


def named(*numbers: int) -> list[str]:
    return [f"{k:03d}.png" for k in numbers]


def fit(net: str, data: Any, **options: Any) -> brainkit.Run:
    return brainkit.fit(net, data, **{"out": "run", "epochs": 1, "overrides": SMALL, "say": quiet, **options})


def split_of(folder: str | Path) -> Split:
    return Split.read(Path(folder) / "split.json")


def test_a_run_has_the_named_sides_and_says_so(net: str, tmp_path: Path) -> None:
    make_own_data(Path("data"))
    lists = {"train": named(*range(8, 20)), "validation": named(0, 1), "test": named(2, 3, 4), "ood": named(5, 6, 7)}
    Path("mine.json").write_text(json.dumps(lists))
    run = fit(net, "data", split="mine.json")
    split = split_of("run")
    assert split.train.tolist() == list(range(8, 20)) and split.test.tolist() == [2, 3, 4]
    facts = run.summary["split"]
    assert (facts["name"], facts["sha256"], facts["sets"]) == ("mine.json", split.sha256, {"ood": 3})
    assert Path(brainkit.config.Config.read("run/config.yaml").data.split).is_absolute()
    encoder = run.export(say=quiet).path
    assert brainkit.load(encoder).info.provenance["split"]["sha256"] == split.sha256
    # The further test set is scored as a set of images, of a run by its name and of a file by the list.
    found = evaluate_on_data("run", split=["test", "ood"], out="a", bootstrap=0, permutations=0, maps=False, say=quiet)
    assert {name: each.n_images for name, each in found.evaluations.items()} == {"test": 3, "ood": 3}
    options: dict[str, Any] = {"bootstrap": 0, "permutations": 0, "maps": False, "say": quiet}
    Path("data/splits.json").write_text(json.dumps(lists))
    of_file = evaluate_on_data(encoder, "data", split=["test", "ood"], out="b", **options)
    for name, each in of_file.evaluations.items():
        np.testing.assert_allclose(each.r, found.evaluations[name].r, atol=1e-3)
    with pytest.raises(DataError, match="new to it"):
        evaluate_on_data("run", split="train", out="c", **options)
    with pytest.raises(UsageError, match="did you mean 'ood'"):
        evaluate_on_data("run", split="odd", out="c", **options)


def test_splits_of_the_data_are_used_without_asking(net: str) -> None:
    for name in ("a", "b"):
        make_own_data(Path(name))
    Path("a/splits.json").write_text(json.dumps({"test": named(1, 3, 5)}))
    fit(net, "a")
    assert split_of("run").test.tolist() == [1, 3, 5] and split_of("run").name == "splits.json"
    fit(net, "a", out="hashed", split="hashed")
    assert split_of("hashed").name == ""
    # Together: what one is tested on trains no other, who saw the same pictures.
    fit(net, ["a", "b"], out="joint")
    first, second = (split_of(f"joint/{name}") for name in ("a", "b"))
    assert first.test.tolist() == [1, 3, 5] and not {1, 3, 5} & {*second.train, *second.validation}
    assert read_json("joint/a/run.json")["split"]["name"] == "splits.json"
    assert "name" not in read_json("joint/b/run.json")["split"]


def test_near_duplicates_are_said(net: str) -> None:
    make_own_data(Path("data"))
    draw = np.random.default_rng(0)
    small = Image.fromarray(draw.integers(0, 256, (9, 9, 3), np.uint8))
    picture = small.resize((120, 120), Image.Resampling.BICUBIC)
    picture.save("data/images/004.png")
    picture.resize((60, 60)).save("data/images/011.png")
    Path("data/splits.json").write_text(json.dumps({"test": named(2, 3, 4)}))
    lines: list[str] = []
    fit(net, "data", say=lines.append)
    (line,) = [line for line in lines if "WARNING" in line]
    assert "004.png" in line and "011.png" in line and "1 test image of 3" in line
    assert any("004.png" in note for note in split_of("run").notes)
    assert open_subject("data").groups[4] != open_subject("data").groups[11]
