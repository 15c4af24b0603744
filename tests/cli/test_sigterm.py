"""SIGTERM ends a command like an error: nothing half-written is left, and one line says so."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import write_encoder
from PIL import Image

from brainkit import cli

COMMAND_LINE = [sys.executable, "-c", "from brainkit.cli import main; main()"]


no_sigterm = pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")


SLOW_PREDICT = """
import time
from types import SimpleNamespace
from brainkit import encoder_file
from brainkit.cli import main
from brainkit.predict import Encoder, to_file

def run(self, batch, columns=None):
    print("working", flush=True)
    time.sleep(3600)

session = SimpleNamespace(device="cpu", break_off=lambda thread: None)
to_file.load = lambda path, device, **more: Encoder(path, encoder_file.read(path), session)
Encoder.run = run
main()
"""


def hidden_files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


def stop(child: subprocess.Popen[str], *, times: int = 1) -> str:
    """Send SIGTERM, and return what the child writes to standard error."""
    for _ in range(times):
        child.send_signal(signal.SIGTERM)
    _, errors = child.communicate()
    return errors


@no_sigterm
@pytest.mark.slow
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
@pytest.mark.slow
def test_train_that_is_terminated_saves_the_step_and_says_how_to_resume(tmp_path: Path) -> None:
    pytest.importorskip("pytorch_lightning")
    from small_runs import PLUG_IN, make_own_data

    make_own_data(tmp_path / "data", images=12, vertices=5)
    (tmp_path / "net.py").write_text(PLUG_IN)
    options = "train --backbone net.py:Colours --data data --out run --epochs 1000000 --set train.device=cpu"
    command = [*COMMAND_LINE, *options.split(), "--set", "backbone.size=32"]
    printed = tmp_path / "printed.txt"
    with (
        printed.open("w") as stdout,
        subprocess.Popen(command, cwd=tmp_path, stdout=stdout, stderr=subprocess.PIPE, text=True) as child,
    ):
        last = tmp_path / "run" / "checkpoints" / "last.ckpt"
        while not last.exists() and child.poll() is None:
            time.sleep(0.05)
        errors = stop(child)
    assert last.exists(), errors
    assert child.returncode == 1
    assert re.fullmatch(r"brainkit: .*SIGTERM.* step \d+ of 1000000 .*last\.ckpt\n", errors), errors
    assert f"brainkit train --backbone {tmp_path / 'net.py'}:Colours --resume" in printed.read_text().splitlines()[-1]
    assert not hidden_files(tmp_path)


def test_a_handled_sigterm_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
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
