"""The token cache: every image passes the backbone once, whoever asks; what is found is checked; nothing is lost."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import dataclasses
import errno
import json
import multiprocessing
import os
import pickle
import signal
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from small_models import arrays_of, coordinates, memory_tokens
from torch import nn

from brainkit.backbones import Backbone
from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.features import extract as features
from brainkit.features import fill as token_filling
from brainkit.features import shard as token_shard
from brainkit.features.cache import TokenCache
from brainkit.features.extract import extract_tokens
from brainkit.features.forward import TokenPass
from brainkit.features.store import TokenStore
from brainkit.images import Preprocessing, decode, normalise, prepare
from brainkit.model.factor_topy import FactorTopy
from brainkit.ops.token_grid import to_grid
from brainkit.training import token_statistics
from brainkit.training.token_statistics import fit_statistics

SEEN = Preprocessing(16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear")


class Patches(nn.Module):
    """Two layers of patches, the second one coarser; counts the images it is shown."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 3, 4, 4, generator=generator) * gain)
        self.shown = 0
        self.extra = 1.0

    def get_tokens(self, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        self.shown += len(images)
        fine = nn.functional.conv2d(images, self.weight, stride=2) * self.extra
        local = {"fine": fine, "coarse": nn.functional.avg_pool2d(fine, 2)}
        return local, {layer: tokens.mean((2, 3)) for layer, tokens in local.items()}


def backbone(network: nn.Module | None = None, **changes: object) -> Backbone:
    arguments = {
        "name": "patches",
        "preprocessing": SEEN,
        "layers": {"fine": "fine", "coarse": "coarse"},
        "pretrained": True,
        "licence": "",
        "source": "",
    } | changes
    made = Backbone(network or Patches(), **arguments)  # type: ignore[arg-type]
    made.network.shown = 0  # it was probed
    return made


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    draw = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = [folder / f"{i:02d}.png" for i in range(11)]
    for path in paths:
        Image.fromarray(draw.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def shards(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/*.shard"))


def bits(tokens: TokenCache) -> np.ndarray:
    return tokens.records(np.arange(len(tokens))).view(torch.int16).numpy()


def shown_to(network: Backbone) -> int:
    """Images a network saw since it was last asked."""
    count, network.network.shown = network.network.shown, 0
    return count


PROBES = 8  # images that a new store's offsets are measured on


# --- what is in it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_tokens_are_those_of_the_backbone_in_order(photos: list[Path], cache: Path, dtype: str) -> None:
    network = backbone()
    done: list[int] = []
    tokens = extract_tokens(network, photos, grid=(3, 3), batch_size=4, progress=done.append, dtype=dtype)
    assert done == [0, 4, 8, 11]
    assert (tokens.layers, len(tokens), tokens.grid, tokens.extracted) == (("fine", "coarse"), 11, (3, 3), 11)
    assert tokens.widths == {"fine": 4, "coarse": 4}
    assert (tokens.record, tokens.nbytes) == (8 * 10, 11 * 8 * 10 * 2)
    rows = np.array([10, 0, 3])
    images = normalise(np.stack([prepare(decode(photos[row]), SEEN) for row in rows]), SEEN)
    local, whole = network.get_tokens(torch.from_numpy(images))
    found_local, found_whole = tokens.batch(rows)
    near = {"rtol": 2e-3, "atol": 2e-3} if dtype == "float16" else {"rtol": 1e-2, "atol": 3e-2}
    for layer in tokens.layers:
        assert found_local[layer].dtype == torch.float32 and found_local[layer].is_contiguous()
        torch.testing.assert_close(found_local[layer], to_grid(local[layer], (3, 3)), **near)
        torch.testing.assert_close(found_whole[layer], whole[layer], **near)
        alone = tokens.layer(layer, rows)
        assert torch.equal(alone[0], found_local[layer]) and torch.equal(alone[1], found_whole[layer])


def test_records_go_where_they_are_wanted(photos: list[Path], cache: Path) -> None:
    tokens = extract_tokens(backbone(), photos, grid=(3, 3))
    out = torch.full((5, tokens.record), torch.nan, dtype=torch.float16)
    found = tokens.records(np.array([7, 2]), out=out)
    assert found.data_ptr() == out.data_ptr() and found.shape == (2, tokens.record)
    assert torch.equal(found, tokens.records(np.array([7, 2]))) and out[2:].isnan().all()
    with pytest.raises(UsageError, match="out must be"):
        tokens.records(np.array([1]), out=torch.empty(1, 3, dtype=torch.float16))
    # What a GPU expands in one go is the same.
    ways = (
        tokens.batch(np.array([7, 2])),
        tokens.expand(found),
        tokens._expand_together(found, tokens._offsets_as_record()),
    )
    for kinds in zip(*ways, strict=True):
        for layer in tokens.layers:
            assert torch.equal(kinds[0][layer], kinds[1][layer]) and torch.equal(kinds[0][layer], kinds[2][layer])
    assert np.array_equal(bits(pickle.loads(pickle.dumps(tokens))), bits(tokens))


def test_the_second_time_the_backbone_is_not_asked(photos: list[Path], cache: Path, tmp_path: Path) -> None:
    network = backbone()
    first = extract_tokens(network, photos, grid=(3, 3))
    assert shown_to(network) == PROBES + 11
    # Neither the place nor the name of a file matters, only what is in it.
    moved = [path.rename(tmp_path / f"x{path.name}") for path in photos]
    said: list[str] = []
    second = extract_tokens(network, moved, grid=(3, 3), batch_size=2, say=said.append)
    assert shown_to(network) == 2  # the first two are looked at again, to see that nothing has changed
    assert said == ["tokens of 11 images: found in the cache"]
    assert (second.folder, second.extracted) == (first.folder, 0)
    assert [path.name for path in cache.iterdir()] == [first.folder.name]


def test_a_store_of_one_image_is_believed(photos: list[Path], cache: Path) -> None:
    # From one image it cannot be told how much its global tokens vary.
    network = backbone()
    extract_tokens(network, photos[:1], grid=(3, 3), dtype="bfloat16")
    shown_to(network)
    assert extract_tokens(network, photos, grid=(3, 3), dtype="bfloat16").extracted == 10
    assert shown_to(network) == 1 + 10


def test_subjects_share_the_images_they_share(photos: list[Path], cache: Path) -> None:
    network = backbone()
    first = extract_tokens(network, photos[:7], grid=(3, 3))
    shown_to(network)
    said: list[str] = []
    second = extract_tokens(network, photos[4:], grid=(3, 3), say=said.append)
    assert shown_to(network) == 2 + 4
    assert second.folder == first.folder and second.extracted == 4
    assert said[0].startswith("tokens of 7 images: 3 in the cache, 4 to extract, 0.00 GB as float16")
    assert np.array_equal(bits(second)[:3], bits(first)[4:])
    third = extract_tokens(network, [photos[9], photos[0], photos[9]], grid=(3, 3))
    assert np.array_equal(bits(third), np.stack([bits(second)[5], bits(first)[0], bits(second)[5]]))


def test_what_was_there_before_changes_no_bit(photos: list[Path], cache: Path, tmp_path: Path) -> None:
    extract_tokens(backbone(), photos[6:], grid=(3, 3), cache=tmp_path / "one")
    one = extract_tokens(backbone(), photos[:6], grid=(3, 3), cache=tmp_path / "one")
    two = extract_tokens(backbone(), photos[:6], grid=(3, 3), cache=tmp_path / "two")
    assert np.array_equal(bits(one), bits(two))


def test_what_the_tokens_depend_on_changes_the_key(photos: list[Path], cache: Path) -> None:
    def place(network: Backbone, images: list[Path] = photos, **more: object) -> Path:
        return extract_tokens(network, images, **({"grid": (3, 3)} | more)).folder

    folders = [
        place(backbone()),
        place(backbone(Patches(2.0))),
        place(backbone(name="other")),
        place(backbone(layers={"fine": "fine"})),
        place(backbone(layers={"coarse": "coarse", "fine": "fine"})),
        place(backbone(preprocessing=dataclasses.replace(SEEN, mean=(0.4, 0.5, 0.5)))),
        place(backbone(), grid=(2, 3)),
        place(backbone(), dtype="bfloat16"),
    ]
    assert len(set(folders)) == len(folders)
    assert place(backbone(), photos[::-1][:3]) == folders[0]
    with pytest.raises(UsageError, match="float16, bfloat16, got 'float32'"):
        place(backbone(), dtype="float32")
    with pytest.raises(UsageError, match="at least one image"):
        place(backbone(), [])


def test_a_plug_in_that_is_edited_is_run_again(photos: list[Path], cache: Path, tmp_path: Path) -> None:
    from brainkit.backbones import load_backbone

    program = (
        "import torch\nclass Mean(torch.nn.Module):\n    def get_tokens(self, images):\n"
        "        local = torch.nn.functional.adaptive_avg_pool2d(images, 3) * 1\n"
        "        return {'a': local}, {'a': local.mean((2, 3))}\n"
    )
    file = tmp_path / "net.py"
    file.write_text(program)
    before = extract_tokens(load_backbone(f"{file}:Mean", size=32), photos, grid=(3, 3))
    file.write_text(program.replace("* 1", "* 20"))
    after = extract_tokens(load_backbone(f"{file}:Mean", size=32), photos, grid=(3, 3))
    torch.testing.assert_close(
        after.batch(np.arange(3))[1]["a"], 20 * before.batch(np.arange(3))[1]["a"], rtol=3e-3, atol=1e-2
    )


@pytest.mark.parametrize("again", [slice(0, 5), slice(5, 11)])
def test_a_network_that_has_changed_under_its_name_is_run_again(photos: list[Path], cache: Path, again: slice) -> None:
    network = backbone()
    held = extract_tokens(network, photos[:5], grid=(3, 3))
    before = bits(held)
    network.network.extra = 1.5  # nothing that the key depends on
    said: list[str] = []
    after = extract_tokens(network, photos[again], grid=(3, 3), say=said.append)
    assert "patches gives other tokens than it did; the store is made anew" in said[0]
    true = network.get_tokens(
        torch.from_numpy(normalise(np.stack([prepare(decode(path), SEEN) for path in photos[again]]), SEEN))
    )
    torch.testing.assert_close(after.batch(np.arange(len(after)))[1]["fine"], true[1]["fine"], rtol=2e-3, atol=2e-3)
    if os.name != "nt":
        assert np.array_equal(bits(held), before)  # whoever had the old store open can read on
    assert len(list(cache.iterdir())) == 1


def test_small_changes_on_a_large_mean_are_kept(photos: list[Path], cache: Path) -> None:
    class Raised(Patches):
        def get_tokens(self, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
            local, whole = super().get_tokens(images)
            return {k: v + 3e4 for k, v in local.items()}, {k: v - 9e4 for k, v in whole.items()}

    rows = np.arange(11)
    plain = extract_tokens(backbone(), photos, grid=(3, 3)).batch(rows)
    raised = extract_tokens(backbone(Raised()), photos, grid=(3, 3)).batch(rows)
    for offset, found, true in ((3e4, raised[0], plain[0]), (-9e4, raised[1], plain[1])):
        for layer in true:
            # float32 itself keeps 0.004 at 3e4 and 0.008 at 9e4; float16 would keep 16 and nothing
            torch.testing.assert_close(found[layer] - offset, true[layer], rtol=2e-3, atol=0.02)


# --- interruptions, damage, other processes ---------------------------------------------------------------------


@pytest.mark.parametrize("stops", [[4], [8], [4, 8], [2, 2, 4, 6, 10], [10]])
def test_an_interrupted_extraction_goes_on(photos: list[Path], cache: Path, tmp_path: Path, stops: list[int]) -> None:
    whole = extract_tokens(backbone(), photos, grid=(3, 3), batch_size=2, cache=tmp_path / "whole")
    network = backbone()
    for stop in stops:

        def end(done: int, stop: int = stop) -> None:
            if done >= stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            extract_tokens(network, photos, grid=(3, 3), batch_size=2, progress=end)
    shown_to(network)
    rest = extract_tokens(network, photos, grid=(3, 3), batch_size=2)
    assert shown_to(network) == 2 + 11 - stops[-1]
    assert np.array_equal(bits(rest), bits(whole))
    assert not [path.name for path in rest.folder.iterdir() if path.name.startswith(".")]


FORKS = pytest.mark.skipif(sys.platform != "linux", reason="the other process is forked, and killed")


def _die(stop: int, photos: list[Path], cache: Path, seconds: float, ready: Any, wait: Any) -> None:
    torch.set_num_threads(1)
    token_filling.SHARD_SECONDS = seconds

    def end(done: int) -> None:
        if done >= stop:
            ready.set()
            wait.wait()
            os.kill(os.getpid(), signal.SIGKILL)

    extract_tokens(backbone(), photos, grid=(3, 3), batch_size=2, progress=end, cache=cache)


def dying(stop: int, photos: list[Path], cache: Path, seconds: float = 0.0) -> tuple[Any, Any]:
    """A process that kills itself once `stop` images are done and the event is set; it is that far already."""
    context = multiprocessing.get_context("fork")
    ready, wait = context.Event(), context.Event()
    process = context.Process(target=_die, args=(stop, photos, cache, seconds, ready, wait))
    process.start()
    assert ready.wait(60)
    return process, wait


@FORKS
@pytest.mark.parametrize(("stop", "seconds", "kept"), [(6, 0.0, 6), (10, 0.0, 10), (6, 100.0, 0)])
def test_a_killed_extraction_loses_its_last_shard_at_most(
    photos: list[Path], cache: Path, tmp_path: Path, stop: int, seconds: float, kept: int
) -> None:
    process, wait = dying(stop, photos, cache, seconds)
    wait.set()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    folder = next(cache.iterdir())
    assert [path.suffix for path in folder.glob(".*")].count(".claim") == 1
    done: list[int] = []
    tokens = extract_tokens(backbone(), photos, grid=(3, 3), batch_size=2, progress=done.append)
    assert done[0] == kept and tokens.extracted == 11 - kept
    whole = extract_tokens(backbone(), photos, grid=(3, 3), batch_size=2, cache=tmp_path / "whole")
    assert np.array_equal(bits(tokens), bits(whole))
    assert not list(folder.glob(".*"))


@FORKS
def test_a_piece_that_another_process_has_is_waited_for(
    photos: list[Path], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other one holds its piece half-done until it is told to die: then its piece is done here.
    process, wait = dying(6, photos, cache)
    waited: list[str] = []
    wait_for = TokenStore.wait_for

    def waiting(self: TokenStore, chunk: str) -> None:
        waited.append(chunk)
        assert self.claim(chunk) is None
        wait.set()
        wait_for(self, chunk)

    monkeypatch.setattr(TokenStore, "wait_for", waiting)
    network = backbone()
    tokens = extract_tokens(network, photos, grid=(3, 3), batch_size=2)
    process.join(60)
    assert len(waited) == 1
    assert shown_to(network) == 2 + 11 - 6
    whole = extract_tokens(backbone(), photos, grid=(3, 3), batch_size=2, cache=tmp_path / "whole")
    assert np.array_equal(bits(tokens), bits(whole))


def _fill(number: int, photos: list[Path], cache: Path) -> int:
    torch.set_num_threads(1)
    token_filling.SHARD_SECONDS = 0
    order = photos if number else photos[::-1]
    tokens = extract_tokens(backbone(), order, grid=(3, 3), batch_size=1, cache=cache)
    return int(np.sort(bits(tokens).astype(np.int64).sum(1)).sum())


@FORKS
@pytest.mark.parametrize("locks", [True, False])
def test_two_processes_at_once(photos: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch, locks: bool) -> None:
    if not locks:  # as on a file system that has none: work may be done twice, and nothing goes wrong
        monkeypatch.setattr("brainkit.utils.locks.fcntl", None)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        sums = pool.starmap(_fill, [(k, photos, cache) for k in range(4)], chunksize=1)
    assert len(set(sums)) == 1
    assert len(list(cache.iterdir())) == 1
    network = backbone()
    assert extract_tokens(network, photos, grid=(3, 3)).extracted == 0


@pytest.mark.parametrize("where", ["record", "checksum", "count", "magic", "truncated", "empty", "longer"])
def test_a_damaged_shard_is_named_dropped_and_made_again(photos: list[Path], cache: Path, where: str) -> None:
    network = backbone()
    extract_tokens(network, photos[:6], grid=(3, 3))
    whole = bits(extract_tokens(network, photos, grid=(3, 3)))
    shard = next(path for path in shards(cache) if len(token_shard.Shard(path, 80)) == 6)
    content = bytearray(shard.read_bytes())
    if where in ("truncated", "empty"):
        content = content[: -7 if where == "truncated" else 0]
    elif where == "longer":
        content += b"x"
    else:
        content[{"record": -300, "checksum": 70, "count": 13, "magic": 0}[where]] ^= 0x10
    shard.write_bytes(content)
    shown_to(network)
    said: list[str] = []
    tokens = extract_tokens(network, photos, grid=(3, 3), say=said.append)
    assert np.array_equal(bits(tokens), whole)
    assert tokens.extracted == 6
    named = [line for line in said if shard.name in line]
    assert len(named) == 1 and named[0].endswith("dropped, its images are run again")
    # An image whose record nobody asks for is not read.
    assert extract_tokens(network, photos, grid=(3, 3)).extracted == 0


def _set(folder: Path, key: str, value: object) -> None:
    held = json.loads((folder / "store.json").read_text())
    held[key] = value
    (folder / "store.json").write_text(json.dumps(held))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: _set(folder, "version", 9), "expected a token store of version 3, found version 9"),
        (lambda folder: _set(folder, "format", "poems"), "its description is damaged"),
        (lambda folder: _set(folder, "tokens", {"backbone": "x"}), "its description is damaged"),
        (lambda folder: (folder / "store.json").write_text("{"), "its description is missing or damaged"),
        (lambda folder: (folder / "store.json").unlink(), "its description is missing or damaged"),
        (lambda folder: (folder / "channels.npy").write_bytes(b"x"), "its offsets are missing or damaged"),
        (lambda folder: np.save(folder / "channels.npy", np.zeros((2, 16), np.float32)), "its offsets are damaged"),
    ],
)
def test_a_store_that_is_not_one_is_made_anew(
    photos: list[Path], cache: Path, damage: Callable[[Path], object], reason: str
) -> None:
    whole = extract_tokens(backbone(), photos, grid=(3, 3))
    expected = bits(whole)
    damage(whole.folder)
    said: list[str] = []
    tokens = extract_tokens(backbone(), photos, grid=(3, 3), say=said.append)
    assert said[0] == f"{tokens.folder}: {reason}; it is made anew"
    assert np.array_equal(bits(tokens), expected)
    assert [path.name for path in cache.iterdir()] == [tokens.folder.name]


def test_stores_of_the_version_before_are_left_alone_and_named(photos: list[Path], cache: Path) -> None:
    old = cache / ("0" * 32)
    old.mkdir(parents=True)
    (old / "tokens.json").write_text('{"version": 2}')
    said: list[str] = []
    extract_tokens(backbone(), photos, grid=(3, 3), say=said.append)
    assert "1 stores of another version are left alone" in said[0]
    assert (old / "tokens.json").is_file()


def test_what_a_killed_process_left_is_swept_away(photos: list[Path], cache: Path) -> None:
    old, new = cache / ".old.12345678", cache / ".new.12345678"
    for place in (old, new):
        place.mkdir(parents=True)
    os.utime(old, (0, 0))
    extract_tokens(backbone(), photos, grid=(3, 3))
    assert not old.exists()
    assert new.exists()  # perhaps another process is at work there


def test_an_unreadable_image_is_named_and_what_was_done_is_kept(photos: list[Path], cache: Path) -> None:
    good = photos[6].read_bytes()
    photos[6].write_bytes(good[:200])
    with pytest.raises(DataError, match=r"06\.png"):
        extract_tokens(backbone(), photos, grid=(3, 3), batch_size=2)
    photos[6].write_bytes(good)
    tokens = extract_tokens(backbone(), photos, grid=(3, 3), batch_size=2)
    assert tokens.extracted == 5
    assert not list(tokens.folder.glob(".*"))
    photos[6].unlink()
    with pytest.raises(DataError, match=r"06\.png"):
        extract_tokens(backbone(), photos, grid=(3, 3))


# --- what does not fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gain", "expected"), [(1e6, "float16 cannot hold that"), (float("nan"), "not finite")])
def test_tokens_that_float16_cannot_hold(photos: list[Path], cache: Path, gain: float, expected: str) -> None:
    with pytest.raises(BrainkitError, match=f"layer fine: .*{expected}"):
        extract_tokens(backbone(Patches(gain)), photos, grid=(3, 3))
    assert shards(cache) == []
    if gain == 1e6:
        tokens = extract_tokens(backbone(Patches(gain)), photos, grid=(3, 3), dtype="bfloat16")
        assert tokens.batch(np.arange(11))[0]["fine"].abs().max() > 65504


def test_too_little_space_is_said_before_the_work(
    photos: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 100})())
    network = backbone()
    with pytest.raises(BrainkitError, match=r"11 images need 0\.00 GB as float16, 0\.00 GB are free.*BRAINKIT_CACHE"):
        extract_tokens(network, photos, grid=(3, 3))
    assert network.network.shown == 0 and list(cache.iterdir()) == []


def test_a_disk_that_fills_up(photos: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_filling, "SHARD_SECONDS", 0)
    add, added = token_shard.ShardWriter.add, []

    def full(self: token_shard.ShardWriter, *arguments: object) -> None:
        added.append(1)
        if len(added) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(token_shard.ShardWriter, "add", full)
    with pytest.raises(BrainkitError, match=r"No space left on device; the tokens of 6 of 11 images .* stay") as told:
        extract_tokens(backbone(), photos, grid=(3, 3), batch_size=2)
    assert "\n" not in str(told.value)
    assert extract_tokens(backbone(), photos, grid=(3, 3), batch_size=2).extracted == 5


def test_a_record_that_was_interrupted_half_way_spoils_none(tmp_path: Path) -> None:
    writer = token_shard.ShardWriter(tmp_path, "piece", 4, 8)
    records = np.arange(8, dtype=np.int16).reshape(2, 4)
    writer.add([bytes(32), bytes(31) + b"x"], records, [zlib.crc32(record.data) for record in records])
    writer._file.write(b"three")  # as Ctrl-C between the record and its entry leaves it
    path = writer.finish()
    assert path is not None
    shard = token_shard.Shard(path, 4)
    assert not shard.damaged([0, 1])
    assert np.array_equal(shard.records, records)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such bound")
def test_more_shards_than_a_process_may_have_files_open(
    photos: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    monkeypatch.setattr(token_filling, "SHARD_SECONDS", 0)
    extract_tokens(backbone(), photos, grid=(3, 3), batch_size=1)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(os.listdir("/dev/fd")) + 5
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, before[1]))
        tokens = extract_tokens(backbone(), photos, grid=(3, 3))
        assert len(shards(cache)) == 11
        assert tokens.extracted == 0
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > few
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_cache_that_cannot_be_made(photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(BrainkitError, match="BRAINKIT_CACHE"):
        extract_tokens(backbone(), photos, grid=(3, 3))


def test_a_cache_that_can_only_be_read(photos: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bits(extract_tokens(backbone(), photos[:8], grid=(3, 3)))

    def forbidden(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    # The administrator, as whom some run their tests, may write everywhere.
    monkeypatch.setattr("brainkit.utils.locks.os.open", forbidden)
    monkeypatch.setattr("brainkit.features.store.os.utime", forbidden)
    assert np.array_equal(bits(extract_tokens(backbone(), photos[:8], grid=(3, 3))), whole)
    with pytest.raises(BrainkitError, match=r"cannot be written: Permission denied; .* 8 of 11 .*BRAINKIT_CACHE"):
        extract_tokens(backbone(), photos, grid=(3, 3))


def test_out_of_memory_halves_the_batch(photos: list[Path], cache: Path, tmp_path: Path) -> None:
    class Small(Patches):
        room = 3

        def get_tokens(self, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
            if len(images) > self.room:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().get_tokens(images)

    tokens = extract_tokens(backbone(Small()), photos, grid=(3, 3))
    whole = extract_tokens(backbone(Patches()), photos, grid=(3, 3), cache=tmp_path / "whole", batch_size=2)
    np.testing.assert_allclose(tokens.batch(np.arange(11))[0]["fine"], whole.batch(np.arange(11))[0]["fine"], atol=2e-3)
    network = backbone(Small())
    network.network.room = 0
    with pytest.raises(BrainkitError, match=r"patches: cpu has too little memory even for one image.*backbone\.size"):
        extract_tokens(network, photos, grid=(3, 3), cache=tmp_path / "none")


def test_what_overflows_in_mixed_precision_is_run_again_in_float32() -> None:
    network = backbone(Patches(300.0))  # its tokens fit, and the products on their way in float16 do not
    images = 100 * torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    offsets = np.zeros(16, np.float32)
    exact = TokenPass(network, (3, 3), dtype="bfloat16")
    mixed = TokenPass(network, (3, 3), dtype="bfloat16", mixed=True)
    assert (exact.arithmetic, mixed.arithmetic) == ("float32", "float16 autocast")
    flight = mixed.launch(images, offsets)
    assert not flight.finite
    expected = exact.land(exact.launch(images, offsets), offsets)
    assert np.array_equal(mixed.land(flight, offsets), expected)
    near = mixed.tokens(images / 100)[0]["fine"], exact.tokens(images / 100)[0]["fine"]
    assert 0 < (near[0] - near[1]).norm() / near[1].norm() < 2e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_on_a_gpu(photos: list[Path], cache: Path, dtype: str) -> None:
    on_gpu = extract_tokens(backbone(), photos, grid=(3, 3), device="cuda", batch_size=4, dtype=dtype)
    on_cpu = extract_tokens(backbone(), photos, grid=(3, 3), batch_size=4, dtype=dtype)
    assert on_gpu.folder != on_cpu.folder  # their arithmetic differs
    rows = np.arange(11)
    near = {"rtol": 3e-3, "atol": 5e-3} if dtype == "float16" else {"rtol": 1e-2, "atol": 3e-2}
    there = on_gpu.expand(on_gpu.records(rows).cuda())
    for kind, other, held in zip(there, on_cpu.batch(rows), on_gpu.batch(rows), strict=True):
        for layer in on_cpu.layers:
            torch.testing.assert_close(kind[layer].cpu(), other[layer], **near)
            assert torch.equal(kind[layer].cpu(), held[layer])
    again = backbone()
    assert extract_tokens(again, photos, grid=(3, 3), device="cuda", dtype=dtype).extracted == 0
    models = [FactorTopy(on_gpu.widths, coordinates(3), grid=on_gpu.grid) for _ in range(2)]
    fit_statistics(models[0], on_gpu, rows, device="cuda")
    fit_statistics(models[1], on_gpu, rows)
    for name, value in models[0].named_buffers():
        if "statistics" in name:
            torch.testing.assert_close(value, models[1].get_buffer(name), rtol=1e-5, atol=1e-4)


# --- statistics -------------------------------------------------------------------------------------------------


def _true_statistics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of tokens (n, C, ...), in float64."""
    values = np.moveaxis(values.astype(np.float64), 1, -1).reshape(-1, values.shape[1])
    mean, std = values.mean(0), values.std(0)
    std = std * (std > 1e-6 * np.sqrt(mean**2 + std**2))
    scaled = (values - mean) / np.where(std > 0, std, np.inf)
    return mean, std, scaled.T @ scaled / len(scaled)


def _compare(model: FactorTopy, tokens: TokenCache, rows: np.ndarray) -> None:
    for layer in tokens.layers:
        for values, held in zip(
            tokens.layer(layer, rows), (model.local_statistics[layer], model.global_statistics[layer]), strict=True
        ):
            mean, std, moment = _true_statistics(values.numpy())
            np.testing.assert_allclose(held.mean.numpy(), mean, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(held.std.numpy(), std, rtol=1e-5)
            np.testing.assert_allclose(held.moment.numpy(), moment, atol=1e-4)


@pytest.mark.parametrize("block", [2**25, 3000])
def test_statistics_by_numpy(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(token_statistics, "_BLOCK", block)
    local, whole = arrays_of(memory_tokens(n=300))
    local["late"][:, 4] = np.float16(2.7)
    local["early"][:, 2] += 3000  # a mean that is much larger than what varies
    tokens = TokenCache.of_arrays(local, whole, torch.bfloat16)
    rows = np.arange(0, 300, 2)
    model = FactorTopy(tokens.widths, coordinates(3), grid=tokens.grid)
    fit_statistics(model, tokens, rows)
    assert model.local_statistics["late"].std[4] == 0
    _compare(model, tokens, rows)


def test_statistics_of_the_tokens_of_a_store(photos: list[Path], cache: Path) -> None:
    tokens = extract_tokens(backbone(), photos, grid=(3, 3))
    model = FactorTopy(tokens.widths, coordinates(3), grid=tokens.grid)
    fit_statistics(model, tokens)
    _compare(model, tokens, np.arange(11))


def test_statistics_of_several_subjects_count_an_image_once(photos: list[Path], cache: Path) -> None:
    both = extract_tokens(backbone(), photos, grid=(3, 3))
    one, two = (extract_tokens(backbone(), part, grid=(3, 3)) for part in (photos[:8], photos[3:]))
    model = FactorTopy(both.widths, coordinates(3), grid=both.grid)
    fit_statistics(model, [(one, np.arange(1, 8)), (two, np.arange(0, 6))])
    _compare(model, both, np.arange(1, 9))


def test_moments_of_many_images_come_from_a_spread_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    local, whole = arrays_of(memory_tokens(n=60))
    whole["early"][30:] *= 3
    tokens = TokenCache.of_arrays(local, whole)
    monkeypatch.setattr(token_statistics, "IMAGES_FOR_MOMENTS", 20)
    model = FactorTopy(tokens.widths, coordinates(3), grid=tokens.grid)
    fit_statistics(model, tokens, np.arange(60))
    found = model.global_statistics["early"].moment.double().numpy()
    values = whole["early"].astype(np.float16).astype(np.float64)
    chosen = values[np.linspace(0, 59, 20).astype(int)]
    scaled = (chosen - values.mean(0)) / values.std(0)
    np.testing.assert_allclose(found, scaled.T @ scaled / 20, atol=1e-5)
