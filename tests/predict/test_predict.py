"""Scoring without torch: devices, images in order, streaming output, and files that lie."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from pixel_encoder import PREPROCESSING, ROIS, SIZE, V, make_graph, make_info, readout_constants, write_encoder

from brainkit import encoder_file
from brainkit import predict as scoring
from brainkit.errors import BrainkitError, DataError, EncoderFileError, UsageError
from brainkit.images import Preprocessing, decode, prepare
from brainkit.predict import pipeline
from brainkit.predict import session as runtime
from brainkit.predict.inputs import decode as decoding
from brainkit.predict.outputs import formats as outputs
from brainkit.utils import system


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def encoder(path: Path) -> scoring.Encoder:
    return scoring.load(path, "cpu")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Twelve images in two folders, and three files that are none."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "photographs"
    (folder / "more").mkdir(parents=True)
    for index in range(12):
        where = folder / "more" if index % 3 == 0 else folder
        pixels = rng.integers(0, 256, (9 + index, 14, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(where / f"image-{11 - index:02d}.png")
    (folder / "broken.png").write_bytes((folder / "image-01.png").read_bytes()[:60])
    (folder / "more" / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no image")
    return folder


def expected_rows(paths: list[Path]) -> np.ndarray:
    """The same in plain NumPy, from the definition."""
    constants = readout_constants()
    rows = []
    for path in paths:
        pixels = prepare(decode(path), PREPROCESSING) / 255
        row = []
        for v in range(V):
            x, y = ((constants.locations[v] + 1) * SIZE - 1) / 2
            local = np.zeros(3)
            for i in (int(np.floor(y)), int(np.floor(y)) + 1):
                for j in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= i < SIZE and 0 <= j < SIZE:
                        local += (1 - abs(y - i)) * (1 - abs(x - j)) * pixels[i, j]
            mixed = (1 - constants.scale[v]) * local + constants.scale[v] * pixels.mean((0, 1))
            row.append(constants.bias[v] + (constants.weight[v] * mixed).mean())
        rows.append(row)
    return np.array(rows)


def readable(folder: Path) -> list[Path]:
    return sorted(folder.rglob("image-*.png"), key=lambda path: path.parts)


def test_importing_loads_neither_torch_nor_onnx_runtime() -> None:
    code = "import sys, brainkit.predict; print([m for m in ('torch', 'onnxruntime', 'onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_scoring_works_where_torch_is_absent(path: Path, photographs: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'timm'): sys.modules[name] = None\n"
        "import brainkit\n"
        f"print(brainkit.load({str(path)!r}).predict([{str(readable(photographs)[0])!r}]).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"(1, {V})"
    assert done.stderr == ""


def test_an_encoder_says_what_it_is(encoder: scoring.Encoder) -> None:
    assert encoder.device == "cpu"
    assert encoder.rois.names == ROIS.names
    assert len(encoder.vertices) == V
    assert encoder.selectors["layer_weights"].shape == (V, 1)
    assert encoder.info.note == "simulated"
    assert "pixels" in repr(encoder)


def test_all_kinds_of_images_give_the_same(encoder: scoring.Encoder, photographs: Path) -> None:
    paths = readable(photographs)
    expected = expected_rows(paths)
    by_path = encoder.predict(paths)
    assert by_path.dtype == np.float32
    np.testing.assert_allclose(by_path, expected, atol=1e-5)
    pictures = [decode(path) for path in paths]
    np.testing.assert_array_equal(encoder.predict(pictures), by_path)
    np.testing.assert_array_equal(encoder.predict([np.asarray(picture) for picture in pictures]), by_path)
    alone = encoder.predict(str(paths[4]))
    np.testing.assert_allclose(alone, by_path[4:5], atol=1e-5)
    np.testing.assert_array_equal(encoder.predict(pictures[4]), alone)
    stacked = np.stack([np.asarray(pictures[0].resize((30, 20))), np.asarray(pictures[1].resize((30, 20)))])
    each = [encoder.predict([image])[0] for image in stacked]
    np.testing.assert_allclose(encoder.predict(stacked), each, atol=1e-6)
    prepared = np.stack([prepare(picture, PREPROCESSING) for picture in pictures])
    np.testing.assert_array_equal(encoder.predict(prepared, prepared=True), by_path)
    assert encoder.predict([]).shape == (0, V)
    assert encoder.predict(prepared[:0], prepared=True).shape == (0, V)


def test_a_list_keeps_its_order_whatever_the_batch(encoder: scoring.Encoder, photographs: Path) -> None:
    paths = readable(photographs)[::-1]
    expected = expected_rows(paths)
    for batch_size in (1, 5, 12, 100):
        np.testing.assert_allclose(encoder.predict(paths, batch_size), expected, atol=1e-5)


def test_slow_images_do_not_change_the_order(
    encoder: scoring.Encoder, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(path: Path) -> Image.Image:
        time.sleep(0.03 if path.name < "image-06" else 0)
        return decode(path)

    monkeypatch.setattr(decoding, "decode", slow)
    monkeypatch.setattr(pipeline, "cores", lambda: 4)
    paths = readable(photographs)
    np.testing.assert_allclose(encoder.predict(paths, 3), expected_rows(paths), atol=1e-5)


def test_what_is_no_image_is_refused(encoder: scoring.Encoder, photographs: Path) -> None:
    with pytest.raises(DataError, match=r"broken\.png"):
        encoder.predict(photographs)
    with pytest.raises(DataError, match=r"images\[1\]: expected 8-bit"):
        encoder.predict([Image.new("RGB", (4, 4)), Image.new("F", (4, 4))])
    for images, words in (
        (np.zeros((2, 8, 8, 3)), "uint8"),
        (np.zeros((8, 8, 3), np.uint8), r"\(n, H, W, 3\)"),
        ([3], "images.0. must be a path"),
        ([np.zeros((4, 4), np.uint8)], "images.0. must be uint8"),
    ):
        with pytest.raises(UsageError, match=words):
            encoder.predict(images)
    with pytest.raises(UsageError, match="prepared images"):
        encoder.predict(np.zeros((2, 9, 9, 3), np.uint8), prepared=True)
    with pytest.raises(UsageError, match="batch size"):
        encoder.predict([], 0)


def test_files_and_their_description(path: Path, photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "fmri.npy"
    seen: list[tuple[int, int]] = []
    result = scoring.predict_to_file(
        [photographs], out, path, device="cpu", batch_size=5, progress=lambda done, total: seen.append((done, total))
    )
    paths = readable(photographs)
    fmri = np.load(out, mmap_mode="r")
    assert fmri.dtype == np.float32
    assert fmri.flags.c_contiguous
    np.testing.assert_allclose(fmri, expected_rows(paths), atol=1e-5)
    assert (result.path, result.n) == (out, 12)
    assert result.seconds > 0
    skipped = sorted(["broken.png", "empty.jpg", "text.jpg"])
    assert sorted(image.name for image, _ in result.skipped) == skipped
    assert seen[-1] == (15, 15)
    assert seen == sorted(seen)

    description = json.loads((tmp_path / "fmri.json").read_text(encoding="utf-8"))
    assert description["images"] == [str(image) for image in paths]
    assert sorted(Path(entry["path"]).name for entry in description["skipped"]) == skipped
    assert all(entry["reason"] and entry["path"] not in entry["reason"] for entry in description["skipped"])
    assert description["shape"] == [12, V]
    assert (description["units"], description["space"]) == ("z-scored percent signal change", "fsaverage5")
    assert description["encoder"]["sha256"] == encoder_file.read(path).digest
    assert description["note"] == "simulated"
    assert "ids" not in description["vertices"]
    assert sorted(os.listdir(tmp_path)) == ["fmri.json", "fmri.npy", "photographs"]


def test_regions_keep_their_vertices(path: Path, photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "fmri.npy"
    scoring.predict_to_file(photographs, out, path, device="cpu", rois=["V1", "ppa"])
    np.testing.assert_allclose(np.load(out), expected_rows(readable(photographs))[:, [1, 3, 7, 19]], atol=1e-5)
    description = json.loads((tmp_path / "fmri.json").read_text())
    assert description["vertices"]["ids"] == [1000, 3000, 7000, 19000]
    assert description["rois"] == {"V1": [0, 1, 2], "ppa": [0, 3]}
    for rois, words in ((["V9"], "V9"), (["absent"], "no vertices")):
        with pytest.raises(UsageError, match=words):
            scoring.predict_to_file(photographs, out, path, device="cpu", rois=rois, overwrite=True)


def test_nothing_is_overwritten_unasked(path: Path, photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "fmri.npy"
    for name in ("fmri.npy", "fmri.json"):
        (tmp_path / name).write_text("precious")
        with pytest.raises(UsageError, match=f"{name}: exists already"):
            scoring.predict_to_file(photographs, out, path, device="cpu")
        assert (tmp_path / name).read_text() == "precious"
        (tmp_path / name).unlink()
    out.write_text("old")
    assert scoring.predict_to_file(photographs, out, path, device="cpu", overwrite=True).n == 12
    assert np.load(out).shape == (12, V)


def test_outputs_that_cannot_be(path: Path, photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        scoring.predict_to_file(photographs, tmp_path / "nowhere" / "fmri.npy", path)
    with pytest.raises(UsageError, match=r"must end in \.npy"):
        scoring.predict_to_file(photographs, tmp_path / "fmri.tif", path)
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        scoring.predict_to_file(photographs, tmp_path / "folder.npy", path, overwrite=True)


def test_not_one_readable_image_leaves_nothing(path: Path, photographs: Path, tmp_path: Path) -> None:
    for bad in ([photographs / "text.jpg"], [photographs / "text.jpg", photographs / "broken.png"]):
        with pytest.raises(BrainkitError, match="could be read") as caught:
            scoring.predict_to_file(bad, tmp_path / "fmri.npy", path, device="cpu")
        assert caught.value.exit_code == 1
        assert "\n" not in str(caught.value)
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="no images"):
        scoring.predict_to_file(tmp_path / "none", tmp_path / "fmri.npy", path)
    assert sorted(os.listdir(tmp_path)) == ["none", "photographs"]


def test_an_error_on_the_way_leaves_no_output_and_no_thread(
    encoder: scoring.Encoder, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = {thread.name for thread in threading.enumerate()}
    with pytest.raises(KeyboardInterrupt):
        scoring.predict_to_file(photographs, tmp_path / "fmri.npy", encoder, batch_size=1, progress=interrupted)
    assert (tmp_path / ".fmri.npy.partial").is_dir()  # what was done is kept: tests/test_streaming.py

    def full(self: Any, rows: np.ndarray, names: Any = ()) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs.NpyRows, "append", full)
    with pytest.raises(BrainkitError, match="No space left"):
        scoring.predict_to_file(photographs, tmp_path / "other.npy", encoder)
    assert sorted(os.listdir(tmp_path)) == [".fmri.npy.partial", "photographs"]
    assert {thread.name for thread in threading.enumerate()} == before


def test_decoding_runs_ahead_by_a_bounded_number(encoder: scoring.Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays flat because no more images are in flight than this."""
    decoded, furthest = 0, 0
    lock = threading.Lock()

    def count(place: np.ndarray, source: Any, preprocessing: Preprocessing) -> None:
        nonlocal decoded
        with lock:
            decoded += 1

    monkeypatch.setattr(pipeline, "prepare_into", count)
    taken = 0
    for batch in pipeline.batches(encoder, lambda start, stop: range(start, stop), range(500), 4, encoder.run):
        assert batch.fmri is not None
        furthest = max(furthest, decoded - taken)
        taken += len(batch.fmri)
    assert taken == decoded == 500
    assert furthest <= 3 * 4 + pipeline.cores()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not take such names")
def test_names_that_are_not_utf8_or_hold_newlines(path: Path, photographs: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    image = readable(photographs)[0].read_bytes()
    for name in (b"a\nb.png", b"caf\xe9.png", "ü.png".encode()):
        (odd / os.fsdecode(name)).write_bytes(image)
    (odd / os.fsdecode(b"bad\xff.png")).write_bytes(b"no image")
    result = scoring.predict_to_file(odd, tmp_path / "fmri.npy", path, device="cpu")
    assert (result.n, len(result.skipped)) == (3, 1)
    names = [Path(image).name for image in json.loads((tmp_path / "fmri.json").read_text("utf-8"))["images"]]
    assert set(names) == {"a\nb.png", "caf\\xe9.png", "ü.png"}


def test_a_device_that_is_not_there_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="auto, cpu, cuda"):
        scoring.load(path, "tpu")
    monkeypatch.setattr(runtime, "cuda_devices", lambda: ([], "no NVIDIA driver"))
    with pytest.raises(BrainkitError, match="no CUDA device"):
        scoring.load(path, "cuda")
    assert scoring.load(path, "auto").device == "cpu"


@pytest.mark.skipif(bool(system.cuda_devices()[0]), reason="this machine has a CUDA device")
def test_a_runtime_that_falls_back_in_silence_is_caught(
    path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA")
    monkeypatch.setattr(runtime, "cuda_devices", lambda: ([("a GPU", 10**9)], ""))  # a driver, but nothing that works
    with pytest.raises(BrainkitError, match="could not start"):
        scoring.load(path, "cuda")
    assert scoring.load(path, "auto").device == "cpu"
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not system.cuda_devices()[0], reason="needs a CUDA device")
def test_a_gpu_predicts_the_same(path: Path, photographs: Path) -> None:
    paths = readable(photographs)
    np.testing.assert_allclose(scoring.load(path, "cuda").predict(paths), expected_rows(paths), atol=1e-4)


def test_a_file_whose_graph_is_not_what_it_says(tmp_path: Path) -> None:
    cases = {
        "fewer vertices": (make_graph(), make_info(19)),
        "no tokens": (make_graph(outputs=("fmri",)), make_info()),
        "another size": (make_graph(size=16), make_info()),
        "no graph": (b"\x08\x0a\x3a\x05hello\x42\x02\x10\x14", make_info()),
    }
    for name, (graph, info) in cases.items():
        path = tmp_path / f"{name}.onnx"
        encoder_file.write(path, graph, info)
        with pytest.raises(
            EncoderFileError, match=r"graph must have|its graph is not|not an ONNX file|ONNX Runtime cannot open"
        ) as caught:
            scoring.load(path, "cpu")
        assert "\n" not in str(caught.value)


def test_a_file_that_was_replaced_gives_no_subset(path: Path, photographs: Path, tmp_path: Path) -> None:
    """Rows for some vertices are read when they are first asked for: from the very file that was checked."""
    own = tmp_path / "own.onnx"
    own.write_bytes(path.read_bytes())
    encoder = scoring.load(own)
    batch = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    whole = encoder.run(batch)
    np.testing.assert_allclose(encoder.run(batch, np.array([4, 2])), whole[:, [4, 2]], atol=1e-6)
    own.write_bytes(path.read_bytes())
    with pytest.raises(EncoderFileError, match="changed since it was opened"):
        encoder.run(batch, np.array([5]))


def test_an_encoder_serves_several_threads(path: Path) -> None:
    """One that ends does not end what another has under way."""
    encoder = scoring.load(path, "cpu")
    images = np.random.default_rng(0).integers(0, 256, (3, 9, 9, 3), dtype=np.uint8)
    expected = encoder.predict(images)
    inner, entered, release = encoder._session, threading.Event(), threading.Event()
    held = False

    class Held:
        def run(self, *given: Any) -> Any:
            if held:
                entered.set()
                assert release.wait(20)
            return inner.run(*given)

    encoder._session = Held()
    first = encoder._rows(images, 1, False, encoder.run)
    for _ in images:  # all its runs are done; it has not ended
        next(first)
    held = True
    found: list[np.ndarray] = []
    second = threading.Thread(target=lambda: found.append(encoder.predict(images)))
    second.start()
    assert entered.wait(20)
    first.close()
    release.set()
    second.join()
    np.testing.assert_array_equal(found[0], expected)


def test_one_region_may_be_given_by_its_name(encoder: scoring.Encoder, photographs: Path, tmp_path: Path) -> None:
    images = photographs / "image-01.png"
    np.testing.assert_array_equal(encoder.predict(images, rois="V1"), encoder.predict(images, rois=["V1"]))
    assert list(encoder.roi_means(images, "V1")) == ["V1"]
    scoring.predict_to_file(images, tmp_path / "fmri.csv", encoder, rois="V1")
    assert (tmp_path / "fmri.csv").read_text().startswith("image,V1\n")
    with pytest.raises(UsageError, match=r"images must be a path, .* got int"):
        encoder.predict(5)  # type: ignore[arg-type]


def test_no_region_is_not_all_of_them(path: Path, photographs: Path) -> None:
    with pytest.raises(UsageError, match="rois must name at least one region, got none"):
        scoring.load(path).predict(photographs, rois=[])
