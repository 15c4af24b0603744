"""The command line itself: help, exit codes, one line per failure, nothing heavy loaded for nothing."""

from __future__ import annotations

import errno
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from command_line import call, one_line, write_encoder

import brainkit
from brainkit import cli
from brainkit.cli import COMMANDS
from brainkit.errors import BrainkitError, DataError, MissingDependency, UsageError

COMMAND_LINE = [sys.executable, "-c", "from brainkit.cli import main; main()"]


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
    assert {path.stem for path in folder.glob("[a-z]*.py")} == {cli.module_of(name) for name in COMMANDS}


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


def test_info_opens_no_session(tmp_path: Path) -> None:
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
    for option in ("--version", "-V"):
        assert call(option).stdout == f"brainkit {brainkit.__version__}\n"


def test_bare_command_shows_help_and_is_a_usage_error() -> None:
    result = call()
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Commands:" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trian"], "'train'"),
        (["zzzzz"], "export"),
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
        (["info", "e.onnx", "f.onnx"], "f.onnx"),
        (["doctor", "now"], "now"),
        (["--verson"], "--version"),
        (["version"], "--version"),
        (["help"], "--help"),
        (["help", "train"], "train --help"),
        (["fit"], "'train'"),
        (["score", "photos"], "'predict'"),
        (["plot"], "'map'"),
        (["train", "dinov2"], "--backbone dinov2"),
        (["train", "--network", "x"], "--backbone"),
        (["train", "--dataset", "x"], "--data"),
        (["train", "--output", "x"], "--out"),
        (["train", "--epoch", "1"], "--epochs"),
        (["train", "--lr", "0.1"], "train.lr_weight"),
        (["train", "--learning-rate", "0.1"], "train.lr_weight"),
        (["train", "--batch-size", "8"], "train.batch_size"),
        (["train", "--device", "cpu"], "train.device?"),
        (["train", "--layers", "x"], "backbone.layers"),
        (["train", "--backbone", "x", "--set", "train.epochs", "5"], "--set train.epochs=5"),
        (["export", "--run", "runs/1"], "without --run"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(arguments: list[str], expected: str) -> None:
    line = one_line(call(*arguments), 2)
    assert expected in line
    assert "--help)" in line


def test_usage_errors_name_the_help_of_the_command() -> None:
    assert "(see: brainkit predict --help)" in one_line(call("predict", "a", "--top"), 2)


def test_what_has_nothing_in_common_is_not_suggested() -> None:
    for arguments in (["zzzzz"], ["export", "--lr", "1"], ["export", "--format", "onnx"], ["train", "--qqq"]):
        assert "did you mean" not in one_line(call(*arguments), 2)


def test_folders_given_to_train_without_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("subject").mkdir()
    Path("run").mkdir()
    Path("run/config.yaml").write_text("")
    assert "--data subject" in one_line(call("train", "--backbone", "x", "subject"), 2)
    assert "--out run" in one_line(call("train", "--resume", "run"), 2)
    assert "did you mean" not in one_line(call("train", "--backbone", "x", "elsewhere"), 2)


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
        (ModuleNotFoundError("No module named 'torch'", name="torch.nn"), 1, "pip install 'brainkit[train]'"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "a.npy"), 1, "a.npy: no space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "b.npy"), 1, "b.npy: permission denied"),
        (ValueError("odd\nthing"), 1, "ValueError: odd thing (run again with BRAINKIT_DEBUG=1"),
        (AssertionError(), 1, "AssertionError (run again with BRAINKIT_DEBUG=1"),
    ],
)
def test_a_failure_is_one_line_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, expected: str
) -> None:
    monkeypatch.delenv("BRAINKIT_DEBUG", raising=False)
    fail_with(monkeypatch, error)
    result = call("doctor")
    (line,) = result.stderr.strip().splitlines()  # click ends a line that Ctrl-C was typed in
    assert (result.exit_code, result.stdout) == (code, "")
    assert line.startswith("brainkit: ") and expected in line


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINKIT_DEBUG", "1")
    fail_with(monkeypatch, BrainkitError("no luck"))
    assert isinstance(call("doctor").exception, BrainkitError)


def test_a_closed_pipe_is_not_reported() -> None:
    with subprocess.Popen([*COMMAND_LINE, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        errors = child.stderr.read()
    assert errors == b""
    assert child.returncode == 1


def test_a_file_name_that_the_terminal_cannot_encode_is_escaped(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [*COMMAND_LINE, "info", str(tmp_path / "größe.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("brainkit: ")
    assert "Traceback" not in done.stderr


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
