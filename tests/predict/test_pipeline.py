"""Images through the network: in order, in bounded memory, in threads that end."""

from __future__ import annotations

import os
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from pixel_encoder import SIZE, V, save_images

from brainkit.errors import BrainkitError
from brainkit.images import Preprocessing
from brainkit.predict import Encoder, list_images, local_blocks, pipeline, predict_to_file
from brainkit.predict.inputs.decode import Prepared

COUNT, BATCH = 40, 3
BROKEN = tuple(range(3, COUNT, 7))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images, every seventh of them broken."""
    folder = tmp_path_factory.mktemp("many")
    save_images(folder, COUNT, broken=BROKEN)
    return folder


def test_blocks_from_any_batch_on_are_those_of_the_whole(many: Path, encoder: Encoder) -> None:
    images = list_images(many)
    whole = list(local_blocks(encoder, images, batch_size=BATCH))
    assert [block.done for block in whole] == [*range(BATCH, COUNT, BATCH), COUNT]
    part = list(local_blocks(encoder, images, start=5 * BATCH, batch_size=BATCH))
    for one, other in zip(whole[5:], part, strict=True):
        np.testing.assert_array_equal(one.fmri, other.fmri)
        assert (one.names, one.skipped, one.skipped_at) == (other.names, other.skipped, other.skipped_at)
    names = [name for block in whole for name in block.names]
    np.testing.assert_allclose(np.concatenate([block.fmri for block in whole]), encoder.predict(names), atol=1e-5)
    assert tuple(at for block in whole for at in block.skipped_at) == BROKEN
    assert not any(block.missing for block in whole)
    assert all(reason and name not in reason for block in whole for name, reason in block.skipped)
    columns = np.array([7, 2])
    some = list(local_blocks(encoder, images, batch_size=BATCH, columns=columns))
    for one, other in zip(whole, some, strict=True):
        np.testing.assert_allclose(one.fmri[:, columns], other.fmri, atol=1e-6)


def test_a_batch_of_broken_images_only(tmp_path: Path, encoder: Encoder) -> None:
    save_images(tmp_path / "photos", 8, broken=tuple(range(7)))
    blocks = list(local_blocks(encoder, list_images(tmp_path / "photos"), batch_size=2))
    assert [block.fmri.shape for block in blocks] == [(0, V)] * 3 + [(1, V)]
    result = predict_to_file(tmp_path / "photos", tmp_path / "out.npy", encoder, batch_size=2)
    assert (result.n, len(result.skipped)) == (1, 7)


def test_files_that_do_not_exist_are_told_from_broken_ones(tmp_path: Path, encoder: Encoder) -> None:
    save_images(tmp_path, 3, broken=(1,))
    (tmp_path / "list.txt").write_text("image-000.png\nimage-001.png\nnowhere.png\n")
    (block,) = local_blocks(encoder, list_images(tmp_path / "list.txt"), batch_size=8)
    assert (block.skipped_at, block.missing) == ([1, 2], [2])


# --- buffers and threads --------------------------------------------------------------------------------------------


def test_decoding_runs_ahead_by_a_bounded_number(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays flat because no more images are in flight than this."""
    decoded, furthest = 0, 0
    lock = threading.Lock()

    def count(out: np.ndarray, source: Any, preprocessing: Preprocessing) -> Prepared:
        nonlocal decoded
        with lock:
            decoded += 1
        return Prepared()

    monkeypatch.setattr(pipeline, "prepare_into", count)
    taken = 0
    for batch in pipeline.batches(encoder, (range(start, start + 4) for start in range(0, 500, 4)), 4, encoder.run):
        assert batch.fmri is not None
        furthest = max(furthest, decoded - taken)
        taken += len(batch.fmri)
    assert taken == decoded == 500
    assert furthest <= 3 * 4 + pipeline.cores()


def test_buffers_are_reused(many: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses: set[int] = set()
    run = encoder.run

    def look(batch: np.ndarray, *given: Any) -> np.ndarray:
        addresses.add(batch.ctypes.data)
        return run(batch, *given)

    monkeypatch.setattr(encoder, "run", look)
    predict_to_file(many, tmp_path / "fmri.npy", encoder, batch_size=BATCH)
    assert 1 < len(addresses) <= 2 + -(-pipeline.cores() // BATCH)


def test_a_consumer_that_stops_ends_all_threads(many: Path, encoder: Encoder) -> None:
    before = threading.active_count()
    blocks = local_blocks(encoder, list_images(many), batch_size=1)
    next(blocks)
    assert threading.active_count() > before
    blocks.close()
    assert threading.active_count() == before


def test_what_the_network_raises_reaches_the_caller(
    many: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(batch: np.ndarray, *given: Any) -> np.ndarray:
        raise BrainkitError("the network failed")

    monkeypatch.setattr(encoder, "run", failing)
    with pytest.raises(BrainkitError, match="the network failed"):
        predict_to_file(many, tmp_path / "fmri.npy", encoder, batch_size=BATCH)
    assert not list(tmp_path.iterdir())


# --- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "per_image", "expected"),
    [(10**12, 0, 8), (8_000_000, 500_000, 8), (8_000_000, 1_000_000, 4), (1_000, 1_000_000, 1)],
)
def test_batches_fit_into_the_memory(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, free: int, per_image: int, expected: int
) -> None:
    monkeypatch.setattr(pipeline, "free_memory", lambda: free)
    monkeypatch.setattr(pipeline, "_bytes_per_image", lambda encoder: per_image)
    monkeypatch.setattr(type(encoder), "batch_size_for", lambda self, requested: requested or 8)
    assert pipeline.choose_batch_size(encoder, None, 1000) == expected
    assert pipeline.choose_batch_size(encoder, 64, 1000) == 64
    assert pipeline.choose_batch_size(encoder, None, 2) == min(2, expected)


@pytest.mark.skipif(sys.platform != "linux", reason="the process's own memory is read from /proc")
def test_what_one_image_takes_is_measured(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[np.ndarray] = []

    def hungry(batch: np.ndarray) -> np.ndarray:
        assert batch.shape == (1, SIZE, SIZE, 3)
        kept.append(np.ones(8_000_000))
        return kept[0]

    monkeypatch.setattr(encoder, "run", hungry)
    # 64 MB, and what the allocator does besides; in several tries, as the system may take other pages meanwhile.
    assert any(48_000_000 < pipeline._bytes_per_image(encoder) < 96_000_000 for _ in range(5))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(tmp_path: Path, encoder: Encoder) -> None:
    """Two thousand names in memory would be far more than the difference allowed."""
    first = tmp_path / "image.png"
    Image.new("RGB", (4, 4)).save(first)
    peaks = []
    # The first run fills caches; lists are read some hundred names at a time. The last two are alike: memory that a
    # thread of another test takes meanwhile is counted too, but hardly in both.
    for count in (400, 400, 2400, 2400):
        folder = tmp_path / f"{count}-{len(peaks)}"
        folder.mkdir()
        for number in range(count):
            os.link(first, folder / f"{'long-name-' * 20}{number:06d}.png")
        tracemalloc.start()
        predict_to_file(folder, tmp_path / f"{len(peaks)}.npy", encoder, batch_size=8)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert min(peaks[2:]) - peaks[1] < 2000 * 200, peaks
