"""Scoring that is interrupted, in flat memory: kill -9, signals, full disks, two at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from pixel_encoder import SIZE, V, make_graph, make_info, write_encoder

from brainkit import encoder_file
from brainkit import predict as scoring
from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.predict import batch_size, pipeline, resume
from brainkit.predict.inputs.sources import list_images
from brainkit.predict.outputs import formats as outputs
from brainkit.utils.locks import FileLock

COUNT, BATCH = 40, 3

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def encoder(path: Path) -> scoring.Encoder:
    return scoring.load(path, "cpu")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty images, every seventh of them broken, in the working folder; states are written after every batch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resume, "_EVERY", 0)
    make_images(tmp_path / "photos", COUNT)
    return Path("photos")


def make_images(folder: Path, count: int) -> None:
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(count):
        image = folder / f"image-{number:06d}.png"
        if number % 7 == 3:
            image.write_bytes(b"no image")
        else:
            Image.fromarray(draw.integers(0, 256, (5, 6, 3), np.uint8)).save(image)


def score(photos: Path, encoder: Any, out: str = "fmri.npy", **options: Any) -> scoring.PredictResult:
    return scoring.predict_to_file(photos, out, encoder, **({"batch_size": BATCH} | options))


def bytes_of(out: str) -> tuple[bytes, dict[str, Any]]:
    told = json.loads(Path(out).with_suffix(".json").read_text("utf-8"))
    return Path(out).read_bytes(), {key: value for key, value in told.items() if key != "file"}


class Stop(Exception):
    pass


def stop_after(images: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done >= images:
            raise Stop

    return progress


def interrupt(photos: Path, encoder: Any, images: int, **options: Any) -> None:
    with pytest.raises(Stop):
        score(photos, encoder, progress=stop_after(images), **options)


# --- going on -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stops", [(1,), (20,), (39,), (6, 7, 30)])
def test_what_is_interrupted_goes_on_with_the_same_bytes(
    photos: Path, encoder: scoring.Encoder, stops: tuple[int, ...]
) -> None:
    score(photos, encoder, "whole.npy")
    for images in stops:
        interrupt(photos, encoder, images)
        assert not Path("fmri.npy").exists()
    said: list[str] = []
    seen: list[int] = []
    result = score(photos, encoder, say=said.append, progress=lambda done, total: seen.append(done))
    assert bytes_of("fmri.npy") == bytes_of("whole.npy")
    done = -(-stops[-1] // BATCH) * BATCH
    assert said == [f"fmri.npy: goes on after {done} of 40 images"] if done < COUNT else said
    assert seen[:1] == ([done + BATCH] if done + BATCH <= COUNT else [COUNT])
    assert result.n == 34
    assert [str(name) for name in result.images] == bytes_of("fmri.npy")[1]["images"]
    assert len(result.skipped) == 6
    assert sorted(os.listdir()) == ["fmri.json", "fmri.npy", "photos", "whole.json", "whole.npy"]


def test_rows_behind_the_last_state_are_done_again(
    photos: Path, encoder: scoring.Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a power cut: what was written since the last state is there in part, or as zeros."""
    score(photos, encoder, "whole.npy")
    interrupt(photos, encoder, 20)
    folder = Path(".fmri.npy.partial")
    with (folder / "fmri.npy").open("ab") as rows, (folder / "skipped.jsonl").open("ab") as skipped:
        rows.write(bytes(1001))
        skipped.write(b'[39, "bro')
    score(photos, encoder)
    assert bytes_of("fmri.npy") == bytes_of("whole.npy")


def test_the_batch_size_that_was_begun_with_is_gone_on_with(photos: Path, encoder: scoring.Encoder) -> None:
    score(photos, encoder, "whole.npy")
    interrupt(photos, encoder, 20)
    score(photos, encoder, batch_size=None)
    assert bytes_of("fmri.npy") == bytes_of("whole.npy")


def test_something_else_is_not_gone_on_with(photos: Path, encoder: scoring.Encoder, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    encoder_file.write(other, make_graph(), make_info().__class__(**{**vars(make_info()), "note": "another"}))
    interrupt(photos, encoder, 20)
    begun = {name: (Path(".fmri.npy.partial") / name).read_bytes() for name in ("fmri.npy", "state.json")}
    elsewhere = scoring.load(other, "cpu")
    cases: list[tuple[Any, Any, dict[str, Any], str]] = [
        (photos / "image-000000.png", encoder, {}, r"other images \(or they have changed\)"),
        (photos, elsewhere, {}, "another encoder file"),
        (photos, encoder, {"rois": ["V1v"]}, "other regions"),
        (photos, encoder, {"batch_size": 4}, r"another batch size \(3\)"),
    ]
    for images, chosen, options, words in cases:
        with pytest.raises(UsageError, match=rf"unfinished output of {words}; --overwrite starts over") as caught:
            score(images, chosen, **options)
        assert "\n" not in str(caught.value)
        assert begun == {name: (Path(".fmri.npy.partial") / name).read_bytes() for name in begun}
    os.utime(photos / "image-000000.png", ns=(1, 1))
    with pytest.raises(UsageError, match="or they have changed"):
        score(photos, encoder)
    said: list[str] = []
    assert score(photos, encoder, overwrite=True, say=said.append).n == 34
    assert said == []


def test_a_damaged_state_is_refused(photos: Path, encoder: scoring.Encoder) -> None:
    interrupt(photos, encoder, 20)
    state = Path(".fmri.npy.partial/state.json")
    for text in ("{", "[]", "{}", "null", '{"version": 99}'):
        state.write_text(text)
        with pytest.raises(UsageError, match="--overwrite starts over"):
            score(photos, encoder)
    assert score(photos, encoder, overwrite=True).n == 34


def test_rows_that_were_lost_are_noticed(photos: Path, encoder: scoring.Encoder) -> None:
    interrupt(photos, encoder, 20)
    os.truncate(".fmri.npy.partial/fmri.npy", 200)
    with pytest.raises(DataError, match=r"expected 18 rows to go on from.*remove the folder \.fmri"):
        score(photos, encoder)


def test_an_old_output_stays_until_the_new_one_is_there(photos: Path, encoder: scoring.Encoder) -> None:
    score(photos / "image-000000.png", encoder)
    old = bytes_of("fmri.npy")
    interrupt(photos, encoder, 20, overwrite=True)
    assert bytes_of("fmri.npy") == old
    with pytest.raises(UsageError, match="exists already"):
        score(photos, encoder)
    said: list[str] = []
    assert score(photos, encoder, overwrite=True, say=said.append).n == 34
    assert said == ["fmri.npy: goes on after 21 of 40 images"]
    assert not Path(".fmri.npy.partial").exists()


@pytest.mark.parametrize("moved", [0, 1])
def test_an_end_between_the_last_moves_is_made_good(
    photos: Path, encoder: scoring.Encoder, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    score(photos, encoder, "whole.npy")
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
            score(photos, encoder)
    assert Path("fmri.npy").exists() == bool(moved)
    monkeypatch.setattr(encoder, "run", None)  # nothing is to be computed again
    assert score(photos, encoder).n == 34
    assert bytes_of("fmri.npy") == bytes_of("whole.npy")


# --- killed -------------------------------------------------------------------------------------------------------

CHILD = """
import os, signal, sys
from brainkit.predict import Encoder
from brainkit.predict import resume
resume._EVERY = 0
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
def test_a_killed_command_goes_on_when_called_again(photos: Path, path: Path, number: signal.Signals) -> None:
    score(photos, scoring.load(path, "cpu"), "whole.npy")
    killed = predict_in_child(path, int(number))
    assert killed.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number], killed.stderr
    assert "Traceback" not in killed.stderr
    state = json.loads(Path(".fmri.npy.partial/state.json").read_text())
    assert 0 < state["done"] < COUNT
    if number != signal.SIGKILL:
        assert f"fmri.npy: {state['done']} of 40 images are kept; the same command goes on from there" in killed.stderr
    assert not Path("fmri.npy").exists()
    again = predict_in_child(path, 0)
    assert again.returncode == 0, again.stderr
    assert f"fmri.npy: goes on after {state['done']} of 40 images" in again.stderr
    assert bytes_of("fmri.npy") == bytes_of("whole.npy")
    assert not Path(".fmri.npy.partial").exists()


# --- full disks ---------------------------------------------------------------------------------------------------

FULL = """
import resource, sys
from brainkit.predict import resume
resume._EVERY = 0
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
from brainkit.cli import main
main()
"""


@posix
def test_a_file_that_may_not_grow_is_one_line_and_goes_on(photos: Path, path: Path) -> None:
    score(photos, scoring.load(path, "cpu"), "whole.npy")
    command = ["predict", "photos", "--out", "fmri.npy", "--encoder", str(path), "--batch-size", str(BATCH)]
    done = subprocess.run([sys.executable, "-c", FULL, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    kept, line = done.stderr.splitlines()
    assert "are kept; the same command goes on from there" in kept
    assert line == "brainkit: fmri.npy: cannot be written: File too large"
    assert predict_in_child(path, 0).returncode == 0
    assert bytes_of("fmri.npy") == bytes_of("whole.npy")


def test_an_interruption_while_the_state_is_written_is_told_as_it_is(
    photos: Path, encoder: scoring.Encoder, monkeypatch: pytest.MonkeyPatch
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
            score(photos, encoder, say=said.append)
    assert json.loads(Path(".fmri.npy.partial/state.json").read_text())["done"] == 4 * BATCH
    assert said == ["fmri.npy: 12 of 40 images are kept; the same command goes on from there"]


@pytest.mark.parametrize("where", ["rows", "skipped", "state", "description"])
def test_a_full_disk_loses_nothing(
    photos: Path, encoder: scoring.Encoder, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    score(photos, encoder, "whole.npy")
    left = [5]

    def filling(do: Any) -> Any:
        def full(*given: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device")
            return do(*given, **options)

        return full

    with monkeypatch.context() as patched:
        if where == "rows":
            patched.setattr(outputs.NpyRows, "append", filling(outputs.NpyRows.append))
        elif where == "skipped":
            patched.setattr(resume.Unfinished, "skip", filling(resume.Unfinished.skip))
        elif where == "state":
            patched.setattr(os, "replace", filling(os.replace))
        else:
            patched.setattr(outputs, "_indented", filling(outputs._indented))
        with pytest.raises(BrainkitError, match=r"fmri\.npy: cannot be written: No space left on device") as caught:
            score(photos, encoder)
    assert "\n" not in str(caught.value)
    assert not Path("fmri.npy").exists()
    said: list[str] = []
    score(photos, encoder, say=said.append)
    assert said[0].startswith("fmri.npy: goes on after")
    assert bytes_of("fmri.npy") == bytes_of("whole.npy")


def test_an_unbuffered_file_that_takes_less_at_once_gets_it_all() -> None:
    class Short:
        got = b""

        def write(self, data: memoryview) -> int:
            self.got += bytes(data[:3])
            return min(3, len(data))

    short = Short()
    resume.write_all(short, np.arange(5, dtype="<f4").data)
    assert short.got == np.arange(5, dtype="<f4").tobytes()


# --- two at once --------------------------------------------------------------------------------------------------


@posix
def test_two_processes_do_not_write_one_output(photos: Path, encoder: scoring.Encoder) -> None:
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
            with pytest.raises(UsageError, match="another process is writing it"):
                score(photos, encoder, overwrite=overwrite)
        child.communicate("")
    assert score(photos, encoder).n == 34


def test_an_output_that_appears_meanwhile_is_not_replaced(
    photos: Path, encoder: scoring.Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = FileLock.take

    def late(*given: Any, **options: Any) -> Any:
        Path("fmri.npy").write_text("precious")
        return take(*given, **options)

    monkeypatch.setattr(FileLock, "take", late)
    with pytest.raises(UsageError, match="exists already"):
        score(photos, encoder)
    assert Path("fmri.npy").read_text() == "precious"
    assert not Path(".fmri.npy.partial").exists()


# --- the pipeline -------------------------------------------------------------------------------------------------


def test_blocks_from_any_batch_on_are_those_of_the_whole(photos: Path, encoder: scoring.Encoder) -> None:
    listed = list_images(photos)
    whole = list(pipeline.local_blocks(encoder, listed, start=0, batch_size=BATCH, columns=None))
    assert [block.done for block in whole] == [*range(BATCH, COUNT, BATCH), COUNT]
    part = list(pipeline.local_blocks(encoder, listed, start=5 * BATCH, batch_size=BATCH, columns=None))
    for one, other in zip(whole[5:], part, strict=True):
        np.testing.assert_array_equal(one.fmri, other.fmri)
        assert (one.names, one.skipped, one.skipped_at) == (other.names, other.skipped, other.skipped_at)
    names = [name for block in whole for name in block.names]
    np.testing.assert_allclose(np.concatenate([block.fmri for block in whole]), encoder.predict(names), atol=1e-5)
    assert [at for block in whole for at in block.skipped_at] == list(range(3, COUNT, 7))
    assert {reason.split(",")[0] for block in whole for _, reason in block.skipped} == {
        "expected an image (PNG",
    }
    columns = np.array([7, 2])
    some = list(pipeline.local_blocks(encoder, listed, start=0, batch_size=BATCH, columns=columns))
    for one, other in zip(whole, some, strict=True):
        np.testing.assert_allclose(one.fmri[:, columns], other.fmri, atol=1e-6)


def test_a_batch_of_none_but_broken_images(tmp_path: Path, encoder: scoring.Encoder) -> None:
    for number in range(7):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
    Image.new("RGB", (4, 4)).save(tmp_path / "8.png")
    blocks = list(pipeline.local_blocks(encoder, list_images(tmp_path), start=0, batch_size=2, columns=None))
    assert [block.fmri.shape for block in blocks] == [(0, V)] * 3 + [(1, V)]
    result = scoring.predict_to_file(tmp_path, tmp_path / "out.npy", encoder, batch_size=2)
    assert (result.n, len(result.skipped)) == (1, 7)


def test_buffers_are_used_again(photos: Path, encoder: scoring.Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    met: set[int] = set()
    run = encoder.run

    def look(batch: np.ndarray, *given: Any) -> np.ndarray:
        met.add(batch.ctypes.data)
        return run(batch, *given)

    monkeypatch.setattr(encoder, "run", look)
    score(photos, encoder)
    assert 1 < len(met) <= 2 + -(-pipeline.cores() // BATCH)


def test_a_consumer_that_stops_ends_all_threads(photos: Path, encoder: scoring.Encoder) -> None:
    before = threading.active_count()
    blocks = pipeline.local_blocks(encoder, list_images(photos), start=0, batch_size=1, columns=None)
    next(blocks)
    assert threading.active_count() > before
    blocks.close()
    assert threading.active_count() == before


def test_what_the_network_raises_reaches_the_caller(
    photos: Path, encoder: scoring.Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(batch: np.ndarray, *given: Any) -> np.ndarray:
        raise BrainkitError("the network failed")

    monkeypatch.setattr(encoder, "run", failing)
    with pytest.raises(BrainkitError, match="the network failed"):
        score(photos, encoder)
    assert not Path(".fmri.npy.partial").exists()


# --- memory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "taken", "expected"),
    [(10**12, 0, 8), (8_000_000, 500_000, 8), (8_000_000, 1_000_000, 4), (1_000, 1_000_000, 1)],
)
def test_batches_fit_into_the_memory(
    encoder: scoring.Encoder, monkeypatch: pytest.MonkeyPatch, free: int, taken: int, expected: int
) -> None:
    monkeypatch.setattr(batch_size, "free_memory", lambda: free)
    monkeypatch.setattr(batch_size, "_bytes_for_one", lambda encoder: taken)
    monkeypatch.setattr(type(encoder), "batch_size_for", lambda self, asked: asked or 8)
    assert batch_size.choose_batch_size(encoder, None, 1000) == expected
    assert batch_size.choose_batch_size(encoder, 64, 1000) == 64
    assert batch_size.choose_batch_size(encoder, None, 2) == min(2, expected)


@pytest.mark.skipif(sys.platform != "linux", reason="the process's own memory is read from /proc")
def test_what_one_image_takes_is_measured(encoder: scoring.Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[np.ndarray] = []

    def hungry(batch: np.ndarray) -> np.ndarray:
        assert batch.shape == (1, SIZE, SIZE, 3)
        kept.append(np.ones(4_000_000))
        return kept[0]

    monkeypatch.setattr(encoder, "run", hungry)
    assert 32_000_000 <= batch_size._bytes_for_one(encoder) < 64_000_000


PEAK = """
import sys
from brainkit import predict as scoring
scoring.predict_to_file(sys.argv[1], sys.argv[2], sys.argv[3], device="cpu")
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the process's own memory is read from /proc")
def test_memory_does_not_grow_with_the_images(tmp_path: Path, path: Path) -> None:
    """5,000 images take no more than 200 but for the list's cache; kept names and rows would be 1.5 MB more and up."""
    peaks = []
    first = tmp_path / "image.png"
    Image.new("RGB", (4, 4)).save(first)
    for count in (200, 5000):
        folder = tmp_path / f"{count}"
        folder.mkdir()
        for number in range(count):
            os.link(first, folder / f"{'long-name-' * 20}{number:06d}.png")
        command = [sys.executable, "-c", PEAK, str(folder), str(tmp_path / f"{count}.npy"), str(path)]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] < 1.05 * peaks[0], peaks


def test_a_description_is_the_json_that_would_be_written_at_once(tmp_path: Path) -> None:
    value = {"a": [1, {"b": [2, "ü\n"]}], "none": [], "empty": {}, "text": "x", "many": [{"p": 1}, [3], "q"]}
    streamed = {key: iter(each) if key in ("none", "many") else each for key, each in value.items()}
    with (tmp_path / "a.json").open("w", encoding="utf-8") as file:
        outputs.write_streaming(file, streamed)
    assert (tmp_path / "a.json").read_text("utf-8") == json.dumps(value, indent=2, ensure_ascii=False) + "\n"
