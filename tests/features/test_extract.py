"""Extraction: the backbone processes each image once, whichever run asks; stored tokens are checked before use."""

# ruff: noqa: E402
from __future__ import annotations

import dataclasses
import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from patch_backbone import (
    PREPROCESSING,
    PROBES,
    RECORD,
    Patches,
    patch_backbone,
    processed_by,
    record_bits,
    tokens_of,
)

from brainkit.backbones import Backbone, load_backbone
from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.features import TokenCache, extract
from brainkit.features.extract import extract_tokens
from brainkit.ops.token_grid import to_grid

# --- tokens and records


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_tokens_are_those_of_the_backbone_in_order(photos: list[Path], cache: Path, dtype: str) -> None:
    backbone = patch_backbone()
    done: list[int] = []
    tokens = extract_tokens(backbone, photos, grid=(3, 3), batch_size=4, progress=done.append, dtype=dtype)
    assert done == [0, 4, 8, 11]
    assert (tokens.layers, len(tokens), tokens.grid, tokens.extracted) == (("fine", "coarse"), 11, (3, 3), 11)
    assert tokens.widths == {"fine": 4, "coarse": 4}
    assert (tokens.record, tokens.nbytes) == (RECORD, 11 * RECORD * 2)
    rows = np.array([10, 0, 3])
    local, global_ = tokens_of(backbone, [photos[row] for row in rows])
    stored_local, stored_global = tokens.batch(rows)
    near = {"rtol": 2e-3, "atol": 2e-3} if dtype == "float16" else {"rtol": 1e-2, "atol": 3e-2}
    for layer in tokens.layers:
        assert stored_local[layer].dtype == torch.float32 and stored_local[layer].is_contiguous()
        torch.testing.assert_close(stored_local[layer], to_grid(local[layer], (3, 3)), **near)
        torch.testing.assert_close(stored_global[layer], global_[layer], **near)
        one = tokens.layer(layer, rows)
        assert torch.equal(one[0], stored_local[layer]) and torch.equal(one[1], stored_global[layer])
        some = tokens.layer(layer, rows, slice(1, 3))
        assert torch.equal(some[0], stored_local[layer][:, 1:3]) and torch.equal(some[1], stored_global[layer][:, 1:3])


def test_records_can_be_read_into_a_tensor(photos: list[Path], cache: Path) -> None:
    tokens = extract_tokens(patch_backbone(), photos, grid=(3, 3))
    rows = np.array([7, 2])
    out = torch.full((5, tokens.record), torch.nan, dtype=torch.float16)
    records = tokens.records(rows, out=out)
    assert records.data_ptr() == out.data_ptr() and records.shape == (2, tokens.record)
    assert torch.equal(records, tokens.records(rows)) and out[2:].isnan().all()
    with pytest.raises(UsageError, match="out must be"):
        tokens.records(np.array([1]), out=torch.empty(1, 3, dtype=torch.float16))
    # The form for GPUs, which expands all layers at once, gives the same.
    at_once = tokens._expand_at_once(records, tokens._offsets_as_record())
    for by_batch, expanded, on_gpu in zip(tokens.batch(rows), tokens.expand(records), at_once, strict=True):
        for layer in tokens.layers:
            assert torch.equal(by_batch[layer], expanded[layer]) and torch.equal(by_batch[layer], on_gpu[layer])
    assert np.array_equal(record_bits(pickle.loads(pickle.dumps(tokens))), record_bits(tokens))


def test_tokens_of_a_relative_cache_are_read_in_another_folder(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tokens = extract_tokens(patch_backbone(), photos, grid=(3, 3), cache=Path("cache"))
    pickled, expected = pickle.dumps(tokens), record_bits(tokens)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert np.array_equal(record_bits(pickle.loads(pickled)), expected)


@pytest.mark.parametrize(("number", "advice"), [(1e6, True), (float("nan"), False), (float("inf"), False)])
def test_tokens_in_memory_must_be_finite(number: float, advice: bool) -> None:
    local, global_ = np.zeros((3, 2, 2, 2)), np.zeros((3, 2))
    global_[1, 1] = number
    with pytest.raises(UsageError, match=r"layer b: .*float16") as caught:
        TokenCache.of_arrays({"a": local, "b": local}, {"a": local[..., 0, 0], "b": global_})
    assert ("torch.bfloat16" in str(caught.value)) == advice
    if advice:
        tokens = TokenCache.of_arrays({"b": local}, {"b": global_}, torch.bfloat16).batch(np.arange(3))
        assert tokens[1]["b"][1, 1] == pytest.approx(1e6, rel=1e-2)


def test_small_changes_on_a_large_mean_are_kept(photos: list[Path], cache: Path) -> None:
    class Raised(Patches):
        def get_tokens(self, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
            local, global_ = super().get_tokens(images)
            return {k: v + 3e4 for k, v in local.items()}, {k: v - 9e4 for k, v in global_.items()}

    rows = np.arange(11)
    plain = extract_tokens(patch_backbone(), photos, grid=(3, 3)).batch(rows)
    raised = extract_tokens(patch_backbone(Raised()), photos, grid=(3, 3)).batch(rows)
    for offset, found, true in ((3e4, raised[0], plain[0]), (-9e4, raised[1], plain[1])):
        for layer in true:
            # float32 itself resolves 0.004 at 3e4 and 0.008 at 9e4; float16 would resolve 16, and overflow
            torch.testing.assert_close(found[layer] - offset, true[layer], rtol=2e-3, atol=0.02)


# --- what is processed again, and what is not


def test_the_second_run_finds_the_tokens(photos: list[Path], cache: Path, tmp_path: Path) -> None:
    backbone = patch_backbone()
    first = extract_tokens(backbone, photos, grid=(3, 3))
    assert processed_by(backbone) == PROBES + 11
    # Neither the folder nor the name of a file matters, only its content.
    moved = [path.rename(tmp_path / f"x{path.name}") for path in photos]
    second = extract_tokens(backbone, moved, grid=(3, 3), batch_size=2)
    assert processed_by(backbone) == 2  # the first two are processed again, to see whether the network has changed
    assert (second.folder, second.extracted) == (first.folder, 0)
    assert [path.name for path in cache.iterdir()] == [first.folder.name]


def test_a_store_of_one_image_is_used(photos: list[Path], cache: Path) -> None:
    # One image does not show how much its global tokens vary.
    backbone = patch_backbone()
    extract_tokens(backbone, photos[:1], grid=(3, 3), dtype="bfloat16")
    processed_by(backbone)
    assert extract_tokens(backbone, photos, grid=(3, 3), dtype="bfloat16").extracted == 10
    assert processed_by(backbone) == 1 + 10


def test_subjects_share_images(photos: list[Path], cache: Path) -> None:
    backbone = patch_backbone()
    first = extract_tokens(backbone, photos[:7], grid=(3, 3))
    processed_by(backbone)
    said: list[str] = []
    second = extract_tokens(backbone, photos[4:], grid=(3, 3), say=said.append)
    assert processed_by(backbone) == 2 + 4
    assert second.folder == first.folder and second.extracted == 4
    assert "3 in the cache, 4 to extract" in said[0]
    assert np.array_equal(record_bits(second)[:3], record_bits(first)[4:])
    third = extract_tokens(backbone, [photos[9], photos[0], photos[9]], grid=(3, 3))
    assert np.array_equal(record_bits(third), np.stack([record_bits(second)[5], record_bits(first)[0]])[[0, 1, 0]])


def test_records_do_not_depend_on_what_the_store_held_before(photos: list[Path], tmp_path: Path) -> None:
    extract_tokens(patch_backbone(), photos[6:], grid=(3, 3), cache=tmp_path / "one")
    one = extract_tokens(patch_backbone(), photos[:6], grid=(3, 3), cache=tmp_path / "one")
    two = extract_tokens(patch_backbone(), photos[:6], grid=(3, 3), cache=tmp_path / "two")
    assert np.array_equal(record_bits(one), record_bits(two))


def test_the_key_depends_on_everything_that_tokens_depend_on(photos: list[Path], cache: Path) -> None:
    def folder(backbone: Backbone, images: list[Path] = photos, **more: object) -> Path:
        return extract_tokens(backbone, images, **({"grid": (3, 3)} | more)).folder

    folders = [
        folder(patch_backbone()),
        folder(patch_backbone(Patches(2.0))),
        folder(patch_backbone(name="other")),
        folder(patch_backbone(layers={"fine": "fine"})),
        folder(patch_backbone(layers={"coarse": "coarse", "fine": "fine"})),
        folder(patch_backbone(preprocessing=dataclasses.replace(PREPROCESSING, mean=(0.4, 0.5, 0.5)))),
        folder(patch_backbone(), grid=(2, 3)),
        folder(patch_backbone(), dtype="bfloat16"),
    ]
    assert len(set(folders)) == len(folders)
    assert folder(patch_backbone(), photos[::-1][:3]) == folders[0]
    with pytest.raises(UsageError, match="float32"):
        folder(patch_backbone(), dtype="float32")
    with pytest.raises(UsageError, match="at least one image"):
        folder(patch_backbone(), [])


def test_an_edited_plug_in_is_extracted_again(photos: list[Path], cache: Path, tmp_path: Path) -> None:
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
def test_a_network_that_has_changed_is_extracted_again(photos: list[Path], cache: Path, again: slice) -> None:
    backbone = patch_backbone()
    old = extract_tokens(backbone, photos[:5], grid=(3, 3))
    before = record_bits(old)
    backbone.network.extra = 1.5  # nothing that the key depends on
    said: list[str] = []
    after = extract_tokens(backbone, photos[again], grid=(3, 3), say=said.append)
    assert after.extracted == len(after) and "patches" in said[0] and str(old.folder) in said[0]
    true = tokens_of(backbone, photos[again])
    torch.testing.assert_close(after.batch(np.arange(len(after)))[1]["fine"], true[1]["fine"], rtol=2e-3, atol=2e-3)
    if os.name != "nt":
        assert np.array_equal(record_bits(old), before)  # processes that have the old store open can go on reading
    assert len(list(cache.iterdir())) == 1


# --- what cannot be extracted


def test_an_unreadable_image_is_named_and_what_was_done_is_kept(photos: list[Path], cache: Path) -> None:
    good = photos[6].read_bytes()
    photos[6].write_bytes(good[:200])
    with pytest.raises(DataError, match=r"06\.png"):
        extract_tokens(patch_backbone(), photos, grid=(3, 3), batch_size=2)
    photos[6].write_bytes(good)
    tokens = extract_tokens(patch_backbone(), photos, grid=(3, 3), batch_size=2)
    assert tokens.extracted == 5
    assert not list(tokens.folder.glob(".*"))
    photos[6].unlink()
    with pytest.raises(DataError, match=r"06\.png"):
        extract_tokens(patch_backbone(), photos, grid=(3, 3))


def test_a_disk_that_is_too_small_is_refused_before_the_work(
    photos: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100})())
    backbone = patch_backbone()
    with pytest.raises(BrainkitError, match=r"11 images.*BRAINKIT_CACHE"):
        extract_tokens(backbone, photos, grid=(3, 3))
    assert backbone.network.processed == 0 and list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_created(photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(BrainkitError, match="BRAINKIT_CACHE"):
        extract_tokens(patch_backbone(), photos, grid=(3, 3))


def test_a_read_only_cache(photos: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = record_bits(extract_tokens(patch_backbone(), photos[:8], grid=(3, 3)))

    def forbidden(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    # The administrator, as whom some run their tests, may write everywhere.
    monkeypatch.setattr("brainkit.utils.locks.os.open", forbidden)
    monkeypatch.setattr("brainkit.features.store.os.utime", forbidden)
    assert np.array_equal(record_bits(extract_tokens(patch_backbone(), photos[:8], grid=(3, 3))), stored)
    with pytest.raises(BrainkitError, match=r"Permission denied.* 8 of 11 .*BRAINKIT_CACHE"):
        extract_tokens(patch_backbone(), photos, grid=(3, 3))
