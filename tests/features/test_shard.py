"""Shard files: read as written, memory-mapped, whole after an interruption."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest

from brainkit.features.shard import Layout, Shard, ShardWriter


def write(writer: ShardWriter, images: list[bytes], records: np.ndarray) -> None:
    writer.add(images, records, [zlib.crc32(record.data) for record in records])


def test_the_layout_of_a_record() -> None:
    layout = Layout((("a", 2), ("b", 3)), (2, 2))
    assert (layout.channels, layout.record) == (5, 25)
    assert layout.slices == {"a": (slice(0, 8), slice(20, 22)), "b": (slice(8, 20), slice(22, 25))}
    local, global_ = layout.by_layer(np.arange(10))["b"]
    assert (local.tolist(), global_.tolist()) == ([2, 3, 4], [7, 8, 9])


def test_a_shard_is_read_as_it_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    records = rng.integers(-(2**15), 2**15, (300, 7)).astype(np.int16)
    images = [rng.bytes(32) for _ in records]
    writer = ShardWriter(tmp_path, "chunk", 7, 400)  # room for more than are added
    for start in range(0, 300, 60):
        write(writer, images[start : start + 60], records[start : start + 60])
    path = writer.finish()
    assert path is not None and list(tmp_path.iterdir()) == [path]
    shard = Shard(path, 7)
    assert shard.images == images and np.array_equal(shard.records, records)
    assert isinstance(shard.records.base, np.memmap) and not shard.damaged(range(300))


def test_an_empty_shard_is_not_written(tmp_path: Path) -> None:
    assert ShardWriter(tmp_path, "chunk", 7, 400).finish() is None
    assert not list(tmp_path.iterdir())


def test_a_record_whose_writing_was_interrupted_damages_no_other(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "chunk", 4, 8)
    records = np.arange(8, dtype=np.int16).reshape(2, 4)
    write(writer, [bytes(32), bytes(31) + b"x"], records)
    writer._file.write(b"three")  # as Ctrl-C leaves it between the record and its entry
    path = writer.finish()
    assert path is not None
    shard = Shard(path, 4)
    assert not shard.damaged([0, 1])
    assert np.array_equal(shard.records, records)


@pytest.mark.skipif(not hasattr(psutil.Process().memory_info(), "shared"), reason="needs Linux's memory statistics")
def test_reading_allocates_no_memory_for_the_records(tmp_path: Path) -> None:
    def anonymous() -> int:
        memory = psutil.Process(os.getpid()).memory_info()
        return memory.rss - memory.shared

    size, count = 2**19, 64
    block = np.ones((8, size), np.int16)
    for number in range(2):
        writer = ShardWriter(tmp_path, "chunk", size, count)
        for start in range(0, count, 8):
            write(writer, [bytes([number, start + k]) + bytes(30) for k in range(8)], block)
        writer.finish()
    before = anonymous()
    shards = [Shard(path, size) for path in tmp_path.iterdir()]
    assert not any(shard.damaged(range(count)) for shard in shards)
    assert sum(int(record.sum()) for shard in shards for record in shard.records) == 2 * count * size
    assert anonymous() - before < 64e6 < 2 * 2 * count * size / 2  # the two shards are 134 MB
