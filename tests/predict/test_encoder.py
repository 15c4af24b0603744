"""An encoder file opened for predicting, without torch: images in order, devices, threads, and files that lie."""

from __future__ import annotations

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

from pixel_encoder import PREPROCESSING, ROIS, SIZE, V, expected_rows, make_graph, make_info

from brainkit import encoder_file
from brainkit.errors import BrainkitError, DataError, EncoderFileError, ImageError, UsageError
from brainkit.images import decode, prepare
from brainkit.predict import Encoder, load, pipeline, session
from brainkit.predict.inputs import decode as decoding
from brainkit.utils import system

HEAVY = ("torch", "onnx", "onnxruntime", "scipy", "psutil", "nibabel", "ray", "zarr", "fsspec", "pandas", "matplotlib")


@pytest.mark.parametrize("name", ["brainkit.predict", "brainkit.predict.to_file", "brainkit.encoder_file.describe"])
def test_importing_is_light(name: str) -> None:
    code = f"import sys, {name}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_old_name_of_the_package_still_works() -> None:
    from brainkit import scoring

    for name in ("predict_to_file", "list_images", "load", "Encoder"):
        with pytest.warns(DeprecationWarning, match=rf"brainkit\.predict\.{name}"):
            old = getattr(scoring, name)
        assert old is getattr(__import__("brainkit.predict", fromlist=[name]), name)


def test_predicting_works_where_torch_is_absent(path: Path, readable: list[Path]) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'timm'): sys.modules[name] = None\n"
        "import brainkit\n"
        f"print(brainkit.load({str(path)!r}).predict([{str(readable[0])!r}]).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"(1, {V})"
    assert done.stderr == ""


def test_an_encoder_has_the_metadata_of_its_file(encoder: Encoder) -> None:
    assert encoder.device == "cpu"
    assert encoder.rois.names == ROIS.names
    assert len(encoder.vertices) == V
    assert encoder.selectors["layer_weights"].shape == (V, 1)
    assert encoder.info.note == "simulated"
    assert "pixels" in repr(encoder)


# --- images ---------------------------------------------------------------------------------------------------------


def test_all_kinds_of_images_give_the_same(encoder: Encoder, readable: list[Path]) -> None:
    by_path = encoder.predict(readable)
    assert by_path.dtype == np.float32
    np.testing.assert_allclose(by_path, expected_rows(readable), atol=1e-5)
    pictures = [decode(path) for path in readable]
    np.testing.assert_array_equal(encoder.predict(pictures), by_path)
    np.testing.assert_array_equal(encoder.predict([np.asarray(picture) for picture in pictures]), by_path)
    alone = encoder.predict(str(readable[4]))
    np.testing.assert_allclose(alone, by_path[4:5], atol=1e-5)
    np.testing.assert_array_equal(encoder.predict(pictures[4]), alone)
    stacked = np.stack([np.asarray(pictures[0].resize((30, 20))), np.asarray(pictures[1].resize((30, 20)))])
    each = [encoder.predict([image])[0] for image in stacked]
    np.testing.assert_allclose(encoder.predict(stacked), each, atol=1e-6)
    prepared = np.stack([prepare(picture, PREPROCESSING) for picture in pictures])
    np.testing.assert_array_equal(encoder.predict(prepared, prepared=True), by_path)
    assert encoder.predict([]).shape == (0, V)
    assert encoder.predict(prepared[:0], prepared=True).shape == (0, V)


@pytest.mark.parametrize("batch_size", [1, 5, 10, 100])
def test_a_list_keeps_its_order_whatever_the_batch(encoder: Encoder, readable: list[Path], batch_size: int) -> None:
    paths = readable[::-1]
    np.testing.assert_allclose(encoder.predict(paths, batch_size), expected_rows(paths), atol=1e-5)


def test_slow_images_do_not_change_the_order(
    encoder: Encoder, readable: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(path: Path) -> Image.Image:
        time.sleep(0.03 if path.name < "image-006" else 0)
        return decode(path)

    monkeypatch.setattr(decoding, "decode", slow)
    monkeypatch.setattr(pipeline, "cores", lambda: 4)
    np.testing.assert_allclose(encoder.predict(readable, 3), expected_rows(readable), atol=1e-5)


def test_an_unreadable_image_is_named_with_its_reason(encoder: Encoder, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"image-003\.png") as caught:
        encoder.predict(photos)
    assert not caught.value.missing and "image-003" not in caught.value.reason
    with pytest.raises(ImageError, match=r"nowhere\.png") as caught:
        encoder.predict([tmp_path / "nowhere.png"])
    assert caught.value.missing
    with pytest.raises(ImageError, match=r"images\[1\]"):
        encoder.predict([Image.new("RGB", (4, 4)), Image.new("F", (4, 4))])


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), [3], [np.zeros((4, 4), np.uint8)], 5],
)
def test_what_is_not_images_is_refused(encoder: Encoder, images: Any) -> None:
    with pytest.raises(UsageError, match=r"^images"):
        encoder.predict(images)


def test_wrong_arguments_are_refused(encoder: Encoder, readable: list[Path]) -> None:
    with pytest.raises(UsageError, match="prepared images"):
        encoder.predict(np.zeros((2, 9, 9, 3), np.uint8), prepared=True)
    with pytest.raises(UsageError, match="batch size"):
        encoder.predict([], 0)
    with pytest.raises(UsageError, match="V9"):
        encoder.predict(readable, rois=["V9"])
    with pytest.raises(UsageError, match="rois"):
        encoder.predict(readable, rois=[])
    with pytest.raises(UsageError, match="1 to 100"):
        encoder.top(readable, "V1", k=0)
    with pytest.raises(DataError, match="image-003"):
        encoder.roi_means(readable[0].parent)


def test_regions_and_means(encoder: Encoder, readable: list[Path], rows: np.ndarray) -> None:
    np.testing.assert_allclose(encoder.predict(readable, 3, rois=["V1", "PPA"]), rows[:, [1, 3, 7, 19]], atol=1e-6)
    np.testing.assert_array_equal(encoder.predict(readable, rois="V1"), encoder.predict(readable, rois=["V1"]))
    means = encoder.roi_means(readable, ["V1", "PPA"], batch_size=3)
    np.testing.assert_allclose(means["V1"], rows[:, [1, 3, 7]].mean(1), atol=1e-6)
    np.testing.assert_allclose(means["PPA"], rows[:, [1, 19]].mean(1), atol=1e-6)
    assert list(encoder.roi_means(readable, "V1")) == ["V1"]
    assert encoder.roi_means([], ["V1"])["V1"].shape == (0,)
    pictures = [np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)]
    assert {one.name for one in encoder.top(pictures, "V1", k=2)} == {"images[0]", "images[1]"}


# --- devices --------------------------------------------------------------------------------------------------------


def test_a_device_that_is_not_there_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="tpu"):
        load(path, "tpu")
    monkeypatch.setattr(session, "cuda_devices", lambda: ([], "no NVIDIA driver"))
    with pytest.raises(BrainkitError, match="CUDA device"):
        load(path, "cuda")
    assert load(path, "auto").device == "cpu"


@pytest.mark.skipif(bool(system.cuda_devices()[0]), reason="this machine has a CUDA device")
def test_a_runtime_that_falls_back_silently_is_caught(
    path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA")
    monkeypatch.setattr(session, "cuda_devices", lambda: ([("a GPU", 10**9)], ""))  # a driver, but nothing that works
    with pytest.raises(BrainkitError, match="cuda"):
        load(path, "cuda")
    assert load(path, "auto").device == "cpu"
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not system.cuda_devices()[0], reason="needs a CUDA device")
def test_a_gpu_predicts_the_same(path: Path, readable: list[Path]) -> None:
    np.testing.assert_allclose(load(path, "cuda").predict(readable), expected_rows(readable), atol=1e-4)


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "vertices"),
    [({}, 19), ({"outputs": ("fmri",)}, V), ({"size": 16}, V), (None, V)],
    ids=["fewer vertices", "no tokens", "another size", "no graph"],
)
def test_a_file_whose_graph_does_not_fit_its_metadata(tmp_path: Path, graph: Any, vertices: int) -> None:
    model = b"\x08\x0a\x3a\x05hello\x42\x02\x10\x14" if graph is None else make_graph(**graph)
    encoder_file.write(tmp_path / "e.onnx", model, make_info(vertices))
    with pytest.raises(EncoderFileError, match=r"e\.onnx") as caught:
        load(tmp_path / "e.onnx", "cpu")
    assert "\n" not in str(caught.value)


def test_a_file_that_was_replaced_gives_no_subset(path: Path, tmp_path: Path) -> None:
    """Rows of some vertices are read when they are first used: from the very file that was checked."""
    own = tmp_path / "own.onnx"
    own.write_bytes(path.read_bytes())
    encoder = load(own)
    batch = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    whole = encoder.run(batch)
    np.testing.assert_allclose(encoder.run(batch, np.array([4, 2])), whole[:, [4, 2]], atol=1e-6)
    own.write_bytes(path.read_bytes())
    with pytest.raises(EncoderFileError, match=r"own\.onnx"):
        encoder.run(batch, np.array([5]))


# --- threads --------------------------------------------------------------------------------------------------------


def test_an_encoder_serves_several_threads(path: Path) -> None:
    """A thread that stops early does not abort the run of another."""
    encoder = load(path, "cpu")
    images = np.random.default_rng(0).integers(0, 256, (3, 9, 9, 3), dtype=np.uint8)
    expected = encoder.predict(images)
    runtime, entered, release = encoder._session._session, threading.Event(), threading.Event()
    waits = False

    class Waiting:
        def run(self, *given: Any) -> Any:
            if waits:
                entered.set()
                assert release.wait(600)
            return runtime.run(*given)

    encoder._session._session = Waiting()
    first = encoder._rows(images, 1, False, encoder.run)
    for _ in images:  # all its runs are done; it has not ended
        next(first)
    waits = True
    found: list[np.ndarray] = []
    second = threading.Thread(target=lambda: found.append(encoder.predict(images)))
    second.start()
    assert entered.wait(600)
    first.close()
    release.set()
    second.join()
    np.testing.assert_array_equal(found[0], expected)


def test_a_run_can_be_aborted(path: Path) -> None:
    encoder = load(path, "cpu")
    options: list[Any] = []

    class Slow:
        def run(self, outputs: Any, inputs: Any, run_options: Any) -> Any:
            options.append(run_options)
            encoder.break_off(threading.get_ident() + 1)
            assert not run_options.terminate
            encoder.break_off()
            raise RuntimeError("terminated" if run_options.terminate else "not terminated")

    encoder._session._session = Slow()
    with pytest.raises(BrainkitError, match="ONNX Runtime failed: terminated"):
        encoder.run(np.zeros((1, SIZE, SIZE, 3), np.uint8))
