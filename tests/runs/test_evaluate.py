"""`brainkit evaluate`: runs and encoder files on responses, and what is refused."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.cortex.volume import Volume
from brainkit.data import open_subject
from brainkit.data.stimuli import short_hashes
from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.runs import evaluate as module
from brainkit.runs.evaluate import evaluate_on_data

onnx = pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from command_line import call, one_line  # noqa: E402
from pixel_encoder import V, make_info, write_encoder  # noqa: E402

QUICK: dict[str, Any] = {"bootstrap": 50, "permutations": 50, "maps": False}
IMAGES = 24


def quiet(line: str) -> None:
    """A `say` that reports nothing."""


def make_data(folder: Path, *, vertices: np.ndarray | None = None, space: str = "fsaverage5") -> Path:
    """A subject whose responses have no relation with its images, at the vertices of the pixel encoder."""
    draw = np.random.default_rng(3)
    ids = make_info().vertices.ids if vertices is None else vertices
    (folder / "images").mkdir(parents=True)
    for row in range(IMAGES):
        pixels = draw.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{row:02d}.png")
    np.save(folder / "responses.npy", draw.normal(size=(IMAGES, len(ids))).astype(np.float32))
    (folder / "vertices.json").write_text(json.dumps({"space": space, "ids": [int(each) for each in ids]}))
    np.save(folder / "noise_ceiling.npy", np.full(len(ids), 0.5, np.float32))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "data")


def hashes_of(data: Path, **sides: slice) -> dict[str, np.ndarray]:
    hashes = short_hashes(open_subject(data).pixel_hashes)
    return {side: np.sort(hashes[sides.get(side, slice(0))]) for side in ("train", "validation", "test")}


class NoTorch(MetaPathFinder):
    """Refuses to import torch and timm."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0] in ("torch", "timm"):
            raise ModuleNotFoundError(name)


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if torch were not installed. None in its place would not do: scipy looks there for it."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("torch", "timm")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoTorch(), *sys.meta_path])


def test_an_encoder_file_needs_no_torch(data: Path, tmp_path: Path, no_torch: None) -> None:
    file = write_encoder(tmp_path, image_hashes=hashes_of(data))
    found = evaluate_on_data(file, data, out=tmp_path / "out", say=quiet, **QUICK)
    assert found.folder == tmp_path / "out" and found.notes == {"test": []}
    assert found.evaluations["test"].n_images == IMAGES


def test_its_numbers_are_those_of_its_predictions(data: Path, tmp_path: Path) -> None:
    import brainkit

    file = write_encoder(tmp_path, image_hashes=hashes_of(data))
    found = evaluate_on_data(file, data, say=quiet, **QUICK)
    predictions = brainkit.load(file, "cpu").predict(data / "images")
    responses = np.load(data / "responses.npy")
    r = [np.corrcoef(predictions[:, v], responses[:, v])[0, 1] for v in range(V)]
    np.testing.assert_allclose(found.evaluations["test"].r, r, atol=1e-6)
    folder = tmp_path / "encoder-evaluation"
    with np.load(folder / "evaluation.npz") as arrays:
        np.testing.assert_allclose(arrays["r"], r, atol=1e-6)
        np.testing.assert_array_equal(arrays["vertices"], make_info().vertices.ids)
    stored = json.loads((folder / "evaluation.json").read_text())
    assert stored["groups"]["V1"]["r"]["median"] == pytest.approx(np.median(np.array(r)[[1, 3, 7]]), abs=1e-6)
    assert "notes" not in stored


def test_twice_gives_the_same_bytes_with_the_provenance(data: Path, tmp_path: Path) -> None:
    file = write_encoder(tmp_path, image_hashes=hashes_of(data), provenance={"seed": 7, "split": {"seed": 8}})
    for name in ("one", "two"):
        evaluate_on_data(file, data, split=("test", "all"), out=tmp_path / name, say=quiet, **QUICK)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert [path.as_posix() for path in files if len(path.parts) == 1] == ["differences.csv", "differences.json"]
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path
    differences = json.loads((tmp_path / "one" / "differences.json").read_text())
    assert differences["provenance"]["test"]["data"]["hash"] == open_subject(data).data_hash
    text = (tmp_path / "one" / "test" / "evaluation.json").read_text()
    provenance = json.loads(text)["provenance"]
    assert provenance["data"]["hash"] == open_subject(data).data_hash
    assert len(provenance["encoder"]["sha256"]) == 64
    assert provenance["seeds"] == {"statistics": 0, "training": 7, "split": 8}
    assert provenance["split"]["images"] == IMAGES and provenance["versions"]["numpy"] == np.__version__
    assert provenance["command"].startswith("brainkit evaluate encoder.onnx --data data --split test --split all")
    assert str(tmp_path) not in text


def test_images_of_its_training_are_refused(data: Path, tmp_path: Path) -> None:
    used = hashes_of(data, train=slice(3, 5), validation=slice(5, 6))
    file = write_encoder(tmp_path, image_hashes=used)
    with pytest.raises(DataError, match=r"3 of 24 images.*2 in training, 1 in validation.*03\.png"):
        evaluate_on_data(file, data, say=quiet, **QUICK)
    assert not (tmp_path / "encoder-evaluation").exists()
    (tmp_path / "new.json").write_text(json.dumps(list(range(6, IMAGES))))
    found = evaluate_on_data(file, data, split=tmp_path / "new.json", say=quiet, **QUICK)
    assert found.notes == {"new": []}


def test_they_are_found_under_other_names_and_in_other_formats(data: Path, tmp_path: Path) -> None:
    file = write_encoder(tmp_path, image_hashes=hashes_of(data, train=slice(0, 1)))
    other = tmp_path / "other"
    shutil.copytree(data, other)
    Image.open(other / "images" / "00.png").save(other / "images" / "zz.bmp")
    (other / "images" / "00.png").unlink()
    with pytest.raises(DataError, match=r"zz\.bmp"):
        evaluate_on_data(file, other, say=quiet, **QUICK)


def test_allowed_training_images_are_stated_everywhere(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("brainkit.maps.draw.draw_maps", lambda folder, maps: drawn.append(maps.note))
    file = write_encoder(tmp_path, image_hashes=hashes_of(data, train=slice(0, 4)))
    lines: list[str] = []
    options = {**QUICK, "maps": True, "allow_training_images": True, "say": lines.append}
    (tmp_path / "few.json").write_text(json.dumps(list(range(2, 20))))
    found = evaluate_on_data(file, data, split=("test", tmp_path / "few.json"), **options)
    (warning,) = found.notes["test"]
    assert "4 of 24" in warning and any(warning in line for line in lines)
    for name in ("test", "few"):
        stored = json.loads((found.folder / name / "evaluation.json").read_text())
        assert stored["notes"] == found.notes[name]
        with (found.folder / name / "evaluation.csv").open(newline="") as table:
            assert all(row["note"] == found.notes[name][0] for row in csv.DictReader(table))
    assert "4 of 24" in drawn[0] and "2 of 18" in drawn[1]
    differences = json.loads((found.folder / "differences.json").read_text())
    assert differences["notes"] == [*found.notes["test"], *found.notes["few"]]
    with (found.folder / "differences.csv").open(newline="") as table:
        assert all("4 of 24" in row["note"] for row in csv.DictReader(table))


def test_of_an_older_file_it_says_that_it_cannot_know(data: Path, tmp_path: Path) -> None:
    found = evaluate_on_data(write_encoder(tmp_path), data, say=quiet, **QUICK)
    stored = json.loads((found.folder / "evaluation.json").read_text())
    assert "cannot be known" in stored["notes"][0]
    assert stored["provenance"]["split"]["training_images_known"] is False


def test_common_vertices_are_scored(data: Path, tmp_path: Path) -> None:
    own = make_info().vertices.ids
    other = make_data(tmp_path / "other", vertices=np.sort(np.concatenate([own[5:], [1, 20_001]])))
    file, lines = write_encoder(tmp_path, image_hashes=hashes_of(other)), []
    found = evaluate_on_data(file, other, say=lines.append, **QUICK)
    with np.load(found.folder / "evaluation.npz") as arrays:
        np.testing.assert_array_equal(arrays["vertices"], own[5:])
    whole = evaluate_on_data(file, data, out=tmp_path / "whole", say=quiet, **QUICK)
    assert not np.allclose(whole.evaluations["test"].r[5:], found.evaluations["test"].r)
    assert any("15 of the encoder's 20" in line for line in lines)


@pytest.mark.parametrize(
    ("vertices", "space", "problem"),
    [([1, 2, 3], "fsaverage5", "none of them"), ([1, 2, 3], "fsaverage6", "fsaverage6")],
)
def test_another_subject_is_refused(tmp_path: Path, vertices: list[int], space: str, problem: str) -> None:
    data = make_data(tmp_path / "data", vertices=np.array(vertices), space=space)
    with pytest.raises(DataError, match=problem):
        evaluate_on_data(write_encoder(tmp_path), data, say=quiet, **QUICK)
    assert not (tmp_path / "encoder-evaluation").exists()


def test_vertices_of_no_surface_must_be_as_many(tmp_path: Path, data: Path) -> None:
    file = write_encoder(tmp_path, vertices=Vertices.custom(V))
    (data / "vertices.json").unlink()
    np.save(data / "coordinates.npy", np.random.default_rng(0).normal(size=(V, 3)).astype(np.float32))
    assert len(evaluate_on_data(file, data, say=quiet, **QUICK).evaluations["test"].r) == V
    np.save(data / "responses.npy", np.load(data / "responses.npy")[:, :-1])
    np.save(data / "noise_ceiling.npy", np.full(V - 1, 0.5, np.float32))
    np.save(data / "coordinates.npy", np.load(data / "coordinates.npy")[:-1])
    with pytest.raises(DataError, match=r"20 vertices.*found 19"):
        evaluate_on_data(file, data, say=quiet, **QUICK)


def test_constant_predictions_are_counted(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_encoder(tmp_path)
    predict = module.EncoderPredictor.predict

    def constant(self: Any, subject: Any, rows: np.ndarray) -> np.ndarray:
        predictions = predict(self, subject, rows)
        predictions[:, :3] = 1.5
        return predictions

    monkeypatch.setattr(module.EncoderPredictor, "predict", constant)
    found = evaluate_on_data(file, data, say=quiet, **QUICK)
    assert found.evaluations["test"].constant_predictions == 3
    assert np.isnan(found.evaluations["test"].r[:3]).all()
    assert json.loads((found.folder / "evaluation.json").read_text())["without_r"] == 3


def test_what_cannot_be_done_is_said_first(data: Path, tmp_path: Path) -> None:
    file = write_encoder(tmp_path)
    with pytest.raises(UsageError, match="--data"):
        evaluate_on_data(file, say=quiet)
    with pytest.raises(DataError, match="does not exist"):
        evaluate_on_data(file, data, out=tmp_path / "no" / "where", say=quiet)
    (tmp_path / "a.json").write_text(json.dumps({"x y": [0, 1], "x-y": [2, 3]}))
    with pytest.raises(UsageError, match="folders"):
        evaluate_on_data(file, data, split=tmp_path / "a.json", say=quiet)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="found a file"):
        evaluate_on_data(file, data, out=tmp_path / "file", say=quiet)
    with pytest.raises(BrainkitError):
        evaluate_on_data(tmp_path / "nothing.onnx", data, say=quiet)


def test_a_folder_that_nothing_can_be_written_into_is_told_first(
    data: Path, tmp_path: Path, read_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.EncoderPredictor, "predict", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(DataError, match="out: "):
        evaluate_on_data(write_encoder(tmp_path), data, out=tmp_path / "out", say=quiet)
    assert not (tmp_path / "out").exists()


def test_another_subject_with_the_same_vertices_is_noted(data: Path, tmp_path: Path) -> None:
    hashes, same = hashes_of(data), open_subject(data).data_hash
    for trained_on, noted in (
        ({"name": "anna", "hash": "0" * 64}, True),
        ({"name": "anna", "hash": same}, False),  # the same data under another name
        ({"name": "data", "hash": "0" * 64}, False),
        ({"name": None}, False),
        ("anna", False),
    ):
        file = write_encoder(tmp_path, image_hashes=hashes, provenance={"data": trained_on})
        found = evaluate_on_data(file, data, say=quiet, **QUICK)
        notes = found.notes["test"]
        assert len(notes) == noted and all("anna" in note and "data" in note for note in notes)
        assert json.loads((found.folder / "evaluation.json").read_text()).get("notes", []) == notes


def test_names_of_sets_stay_in_the_folder(data: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"../../up": [0, 1, 2], "b": [2, 3, 4]}))
    found = evaluate_on_data(write_encoder(tmp_path), data, split=tmp_path / "a.json", say=quiet, **QUICK)
    assert sorted(path.name for path in found.folder.iterdir() if path.is_dir()) == ["-up", "b"]


@pytest.fixture
def run(finished: Any, tmp_path: Path) -> Path:
    """A copy of a finished run on the sample subject."""
    shutil.copytree(finished.path, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.slow
def test_a_run_its_model_and_its_encoder_file_agree(run: Path, tiny_sample: Path, tmp_path: Path) -> None:
    from brainkit.runs.export import export

    exported = export(run, say=quiet)
    options = {"rtol": 0, "atol": 3e-3}  # predictions are kept as float16
    kept = evaluate_on_data(run, say=quiet, **QUICK)
    assert kept.folder == run / "evaluation"
    facts = json.loads((run / "evaluation" / "evaluation.json").read_text())["provenance"]["encoder"]
    assert facts["predictions"] == "kept"
    with np.load(run / "scores.npz") as scores:
        np.testing.assert_allclose(kept.evaluations["test"].r, scores["r"], **options)
    (run / "image_hashes.npz").unlink()  # as runs of earlier versions
    (run / "predictions.npz").unlink()
    again = evaluate_on_data(run, out=tmp_path / "again", say=quiet, **QUICK)
    np.testing.assert_allclose(again.evaluations["test"].r, kept.evaluations["test"].r, **options)
    assert (run / "predictions.npz").is_file() and again.notes == {"test": []}
    assert exported.path == run / "encoder.onnx"
    from_file = evaluate_on_data(exported.path, tiny_sample, out=tmp_path / "file", say=quiet, **QUICK)
    np.testing.assert_allclose(from_file.evaluations["test"].r, kept.evaluations["test"].r, **options)
    with pytest.raises(DataError, match="training"):
        evaluate_on_data(run, split="all", out=tmp_path / "all", say=quiet, **QUICK)
    allowed = evaluate_on_data(
        run, split="validation", allow_training_images=True, out=tmp_path / "v", say=quiet, **QUICK
    )
    assert "in validation" in allowed.notes["validation"][0]
    options = {"allow_training_images": True, "out": tmp_path / "sets", "say": quiet, **QUICK}
    evaluate_on_data(run, split=("test", "all"), **options)
    files = {name: tmp_path / "sets" / name / "evaluation.json" for name in ("test", "all")}
    origin = {name: json.loads(file.read_text())["provenance"] for name, file in files.items()}
    assert [origin[name]["encoder"]["predictions"] for name in files] == ["kept", "computed"]
    assert "--allow-training-images" in origin["all"]["command"]


@pytest.mark.slow
def test_the_file_lists_the_images_of_its_run(run: Path, tiny_sample: Path) -> None:
    from brainkit.data.split import Split
    from brainkit.encoder_file import read
    from brainkit.runs.export import export

    subject, split = open_subject(tiny_sample), Split.read(run / "split.json")
    stored = read(export(run, say=quiet).path).image_hashes
    assert stored is not None
    for side in ("train", "validation", "test"):
        hashes = short_hashes(subject.take(getattr(split, side)).pixel_hashes)
        np.testing.assert_array_equal(stored[side], np.unique(hashes))


def test_a_run_of_kept_predictions_needs_no_torch(run: Path, no_torch: None) -> None:
    assert evaluate_on_data(run, say=quiet, **QUICK).evaluations["test"].n_images == 20


def test_of_data_that_moved_it_leaves_out_what_the_run_left_out(run: Path, tiny_sample: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_sample, tmp_path / "moved")
    min((tmp_path / "moved" / "test_split" / "test_images").iterdir()).write_text("no image")
    with pytest.raises(DataError, match="1 of 20"):
        evaluate_on_data(run, tmp_path / "moved", say=quiet, **QUICK)
    summary = json.loads((run / "run.json").read_text())
    summary["data"]["skipped"] = ["an image"]
    (run / "run.json").write_text(json.dumps(summary))
    assert evaluate_on_data(run, tmp_path / "moved", say=quiet, **QUICK).evaluations["test"].n_images == 19


def test_maps_of_an_evaluation(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("nilearn")
    file = write_encoder(tmp_path, image_hashes=hashes_of(data))
    found = evaluate_on_data(file, data, say=quiet, **{**QUICK, "maps": True})
    figures = sorted(path.name for path in found.folder.glob("*.png"))
    assert figures == ["correlation.png", "explained.png", "significance.png"]
    assert dataclasses.is_dataclass(found)


def test_the_command(data: Path, tmp_path: Path) -> None:
    file = write_encoder(tmp_path, image_hashes=hashes_of(data, train=slice(0, 2)))
    quick = ("--bootstrap", 50, "--permutations", 50, "--no-maps")
    assert "2 of 24" in one_line(call("evaluate", file, "--data", data, *quick), 1)
    assert "nope" in one_line(call("evaluate", file, "--data", data, "--split", "nope", *quick), 2)
    assert "--data" in one_line(call("evaluate", file), 2)
    done = call("evaluate", file, "--data", data, "--allow-training-images", "--out", tmp_path / "out", *quick)
    assert done.exit_code == 0 and "WARNING" in done.stdout
    assert (tmp_path / "out" / "evaluation.csv").is_file()


def test_voxels_are_matched_by_their_place() -> None:
    """Sessions have masks of their own: a column of the encoder and of the data may be other voxels."""
    voxels = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]])

    def columns(rows: list[int], affine: np.ndarray | None = None) -> Any:
        volume = Volume((2, 2, 2), np.eye(4) if affine is None else affine, voxels[rows])
        vertices, rois = Vertices.custom(len(rows)), RoiTable({"A": [len(rows) - 1]}, len(rows))
        return SimpleNamespace(vertices=vertices, volume=volume, rois=rois, root=Path("data"))

    shared = module._shared_vertices(columns([0, 1, 2]), columns([3, 2, 1]))
    assert shared.in_encoder.tolist() == [1, 2]
    assert shared.in_data.tolist() == [2, 1]
    assert shared.rois.to_json() == {"A": [0]}
    with pytest.raises(DataError, match="another affine"):
        module._shared_vertices(columns([0, 1]), columns([0, 1], np.diag([2.0, 1, 1, 1])))
    with pytest.raises(DataError, match="none of them"):
        module._shared_vertices(columns([0]), columns([1]))
