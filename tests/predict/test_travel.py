"""An open encoder, and what it returns, in other threads and processes: pickled, copied, forked."""

from __future__ import annotations

import copy
import functools
import gc
import multiprocessing
import os
import pickle
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from pixel_encoder import V, write_encoder

from brainkit.errors import EncoderFileError, UsageError
from brainkit.insilico.contrast import contrast
from brainkit.predict import Encoder, list_images, load, predict_to_file

METHODS = multiprocessing.get_all_start_methods()
needs_fork = pytest.mark.skipif("fork" not in METHODS, reason="this system has no fork")


def predict_all(encoder: Encoder, images: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    return encoder.predict(images), encoder.predict(images, rois="V1")


@pytest.fixture
def threaded(path: Path) -> Encoder:
    """An encoder with threads of its own, which a fork loses."""
    return load(path, "cpu", threads=2)


def test_a_pickled_encoder_is_a_path_that_is_opened_again(
    path: Path, readable: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    encoder = load(path.name, "cpu", threads=1)
    expected = predict_all(encoder, readable)
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(encoder)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)
    assert again is not encoder
    assert (again.device, again.threads, again.info.digest) == ("cpu", 1, encoder.info.digest)
    for found, wanted in zip(predict_all(again, readable), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert pickle.loads(pickle.dumps(again)) is again  # as a worker that gets it with every task


def test_an_open_encoder_does_not_depend_on_the_working_folder(
    path: Path, readable: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    encoder = load(path.name, "cpu")
    monkeypatch.chdir(tmp_path)
    assert encoder.predict(readable, rois="PPA").shape == (len(readable), 2)


@pytest.mark.parametrize("of", [copy.copy, copy.deepcopy])
def test_a_copy_predicts_the_same(encoder: Encoder, readable: list[Path], of: Any) -> None:
    expected = encoder.predict(readable)
    held = of({"encoder": encoder})
    np.testing.assert_array_equal(held["encoder"].predict(readable), expected)


def test_another_file_at_the_path_is_noticed(path: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.onnx"
    shutil.copy(path, own)
    pickled = pickle.dumps(load(own, "cpu"))
    write_encoder(tmp_path, "own.onnx", note="another")
    with pytest.raises(EncoderFileError, match=r"own\.onnx: ") as caught:
        pickle.loads(pickled)
    assert "\n" not in str(caught.value)
    own.unlink()
    with pytest.raises(EncoderFileError, match=r"own\.onnx: "):
        pickle.loads(pickled)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_worker_processes_predict_the_same(threaded: Encoder, readable: list[Path], method: str) -> None:
    expected = predict_all(threaded, readable)
    with multiprocessing.get_context(method).Pool(2) as pool:
        whole = pool.map(threaded.predict, [[image] for image in readable])
        some = pool.map(functools.partial(threaded.predict, rois="V1"), [[image] for image in readable])
    np.testing.assert_allclose(np.concatenate(whole), expected[0], atol=1e-6)
    np.testing.assert_allclose(np.concatenate(some), expected[1], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_joblib_predicts_the_same(threaded: Encoder, readable: list[Path], backend: str) -> None:
    joblib = pytest.importorskip("joblib")
    tasks = [joblib.delayed(threaded.predict)([image]) for image in readable]
    found = joblib.Parallel(2, backend=backend)(tasks)
    np.testing.assert_allclose(np.concatenate(found), threaded.predict(readable), atol=1e-6)


class Predictions:
    """A data set of torch's kind whose items are predictions."""

    def __init__(self, encoder: Encoder, images: list[Path]) -> None:
        self.predict, self.images = encoder.predict, images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.predict([self.images[index]])[0]


@needs_fork
@pytest.mark.slow
def test_workers_of_a_forking_data_loader_predict_the_same(threaded: Encoder, readable: list[Path]) -> None:
    data = pytest.importorskip("torch.utils.data")
    expected = threaded.predict(readable)
    loader = data.DataLoader(
        Predictions(threaded, readable), batch_size=3, num_workers=2, multiprocessing_context="fork"
    )
    np.testing.assert_allclose(np.concatenate([batch.numpy() for batch in loader]), expected, atol=1e-6)


@needs_fork
def test_a_forked_process_may_drop_the_encoder(path: Path, readable: list[Path]) -> None:
    """ONNX Runtime waits for ever for the parent's threads if their session is freed in a child."""
    encoder = load(path, "cpu", threads=2)
    expected = encoder.predict(readable)
    child = os.fork()
    if not child:
        signal.alarm(600)
        same = np.allclose(encoder.predict(readable), expected, atol=1e-6)
        del encoder
        gc.collect()
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(encoder.predict(readable), expected)


@needs_fork
def test_a_forked_process_notices_another_file(path: Path, readable: list[Path], tmp_path: Path) -> None:
    own = tmp_path / "own.onnx"
    shutil.copy(path, own)
    encoder = load(own, "cpu")
    write_encoder(tmp_path, "own.onnx", note="another")
    child = os.fork()
    if not child:
        try:
            encoder.predict(readable)
        except EncoderFileError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_threads_share_an_encoder(threaded: Encoder, readable: list[Path]) -> None:
    expected = predict_all(threaded, readable)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: predict_all(threaded, readable), range(8)):
            for one, wanted in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, wanted)


def test_threads_are_as_many_as_asked_for(path: Path, readable: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from brainkit.predict import pipeline, readout

    monkeypatch.setattr(pipeline, "cores", lambda: pytest.fail("more threads than asked for"))
    monkeypatch.setattr(readout, "cores", lambda: pytest.fail("more threads than asked for"))
    encoder = load(path, "cpu", threads=1)
    options = encoder._session._session.get_session_options()
    assert options.intra_op_num_threads == encoder.threads == 1
    assert encoder.predict(readable, rois="V1").shape == (len(readable), 3)
    for threads in (0, -1):
        with pytest.raises(UsageError, match="threads"):
            load(path, "cpu", threads=threads)


def test_a_list_of_images_stays_where_it_is(readable: list[Path]) -> None:
    images = list_images(readable)
    for how in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="entries"):
            how(images)
    gc.collect()
    assert pickle.loads(pickle.dumps(images.entries(0, 2))) == images.entries(0, 2)


def test_results_travel(encoder: Encoder, photos: Path, readable: list[Path], tmp_path: Path) -> None:
    written = predict_to_file(photos, tmp_path / "fmri.npy", encoder)
    top = encoder.top(readable, "PPA", k=2)
    found = contrast(readable[:5], readable[5:], encoder)
    for again in (pickle.loads(pickle.dumps((written, top, found))), copy.deepcopy((written, top, found))):
        assert again[0].path == written.path and again[0].description == written.description
        for name in ("images", "skipped", "sources"):
            assert list(getattr(again[0], name)) == list(getattr(written, name))
        assert again[1] == top
        np.testing.assert_array_equal(again[2].statistics.t, found.statistics.t)
        assert (again[2].encoder.digest, again[2].vertices) == (found.encoder.digest, found.vertices)
    assert encoder.info.selectors["scale"].shape == (V,)
