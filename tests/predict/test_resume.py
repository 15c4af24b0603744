"""Predicting that is interrupted and resumed: kill -9, signals, full disks, two processes at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from pixel_encoder import save_images, write_encoder

from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.predict import Encoder, PredictResult, load, predict_to_file, resume
from brainkit.predict.outputs import description
from brainkit.predict.outputs.npy import NpyRows
from brainkit.utils.files import write_all
from brainkit.utils.locks import FileLock

COUNT, BATCH = 40, 3
BROKEN = tuple(range(3, COUNT, 7))

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty images, every seventh of them broken, in the working folder; the state is saved after every batch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resume, "_SAVE_SECONDS", 0)
    save_images(tmp_path / "photos", COUNT, broken=BROKEN)
    return Path("photos")


def predict(photos: Path, encoder: Any, out: str = "fmri.npy", **options: Any) -> PredictResult:
    return predict_to_file(photos, out, encoder, **({"batch_size": BATCH} | options))


def content(out: str) -> tuple[bytes, dict[str, Any]]:
    """The bytes of an output, and its JSON but for the file's name."""
    text = json.loads(Path(f"{out}.json").read_text("utf-8"))
    return Path(out).read_bytes(), {key: value for key, value in text.items() if key != "file"}


def state() -> dict[str, Any]:
    return dict(json.loads(Path(".fmri.npy.partial/state.json").read_text()))


class Stop(Exception):
    pass


def interrupt(photos: Path, encoder: Any, images: int, **options: Any) -> None:
    """Predict, and stop after so many images."""

    def progress(done: int, total: int) -> None:
        if done >= images:
            raise Stop

    with pytest.raises(Stop):
        predict(photos, encoder, progress=progress, **options)


# --- resumed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stops", [(1,), (20,), (39,), (6, 7, 30)])
def test_an_interrupted_run_is_resumed_to_the_same_bytes(
    photos: Path, encoder: Encoder, stops: tuple[int, ...]
) -> None:
    predict(photos, encoder, "whole.npy")
    for images in stops:
        interrupt(photos, encoder, images)
        assert not Path("fmri.npy").exists()
    done = state()["done"]
    assert done == -(-stops[-1] // BATCH) * BATCH
    said: list[str] = []
    seen: list[int] = []
    result = predict(photos, encoder, say=said.append, progress=lambda done, total: seen.append(done))
    assert content("fmri.npy") == content("whole.npy")
    assert len(said) == 1 and f" {done} of {COUNT} images" in said[0]
    assert seen[0] == min(done + BATCH, COUNT)
    assert result.n == COUNT - len(BROKEN)
    assert [str(name) for name in result.images] == content("fmri.npy")[1]["images"]
    assert len(result.skipped) == len(BROKEN)
    assert sorted(os.listdir()) == ["fmri.npy", "fmri.npy.json", "photos", "whole.npy", "whole.npy.json"]


def test_rows_after_the_last_state_are_repeated(photos: Path, encoder: Encoder) -> None:
    """As after a power cut: what was written since the last state is there in part, or as zeros."""
    predict(photos, encoder, "whole.npy")
    interrupt(photos, encoder, 20)
    folder = Path(".fmri.npy.partial")
    with (folder / "fmri.npy").open("ab") as rows, (folder / "skipped.jsonl").open("ab") as skipped:
        rows.write(bytes(1001))
        skipped.write(b'[39, "bro')
    predict(photos, encoder)
    assert content("fmri.npy") == content("whole.npy")


def test_the_batch_size_of_the_first_run_is_kept(photos: Path, encoder: Encoder) -> None:
    predict(photos, encoder, "whole.npy")
    interrupt(photos, encoder, 20)
    predict(photos, encoder, batch_size=None)
    assert content("fmri.npy") == content("whole.npy")


def test_the_state_of_earlier_releases_is_resumed(photos: Path, encoder: Encoder) -> None:
    """The state's keys are on users' disks."""
    interrupt(photos, encoder, 20)
    keys = {"version", "images", "encoder", "device", "columns", "layout", "rows", "done", "skipped_bytes"}
    assert state().keys() == keys | {"batch_size", "complete"}
    assert state()["version"] == 1


def test_something_else_is_not_resumed(photos: Path, encoder: Encoder, tmp_path: Path) -> None:
    other = load(write_encoder(tmp_path, "other.onnx", note="another"), "cpu")
    interrupt(photos, encoder, 20)
    begun = {name: (Path(".fmri.npy.partial") / name).read_bytes() for name in ("fmri.npy", "state.json")}
    cases: list[tuple[Any, Any, dict[str, Any], str]] = [
        (photos / "image-000.png", encoder, {}, "other images"),
        (photos, other, {}, "encoder"),
        (photos, encoder, {"rois": ["V1v"]}, "regions"),
        (photos, encoder, {"batch_size": 4}, r"batch size \(3\)"),
    ]
    for images, chosen, options, match in cases:
        with pytest.raises(UsageError, match=f"{match}.*--overwrite") as caught:
            predict(images, chosen, **options)
        assert "\n" not in str(caught.value)
        assert begun == {name: (Path(".fmri.npy.partial") / name).read_bytes() for name in begun}
    os.utime(photos / "image-000.png", ns=(1, 1))
    with pytest.raises(UsageError, match="changed"):
        predict(photos, encoder)
    said: list[str] = []
    assert predict(photos, encoder, overwrite=True, say=said.append).n == 34
    assert said == []


@pytest.mark.parametrize("text", ["{", "[]", "{}", "null", '{"version": 99}'])
def test_a_damaged_state_is_refused(photos: Path, encoder: Encoder, text: str) -> None:
    interrupt(photos, encoder, 20)
    Path(".fmri.npy.partial/state.json").write_text(text)
    with pytest.raises(UsageError, match="--overwrite"):
        predict(photos, encoder)
    assert predict(photos, encoder, overwrite=True).n == 34


def test_rows_that_were_lost_are_noticed(photos: Path, encoder: Encoder) -> None:
    interrupt(photos, encoder, 20)
    os.truncate(".fmri.npy.partial/fmri.npy", 200)
    with pytest.raises(DataError, match=r"18 rows.*\.fmri\.npy\.partial"):
        predict(photos, encoder)


def test_an_old_output_stays_until_the_new_one_is_complete(photos: Path, encoder: Encoder) -> None:
    predict(photos / "image-000.png", encoder)
    old = content("fmri.npy")
    interrupt(photos, encoder, 20, overwrite=True)
    assert content("fmri.npy") == old
    with pytest.raises(UsageError, match=r"fmri\.npy: exists"):
        predict(photos, encoder)
    seen: list[int] = []
    assert predict(photos, encoder, overwrite=True, progress=lambda done, total: seen.append(done)).n == 34
    assert seen[0] == 21 + BATCH
    assert not Path(".fmri.npy.partial").exists()


@pytest.mark.parametrize("moved", [0, 1])
def test_an_interruption_between_the_last_moves_is_repaired(
    photos: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    predict(photos, encoder, "whole.npy")
    move, left = os.replace, [moved]

    def stop(source: Any, target: Any) -> None:
        if Path(target).parent == Path():
            if not left[0]:
                raise Stop
            left[0] -= 1
        move(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", stop)
        with pytest.raises(Stop):
            predict(photos, encoder)
    assert Path("fmri.npy").exists() == bool(moved)
    monkeypatch.setattr(encoder, "run", None)  # nothing is to be computed again
    assert predict(photos, encoder).n == 34
    assert content("fmri.npy") == content("whole.npy")


# --- killed ---------------------------------------------------------------------------------------------------------

CHILD = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test runner in the background would have it ignored
from brainkit.predict import Encoder, resume
resume._SAVE_SECONDS = 0
run, runs = Encoder.run, [0]
def dying(self, *given):
    runs[0] += 1
    if runs[0] == 7:
        os.kill(os.getpid(), {signal})
    return run(self, *given)
if {signal}:
    Encoder.run = dying
from brainkit.cli import main
main()
"""


def predict_in_child(path: Path, number: int) -> subprocess.CompletedProcess[str]:
    command = ["predict", "photos", "--out", "fmri.npy", "--encoder", str(path), "--batch-size", str(BATCH)]
    return subprocess.run(
        [sys.executable, "-c", CHILD.format(signal=number), *command], capture_output=True, text=True, check=False
    )


@posix
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_killed_command_resumes_when_repeated(photos: Path, path: Path, number: signal.Signals) -> None:
    predict(photos, load(path, "cpu"), "whole.npy")
    killed = predict_in_child(path, int(number))
    assert killed.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number], killed.stderr
    assert "Traceback" not in killed.stderr
    done = state()["done"]
    assert 0 < done < COUNT
    if number != signal.SIGKILL:
        assert f"fmri.npy: {done} of {COUNT} images" in killed.stderr
    assert not Path("fmri.npy").exists()
    again = predict_in_child(path, 0)
    assert again.returncode == 0, again.stderr
    assert f" {done} of {COUNT} images" in again.stderr
    assert content("fmri.npy") == content("whole.npy")
    assert not Path(".fmri.npy.partial").exists()


# --- full disks -----------------------------------------------------------------------------------------------------

FULL = """
import resource, sys
from brainkit.predict import resume
resume._SAVE_SECONDS = 0
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
from brainkit.cli import main
main()
"""


@posix
def test_a_file_that_may_not_grow_is_an_error_and_can_be_resumed(photos: Path, path: Path) -> None:
    predict(photos, load(path, "cpu"), "whole.npy")
    command = ["predict", "photos", "--out", "fmri.npy", "--encoder", str(path), "--batch-size", str(BATCH)]
    done = subprocess.run([sys.executable, "-c", FULL, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    kept, error = done.stderr.splitlines()
    assert f"{state()['done']} of {COUNT} images" in kept
    assert "fmri.npy" in error and "File too large" in error
    assert predict_in_child(path, 0).returncode == 0
    assert content("fmri.npy") == content("whole.npy")


def test_an_interruption_while_the_state_is_written(
    photos: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, moves = os.replace, [0]

    def interrupted(source: Any, target: Any) -> None:
        moves[0] += 1
        if moves[0] == 4:
            raise KeyboardInterrupt
        move(source, target)

    said: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            predict(photos, encoder, say=said.append)
    assert state()["done"] == 4 * BATCH
    assert len(said) == 1 and f"{4 * BATCH} of {COUNT} images" in said[0]


@pytest.mark.parametrize("where", ["rows", "skipped", "state", "description"])
def test_a_full_disk_loses_nothing(photos: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    predict(photos, encoder, "whole.npy")
    left = [5]

    def filling(function: Any) -> Any:
        def full(*given: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device")
            return function(*given, **options)

        return full

    with monkeypatch.context() as patched:
        if where == "rows":
            patched.setattr(NpyRows, "append", filling(NpyRows.append))
        elif where == "skipped":
            patched.setattr(resume.PartialOutput, "record", filling(resume.PartialOutput.record))
        elif where == "state":
            patched.setattr(os, "replace", filling(os.replace))
        else:
            patched.setattr(description, "_indented", filling(description._indented))
        with pytest.raises(BrainkitError, match=r"fmri\.npy.*No space left on device") as caught:
            predict(photos, encoder)
    assert "\n" not in str(caught.value)
    assert not Path("fmri.npy").exists()
    assert state()["done"] > 0
    predict(photos, encoder)
    assert content("fmri.npy") == content("whole.npy")


def test_an_unbuffered_file_that_takes_less_at_once_gets_it_all() -> None:
    class Short:
        got = b""

        def write(self, data: memoryview) -> int:
            self.got += bytes(data[:3])
            return min(3, len(data))

    short = Short()
    write_all(short, np.arange(5, dtype="<f4").data)
    assert short.got == np.arange(5, dtype="<f4").tobytes()


# --- two at once ----------------------------------------------------------------------------------------------------


@posix
def test_two_processes_do_not_write_one_output(photos: Path, encoder: Encoder) -> None:
    interrupt(photos, encoder, 20)
    code = """
        import sys, pathlib
        from brainkit.utils.locks import FileLock
        lock = FileLock.take(pathlib.Path(".fmri.npy.partial/lock"))
        print("locked", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "locked\n"
        for overwrite in (False, True):
            with pytest.raises(UsageError, match="another process"):
                predict(photos, encoder, overwrite=overwrite)
        child.communicate("")
    assert predict(photos, encoder).n == 34


def test_an_output_that_appears_in_the_meantime_is_not_replaced(
    photos: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = FileLock.take

    def late(*given: Any, **options: Any) -> Any:
        Path("fmri.npy").write_text("precious")
        return take(*given, **options)

    monkeypatch.setattr(FileLock, "take", late)
    with pytest.raises(UsageError, match=r"fmri\.npy: exists"):
        predict(photos, encoder)
    assert Path("fmri.npy").read_text() == "precious"
    assert not Path(".fmri.npy.partial").exists()
