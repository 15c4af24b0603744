"""From a folder of data to an encoder file, as the commands and the Python functions string it together."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import csv
import errno
import importlib.util
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from small_runs import PLUG_IN, SMALL

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")
pytest.importorskip("timm")
pytest.importorskip("nilearn")

import brainkit
from brainkit.cli import group
from brainkit.config import Config
from brainkit.data.splits import Split
from brainkit.errors import BrainkitError, DataError, TrainingError, UsageError
from brainkit.features import extract as features
from brainkit.runs import train as workflow
from brainkit.runs.folder import RunLog, encoder_info, finished_run, load_model, read_maps
from brainkit.runs.latest import latest_run
from brainkit.training import fit as training
from brainkit.utils.files import read_json, write_json

NET = "efficientnet_lite0"


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in an empty folder of its own."""
    place = tmp_path / "work place"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A user's own network."""
    file = tmp_path_factory.mktemp("plug-in") / "net.py"
    file.write_text(PLUG_IN)
    return f"{file}:Colours"


def make_own_data(folder: Path, images: int = 24, vertices: int = 6) -> Path:
    """Images and responses that lie on no known surface; the responses follow the images' colour."""
    draw = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    colours = draw.integers(0, 256, (images, 3), dtype=np.uint8)
    for row, colour in enumerate(colours):
        noise = draw.integers(0, 40, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(folder / "images" / f"{row:03d}.png")
    responses = colours / 128.0 @ draw.standard_normal((3, vertices))
    np.save(folder / "responses.npy", responses.astype(np.float32))
    np.save(folder / "coordinates.npy", draw.uniform(-50, 50, (vertices, 3)).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def own_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_own_data(tmp_path_factory.mktemp("own") / "data")


@pytest.fixture(scope="module")
def finished(tiny_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A run of two epochs on the sample subject: its folder, the one it was made in, what it said."""
    place = tmp_path_factory.mktemp("finished")
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        run = workflow.train(NET, data=tiny_sample, out="run", epochs=2, overrides=SMALL, say=said.append)
    return place / run, place, said


@pytest.fixture(scope="module")
def own_run(net: str, own_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run of a user's network on a user's data."""
    place = tmp_path_factory.mktemp("own run")
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        run = brainkit.fit(net, own_data, out=place / "run", epochs=2, overrides=SMALL, say=said.append)
    return run.path, said


def train(net: str, data: Path, **options: Any) -> Path:
    options = {"out": "run", "epochs": 2, "overrides": SMALL, "say": lambda line: None} | options
    return workflow.train(net, data=data, **options)


def raising(error: BaseException) -> Callable[..., Any]:
    def function(*_: object, **__: object) -> None:
        raise error

    return function


def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("it trained")

    monkeypatch.setattr(training, "fit", unexpected)


# --- a run ------------------------------------------------------------------------------------------------------


def test_the_run_folder_holds_what_the_design_says(finished: tuple[Path, Path, list[str]]) -> None:
    run, place, said = finished
    assert {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()} == {
        *(
            "config.yaml",
            "split.json",
            "metrics.csv",
            "selectors.npz",
            "scores.npz",
            "rois.json",
            "run.json",
            "parity.npz",
        ),
        *("log.txt", "recovery.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt"),
        *(path.relative_to(run).as_posix() for path in run.glob("tensorboard/events.out.tfevents.*")),
        *(f"maps/{name}.png" for name in ("accuracy", "explained", "layer", "location", "scale")),
    }
    assert any(run.glob("tensorboard/*")) == (importlib.util.find_spec("tensorboard") is not None)
    assert latest_run(place / "runs") == run
    log = (run / "log.txt").read_text(encoding="utf-8")
    assert all(line in log for line in said)
    assert "epoch 2/2: loss" in log
    text = "\n".join(said)
    assert "SIMULATED" in text and "recovery of the planted truth" in text and "depth_r" in text


def test_what_is_in_the_run_folder(finished: tuple[Path, Path, list[str]], tiny_sample: Path) -> None:
    run, _, _ = finished
    config = Config.read(run / "config.yaml")
    assert config.data.path == str(tiny_sample.resolve())
    assert (config.train.epochs, config.model.bottleneck, config.backbone.name) == (2, 4, NET)
    split = Split.read(run / "split.json")
    assert len(split.test) == 20 and split.test.min() == 60
    with (run / "metrics.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    with np.load(run / "selectors.npz") as file, np.load(tiny_sample / "truth.npz") as truth:
        for name in ("layer_weights", "locations", "scale", "vertices", "layers"):
            assert file[name].shape == truth[name].shape
        np.testing.assert_array_equal(file["vertices"], truth["vertices"])
        assert file["vertices"].dtype == np.int32
        assert file["layers"].tolist() == truth["layers"].tolist()
    summary = json.loads((run / "run.json").read_text())
    assert summary["backbone"]["layers"] == [f"stage{k}" for k in range(1, 8)]
    assert summary["backbone"]["pretrained"] is True
    assert "SIMULATED" in summary["note"]
    assert summary["gauge"] == "unit"
    assert summary["scores"]["all"]["vertices"] == 60
    assert set(summary["seconds"]) == set(summary["memory"]["phases"]) == {"tokens", "training", "evaluation", "maps"}
    assert summary["tokens"]["images"] == 80 and summary["tokens"]["bytes"] > 80 * 65 * 784  # two bytes a number
    assert summary["training"]["backend"] in ("cpu", "grouped") and summary["training"]["images_per_second"] > 0
    assert set(summary["scores"]["rois"]) == set(json.loads((run / "rois.json").read_text()))
    recovery = json.loads((run / "recovery.json").read_text())
    assert set(recovery["rows"]) == {"depth_r", "depth_within_one", "location_median", "scale_r", "accuracy_share"}


def test_the_model_comes_back_as_it_was_scored(finished: tuple[Path, Path, list[str]], tiny_sample: Path) -> None:
    from brainkit.backbones import load_backbone
    from brainkit.data import Algonauts
    from brainkit.evaluation import scores as evaluation

    run, _, _ = finished
    model, subject = load_model(run), Algonauts(tiny_sample)
    assert not model.training
    tokens = features.extract_tokens(load_backbone(NET), subject.images)
    scores = evaluation.score(model, tokens, subject.responses, Split.read(run / "split.json").test, None)
    with np.load(run / "scores.npz") as file:
        np.testing.assert_allclose(file["r"], scores.r, atol=1e-5)
        np.testing.assert_array_equal(file["noise_ceiling"], subject.noise_ceiling)
    with np.load(run / "selectors.npz") as file:
        np.testing.assert_allclose(file["locations"], model.selectors().locations.detach().numpy(), atol=1e-6)


def test_training_did_not_see_test_images(finished: tuple[Path, Path, list[str]], tiny_sample: Path) -> None:
    # Statistics of tokens and responses come from the training rows alone.
    from brainkit.data import Algonauts

    run, _, _ = finished
    model, split = load_model(run), Split.read(run / "split.json")
    rows = Algonauts(tiny_sample).responses.rows(split.train)
    np.testing.assert_allclose(model.response_mean.numpy(), rows.mean(0), atol=1e-5)
    np.testing.assert_allclose(model.response_std.numpy(), rows.std(0), rtol=1e-4)


def test_maps_are_drawn_again_elsewhere(finished: tuple[Path, Path, list[str]], workplace: Path) -> None:
    said: list[str] = []
    figures = workflow.draw_run(finished[0], out="figures", say=said.append)
    assert sorted(path.name for path in figures) == sorted(path.name for path in Path("figures").iterdir())
    assert len(said) == 1
    with pytest.raises(DataError, match="does not exist"):
        workflow.draw_run(finished[0], out="deep/figures")


# --- own data, own network, export ------------------------------------------------------------------------------


def test_own_data_without_a_surface_trains_and_says_that_there_are_no_maps(own_run: tuple[Path, list[str]]) -> None:
    run, said = own_run
    assert not (run / "maps").exists() and not (run / "recovery.json").exists()
    assert any("no maps drawn" in line for line in said)
    summary = json.loads((run / "run.json").read_text())
    assert (summary["space"], summary["note"], summary["vertices"]) == ("custom", None, 6)
    assert summary["scores"]["official"] is None
    assert latest_run(run.parent / "runs") == run
    with np.load(run / "scores.npz") as file:
        assert np.isnan(file["noise_ceiling"]).all()


def test_export_writes_a_file_that_predicts_what_the_model_does(
    own_run: tuple[Path, list[str]], net: str, own_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from brainkit.backbones import load_backbone
    from brainkit.images import decode, normalise, prepare

    run, _ = own_run
    monkeypatch.chdir(run.parent)
    said: list[str] = []
    exported = workflow.export(out="mine.onnx", say=said.append)  # the newest run
    assert exported.path == Path("mine.onnx") and exported.path.stat().st_size == exported.bytes
    assert "largest difference" in said[-1]
    encoder = brainkit.load("mine.onnx", device="cpu")
    photos = sorted((own_data / "images").iterdir())[:5]
    backbone, model = load_backbone(net), load_model(run)
    pixels = np.stack([prepare(decode(photo), backbone.preprocessing) for photo in photos])
    with torch.inference_mode():
        expected = model(*backbone.get_tokens(torch.from_numpy(normalise(pixels, backbone.preprocessing)))).numpy()
    np.testing.assert_allclose(encoder.predict(photos), expected, atol=1e-4 * expected.std())
    with np.load(run / "scores.npz") as file:
        np.testing.assert_allclose(encoder.info.r, file["r"])
    assert encoder.info.layers == ("fine", "coarse")
    text = json.dumps(encoder.info.provenance)
    assert str(own_data.parent) not in text and own_data.name in text  # the file travels


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_export_writes_several_forms_and_some_vertices(
    own_run: tuple[Path, list[str]], own_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    from brainkit import encoder_file
    from brainkit.runs.verify import verify

    run, _ = own_run
    monkeypatch.chdir(run.parent)
    ids = tmp_path / "ids.txt"
    ids.write_text("4\n1\n")
    said: list[str] = []
    options: dict[str, Any] = {"vertices": ids, "say": said.append}
    done = workflow.export_all(forms=("onnx", "torchscript", "pt2"), target="gpu", **options)
    assert [file.path.name for file in done] == ["encoder-subset.onnx", "encoder-subset.pt", "encoder-subset.pt2"]
    assert said[0].endswith("2 of 6 vertices") and "TorchScript" in said[2]
    photos = sorted((own_data / "images").iterdir())[:3]
    whole = brainkit.load(workflow.export(out="whole.onnx", say=said.append).path, device="cpu")
    expected = whole.predict(photos)[:, [1, 4]]
    np.testing.assert_allclose(brainkit.load(done[0].path).predict(photos), expected, rtol=1e-5)
    for file in done:
        info = encoder_file.read(file.path)
        assert (len(info.vertices), info.form, info.certificate) == (2, "padded", file.certificate)
        assert info.provenance["subset"]["file"] == "ids.txt"
    assert verify(done[2].path, [run]).holds
    single = brainkit.Run.open(run).export("one.pt2", form="pt2", vertices=np.array([3]), say=said.append)
    assert len(encoder_file.read(single.path).vertices) == 1
    (run / "encoder-subset.onnx").unlink()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"forms": ("onnx", "pt2"), "out": "e.onnx"}, "out must be left away for 2 forms"),
        ({"forms": ("pt2",), "out": "e.onnx"}, "e.onnx: the pt2 form must end in .pt2"),
        ({"forms": ("onnx",), "out": "e.pt"}, "e.pt: the onnx form must end in .onnx"),
        ({"forms": ("pickle",)}, "form must be one of onnx, torchscript, pt2, got 'pickle'"),
        ({"target": "tpu"}, "target must be one of cpu, gpu, got 'tpu'"),
        ({"rois": ("V1",)}, "ROI 'V1': unknown"),
        ({"vertices": np.array([6])}, "1 of 1 ids are not among the encoder's 6 vertices of custom, the first is 6"),
    ],
)
def test_export_refuses_what_does_not_fit(own_run: tuple[Path, list[str]], options: dict[str, Any], said: str) -> None:
    before = sorted(own_run[0].iterdir())
    with pytest.raises(UsageError, match=re.escape(said)):
        workflow.export_all(own_run[0], **{"say": print, **options})
    assert sorted(own_run[0].iterdir()) == before


def test_a_network_made_in_python_is_fitted_and_given_again_for_export(
    net: str, own_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brainkit.backbones import load_backbone

    network = load_backbone(net, layers=["coarse"], size=64)
    said: list[str] = []
    run = brainkit.fit(network, own_data, out="run", epochs=1, seed=3, overrides=SMALL, say=said.append)
    assert run.scores == run.summary["scores"]
    assert run.summary["backbone"]["layers"] == ["coarse"] and run.summary["seed"] == 3
    with pytest.raises(DataError, match="other layers or another preprocessing"):
        workflow.export("run")
    given: list[Any] = []
    monkeypatch.setattr(
        "brainkit.export.export_onnx", lambda model, backbone, path, **_: given.append(backbone) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        workflow.export("run", backbone=network)
    assert given == [network]
    with torch.no_grad():
        next(network.network.parameters()).mul_(2)
    network._weights_hash = None
    with pytest.raises(DataError, match="other weights"):
        workflow.export("run", backbone=network)


def test_export_refuses_before_the_work(own_run: tuple[Path, list[str]]) -> None:
    with pytest.raises(DataError, match="does not exist"):
        workflow.export(own_run[0], out="deep/encoder.onnx")
    with pytest.raises(DataError, match="no such run folder"):
        workflow.export("nowhere")
    Path("half").mkdir()
    with pytest.raises(DataError, match="not a finished run"):
        workflow.export("half")
    with pytest.raises(DataError, match="runs/latest"):
        workflow.export()


def test_vertices_without_usable_responses_are_left_out_and_reported(net: str, workplace: Path) -> None:
    data = make_own_data(workplace / "data")
    responses = np.load(data / "responses.npy")
    responses[3, 1], responses[:, 4] = np.nan, 0.5
    np.save(data / "responses.npy", responses)
    said: list[str] = []
    train(net, data, say=said.append)
    assert "1 constant and 1 nan" in "\n".join(said)
    assert json.loads(Path("run/run.json").read_text())["data"]["excluded"] == {"constant": 1, "nan": 1}
    with np.load("run/scores.npz") as file:
        assert file["r"].shape == (4,)


def test_without_data_the_environment_or_the_sample_stands_in(
    net: str, own_data: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAINKIT_DATA", str(own_data))
    said: list[str] = []
    workflow.train(net, out="a", epochs=1, overrides=SMALL, say=said.append)
    assert f"data: {own_data} ($BRAINKIT_DATA)" in said
    assert Config.read("a/config.yaml").data.path == str(own_data.resolve())
    monkeypatch.delenv("BRAINKIT_DATA")
    monkeypatch.setattr("brainkit.sample.default_sample", lambda say: own_data)
    workflow.train(net, out="b", epochs=1, overrides=SMALL, say=said.append)
    assert f"data: none given, so the simulated sample subject ({own_data})" in said


def test_random_weights_are_a_control_that_says_so(
    own_data: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    run = workflow.train(
        "resnet10t",
        data=own_data,
        random_weights=True,
        epochs=1,
        overrides=[*SMALL, "backbone.size=64"],
        say=said.append,
    )
    assert any("RANDOM weights" in line for line in said)
    assert run.parent == Path("runs") and run.name.endswith("-resnet10t")
    assert latest_run().resolve() == run.resolve()
    assert json.loads((run / "run.json").read_text())["backbone"]["pretrained"] is False
    with pytest.raises(UsageError, match="exists already"):
        workflow.train("resnet10t", data=own_data, random_weights=True, say=said.append)


# --- going on ---------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def stop_after(monkeypatch: pytest.MonkeyPatch, epoch: int, error: type[BaseException]) -> Callable[[], None]:
    """Stop training after an epoch; what is returned takes that back."""
    real = training.fit

    def fit(*arguments: Any, on_epoch: Callable[[dict[str, float]], None], **options: Any) -> Path:
        def watch(row: dict[str, float]) -> None:
            on_epoch(row)
            if row["epoch"] == epoch:
                raise error

        return real(*arguments, on_epoch=watch, **options)

    monkeypatch.setattr(training, "fit", fit)
    return lambda: monkeypatch.setattr(training, "fit", real)


def test_going_on_ends_as_going_through(
    net: str, own_data: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(net, own_data, out="through", epochs=3)
    undo = stop_after(monkeypatch, 1, Stop)
    with pytest.raises(Stop):
        train(net, own_data, out="halves", epochs=3)
    undo()
    assert not Path("halves/run.json").exists()
    assert "stopped: Stop" in Path("halves/log.txt").read_text()
    with pytest.raises(UsageError, match="exists already; go on with it by --resume"):
        train(net, own_data, out="halves", epochs=3)
    train(net, own_data, out="halves", epochs=3, resume=True)
    for name in ("selectors.npz", "scores.npz"):
        with np.load(Path("through") / name) as a, np.load(Path("halves") / name) as b:
            assert all(np.array_equal(a[key], b[key], equal_nan=a[key].dtype.kind == "f") for key in a.files)
    with Path("halves/metrics.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]


def test_resume_takes_the_settings_of_the_run(net: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_own_data(workplace / "data")
    undo = stop_after(monkeypatch, 1, Stop)
    with pytest.raises(Stop):
        train(net, Path("data"), seed=5)
    undo()
    with pytest.raises(UsageError, match="other settings"):
        train(net, data, seed=6, resume=True)
    with pytest.raises(UsageError, match="other settings"):
        workflow.train(net, out="run", random_weights=True, resume=True)
    with pytest.raises(UsageError, match=r"backbone\.name was .*Colours', got 'efficientnet_lite0'"):
        train(NET, data, seed=5, resume=True)
    said: list[str] = []
    train(net, Path("data"), seed=5, resume=True, say=said.append)  # a relative place is the same place
    assert Config.read("run/config.yaml").seed == 5
    no_training(monkeypatch)
    assert workflow.train(net, out="run", resume=True, say=said.append) == Path("run")
    assert said[-1] == "run: is complete, nothing to resume"


def test_ctrl_c_while_the_network_looks_at_the_images(
    net: str, own_data: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brainkit.features import extract as features

    real = features.extract_tokens
    monkeypatch.setattr(features, "extract_tokens", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        train(net, own_data, out="stopped", seed=5)
    monkeypatch.setattr(features, "extract_tokens", real)
    # The command that was named says neither the data nor the settings: they are those of the run.
    workflow.train(net, out="stopped", resume=True, say=lambda line: None)
    held = Config.read("stopped/config.yaml")
    assert (held.data.path, held.seed) == (str(own_data.resolve()), 5)
    assert (Path("stopped") / "run.json").is_file()


def test_resume_with_nothing_to_resume(net: str, own_data: Path, workplace: Path) -> None:
    with pytest.raises(UsageError, match="no run to resume"):
        train(net, own_data, out=None, resume=True)
    train(net, own_data, out="new", resume=True)  # stopped before it began: starts over
    assert Path("new/run.json").is_file()
    Path("else").mkdir()
    Path("else/letter.txt").write_text("")
    Path("file").write_text("")
    for place in ("else", "file"):
        with pytest.raises(DataError, match="not a run that can be resumed"):
            train(net, own_data, out=place, resume=True)


def test_resume_notices_other_data(net: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_own_data(workplace / "data")
    undo = stop_after(monkeypatch, 1, Stop)
    with pytest.raises(Stop):
        train(net, data)
    undo()
    (data / "images" / "000.png").rename(data / "images" / "0000.png")
    with pytest.raises(DataError, match=r"split\.json"):
        workflow.train(net, out="run", resume=True)
    (data / "images" / "0000.png").rename(data / "images" / "000.png")
    responses = np.load(data / "responses.npy")
    np.save(data / "responses.npy", responses + 1)
    with pytest.raises(
        DataError, match=r"last\.ckpt: this run was begun with other images or responses \(was \w{12}, "
    ):
        workflow.train(net, out="run", resume=True)
    np.save(data / "responses.npy", responses)
    workflow.train(net, out="run", resume=True)


def test_ctrl_c_says_how_to_go_on(net: str, own_data: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undo = stop_after(monkeypatch, 1, KeyboardInterrupt)
    arguments = ["train", "--backbone", net, "--data", str(own_data), "--out", "run", "--epochs", "2"]
    result = CliRunner().invoke(group, arguments)
    assert result.exit_code == 130
    assert result.stderr.strip() == "brainkit: interrupted"
    command = shlex.split(result.stdout.splitlines()[-1].removeprefix("to go on: "))
    assert command == ["brainkit", "train", "--backbone", net, "--resume", "--out", "run"]
    undo()
    result = CliRunner().invoke(group, command[1:])
    assert result.exit_code == 0, result.output
    assert Path("run/run.json").is_file()


# --- bad input: one line, the right exit code, nothing half-written ---------------------------------------------


def fails(*arguments: object, code: int = 1) -> str:
    result = CliRunner().invoke(group, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("brainkit") and "Traceback" not in result.output and "unexpected" not in line
    return line


def left() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def test_data_that_is_not_there_or_empty(net: str) -> None:
    assert "gone: expected a data folder, found nothing" in fails("train", "--backbone", net, "--data", "gone")
    Path("empty").mkdir()
    assert "found an empty folder" in fails("train", "--backbone", net, "--data", "empty", "--out", "run")
    Path("file").write_text("")
    assert "found a file" in fails("train", "--backbone", net, "--data", "file", "--out", "run")
    assert left() == ["empty", "file"]


def test_images_and_rows_that_do_not_match(net: str, workplace: Path) -> None:
    data = make_own_data(workplace / "data")
    (data / "images" / "003.png").unlink()
    line = fails("train", "--backbone", net, "--data", data, "--out", "run")
    assert "expected 23 rows" in line and "found 24" in line
    assert left() == ["data"]


def test_a_truncated_image(net: str, workplace: Path) -> None:
    data = make_own_data(workplace / "data")
    photo = data / "images" / "007.png"
    photo.write_bytes(photo.read_bytes()[:300])
    assert "007.png" in fails("train", "--backbone", net, "--data", data, "--out", "run")
    assert left() == ["data"]
    from brainkit.utils.files import cache_folder

    assert not [path for path in (cache_folder() / "tokens").iterdir() if path.name.startswith(".")]


def test_responses_that_are_all_nan(net: str, workplace: Path) -> None:
    data = make_own_data(workplace / "data")
    np.save(data / "responses.npy", np.full((24, 6), np.nan, np.float32))
    assert "expected responses that vary" in fails("train", "--backbone", net, "--data", data, "--out", "run")
    assert left() == ["data"]


def test_too_few_groups(net: str, workplace: Path) -> None:
    data = make_own_data(workplace / "data", images=2)
    assert "at least 3 stimulus groups" in fails("train", "--backbone", net, "--data", data, "--out", "run")
    assert left() == ["data"]


def test_an_unknown_network_is_found_out_before_a_sample_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(say: object) -> Path:
        raise AssertionError("it made a sample subject")

    monkeypatch.setattr("brainkit.sample.default_sample", unexpected)
    assert "efficientnet_lite0" in fails("train", "--backbone", "eficientnet_lite0", code=2)
    assert left() == []


def test_layers_that_do_not_exist(net: str, own_data: Path) -> None:
    line = fails("train", "--backbone", net, "--data", own_data, "--set", "backbone.layers=[fine, finer]", code=2)
    assert "finer" in line and "coarse" in line
    assert left() == []


def test_settings_that_are_refused(net: str, own_data: Path) -> None:
    fixed = ("train", "--backbone", net, "--data", own_data, "--out", "run")
    assert "did you mean 'epochs'" in fails(*fixed, "--set", "train.epoch=3", code=2)
    assert "cannot be read" in fails(*fixed, "--config", "gone.yaml")
    if not torch.cuda.is_available():
        assert "device 'cuda' is not here" in fails(*fixed, "--set", "train.device=cuda", code=2)
    assert left() == []


def test_an_output_that_cannot_be_made(net: str, own_data: Path) -> None:
    Path("file").write_text("")
    assert "file/run" in fails("train", "--backbone", net, "--data", own_data, "--out", "file/run").replace("\\", "/")
    assert "exists already" in fails("train", "--backbone", net, "--data", own_data, "--out", "file", code=2)
    assert left() == ["file"]


def test_a_full_disk_while_tokens_are_kept(net: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_own_data(workplace / "data", images=20)
    monkeypatch.setenv("BRAINKIT_CACHE", str(workplace / "cache"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("brainkit.features.shard.ShardWriter.add", full)
    line = fails("train", "--backbone", net, "--data", data, "--out", "run")
    assert "No space left on device" in line and "cache" in line
    assert left() == ["cache", "data"]
    assert not list(Path("cache/tokens").glob("*/*.shard"))


def test_a_device_that_is_not_here_or_too_small(net: str, own_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = ("train", "--backbone", net, "--data", own_data)
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    for device in (device for device, there in here.items() if not there):
        line = fails(*fixed, "--set", f"train.device={device}", code=2)
        assert f"device '{device}' is not here; found: " in line and "cpu" in line
    cpu = (*fixed, "--set", "train.device=cpu")
    line = fails(*cpu, "--set", "train.cuda_graph=on", code=2)
    assert "train.cuda_graph 'on' cannot be had: a CUDA graph needs a GPU of NVIDIA, and this is cpu" in line
    assert left() == []
    line = fails(*cpu, "--out", "large", "--set", "model.bottleneck=10000000000000", code=2)
    assert "a model of 10000000000000 bottleneck channels" in line and "lower model.bottleneck" in line
    assert left() == []
    monkeypatch.setattr("brainkit.training.batch_source.free_memory", lambda device: 10_000)
    line = fails(*cpu, "--out", "full", "--set", "train.residency=device", code=2)
    assert "train.residency 'device' does not fit: tokens " in line


def test_tokens_that_run_out_of_memory(net: str, own_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has a total capacity of")

    monkeypatch.setattr(features, "extract_tokens", full)
    line = fails("train", "--backbone", net, "--data", own_data, "--out", "run")
    assert "running the backbone ran out of memory of the GPU (asked for 9.00 GiB); choose a smaller" in line
    assert left() == []


def test_where_and_how_to_compute_may_change_on_the_way(
    net: str, own_data: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo = stop_after(monkeypatch, 1, Stop)
    with pytest.raises(Stop):
        train(net, own_data, epochs=2)
    undo()
    said: list[str] = []
    changed = ["train.residency=host", "train.save_minutes=1", "train.cuda_graph=off"]
    workflow.train(net, out="run", resume=True, overrides=changed, say=said.append)
    (place,) = (line for line in said if line.startswith("going on after step "))
    assert place.endswith(": 1 epochs and 0 steps of the next are done")
    (memory,) = (line for line in said if line.startswith("memory: "))
    assert "stay on the disk, mapped (as asked)" in memory
    assert Config.read("run/config.yaml").train.residency == "host"


def test_a_loss_that_is_no_number(net: str, own_data: Path) -> None:
    line = fails(
        *("train", "--backbone", net, "--data", own_data, "--out", "run", "--epochs", "2"),
        *("--set", "train.lr_weight=1e30", "--set", "train.lr_bottleneck=1e30"),
    )
    assert "no longer finite at step" in line
    assert not Path("run/run.json").exists() and not Path("runs").exists()


def test_a_newest_run_that_is_missing(own_data: Path) -> None:
    for command in (["export"], ["map"], ["predict", own_data / "images", "--out", "fmri.npy"]):
        assert "runs/latest" in fails(*command).replace("\\", "/")
    assert left() == []


def test_a_run_whose_parts_are_gone(own_run: tuple[Path, list[str]], workplace: Path) -> None:
    run = Path(shutil.copytree(own_run[0], "copy"))
    assert finished_run(run)[1]["vertices"] == 6
    (run / "checkpoints" / "best.ckpt").unlink()
    assert "best.ckpt" in fails("export", run)
    (run / "run.json").unlink()
    assert "not a finished run" in fails("export", run)


def test_constant_selectors_fail_the_run(tiny_sample: Path) -> None:
    # With hardly a step taken the selectors still stand at their start: the same everywhere.
    rates = ("train.lr_selectors=1e-30", "train.lr_weight=1e-30", *SMALL)
    with pytest.raises(TrainingError, match="the selectors are constant"):
        workflow.train(NET, data=tiny_sample, out="run", epochs=1, overrides=rates, say=lambda line: None)
    assert not Path("run/run.json").exists() and not Path("runs").exists()


def test_export_refuses_a_network_whose_code_has_changed(net: str, own_data: Path, workplace: Path) -> None:
    train(net, own_data)
    file = Path(net.rpartition(":")[0])
    program = file.read_text()
    try:
        file.write_text(program.replace("torch.relu(", "torch.sigmoid("))
        with pytest.raises(DataError, match=r"Colours predicts otherwise now than when the run was trained"):
            workflow.export("run")
    finally:
        file.write_text(program)
    assert not Path("run/encoder.onnx").exists()
    workflow.export("run")
    assert Path("run/encoder.onnx").is_file()


def test_export_needs_neither_the_data_nor_the_folder_of_the_run(
    net: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_own_data(workplace / "data")
    train(net, Path("data"))
    data.rename(workplace / "gone")
    (workplace / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert workflow.export("../run").path.is_file()


def test_settings_may_change_while_nothing_was_trained(
    net: str, own_data: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", raising(Stop()))
        with pytest.raises(Stop):
            train(net, own_data, seed=5)
    train(net, own_data, seed=6, resume=True)
    assert Config.read("run/config.yaml").seed == 6


def test_a_backend_that_cannot_run_leaves_no_folder(net: str, own_data: Path, workplace: Path) -> None:
    with pytest.raises(BrainkitError, match=r"model\.backend 'triton' cannot run here"):
        workflow.train(net, data=own_data, out="run", overrides=["model.backend=triton"])
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("train.cuda_graph=on", "train.cuda_graph 'on' cannot be had: a CUDA graph needs"),
        ("model.bottleneck=1000000000000", "a model of 1000000000000 bottleneck channels .* lower model.bottleneck"),
        ("model.selector_width=100000000", "needs more than .* GB to be trained"),
    ],
)
def test_what_cannot_be_had_leaves_no_folder(
    net: str, own_data: Path, workplace: Path, setting: str, line: str
) -> None:
    with pytest.raises(UsageError, match=line):
        train(net, own_data, overrides=[setting, "train.device=cpu"])
    assert not Path("run").exists()


def test_what_was_stopped_after_its_results_is_finished(net: str, tiny_sample: Path, workplace: Path) -> None:
    train(net, tiny_sample)
    shutil.rmtree("run/maps")
    Path("runs/latest").unlink()
    workflow.train(net, out="run", resume=True)
    assert Path("run/maps/layer.png").is_file()
    assert latest_run() == Path("run") or latest_run().samefile("run")


def test_what_was_stopped_while_maps_were_drawn_is_finished(net: str, tiny_sample: Path, workplace: Path) -> None:
    train(net, tiny_sample)
    summary = read_json("run/run.json")
    Path("run/maps/layer.png").unlink()
    phases = summary.pop("seconds")
    write_json(
        "run/run.json", {**summary, "seconds": {"training": phases["training"]}, "memory": summary.pop("memory")}
    )
    said: list[str] = []
    workflow.train(net, out="run", resume=True, say=said.append)
    assert said == ["run: is complete, nothing to resume"]  # whoever removed a figure may have meant it
    write_json("run/run.json", {**summary, "seconds": {"training": phases["training"]}})
    workflow.train(net, out="run", resume=True, say=said.append)
    assert Path("run/maps/layer.png").is_file()
    done = read_json("run/run.json")
    assert done["seconds"].keys() == {"training", "maps"}
    assert done["memory"]["phases"].keys() == {"maps"}
    assert any(line.startswith("test scores on") for line in said)


def test_two_at_once_in_one_folder(net: str, own_data: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undo = stop_after(monkeypatch, 1, Stop)
    with pytest.raises(Stop):
        train(net, own_data)
    undo()
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    with RunLog(print) as log:
        log.into(Path("run/log.txt"))  # as the other one does
        with pytest.raises(UsageError, match="run: another process is at work in it"):
            workflow.train(net, out="run", resume=True)
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before
    workflow.train(net, out="run", resume=True)  # the lock has gone with whoever held it


def test_a_folder_that_another_one_made_meanwhile(
    net: str, own_data: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "_refuse", lambda folder: folder.mkdir())
    with pytest.raises(UsageError, match="run: exists already"):
        train(net, own_data)
    assert not any(Path("run").iterdir())


def test_figures_and_file_say_that_the_network_was_never_trained(finished: tuple[Path, Path, list[str]]) -> None:
    run, summary = finished_run(finished[0])
    assert read_maps(run, summary)["note"] == summary["note"]
    summary["backbone"]["pretrained"] = False
    assert read_maps(run, summary)["note"] == f"{summary['note']}; network with RANDOM weights"
    summary["note"] = None
    assert encoder_info(run, summary, load_model(run)).note == "network with RANDOM weights"
