"""The command line: exit codes, one line per failure, options passed through, nothing heavy loaded for nothing."""

from __future__ import annotations

import errno
import importlib
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import brainkit
from brainkit import cli, doctor, encoder_file
from brainkit.cli import COMMANDS, group
from brainkit.cortex.surface import RoiTable, Vertices
from brainkit.encoder_file import EncoderInfo
from brainkit.encoder_file.describe import describe
from brainkit.encoder_file.licence import citation, data_kind, licence_words, three_parts
from brainkit.errors import BrainkitError, DataError, MissingDependency, UsageError
from brainkit.images import PUBLISHED
from brainkit.runs import latest as runs
from brainkit.utils.files import write_json

COMMAND_LINE = [sys.executable, "-c", "from brainkit.cli import main; main()"]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(group, [str(argument) for argument in arguments])


def one_line(result: Result, code: int) -> str:
    """Check that a command failed as it must, and give its line."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("brainkit")
    return lines[0]


# --- help and speed ---------------------------------------------------------------------------------------------


def test_help_lists_every_command_and_every_command_has_an_example() -> None:
    text = call("--help").stdout.partition("Commands:")[2]
    positions = [text.index(f"\n  {name} ") for name in COMMANDS]
    assert positions == sorted(positions)
    for name in COMMANDS:
        result = call(name, "--help")
        assert result.exit_code == 0
        assert re.search(rf"Examples?:\n(.*\n)*    brainkit {name}", result.stdout)


def test_every_command_file_is_in_the_table() -> None:
    folder = Path(cli.__file__).parent
    shared = {"values"}  # what several commands read
    assert {path.stem for path in folder.glob("[a-z]*.py")} - shared == {cli.module_of(name) for name in COMMANDS}


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; from brainkit.cli import group\n"
        "try: group.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert not loaded & {"torch", "onnxruntime", "numpy", "PIL", "rich", "nibabel", "nilearn", "matplotlib", "timm"}


def test_info_and_its_kin_open_no_session(tmp_path: Path) -> None:
    write_encoder(tmp_path / "encoder.onnx")
    program = (
        "import sys; from brainkit.cli import group\n"
        "try: group.main(['info', sys.argv[1]])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "encoder.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not set(done.stderr.split()) & {"torch", "onnxruntime", "onnx", "nilearn", "matplotlib"}


def test_version() -> None:
    assert call("--version").stdout == f"brainkit {brainkit.__version__}\n"


def test_bare_command_shows_help_and_is_a_usage_error() -> None:
    result = call()
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Commands:" in result.stderr


# --- usage errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trian"], "did you mean train?"),
        (["zzzzz"], "the commands are train, export"),
        (["train", "--bakbone", "dinov2"], "--backbone"),
        (["train"], "--backbone"),
        (["train", "--backbone", "x", "--epochs", "0"], "--epochs"),
        (["train", "--backbone", "x", "--epochs", "many"], "--epochs"),
        (["train", "--backbone", "x", "--weights", "w.pt", "--random-weights"], "exclude each other"),
        (["predict", "photos"], "--out"),
        (["predict", "--out", "fmri.npy"], "IMAGES"),
        (["predict", "photos", "--out", "fmri.npy", "--device", "tpu"], "'cuda'"),
        (["predict", "photos", "--out", "fmri.npy", "--max-maps", "0"], "--max-maps"),
        (["export", "--torchscrpt"], "--torchscrpt"),
        (["export", "--target", "tpu"], "'gpu'"),
        (["sample"], "DIR"),
        (["info"], "FILE"),
        (["doctor", "now"], "now"),
        (["--verson"], "--version"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(arguments: list[str], expected: str) -> None:
    line = one_line(call(*arguments), 2)
    assert expected in line
    assert "--help)" in line


# --- failures ---------------------------------------------------------------------------------------------------


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def command() -> None:
        raise error

    monkeypatch.setattr(importlib.import_module("brainkit.cli.doctor"), "command", click.command("doctor")(command))


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (BrainkitError("no luck"), 1, "brainkit: no luck"),
        (BrainkitError("two\n  lines"), 1, "brainkit: two lines"),
        (BrainkitError("red\x1b[31m.png"), 1, r"brainkit: red\x1b[31m.png"),
        (UsageError("bad name"), 2, "brainkit: bad name"),
        (DataError("x.npy: expected 3, found 4"), 1, "brainkit: x.npy: expected 3, found 4"),
        (MissingDependency("install it"), 1, "brainkit: install it"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch.nn"),
            1,
            "brainkit: this needs torch, which is not installed: pip install 'brainkit[train]'",
        ),
        (KeyboardInterrupt(), 130, "brainkit: interrupted"),
        (MemoryError(), 1, "brainkit: out of memory; try a smaller batch size or fewer vertices"),
        (OSError(errno.ENOSPC, "No space left on device", "a.npy"), 1, "brainkit: a.npy: no space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "b.npy"), 1, "brainkit: b.npy: permission denied"),
        (
            ValueError("odd\nthing"),
            1,
            "brainkit: unexpected ValueError: odd thing (run again with BRAINKIT_DEBUG=1 for the traceback)",
        ),
        (
            AssertionError(),
            1,
            "brainkit: unexpected AssertionError (run again with BRAINKIT_DEBUG=1 for the traceback)",
        ),
    ],
)
def test_a_failure_is_one_line_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, expected: str
) -> None:
    monkeypatch.delenv("BRAINKIT_DEBUG", raising=False)
    fail_with(monkeypatch, error)
    result = call("doctor")
    assert result.exit_code == code
    assert result.stderr.strip() == expected
    assert result.stdout == ""


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINKIT_DEBUG", "1")
    fail_with(monkeypatch, BrainkitError("no luck"))
    assert isinstance(call("doctor").exception, BrainkitError)


def test_a_reader_that_goes_away_is_no_failure_to_talk_about(tmp_path: Path) -> None:
    with subprocess.Popen([*COMMAND_LINE, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        said = child.stderr.read()
    assert said == b""
    assert child.returncode == 1


def test_a_file_name_the_terminal_cannot_write_is_escaped(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [*COMMAND_LINE, "info", str(tmp_path / "größe.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("brainkit: ")
    assert "Traceback" not in done.stderr


# --- SIGTERM ----------------------------------------------------------------------------------------------------

no_sigterm = pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")

SLOW_PREDICT = """
import time
from types import SimpleNamespace
from brainkit import encoder_file
from brainkit.cli import main
from brainkit.predict import Encoder, to_file

def run(self, batch, columns=None):
    print("working", flush=True)
    time.sleep(60)

session = SimpleNamespace(device="cpu", break_off=lambda thread: None)
to_file.load = lambda path, device: Encoder(path, encoder_file.read(path), session)
Encoder.run = run
main()
"""

TINY_NETWORK = """
import torch

class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 4, 32, 32)

    def get_tokens(self, images):
        tokens = self.patches(images)
        return {"patches": tokens}, {"patches": tokens.mean((2, 3))}
"""


def hidden_files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


def stop(child: subprocess.Popen[str], *, times: int = 1) -> str:
    """Send SIGTERM, and give what the child wrote to standard error."""
    for _ in range(times):
        child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=60)
    return said


@no_sigterm
@pytest.mark.parametrize("times", [1, 2])
def test_predict_that_is_terminated_leaves_nothing_half_written(tmp_path: Path, times: int) -> None:
    write_encoder(tmp_path / "encoder.onnx")
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    command = [
        sys.executable,
        "-c",
        SLOW_PREDICT,
        *["predict", "a.png", "--out", "fmri.npy", "--encoder", "encoder.onnx"],
    ]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "working\n"
        assert hidden_files(tmp_path)
        assert stop(child, times=times) == "brainkit: stopped by SIGTERM\n"
    assert child.returncode == 143
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "encoder.onnx"]


@no_sigterm
def test_train_that_is_terminated_says_so_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("pytorch_lightning")
    draw = np.random.default_rng(0)
    (tmp_path / "data" / "images").mkdir(parents=True)
    for row in range(12):
        pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "images" / f"{row:02d}.png")
    np.save(tmp_path / "data" / "responses.npy", draw.standard_normal((12, 5)).astype(np.float32))
    np.save(tmp_path / "data" / "coordinates.npy", draw.uniform(-50, 50, (5, 3)).astype(np.float32))
    (tmp_path / "net.py").write_text(TINY_NETWORK)
    options = "train --backbone net.py:Tiny --data data --out run --epochs 1000000 --set train.device=cpu"
    command = [*COMMAND_LINE, *options.split()]
    log = tmp_path / "said.txt"
    with (
        log.open("w") as said,
        subprocess.Popen(command, cwd=tmp_path, stdout=said, stderr=subprocess.PIPE, text=True) as child,
    ):
        last = tmp_path / "run" / "checkpoints" / "last.ckpt"
        until = time.monotonic() + 120
        while not last.exists() and child.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        errors = stop(child)
    assert last.exists(), errors
    assert child.returncode == 1
    assert len(errors.splitlines()) == 1, errors
    assert re.fullmatch(
        r"brainkit: stopped by SIGTERM; step \d+ of 1000000 is saved in run/checkpoints/last.ckpt\n", errors
    )
    assert (
        log.read_text().splitlines()[-1].startswith(f"to go on: brainkit train --backbone {tmp_path / 'net.py'}:Tiny")
    )
    assert not hidden_files(tmp_path)


def test_a_sigterm_that_is_handled_already_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*given: object) -> None:
        raise AssertionError("a handler was set")

    monkeypatch.setattr(signal, "signal", unexpected)
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)
    cli.end_on_sigterm()
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)
    with pytest.raises(AssertionError):
        cli.end_on_sigterm()
    failed: list[BaseException] = []

    def elsewhere() -> None:
        try:
            cli.end_on_sigterm()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert not failed


# --- bad input that needs no training ---------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two photographs in it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.png", "a.png"):
        Image.new("RGB", (8, 6), (200, 30, 30)).save(folder / name)
    return folder


def test_no_newest_run(photos: Path) -> None:
    line = one_line(call("predict", photos, "--out", "fmri.npy"), 1)
    assert "runs/latest" in line.replace("\\", "/")
    assert "brainkit train" in line


def test_newest_run_is_gone(photos: Path) -> None:
    Path("runs").mkdir()
    Path("runs/latest").write_text("monday\n")
    assert "monday" in one_line(call("predict", photos, "--out", "fmri.npy"), 1)


def test_newest_run_is_not_exported(photos: Path) -> None:
    Path("runs/monday").mkdir(parents=True)
    Path("runs/latest").write_text("monday\n")
    assert "brainkit export --onnx" in one_line(call("predict", photos, "--out", "fmri.npy"), 1)


@pytest.mark.parametrize("content", ["", "\n", "one\ntwo\n"])
def test_latest_must_be_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "latest").write_text(content)
    with pytest.raises(DataError, match="expected one line"):
        runs.latest_run(tmp_path)


def test_latest_finds_runs_inside_and_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, elsewhere = tmp_path / "runs" / "a", tmp_path / "other" / "b"
    inside.mkdir(parents=True)
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert runs.name_latest(inside).read_text() == "a\n"
    assert runs.latest_run().resolve() == inside
    runs.name_latest("other/b")
    assert runs.latest_run() == elsewhere
    (elsewhere / "encoder.onnx").touch()
    assert runs.latest_encoder() == elsewhere / "encoder.onnx"
    assert sorted(path.name for path in Path("runs").iterdir()) == ["a", "latest"]


@pytest.mark.parametrize("command", ["info", "predict", "map"])
@pytest.mark.parametrize("kind", ["missing", "empty", "text", "folder", "plain onnx", "truncated", "changed"])
def test_encoder_files_that_are_not_ours(photos: Path, command: str, kind: str) -> None:
    encoder = Path("encoder.onnx")
    write_encoder(encoder)
    whole = encoder.read_bytes()
    encoder.unlink()
    if kind == "folder":
        encoder.mkdir()
    elif kind != "missing":
        content = {
            "empty": b"",
            "text": b"not an encoder\n" * 40,
            "plain onnx": doctor._identity_model(),
            "truncated": whole[: len(whole) // 2],
            "changed": whole[:60] + bytes([whole[60] ^ 1]) + whole[61:],
        }
        encoder.write_bytes(content[kind])
    arguments = {
        "info": ["info", encoder],
        "predict": ["predict", photos, "--out", "fmri.npy", "--encoder", encoder],
        "map": ["map", encoder, "--out", "figures"],
    }
    assert "encoder.onnx" in one_line(call(*arguments[command]), 1)
    assert sorted(path.name for path in Path().iterdir()) == [*["encoder.onnx"][kind == "missing" :], "photos"]


def test_images_that_are_not_there(photos: Path) -> None:
    write_encoder(Path("encoder.onnx"))
    assert "holiday" in one_line(call("predict", "holiday", "--out", "fmri.npy", "--encoder", "encoder.onnx"), 2)
    Path("none").mkdir()
    assert "none" in one_line(call("predict", "none", "--out", "fmri.npy", "--encoder", "encoder.onnx"), 2)
    assert not Path("fmri.npy").exists()


def test_output_folder_that_is_not_there(photos: Path) -> None:
    write_encoder(Path("encoder.onnx"))
    line = one_line(call("predict", photos, "--out", "deep/fmri.npy", "--encoder", "encoder.onnx"), 1)
    assert "deep" in line
    line = one_line(call("predict", photos, "--out", "fmri.npy", "--encoder", "encoder.onnx", "--maps", "deep/maps"), 1)
    assert "deep" in line
    assert not Path("deep").exists()
    assert not Path("fmri.npy").exists()


# --- options are passed through ---------------------------------------------------------------------------------


def record(
    monkeypatch: pytest.MonkeyPatch, module: str, function: str, result: Any = None
) -> Callable[[], dict[str, Any]]:
    """Replace a function by one that keeps its arguments, bound to the true one's signature."""
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
    options += " --data e --devices 2 --num-nodes 3"
    assert call("train", "--backbone", "dinov2", *options.split()).exit_code == 0
    assert without_say(given()) == {
        "backbone": "dinov2",
        "data": (Path("d"), Path("e")),
        "out": Path("r"),
        "weights": Path("w.pt"),
        "random_weights": False,
        "epochs": 3,
        "seed": 5,
        "resume": True,
        "devices": 2,
        "num_nodes": 3,
        "config": Path("c.yaml"),
        "overrides": ("a.b=1", "c.d=2"),
    }


def test_train_leaves_what_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    given = record(monkeypatch, "brainkit.runs.train", "train", Path("runs/x"))
    assert call("train", "--backbone", "dinov2", "--random-weights").exit_code == 0
    arguments = without_say(given())
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
    given = record(monkeypatch, "brainkit.runs.train", "export_all", types.SimpleNamespace(path=Path("e.onnx")))
    assert call("export", "runs/a", *options, "--out", "e.onnx").exit_code == 0
    expected = {"run": Path("runs/a"), "out": Path("e.onnx"), "forms": forms}
    expected |= {"target": "cpu", "rois": (), "vertices": None, "storage": "float32", "ensemble": ()}
    assert without_say(given()) == expected


def test_export_takes_regions_and_vertices(monkeypatch: pytest.MonkeyPatch) -> None:
    given = record(monkeypatch, "brainkit.runs.train", "export_all", [])
    options = ["--target", "gpu", "--roi", "V1, FFA-1", "--roi", "OFA", "--vertices", "ids.txt"]
    assert call("export", *options).exit_code == 0
    arguments = without_say(given())
    assert (arguments["target"], arguments["rois"]) == ("gpu", ("V1", "FFA-1", "OFA"))
    assert arguments["vertices"] == Path("ids.txt") and arguments["out"] is None


@pytest.mark.parametrize(("options", "storage"), [(["--fp16"], "float16"), (["--int8"], "int8")])
def test_export_takes_how_the_file_is_stored(monkeypatch: pytest.MonkeyPatch, options: list[str], storage: str) -> None:
    given = record(monkeypatch, "brainkit.runs.train", "export_all", [])
    assert call("export", *options, "--ensemble", "runs/b", "--ensemble", "runs/c").exit_code == 0
    arguments = without_say(given())
    assert (arguments["storage"], arguments["ensemble"]) == (storage, (Path("runs/b"), Path("runs/c")))


def test_map_passes_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    given = record(monkeypatch, "brainkit.runs.train", "draw_all", [Path("figures/layer.png")])
    assert call("map", "runs/a", "--out", "figures").exit_code == 0
    assert without_say(given()) == {"run": Path("runs/a"), "out": Path("figures")}


def test_predict_passes_its_options_and_says_what_it_did(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from brainkit.predict import PredictResult

    skipped = tuple((Path(f"bad{i}\n\x1b[31m.png"), "truncated") for i in range(12))
    done = PredictResult(Path("fmri.npy"), 2, skipped, 0.5, files=(Path("fmri.npy"),))
    given = record(monkeypatch, "brainkit.predict", "predict_to_file", done)
    options = "--roi V1,V2 --roi FFA-1 --device cpu --batch-size 4 --overwrite --encoder e.onnx"
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
        "rois": ("V1", "V2", "FFA-1"),
        "batch_size": 4,
        "overwrite": True,
        "hemispheres": False,
        "top": None,
        "spread": False,
        "engine": "local",
        "workers": None,
    }
    assert result.stdout.startswith("fmri.npy: 2 images in 0.5 s; fmri.json ")
    assert len(result.stderr.splitlines()) == 11
    assert "skipped bad0\\n\\x1b[31m.png: truncated" in result.stderr
    assert "skipped 2 more; fmri.json" in result.stderr


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
    options = "--seed 3 --images 30 --test-images 8 --vertices 60"
    assert call("sample", "s", *options.split()).exit_code == 0
    assert without_say(given()) == {
        "directory": Path("s"),
        "seed": 3,
        "images": 30,
        "test_images": 8,
        "vertices": 60,
    }


@pytest.mark.parametrize("arguments", [["train", "--backbone", "efficientnet_lite0"], ["sample", "subject"]])
def test_without_the_training_stack_there_is_the_pip_line(tmp_path: Path, arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'timm', 'pytorch_lightning', 'yaml', 'skimage', 'sklearn', 'einops'):\n"
        "    sys.modules[name] = None\n"
        "from brainkit.cli import main; main()"
    )
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "pip install 'brainkit[train]'" in done.stderr
    assert not list(tmp_path.iterdir())


# --- info and doctor --------------------------------------------------------------------------------------------

V = 40


def encoder_info(**changes: Any) -> EncoderInfo:
    rng = np.random.default_rng(0)
    ids = np.concatenate([np.arange(V // 2), 10242 + np.arange(V // 2)]).astype(np.int32)
    ceiling = np.full(V, 0.5, np.float32)
    values: dict[str, Any] = {
        "vertices": Vertices("fsaverage5", ids),
        "rois": RoiTable({"early": np.arange(10), "nothing": np.arange(0)}, V),
        "preprocessing": PUBLISHED,
        "layers": ("stage1", "stage2"),
        "grid": (8, 8),
        "bottleneck": 4,
        "layer_weights": np.full((V, 2), 0.5, np.float32),
        "locations": rng.uniform(-1, 1, (V, 2)).astype(np.float32),
        "scale": np.full(V, 0.25, np.float32),
        "r": np.full(V, 0.5, np.float32),
        "R2": np.full(V, 0.2, np.float32),
        "noise_ceiling": ceiling,
        "units": "z-scored percent signal change",
        "note": "SIMULATED subject, not a brain",
        "licence": "Apache-2.0",
        "backbone": {"name": "tiny", "weights_hash": "ab" * 32, "pretrained": True, "licence": "MIT"},
        "provenance": {"seed": 7, "data": {"name": "sample", "hash": "cd" * 32}},
        "certificate": {"largest": 2e-6, "median": 1e-7},
    }
    return EncoderInfo(**{**values, **changes})


def write_encoder(path: Path, **changes: Any) -> None:
    encoder_file.write(path, doctor._identity_model(), encoder_info(**changes))


def test_info_says_what_the_file_holds(tmp_path: Path) -> None:
    write_encoder(tmp_path / "e.onnx")
    result = call("info", tmp_path / "e.onnx")
    assert result.exit_code == 0, result.output
    text = re.sub(" +", " ", result.stdout)
    for expected in (
        "SIMULATED subject, not a brain",
        "tiny (pretrained, sha256 abababababab, licence MIT)",
        "2: stage1, stage2",
        "40 vertices of fsaverage5 (20 left, 20 right); units: z-scored percent signal change",
        "resized to 224 x 224 (bilinear)",
        "gauge unit",
        "seed 7, data (name sample, hash cdcdcdcdcdcd...)",
        "at most 2.0e-06 (median 1.0e-07)",
        "licence Apache-2.0",
        "all 40 0.500 0.200 50 %",
        "early 10 0.500 0.200 50 %",
        "nothing 0 - - -",
    ):
        assert expected in text


def test_info_says_the_terms_and_what_to_cite(tmp_path: Path) -> None:
    parts = three_parts(backbone="mae", licence="cc-by-nc-4.0", data="nsd")
    write_encoder(tmp_path / "e.onnx", terms=parts, citation=citation(backbone="mae", data="nsd"))
    text = call("info", tmp_path / "e.onnx").stdout
    for expected in (
        "licence     brainkit: Apache-2.0",
        "backbone: mae: CC-BY-NC-4.0, NON-COMMERCIAL use alone",
        "data: Natural Scenes Dataset",
        "commercial  NO: the terms of backbone and data forbid commercial use",
        "subject     sample: it predicts this subject",
        "arXiv:2111.06377",
        "doi:10.1038/s41593-021-00962-x",
        "arXiv:2301.03198",
    ):
        assert expected in text
    # What a file says of itself is not trusted to be complete.
    write_encoder(tmp_path / "f.onnx", terms={"brainkit": "Apache-2.0"})
    text = call("info", tmp_path / "f.onnx").stdout
    assert "backbone: not stated: ask its authors" in text
    assert "the terms of backbone and data are not stated" in text


@pytest.mark.parametrize(
    ("licence", "words"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0, NON-COMMERCIAL use alone"),
        ("fair-noncommercial-research-license", "fair-noncommercial-research-license, NON-COMMERCIAL use alone"),
        ("dinov3-license", "dinov3-license: terms of its own, to be read before the file is used or passed on"),
        ("unknown", "not stated: ask its authors"),
        (None, "not stated: ask its authors"),
    ],
)
def test_a_licence_in_words(licence: str | None, words: str) -> None:
    assert licence_words(licence) == words


def test_whose_responses_they_are_is_told_by_note_and_names() -> None:
    assert data_kind(["train-0001_nsd-00013.png"], None) == "nsd"
    assert data_kind(["train-0001_nsd-00013.png"], "simulated") == "simulated"
    assert data_kind(["cat.png", "tense-1.png"], None) == "own"
    assert three_parts(backbone="x", licence="mit", pretrained=False)["backbone"].endswith("drawn by brainkit: none")
    assert "ask those who measured" in three_parts(backbone="x", licence="mit", data=None)["data"]


def test_info_as_json(tmp_path: Path) -> None:
    parts = three_parts(backbone="tiny", licence="mit", data="own")
    write_encoder(tmp_path / "e.onnx", terms=parts, noise_ceiling=np.full(V, np.nan, np.float32))
    value = json.loads(call("info", tmp_path / "e.onnx", "--json").stdout)
    assert value["terms"] == parts
    assert value["bytes"] == (tmp_path / "e.onnx").stat().st_size
    assert value["sha256"] == encoder_file.read(tmp_path / "e.onnx").digest
    assert value["certificate"] == {"largest": 2e-6, "median": 1e-7}
    assert value["vertices"] == {"count": V, "left": 20}
    assert [row["name"] for row in value["accuracy"]] == ["all", "early", "nothing"]
    assert value["accuracy"][0]["r"] == 0.5
    assert value["accuracy"][0]["explained"] is None
    assert not {"selectors", "rois", "scores"} & value.keys()


def test_info_where_little_is_known(tmp_path: Path) -> None:
    unknown = np.full(V, np.nan, np.float32)
    ids = np.arange(V, dtype=np.int32)
    write_encoder(
        tmp_path / "e.onnx",
        vertices=Vertices("custom", ids),
        noise_ceiling=unknown,
        r=unknown,
        R2=unknown,
        note=None,
        backbone={},
        provenance={},
        certificate=None,
        licence="",
    )
    found = describe(tmp_path / "e.onnx")
    facts = dict(found.facts)
    assert "note" not in facts
    assert "trained" not in facts
    assert facts["certificate"].startswith("none")
    assert "a space of its own" in facts["predicts"]
    assert call("info", tmp_path / "e.onnx").exit_code == 0


def test_what_a_file_says_cannot_steer_the_terminal(tmp_path: Path) -> None:
    write_encoder(tmp_path / "e.onnx", note="\x1b[2Jgone\r\n")
    assert "\x1b" not in call("info", tmp_path / "e.onnx").stdout


def findings() -> dict[str, doctor.Finding]:
    return {found.name: found for found in doctor.examine()}


def test_doctor_reports_and_exits_0() -> None:
    result = call("doctor")
    assert result.exit_code == 0
    for name in (
        "Python",
        "cores",
        "memory",
        "brainkit._C",
        "[train]",
        "[ray]",
        "CUDA",
        "ONNX Runtime",
        "surfaces",
        "cache",
    ):
        assert name in result.stdout


def test_doctor_goes_on_when_a_check_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise RuntimeError("odd driver")

    monkeypatch.setattr(doctor, "cuda_devices", broken)
    found = list(doctor.examine())
    assert any(row.state == "warning" and "odd driver" in row.text for row in found)
    assert found[-1].section == "folders"


def test_doctor_warns_of_both_onnx_runtime_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    version = doctor._version
    both = {"onnxruntime": "1.20.0", "onnxruntime-gpu": "1.20.0"}
    monkeypatch.setattr(doctor, "_version", lambda name: both.get(name) or version(name))
    row = findings()["two wheels"]
    assert row.state == "warning"
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in row.text


def test_doctor_on_a_bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    monkeypatch.setattr(doctor, "_is_installed", lambda name: False)
    monkeypatch.setattr(doctor, "_files_of", lambda module, pattern: [])
    monkeypatch.setattr(doctor, "cuda_devices", lambda: ([], "no NVIDIA driver"))
    monkeypatch.setenv("BRAINKIT_DATA", str(tmp_path / "gone"))
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "cache"))
    found = findings()
    for name in ("[train]", "[maps]", "ONNX Runtime", "operator", "efficientnet_lite0", "surfaces"):
        assert found[name].state == "missing"
        assert "pip install" in found[name].text
    for name in ("[zarr]", "[remote]", "[ray]"):
        assert found[name].state == "note"
        assert "pip install" in found[name].text
    assert found["$BRAINKIT_DATA"].state == "warning"
    assert found["cache"].state == "note"


def test_doctor_sizes_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.bin").write_bytes(bytes(2_000_000))
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path))
    assert findings()["cache"].text == f"{tmp_path}, 2 MB"


def test_the_model_that_tries_a_provider_is_a_good_one() -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(doctor._identity_model(), providers=["CPUExecutionProvider"])
    x = np.array([3.0], np.float32)
    assert session.run(None, {"x": x})[0] == x


def test_doctor_asks_for_what_the_extras_install() -> None:
    tomllib = pytest.importorskip("tomllib")
    file = Path(__file__).parents[2] / "pyproject.toml"
    extras = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for extra, wheels in (doctor.EXTRAS | doctor.OPTIONAL).items():
        assert set(wheels) <= {re.split(r"[\s<>=;\[]", line)[0] for line in extras[extra]}


# --- predict --maps ---------------------------------------------------------------------------------------------


def test_predictions_are_drawn_row_by_row(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("nilearn")
    from brainkit.maps import draw as static
    from brainkit.maps import draw_predictions as predicted

    drawn: list[dict[str, Any]] = []
    monkeypatch.setattr(static, "draw_response", lambda path, **given: drawn.append({"path": path, **given}))
    columns = np.array([2, 3, 25])
    rows = np.arange(9, dtype=np.float32).reshape(3, 3)
    images = [photos / "a.png", photos / "b.png", photos / "a.png"]
    info = encoder_info()
    paths = predicted.draw_predictions(info, rows, images, Path("figures"), columns=columns, max_maps=2)
    assert [path.name for path in paths] == ["0000-a.png", "0001-b.png"]
    assert [entry["path"] for entry in drawn] == paths
    assert [entry["limit"] for entry in drawn] == [5.0, 5.0]
    np.testing.assert_array_equal(drawn[1]["response"], rows[1])
    np.testing.assert_array_equal(drawn[0]["vertices"].ids, info.vertices.ids[columns])
    np.testing.assert_array_equal(drawn[0]["rois"]["early"], [0, 1])
    assert drawn[0]["note"] == "SIMULATED subject, not a brain"
    with pytest.raises(DataError, match="expected 3 rows"):
        predicted.draw_predictions(info, rows, images, Path("figures"))


def test_an_encoder_file_is_drawn_from_itself(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("nilearn")
    write_encoder(Path("encoder.onnx"), noise_ceiling=np.full(V, np.nan, np.float32))
    given = record(monkeypatch, "brainkit.maps.draw", "draw_maps", [Path("encoder-maps/layer.png")])
    assert call("map", "encoder.onnx").stdout == "encoder-maps: layer.png\n"
    arguments = given()
    assert arguments["folder"] == Path("encoder-maps")
    assert arguments["noise_ceiling"] is None
    assert arguments["R2"] is not None
    assert (arguments["title"], arguments["layer_note"]) == ("tiny", None)


def test_a_prediction_file_is_drawn_with_its_own_columns(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("nilearn")
    from brainkit.maps import draw as static
    from brainkit.maps import draw_predictions as predicted

    drawn: list[dict[str, Any]] = []
    monkeypatch.setattr(static, "draw_response", lambda path, **given: drawn.append(given))
    info = encoder_info()
    columns = np.array([1, 30])
    np.save("fmri.npy", np.array([[1.0, 2.0]], np.float32))
    write_json(
        "fmri.json", {"images": [str(photos / "b.png")], "vertices": {"ids": info.vertices.ids[columns].tolist()}}
    )
    assert [path.name for path in predicted.draw_prediction_file("fmri.npy", info, "figures")] == ["0000-b.png"]
    np.testing.assert_array_equal(drawn[0]["vertices"].ids, info.vertices.ids[columns])
    write_json("fmri.json", [])
    with pytest.raises(DataError, match=r"fmri.json"):
        predicted.draw_prediction_file("fmri.npy", info, "figures")


def test_an_image_whose_name_is_not_utf8_is_drawn(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("nilearn")
    from brainkit.predict import Encoder

    try:
        os.rename(photos / "a.png", os.fsencode(photos) + b"/a\xff $x.png")
    except OSError:
        pytest.skip("this file system takes no such name")
    write_encoder(Path("encoder.onnx"))
    session: Any = types.SimpleNamespace(device="cpu", break_off=lambda thread: None)
    encoder = Encoder(Path("encoder.onnx"), encoder_info(), session)
    rows = iter(np.random.default_rng(0).standard_normal((2, 1, V)).astype(np.float32))
    monkeypatch.setattr(encoder, "run", lambda batch, columns=None: next(rows))
    monkeypatch.setattr("brainkit.predict.to_file.load", lambda path, device: encoder)
    result = call(
        "predict", photos, *["--out", "fmri.npy", "--encoder", "encoder.onnx", "--maps", "figures", "--batch-size", "1"]
    )
    assert result.exit_code == 0, result.output
    assert "figures: 2 of 2 images" in result.stdout
    assert sorted(path.name for path in Path("figures").iterdir()) == ["0000-a_x.png", "0001-b.png"]
    assert "a\\\\xff $x.png" in Path("fmri.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("place", ["deep/figures", "photos/a.png"])
def test_figures_need_a_folder(photos: Path, place: str) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("nilearn")
    from brainkit.maps.draw_predictions import check_drawable

    with pytest.raises(DataError, match=place):
        check_drawable(place, encoder_info())


def test_maps_need_a_surface(photos: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("nilearn")
    from brainkit.maps.draw_predictions import check_drawable

    info = encoder_info(vertices=Vertices("custom", np.arange(V, dtype=np.int32)))
    with pytest.raises(UsageError, match="fsaverage"):
        check_drawable("figures", info)
