"""`brainkit cache`: stores are listed, verified and pruned, and never while a process uses them."""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from brainkit.cli import group
from brainkit.errors import UsageError
from brainkit.features.manage import find_stores, list_stores, parse_age, parse_size
from brainkit.features.shard import ShardWriter
from brainkit.features.store import TokenSpec, TokenStore
from brainkit.utils.text import format_bytes

DAY = 86400


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path))
    (tmp_path / "tokens").mkdir()
    return tmp_path / "tokens"


def make_store(home: Path, name: str = "vit", *, images: int = 5, days: float = 0.0, shards: int = 2) -> Path:
    """A store of two layers, last used this many days ago."""
    spec = TokenSpec(name, "w", "c", (("a", 3), ("b", 4)), (2, 2), {"size": 224}, "float16", "float32")
    store = TokenStore.create(home, spec, np.ones((2, 14), np.float32), pytest.fail, {})
    rng = np.random.default_rng(0)
    for number in range(shards):
        writer = ShardWriter(store.folder, "chunk", spec.layout.record, images)
        records = rng.integers(0, 1000, (images, spec.layout.record)).astype(np.int16)
        hashes = [bytes([number, k]) + bytes(30) for k in range(images)]
        writer.add(hashes, records, [zlib.crc32(record.data) for record in records])
        writer.finish()
    assert store.lock is not None
    store.lock.release()
    os.utime(store.folder / "in-use", (time.time() - days * DAY,) * 2)
    return store.folder


def flip(folder: Path) -> Path:
    shard = sorted(folder.glob("*.shard"))[0]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    return shard


def call(*arguments: str) -> Result:
    return CliRunner().invoke(group, ["cache", *arguments])


def fails(code: int, *arguments: str) -> str:
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    (line,) = result.stderr.splitlines()
    return line


def test_the_list(home: Path) -> None:
    old, new = make_store(home, "resnet", days=3), make_store(home, "a/very/long/path/to/a/plug-in/file.py:Network")
    (home / ("9" * 32)).mkdir()
    (home / ("9" * 32) / "tokens.json").write_text("{}")
    os.utime(home / ("9" * 32), (0, 0))
    lines = call("list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [new.name[:8], old.name[:8], "9" * 8, "3"]
    assert "...to/a/plug-in/file.py:Network" in lines[1] and "2x2" in lines[1] and " 10 " in lines[1]
    assert "resnet, 224 px, float16" in lines[2]
    assert "version 3" in lines[3]
    assert lines[4].startswith("3 stores, ")


def test_the_list_names_what_is_damaged_or_in_use(home: Path) -> None:
    folder = make_store(home)
    shard = sorted(folder.glob("*.shard"))[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    store = TokenStore(make_store(home, "other"), pytest.fail)
    lines = call("list").stdout.splitlines()
    assert next(line for line in lines if line.startswith(folder.name[:8])).endswith("1 damaged shard")
    if store.lock is not None and store.lock.certain:
        assert next(line for line in lines if line.startswith(store.folder.name[:8])).endswith("in use")
    (folder / "store.json").write_text("{")
    assert "description is missing or damaged" in call("list").stdout


def test_an_empty_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        assert call("list").stdout == "no token stores\n"
        assert call("verify").exit_code == 0
        assert call("prune", "--all").stdout == "0 of 0 stores removed, 0 B freed\n"
        monkeypatch.setenv("BRAINKIT_CACHE", str(home / "nowhere"))


def test_verify(home: Path) -> None:
    bad, good = make_store(home, "bad"), make_store(home, "good")
    assert call("verify").exit_code == 0
    shard = flip(bad)
    found = call("verify")
    assert found.exit_code == 1
    assert f"{shard}: 1 of 5 records" in found.stdout
    assert f"{good.name[:8]}: 10 images" in found.stdout
    assert call("verify", good.name[:6]).exit_code == 0
    assert shard.exists()


def test_verify_repairs_by_removing(home: Path) -> None:
    folder, gone = make_store(home), make_store(home, "gone")
    shard = flip(folder)
    (gone / "channels.npy").unlink()
    later = home / ("9" * 32)
    later.mkdir()
    (later / "store.json").write_text('{"format": "brainkit tokens", "version": 4}')
    assert call("verify", "--repair").exit_code == 1
    assert not shard.exists() and not gone.exists() and folder.exists()
    assert later.exists()  # of a later brainkit, so nothing is wrong with it
    assert call("verify", folder.name).exit_code == 0
    assert len(TokenStore(folder, pytest.fail)) == 5


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--older-than", "30d"], ["old"]),
        (["--older-than", "1w"], ["old", "middle"]),
        (["--older-than", "400d"], []),
        (["--max-size", "20kB"], ["old"]),
        (["--max-size", "10kB"], ["old", "middle"]),
        (["--max-size", "0"], ["old", "middle", "new"]),
        (["--max-size", "1TB"], []),
        (["--older-than", "30d", "--max-size", "10kB"], ["old", "middle"]),
        (["--older-than", "5d", "--max-size", "10kB"], ["old", "middle"]),
        (["--all"], ["old", "middle", "new"]),
    ],
)
def test_prune(home: Path, options: list[str], expected: list[str]) -> None:
    stores = {name: make_store(home, name, days=days) for name, days in (("old", 99), ("middle", 10), ("new", 0))}
    size = sum(path.stat().st_size for path in stores["old"].iterdir())
    assert 9_500 < size < 9_999  # so that sizes in the table fall between stores
    planned = call("prune", "--dry-run", *options)
    assert planned.exit_code == 0 and all(folder.exists() for folder in stores.values())
    done = call("prune", *options)
    assert done.stdout == planned.stdout.replace("would be removed", "removed")
    assert {name for name, folder in stores.items() if not folder.exists()} == set(expected)
    assert f"{len(expected)} of 3 stores removed, {format_bytes(len(expected) * size)} freed" in done.stdout
    assert not list(home.glob(".*"))


def test_prune_by_name(home: Path) -> None:
    first, second = make_store(home, "first"), make_store(home, "second")
    assert call("prune", first.name[:8]).exit_code == 0
    assert not first.exists() and second.exists()
    assert second.name[:8] in fails(2, "prune", first.name[:8])
    similar = home / (second.name[:8] + "0" * 24)
    similar.mkdir()
    assert "2 token stores" in fails(2, "prune", second.name[:8])
    assert call("prune", second.name).exit_code == 0
    assert similar.exists() and not second.exists()


def test_a_store_in_use_stays(home: Path) -> None:
    store = TokenStore(make_store(home), pytest.fail)
    if store.lock is None or not store.lock.certain:
        pytest.skip("this file system has no locks")
    for options in (["--all"], [store.folder.name[:8]], ["--older-than", "0h"]):
        assert "in use" in call("prune", *options, "--dry-run").stdout
        assert "0 of 1 store removed" in call("prune", *options).stdout
    assert call("prune", "--max-size", "0").stdout.startswith("0 of 1 store removed")
    assert store.folder.exists()
    del store
    assert "1 of 1 store removed, 9." in call("prune", "--all").stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "list, verify or prune"),
        (["prune"], "--older-than"),
        (["prune", "--all", "--older-than", "3d"], "--older-than"),
        (["prune", "--older-than", "3"], "got '3'"),
        (["prune", "--older-than", "soon"], "got 'soon'"),
        (["prune", "--max-size", "50 XB"], "got '50 XB'"),
        (["prune", "--max-size", "-1"], "got '-1'"),
        (["verify", "zz"], "zz: no such token store"),
        (["polish"], "polish"),
    ],
)
def test_requests_that_are_refused(home: Path, arguments: list[str], expected: str) -> None:
    assert expected in fails(2, *arguments)


@pytest.mark.parametrize(("text", "size"), [("50GB", 5e10), ("1.5 tb", 1.5e12), ("800MB", 8e8), ("12", 12), ("0B", 0)])
def test_sizes(text: str, size: float) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("30d", 30 * DAY), ("12h", DAY / 2), ("2w", 14 * DAY), ("90m", 5400)])
def test_ages(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds


def test_an_empty_name_matches_no_store(home: Path) -> None:
    make_store(home)
    with pytest.raises(UsageError, match="no such token store"):
        find_stores(list_stores(), [""])
