"""A run of several subjects: a folder for each, tokens extracted once, encoders, and resuming."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from small_runs import PLUG_IN, SMALL

import brainkit
from brainkit.cli import group
from brainkit.config import Config, DataConfig
from brainkit.data.split import Split
from brainkit.errors import DataError, EncoderFileError, UsageError
from brainkit.runs.folder import finished_run, load_model, run_folders
from brainkit.runs.latest import default_encoder, latest_run, name_latest
from brainkit.runs.subjects import subject_folder_names
from brainkit.runs.train import train


def make_subject(folder: Path, images: list[int], vertices: int, seed: int) -> Path:
    """Own data: image number k is the same file for every subject that has it."""
    (folder / "images").mkdir(parents=True)
    colours = np.random.default_rng(0).integers(0, 256, (100, 3), dtype=np.uint8)
    for k in images:
        noise = np.random.default_rng(k).integers(0, 40, (20, 20, 3), dtype=np.uint8)
        shown = np.clip(noise.astype(int) + colours[k], 0, 255).astype(np.uint8)
        Image.fromarray(shown).save(folder / "images" / f"{k:03d}.png")
    draw = np.random.default_rng(seed)
    responses = colours[sorted(images)] / 128.0 @ draw.standard_normal((3, vertices))
    np.save(folder / "responses.npy", responses.astype(np.float32))
    np.save(folder / "coordinates.npy", draw.uniform(-50, 50, (vertices, 3)).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two subjects of the same name who share twelve images, and a network."""
    folder = tmp_path_factory.mktemp("joint")
    make_subject(folder / "a" / "subject", list(range(24)), 6, seed=1)
    make_subject(folder / "b" / "subject", list(range(12, 30)), 4, seed=2)
    (folder / "net.py").write_text(PLUG_IN)
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> tuple[brainkit.Run, list[str]]:
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        data = [place / "a" / "subject", place / "b" / "subject"]
        found = brainkit.fit("net.py:Colours", data, out="both", epochs=4, overrides=SMALL, say=said.append)
        return brainkit.Run.open(found.path / "subject"), said


@pytest.fixture(autouse=True)
def _workplace(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    if (place / "both" / "run.json").is_file():
        name_latest(place / "both")  # other tests train here too


def test_each_subject_has_a_run_of_its_own(run: tuple[brainkit.Run, list[str]], place: Path) -> None:
    both = place / "both"
    assert latest_run() == Path("runs") / both
    assert [path.name for path in run_folders(both)] == ["subject", "subject-2"]
    assert {path.name for path in both.iterdir()} >= {
        "config.yaml",
        "log.txt",
        "metrics.csv",
        "checkpoints",
        "run.json",
    }
    assert Config.read(both / "config.yaml").data.paths == tuple(str(place / k / "subject") for k in "ab")
    for name, letter, vertices in (("subject", "a", 6), ("subject-2", "b", 4)):
        folder, summary = finished_run(both / name)
        assert {path.name for path in folder.iterdir()} >= {
            *("config.yaml", "split.json", "rois.json", "run.json"),
            *("selectors.npz", "scores.npz", "predictions.npz", "parity.npz"),
        }
        settings = Config.read(folder / "config.yaml").data
        assert settings.path == str(place / letter / "subject") and not settings.paths
        assert summary["vertices"] == vertices and len(summary["trained_with"]) == 1
    summary = json.loads((both / "run.json").read_text())
    assert summary["subjects"] == ["subject", "subject-2"] and set(summary["scores"]) == set(summary["subjects"])
    again = brainkit.api.Run(both, summary)
    assert {name: one.path for name, one in again.subjects.items()} == {n: both / n for n in summary["subjects"]}
    for ask in (lambda: again.selectors, again.model, again.export, lambda: brainkit.Run.open(both)):
        with pytest.raises(DataError, match=r"both: is a run of 2 subjects; .*both/subject, .*-2$"):
            ask()


def test_shared_images_pass_the_network_once_and_lie_on_the_same_side(
    run: tuple[brainkit.Run, list[str]], place: Path
) -> None:
    _, said = run
    assert any("tokens of 24 images: 0 in the cache, 24 to extract" in line for line in said)
    assert any("12 in the cache, 6 to extract" in line for line in said)
    known: dict[str, str] = {}
    for name, letter in (("subject", "a"), ("subject-2", "b")):
        images = sorted(path.name for path in (place / letter / "subject" / "images").iterdir())
        split = Split.read(place / "both" / name / "split.json", names=images)
        for side in ("train", "validation", "test"):
            for row in getattr(split, side):
                assert known.setdefault(images[row], side) == side
    assert len(known) == 30


def test_encoders_predict_what_the_joint_model_does(run: tuple[brainkit.Run, list[str]], place: Path) -> None:
    from brainkit.backbones import load_backbone
    from brainkit.features.extract import extract_tokens

    result = CliRunner().invoke(group, ["export", "--onnx", "--out", "one.onnx"])
    assert result.exit_code == 2 and "2 subjects" in result.stderr
    result = CliRunner().invoke(group, ["export", "--onnx"], catch_exceptions=False)
    assert result.exit_code == 0 and result.output.count("torch against ONNX Runtime") == 2
    state = torch.load(place / "both" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    models = [load_model(place / "both" / name) for name in ("subject", "subject-2")]
    shared = "local_token_bottleneck.fine.weight"
    assert torch.equal(state[f"model.subjects.0.{shared}"], models[1].state_dict()[shared])
    for k, (model, letter) in enumerate(zip(models, "ab", strict=True)):
        assert torch.equal(state[f"model.subjects.{k}.weight"], model.weight)
        images = sorted((place / letter / "subject" / "images").iterdir())[-5:]
        tokens = extract_tokens(load_backbone("net.py:Colours"), images)
        with torch.inference_mode():
            expected = model(*tokens.batch(np.arange(5))).numpy()
        encoder = brainkit.load(run_folders("both")[k] / "encoder.onnx")
        np.testing.assert_allclose(encoder.predict(images), expected, atol=2e-2 * expected.std())
    with pytest.raises(EncoderFileError, match=r"both: has 2 encoder files; name one of them: .*encoder\.onnx,"):
        default_encoder(print)


def test_a_joint_run_is_resumed(run: tuple[brainkit.Run, list[str]], place: Path, tmp_path: Path) -> None:
    said: list[str] = []
    options: dict[str, Any] = {"out": tmp_path / "again", "overrides": SMALL, "say": said.append, "resume": True}
    shutil.copytree(place / "both", tmp_path / "again")
    train("net.py:Colours", **options)
    assert said[-1].endswith("is complete, nothing to resume")
    (tmp_path / "again" / "run.json").unlink()
    (tmp_path / "again" / "subject-2" / "run.json").unlink()
    before = (tmp_path / "again" / "subject-2" / "selectors.npz").read_bytes()
    train("net.py:Colours", **options)
    assert (tmp_path / "again" / "run.json").is_file()
    with (
        np.load(tmp_path / "again" / "subject-2" / "selectors.npz") as now,
        np.load(place / "both" / "subject-2" / "selectors.npz") as held,
    ):
        assert before and all(np.array_equal(now[name], held[name]) for name in held.files)
    with pytest.raises(UsageError, match=r"data\.path"):
        train("net.py:Colours", data=place / "a" / "subject", **options)


def test_data_of_several_subjects_in_the_settings() -> None:
    with pytest.raises(UsageError, match="path and paths exclude each other"):
        DataConfig(path="a", paths=("b", "c"))
    with pytest.raises(UsageError, match="at least two subjects"):
        DataConfig(paths=("a",))
    with pytest.raises(UsageError, match="different subjects, got a twice"):
        DataConfig(paths=("a", "b", "a"))
    with pytest.raises(DataError, match=r"gone: expected a data folder, found nothing"):
        train("net.py:Colours", data=["a/subject", "gone"], out="never", say=print)
    assert not Path("never").exists()


def test_folders_have_different_names() -> None:
    assert subject_folder_names(["subj01", "subj02"]) == ["subj01", "subj02"]
    assert subject_folder_names(["s", "S", "s", "maps", "s-2"]) == ["s", "S-2", "s-3", "maps-2", "s-2-2"]
