"""Options reach the function that a command calls."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command_line import V, call, write_encoder

from brainkit.maps.changes import Changes
from brainkit.maps.style import Style
from brainkit.utils.table import Table


def record(
    monkeypatch: pytest.MonkeyPatch, module: str, function: str, result: Any = None
) -> Callable[[], dict[str, Any]]:
    """Replace a function by one that records its arguments, bound to the real signature."""
    real = importlib.import_module(module)
    signature = inspect.signature(getattr(real, function))
    calls: list[dict[str, Any]] = []

    def fake(*positional: Any, **named: Any) -> Any:
        calls.append(dict(signature.bind(*positional, **named).arguments))
        return result

    monkeypatch.setattr(real, function, fake)

    def given() -> dict[str, Any]:
        (arguments,) = calls
        return arguments

    return given


def without_say(arguments: dict[str, Any]) -> dict[str, Any]:
    assert callable(arguments["say"])
    return {name: value for name, value in arguments.items() if name != "say"}


def test_train_passes_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    given = record(monkeypatch, "brainkit.runs.train", "train", Path("runs/x"))
    options = "--data d --weights w.pt --out r --epochs 3 --seed 5 --resume --config c.yaml --set a.b=1 --set c.d=2"
    options += " --data e --skip-unreadable --devices 2 --num-nodes 3 --threads 4 --roi V1,FFA --roi OFA --no-maps"
    options += " --repeats 4 --animate --split s.json --from old --images 100"
    assert call("train", "--backbone", "dinov2", *options.split()).exit_code == 0
    assert given() == {
        "backbone": "dinov2",
        "data": (Path("d"), Path("e")),
        "skip_unreadable": True,
        "out": Path("r"),
        "weights": Path("w.pt"),
        "random_weights": False,
        "epochs": 3,
        "seed": 5,
        "resume": True,
        "devices": 2,
        "num_nodes": 3,
        "threads": 4,
        "rois": ("V1,FFA", "OFA"),
        "split": "s.json",
        "repeats": 4,
        "maps": False,
        "animate": True,
        "start": Path("old"),
        "images": 100,
        "config": Path("c.yaml"),
        "overrides": ("a.b=1", "c.d=2"),
    }


def test_train_leaves_out_what_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    given = record(monkeypatch, "brainkit.runs.train", "train", Path("runs/x"))
    assert call("train", "--backbone", "dinov2", "--random-weights").exit_code == 0
    arguments = given()
    assert arguments.pop("backbone") == "dinov2"
    assert arguments.pop("random_weights") is True
    assert not any(arguments.values())


@pytest.mark.parametrize(
    ("options", "forms"),
    [
        ([], ("onnx",)),
        (["--onnx"], ("onnx",)),
        (["--torchscript"], ("torchscript",)),
        (["--pt2", "--onnx"], ("onnx", "pt2")),
    ],
)
def test_export_passes_its_options(monkeypatch: pytest.MonkeyPatch, options: list[str], forms: tuple[str, ...]) -> None:
    given = record(monkeypatch, "brainkit.runs.export", "export_all", [])
    assert call("export", "runs/a", *options, "--out", "e.onnx", "--threads", "3").exit_code == 0
    expected = {"run": Path("runs/a"), "out": Path("e.onnx"), "forms": forms, "threads": 3}
    expected |= {"target": "cpu", "rois": (), "vertices": None, "storage": "float32", "ensemble": ()}
    assert without_say(given()) == expected


def test_export_passes_rois_and_vertices(monkeypatch: pytest.MonkeyPatch) -> None:
    given = record(monkeypatch, "brainkit.runs.export", "export_all", [])
    options = ["--target", "gpu", "--roi", "V1, FFA-1", "--roi", "OFA", "--vertices", "ids.txt"]
    assert call("export", *options).exit_code == 0
    arguments = without_say(given())
    assert (arguments["target"], arguments["rois"]) == ("gpu", ("V1, FFA-1", "OFA"))
    assert arguments["vertices"] == Path("ids.txt") and arguments["out"] is None


@pytest.mark.parametrize(("options", "storage"), [(["--fp16"], "float16"), (["--int8"], "int8")])
def test_export_passes_the_storage(monkeypatch: pytest.MonkeyPatch, options: list[str], storage: str) -> None:
    given = record(monkeypatch, "brainkit.runs.export", "export_all", [])
    assert call("export", *options, "--ensemble", "runs/b", "--ensemble", "runs/c").exit_code == 0
    arguments = without_say(given())
    assert (arguments["storage"], arguments["ensemble"]) == (storage, (Path("runs/b"), Path("runs/c")))


def test_uncertainty_takes_the_first_run_for_the_map_and_the_others_for_its_repeats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = SimpleNamespace(run=Path("a"), table=lambda: Table("standard errors"))
    given = record(monkeypatch, "brainkit.runs.uncertainty", "measure_uncertainty", found)
    done = call("uncertainty", "a", "b", "c", "--max-se", "0.2")
    assert done.exit_code == 0 and "standard errors" in done.output
    assert given() == {"run": Path("a"), "repeats": (Path("b"), Path("c")), "max_se": 0.2}
    assert call("uncertainty", "--max-se", "0").exit_code == 2


def test_map_passes_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    given = record(monkeypatch, "brainkit.runs.draw", "draw_all", [Path("figures/layer.png")])
    assert call("map", "runs/a", "--out", "figures").exit_code == 0
    arguments = without_say(given())
    assert (arguments["sources"], arguments["out"]) == ((Path("runs/a"),), Path("figures"))
    assert (arguments["style"], arguments["changes"]) == (Style(), Changes())


def test_map_passes_how_figures_look(monkeypatch: pytest.MonkeyPatch) -> None:
    given = record(monkeypatch, "brainkit.runs.draw", "draw_all", [])
    look = "--view pial --angles lateral,medial --shading flat --smooth 2"
    look += " --theme dark --size double --dpi 90 --format pdf,png"
    which = "--only layer,scale --rois V1 --vmin 0.1 --cmap cividis --rows 0,2 --mean --like b"
    assert call("map", "fmri.npy", *look.split(), *which.split()).exit_code == 0
    arguments = given()
    assert arguments["style"] == Style("dark", 7.2, None, 90, "pial lateral,medial", "flat", 2)
    assert arguments["formats"] == ("pdf", "png")
    assert arguments["changes"] == Changes(("layer", "scale"), ("V1",), "cividis", 0.1, None)
    assert (arguments["rows"], arguments["mean"], arguments["like"]) == ((0, 2), True, Path("b"))
    for wrong in (["--size", "x"], ["--format", "gif"], ["--dpi", "1"], ["--rows", "a"], ["--vmin", "nan"]):
        assert call("map", "fmri.npy", *wrong).exit_code == 2


def test_predict_passes_its_options_and_reports(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from brainkit.predict import PredictResult

    skipped = tuple((Path(f"bad{i}\n\x1b[31m.png"), "truncated") for i in range(12))
    done = PredictResult(Path("fmri.npy"), 2, skipped, 0.5, files=(Path("fmri.npy"),))
    given = record(monkeypatch, "brainkit.predict", "predict_to_file", done)
    options = "--roi V1,V2 --roi FFA-1 --device cpu --batch-size 4 --threads 1 --overwrite --encoder e.onnx"
    result = call("predict", photos, "c.png", "--out", "fmri.npy", *options.split())
    assert result.exit_code == 0, result.output
    passed = given()
    assert callable(passed.pop("progress"))
    assert callable(passed.pop("say"))
    assert passed == {
        "images": (str(photos), "c.png"),
        "out": "fmri.npy",
        "encoder": Path("e.onnx"),
        "device": "cpu",
        "rois": ("V1,V2", "FFA-1"),  # split where the encoder's regions are known: a name may have commas
        "batch_size": 4,
        "threads": 1,
        "order": "sorted",
        "overwrite": True,
        "hemispheres": False,
        "top": None,
        "spread": False,
        "space": None,
        "engine": "local",
        "workers": None,
    }
    assert result.stdout.startswith("fmri.npy: 2 images in 0.5 s; fmri.npy.json ")
    assert len(result.stderr.splitlines()) == 11
    assert "skipped bad0\\n\\x1b[31m.png: truncated" in result.stderr
    assert "skipped 2 more; fmri.npy.json" in result.stderr


def test_predict_draws_maps_from_what_was_written(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("nilearn")
    from brainkit.predict import PredictResult

    write_encoder(Path("encoder.onnx"))
    record(monkeypatch, "brainkit.predict", "predict_to_file", PredictResult(Path("fmri.npy"), 9, (), 0.5))
    given = record(monkeypatch, "brainkit.maps.draw_predictions", "draw_prediction_file", [Path("a"), Path("b")])
    options = "--out fmri.npy --encoder encoder.onnx --maps figures --max-maps 2"
    result = call("predict", photos, *options.split())
    assert "figures: 2 of 9 images" in result.stdout
    arguments = given()
    assert arguments["encoder_info"].layers == ("stage1", "stage2")
    assert (arguments["file"], arguments["folder"], arguments["max_maps"]) == ("fmri.npy", Path("figures"), 2)


def test_sample_passes_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    given = record(monkeypatch, "brainkit.sample", "make_sample", Path("s"))
    options = "--seed 3 --images 30 --test-images 8 --vertices 60 --backbone net.py:Net --layout algonauts"
    assert call("sample", "s", *options.split()).exit_code == 0
    assert without_say(given()) == {
        "directory": Path("s"),
        "seed": 3,
        "images": 30,
        "test_images": 8,
        "vertices": 60,
        "backbone": "net.py:Net",
        "layout": "algonauts",
    }


def test_map_draws_an_encoder_file(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("nilearn")
    write_encoder(Path("encoder.onnx"), noise_ceiling=np.full(V, np.nan, np.float32))
    given = record(monkeypatch, "brainkit.maps.draw", "draw_maps", [Path("encoder-maps/layer.png")])
    assert call("map", "encoder.onnx").stdout == "encoder-maps: layer.png\n"
    arguments = given()
    assert arguments["folder"] == Path("encoder-maps")
    assert arguments["maps"].names == ("accuracy", "layer", "location", "scale")
    assert arguments["maps"].title == "tiny" and "gauge" not in arguments["maps"]["layer"].detail
