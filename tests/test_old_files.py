"""Files of earlier versions still open, and give the same numbers: runs, checkpoints, encoder files, token caches.

``tests/data/brainkit-0.1.0`` holds what brainkit 0.1.0 wrote; ``make_brainkit_0_1_0.py`` next to it says how.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import brainkit
from brainkit import predict

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")
pytest.importorskip("timm")

FILES = Path(__file__).resolve().parent / "data" / "brainkit-0.1.0"
# Thread counts and instruction sets change the last bits of sums.
SAME = {"rtol": 0, "atol": 1e-4}


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files whose two settings that hold absolute paths point into the copy."""
    folder = tmp_path / "old"
    shutil.copytree(FILES, folder)
    for run in ("run", "stopped"):
        config = folder / run / "config.yaml"
        text = re.sub(
            r"(?m)^(  name: ).*network\.py:Network$", rf"\g<1>{folder}/network.py:Network", config.read_text()
        )
        config.write_text(re.sub(r"(?m)^(  path: ).*/subject$", rf"\g<1>{folder}/subject", text))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("file", "tolerance"), [("encoder", 1e-5), ("gpu", 1e-5), ("float16", 2e-3), ("int8", 0.1), ("subset", 1e-5)]
)
def test_encoder_files_predict_the_same(old: Path, file: str, tolerance: float) -> None:
    encoder = brainkit.load(old / "encoders" / f"{file}.onnx", "cpu")
    expected = np.load(old / "encoders" / "predictions.npy")
    if file == "subset":
        expected = expected[:, brainkit.load(old / "encoders" / "encoder.onnx", "cpu").rois.members("V1")]
    np.testing.assert_allclose(encoder.predict(old / "subject" / "images"), expected, rtol=0, atol=tolerance)
    assert encoder.info.certificate and encoder.info.provenance["seed"] == 1


def test_an_ensemble_predicts_the_same(old: Path) -> None:
    encoder = brainkit.load(old / "encoders" / "ensemble.onnx", "cpu")
    mean, sd = encoder.predict_with_spread(old / "subject" / "images")
    np.testing.assert_allclose(mean, np.load(old / "encoders" / "ensemble_predictions.npy"), rtol=0, atol=1e-5)
    np.testing.assert_allclose(sd, np.load(old / "encoders" / "ensemble_sd.npy"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("file", ["encoder.pt", "encoder.pt2"])
def test_torch_files_say_what_they_are(old: Path, file: str) -> None:
    from brainkit import encoder_file

    info = encoder_file.read(old / "encoders" / file)
    assert len(info.vertices) == 20 and info.container in ("torchscript", "pt2")


def test_an_interrupted_prediction_resumes_to_the_same_bytes(old: Path) -> None:
    folder = old / "partial"
    state = folder / ".fmri.npy.partial" / "state.json"
    held = json.loads(state.read_text())
    # The only part that holds absolute paths and times of change.
    held["images"] = predict.list_images([folder / "images.txt"]).digest
    state.write_text(json.dumps(held))
    before = (folder / ".fmri.npy.partial" / "fmri.npy").stat().st_size
    result = predict.predict_to_file(
        [folder / "images.txt"], folder / "fmri.npy", old / "encoders" / "encoder.onnx", device="cpu"
    )
    assert result.n == 24 and [Path(path).name for path, _ in result.skipped] == ["broken.png"]
    assert before > 0 and not state.exists()
    assert result.description == folder / "fmri.npy.json" and result.description.is_file()
    np.testing.assert_allclose(np.load(folder / "fmri.npy"), np.load(folder / "expected.npy"), rtol=0, atol=1e-5)


def test_predictions_are_drawn_from_the_description_of_that_time(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from brainkit import encoder_file
    from brainkit.maps import draw_predictions

    monkeypatch.setattr(draw_predictions, "draw_pixels", lambda *_: np.zeros((2, 2, 3), np.uint8))
    shutil.copy(old / "encoders" / "predictions.npy", old / "encoders" / "fmri.npy")  # described in fmri.json
    info = encoder_file.read(old / "encoders" / "encoder.onnx")
    images = sorted((old / "subject" / "images").iterdir())
    drawn = draw_predictions.draw_prediction_file(
        old / "encoders" / "fmri.npy", info, old / "figures", images=images, max_maps=3
    )
    assert [path.name for path in drawn] == ["0000-00.png", "0001-01.png", "0002-02.png"]


def test_a_token_cache_is_found(old: Path) -> None:
    """The store's key is recomputed: nothing that enters it may change."""
    from brainkit.features import extract_tokens

    backbone = brainkit.load_backbone("network.py:Network")
    images = brainkit.data.open_subject(old / "subject").images
    tokens = extract_tokens(backbone, images, grid=(4, 4), cache=old / "tokens")
    assert tokens.extracted == 0 and len(list((old / "tokens").iterdir())) == 1


@pytest.mark.slow
def test_a_finished_run_opens_and_exports(old: Path) -> None:
    run = brainkit.Run.open(old / "run")
    assert run.scores["all"]["vertices"] == 20 and run.selectors["layer_weights"].shape == (20, 2)
    exported = run.export(old / "again.onnx", say=lambda line: None)
    found = brainkit.load(exported.path, "cpu").predict(old / "subject" / "images")
    np.testing.assert_allclose(found, np.load(old / "encoders" / "predictions.npy"), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_stopped_run_resumes_as_it_would_have(old: Path) -> None:
    """Stopped at step 6 of 12, within the second of three epochs; the best epoch comes after it."""
    run = brainkit.fit(f"{old}/network.py:Network", out=old / "stopped", resume=True, say=lambda line: None)
    for found, expected in zip(rows(run.path / "metrics.csv"), rows(old / "resumed_metrics.csv"), strict=True):
        assert found == pytest.approx(expected, abs=1e-4)
    exported = run.export(say=lambda line: None)
    fmri = brainkit.load(exported.path, "cpu").predict(old / "subject" / "images")
    np.testing.assert_allclose(fmri, np.load(old / "resumed_predictions.npy"), **SAME)


def test_a_stopped_run_resumes_with_its_file_of_settings(old: Path) -> None:
    from brainkit.runs.settings import Overrides, resumed_settings

    Path("mine.yaml").write_text((old / "stopped" / "config.yaml").read_text())  # what was given at its start
    settings = resumed_settings(old / "stopped", Overrides(config="mine.yaml"))
    assert (settings.model.offsets, settings.train.refit) == ((), False)


def test_controls_of_an_old_run_are_trained_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from brainkit.runs import baselines

    class Asked(Exception):
        pass

    def compute(baseline: object, work: Any) -> None:
        settings = work.recipe.settings
        raise Asked(settings.model.offsets, settings.train.refit)

    brainkit.evaluate_on_data("run", bootstrap=0, permutations=0, maps=False, say=str)
    monkeypatch.setattr(baselines, "compute", compute)
    with pytest.raises(Asked) as asked:
        baselines.compute_baselines(old / "run", ["no-layer-selector"], say=str)
    assert asked.value.args == ((), False)


def rows(file: Path) -> list[dict[str, float]]:
    """The table of epochs without its seconds."""
    with file.open(newline="") as stream:
        return [
            {name: float(value) for name, value in row.items() if name != "seconds"} for row in csv.DictReader(stream)
        ]


def test_old_runs_and_encoder_files_are_evaluated(old: Path) -> None:
    options = {"bootstrap": 0, "permutations": 0, "maps": False, "say": str}
    run = brainkit.evaluate_on_data("run", **options)
    with np.load("run/scores.npz") as scores:
        np.testing.assert_allclose(run.evaluations["test"].r, scores["r"], atol=5e-3)
    assert run.notes == {"test": []}  # its split says what it was trained on
    assert Path("run/predictions.npz").is_file()
    file = brainkit.evaluate_on_data("encoders/encoder.onnx", "subject", **options)
    assert "cannot be known" in file.notes["test"][0]
