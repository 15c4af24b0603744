"""Interruptions, kills, several processes and damage: no token is lost or wrong."""

# ruff: noqa: E402
from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from patch_backbone import RECORD, patch_backbone, processed_by, record_bits

from brainkit.errors import BrainkitError
from brainkit.features import fill
from brainkit.features.extract import extract_tokens
from brainkit.features.shard import Shard, ShardWriter
from brainkit.features.store import TokenStore


@pytest.mark.parametrize("stops", [[4], [4, 8], [2, 2, 4, 6, 10]])
def test_an_interrupted_extraction_resumes(photos: list[Path], cache: Path, tmp_path: Path, stops: list[int]) -> None:
    expected = extract_tokens(patch_backbone(), photos, grid=(3, 3), batch_size=2, cache=tmp_path / "uninterrupted")
    backbone = patch_backbone()
    for stop in stops:

        def interrupt(done: int, stop: int = stop) -> None:
            if done >= stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            extract_tokens(backbone, photos, grid=(3, 3), batch_size=2, progress=interrupt)
    processed_by(backbone)
    resumed = extract_tokens(backbone, photos, grid=(3, 3), batch_size=2)
    assert processed_by(backbone) == 2 + 11 - stops[-1]
    assert np.array_equal(record_bits(resumed), record_bits(expected))
    assert not list(resumed.folder.glob(".*"))


# --- several processes

FORKS = pytest.mark.skipif(sys.platform != "linux", reason="forks the other process, and kills it")


def _extract_and_die(stop: int, photos: list[Path], cache: Path, seconds: float, ready: Any, die: Any) -> None:
    torch.set_num_threads(1)
    fill.SHARD_SECONDS = seconds

    def kill(done: int) -> None:
        if done >= stop:
            ready.set()
            die.wait()
            os.kill(os.getpid(), signal.SIGKILL)

    extract_tokens(patch_backbone(), photos, grid=(3, 3), batch_size=2, progress=kill, cache=cache)


def dying_process(stop: int, photos: list[Path], cache: Path, seconds: float = 0.0) -> tuple[Any, Any]:
    """A process that has extracted `stop` images, and kills itself once the event is set."""
    context = multiprocessing.get_context("fork")
    ready, die = context.Event(), context.Event()
    process = context.Process(target=_extract_and_die, args=(stop, photos, cache, seconds, ready, die))
    process.start()
    while not ready.wait(0.2):
        assert process.is_alive()
    return process, die


@FORKS
@pytest.mark.parametrize(("stop", "seconds", "kept"), [(6, 0.0, 6), (6, 1e9, 0)])
def test_a_killed_extraction_loses_at_most_its_last_shard(
    photos: list[Path], cache: Path, tmp_path: Path, stop: int, seconds: float, kept: int
) -> None:
    process, die = dying_process(stop, photos, cache, seconds)
    die.set()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    folder = next(cache.iterdir())
    assert [path.suffix for path in folder.glob(".*")].count(".claim") == 1
    done: list[int] = []
    tokens = extract_tokens(patch_backbone(), photos, grid=(3, 3), batch_size=2, progress=done.append)
    assert done[0] == kept and tokens.extracted == 11 - kept
    expected = extract_tokens(patch_backbone(), photos, grid=(3, 3), batch_size=2, cache=tmp_path / "uninterrupted")
    assert np.array_equal(record_bits(tokens), record_bits(expected))
    assert not list(folder.glob(".*"))


@FORKS
def test_a_chunk_that_another_process_has_locked_is_waited_for(
    photos: list[Path], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other process has extracted half of its chunk when it dies: this one then extracts the rest.
    process, die = dying_process(6, photos, cache)
    waited: list[str] = []
    wait_for_chunk = TokenStore.wait_for_chunk

    def waiting(self: TokenStore, chunk: str) -> None:
        waited.append(chunk)
        assert self.lock_chunk(chunk) is None
        die.set()
        wait_for_chunk(self, chunk)

    monkeypatch.setattr(TokenStore, "wait_for_chunk", waiting)
    backbone = patch_backbone()
    tokens = extract_tokens(backbone, photos, grid=(3, 3), batch_size=2)
    process.join()
    assert len(waited) == 1
    assert processed_by(backbone) == 2 + 11 - 6
    expected = extract_tokens(patch_backbone(), photos, grid=(3, 3), batch_size=2, cache=tmp_path / "uninterrupted")
    assert np.array_equal(record_bits(tokens), record_bits(expected))


def _extract(number: int, photos: list[Path], cache: Path) -> int:
    torch.set_num_threads(1)
    fill.SHARD_SECONDS = 0
    order = photos if number else photos[::-1]
    tokens = extract_tokens(patch_backbone(), order, grid=(3, 3), batch_size=1, cache=cache)
    return int(np.sort(record_bits(tokens).astype(np.int64).sum(1)).sum())


@FORKS
@pytest.mark.parametrize("locks", [True, False])
def test_two_processes_at_once(photos: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch, locks: bool) -> None:
    if not locks:  # as on a file system without locks: work may be done twice, and nothing breaks
        monkeypatch.setattr("brainkit.utils.locks.fcntl", None)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        sums = pool.starmap(_extract, [(k, photos, cache) for k in range(4)], chunksize=1)
    assert len(set(sums)) == 1
    assert len(list(cache.iterdir())) == 1
    assert extract_tokens(patch_backbone(), photos, grid=(3, 3)).extracted == 0


def test_leftovers_of_killed_processes_are_removed(photos: list[Path], cache: Path) -> None:
    old, new = cache / ".old.12345678", cache / ".new.12345678"
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    extract_tokens(patch_backbone(), photos, grid=(3, 3))
    assert not old.exists()
    assert new.exists()  # another process may be writing it


# --- damage


@pytest.mark.parametrize("damage", ["record", "checksum", "count", "magic", "truncated", "empty", "longer"])
def test_a_damaged_shard_is_named_removed_and_rebuilt(photos: list[Path], cache: Path, damage: str) -> None:
    backbone = patch_backbone()
    extract_tokens(backbone, photos[:6], grid=(3, 3))
    expected = record_bits(extract_tokens(backbone, photos, grid=(3, 3)))
    shard = next(path for path in cache.glob("*/*.shard") if len(Shard(path, RECORD)) == 6)
    content = bytearray(shard.read_bytes())
    if damage in ("truncated", "empty"):
        content = content[: -7 if damage == "truncated" else 0]
    elif damage == "longer":
        content += b"x"
    else:
        content[{"record": -300, "checksum": 70, "count": 13, "magic": 0}[damage]] ^= 0x10
    shard.write_bytes(content)
    said: list[str] = []
    tokens = extract_tokens(backbone, photos, grid=(3, 3), say=said.append)
    assert np.array_equal(record_bits(tokens), expected)
    assert tokens.extracted == 6
    assert [shard.name in line for line in said].count(True) == 1
    assert extract_tokens(backbone, photos, grid=(3, 3)).extracted == 0


def _set(folder: Path, key: str, value: object) -> None:
    description = json.loads((folder / "store.json").read_text())
    description[key] = value
    (folder / "store.json").write_text(json.dumps(description))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: _set(folder, "version", 9),
        lambda folder: _set(folder, "format", "poems"),
        lambda folder: _set(folder, "tokens", {"backbone": "x"}),
        lambda folder: (folder / "store.json").write_text("{"),
        lambda folder: (folder / "store.json").unlink(),
        lambda folder: (folder / "channels.npy").write_bytes(b"x"),
        lambda folder: np.save(folder / "channels.npy", np.zeros((2, 16), np.float32)),
    ],
)
def test_a_damaged_store_is_named_and_rebuilt(
    photos: list[Path], cache: Path, damage: Callable[[Path], object]
) -> None:
    first = extract_tokens(patch_backbone(), photos, grid=(3, 3))
    expected = record_bits(first)
    damage(first.folder)
    said: list[str] = []
    tokens = extract_tokens(patch_backbone(), photos, grid=(3, 3), say=said.append)
    assert said[0].startswith(f"{tokens.folder}: ") and tokens.extracted == 11
    assert np.array_equal(record_bits(tokens), expected)
    assert list(cache.iterdir()) == [tokens.folder]


def test_stores_of_another_version_are_named_and_kept(photos: list[Path], cache: Path) -> None:
    for name, file, content in (
        ("0" * 32, "tokens.json", '{"version": 2}'),
        ("1" * 32, "store.json", '{"format": "brainkit tokens", "version": 99}'),
        ("2" * 32, "store.json", "{"),
    ):
        (cache / name).mkdir(parents=True)
        (cache / name / file).write_text(content)
    said: list[str] = []
    extract_tokens(patch_backbone(), photos, grid=(3, 3), say=said.append)
    assert said[0].startswith(f"{cache}: ") and "another version" in said[0] and ": 2;" in said[0]
    assert (cache / ("0" * 32)).is_dir() and (cache / ("1" * 32)).is_dir()


def test_a_full_disk_keeps_the_complete_shards(
    photos: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "SHARD_SECONDS", 0)
    add, calls = ShardWriter.add, []

    def full(self: ShardWriter, *arguments: object) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ShardWriter, "add", full)
    with pytest.raises(BrainkitError, match=r"No space left on device.* 6 of 11 ") as caught:
        extract_tokens(patch_backbone(), photos, grid=(3, 3), batch_size=2)
    assert "\n" not in str(caught.value)
    assert extract_tokens(patch_backbone(), photos, grid=(3, 3), batch_size=2).extracted == 5


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_more_shards_than_a_process_may_have_open_files(
    photos: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    monkeypatch.setattr(fill, "SHARD_SECONDS", 0)
    extract_tokens(patch_backbone(), photos, grid=(3, 3), batch_size=1)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(os.listdir("/dev/fd")) + 5
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, before[1]))
        tokens = extract_tokens(patch_backbone(), photos, grid=(3, 3))
        assert len(list(cache.glob("*/*.shard"))) == 11
        assert tokens.extracted == 0
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > few
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
