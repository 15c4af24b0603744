"""Batches through a frozen network: half precision, overflow, too little memory, a GPU."""

# ruff: noqa: E402
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from patch_backbone import Patches, patch_backbone
from PIL import Image

from brainkit.backbones import load_backbone
from brainkit.errors import BrainkitError
from brainkit.features.extract import extract_tokens
from brainkit.features.forward import TokenExtractor


def test_tokens_that_float16_cannot_hold(photos: list[Path], cache: Path) -> None:
    with pytest.raises(BrainkitError, match=r"patches: layer fine: .*00\.png.*float16.*data\.token_dtype=bfloat16"):
        extract_tokens(patch_backbone(Patches(1e6)), photos, grid=(3, 3))
    assert not list(cache.glob("*/*.shard"))
    tokens = extract_tokens(patch_backbone(Patches(1e6)), photos, grid=(3, 3), dtype="bfloat16")
    assert tokens.batch(np.arange(11))[0]["fine"].abs().max() > 65504


@pytest.mark.parametrize(("number", "word"), [(float("nan"), "NaN"), (float("inf"), "infinite")])
def test_an_image_for_which_the_network_itself_gives_no_numbers(
    photos: list[Path], cache: Path, number: float, word: str
) -> None:
    class Fails(Patches):
        def get_tokens(self, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
            local, global_ = super().get_tokens(images)
            black = (images == -2).all((1, 2, 3))  # as a logarithm or a division would fail
            local["coarse"] = torch.where(black[:, None, None, None], number, local["coarse"])
            return local, global_

    Image.new("RGB", (20, 20)).save(photos[5])
    with pytest.raises(
        BrainkitError, match=rf"patches: layer coarse: .*05\.png.*the network itself .*{word}"
    ) as caught:
        extract_tokens(patch_backbone(Fails()), photos, grid=(3, 3), batch_size=4)
    assert not any(word in str(caught.value) for word in ("bfloat16", "BRAINKIT_CACHE"))


def test_an_error_of_the_network_has_its_name_and_line(photos: list[Path], cache: Path) -> None:
    class Fails(Patches):
        def get_tokens(self, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
            if (images == -2).all((1, 2, 3)).any():
                raise KeyError("no black")
            return super().get_tokens(images)

    line = Fails.get_tokens.__code__.co_firstlineno + 2
    Image.new("RGB", (20, 20)).save(photos[5])
    with pytest.raises(BrainkitError, match=rf"patches: .*KeyError: 'no black' \(test_forward\.py:{line}\)"):
        extract_tokens(patch_backbone(Fails()), photos, grid=(3, 3))


def test_a_network_is_found_out_before_anything_is_stored(photos: list[Path], cache: Path) -> None:
    backbone = load_backbone("test_vit", random_weights=True, size=64)
    drop = backbone.network.model.blocks[3].mlp.drop2
    drop.p = 0.5
    drop.train()
    with pytest.raises(BrainkitError, match=r"test_vit: .*layer 'block4'.*dropout"):
        extract_tokens(backbone, photos, grid=(3, 3))
    assert list(cache.iterdir()) == []
    drop.eval()
    assert extract_tokens(backbone, photos, grid=(3, 3)).extracted == 11


def test_out_of_memory_halves_the_batch(photos: list[Path], cache: Path, tmp_path: Path) -> None:
    class Small(Patches):
        room = 3

        def get_tokens(self, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
            if len(images) > self.room:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().get_tokens(images)

    rows = np.arange(11)
    tokens = extract_tokens(patch_backbone(Small()), photos, grid=(3, 3)).batch(rows)[0]
    expected = extract_tokens(patch_backbone(), photos, grid=(3, 3), cache=tmp_path / "b", batch_size=2).batch(rows)[0]
    np.testing.assert_allclose(tokens["fine"], expected["fine"], atol=2e-3)
    backbone = patch_backbone(Small())
    backbone.network.room = 0
    with pytest.raises(BrainkitError, match=r"patches: cpu .* one image.*backbone\.size"):
        extract_tokens(backbone, photos, grid=(3, 3), cache=tmp_path / "none")


def test_an_overflow_in_mixed_precision_is_computed_again_in_float32() -> None:
    backbone = patch_backbone(Patches(300.0))  # its tokens fit into float16, the products in the network do not
    images = 100 * torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    offsets = np.zeros(16, np.float32)
    exact = TokenExtractor(backbone, (3, 3), dtype="bfloat16")
    mixed = TokenExtractor(backbone, (3, 3), dtype="bfloat16", mixed=True)
    assert (exact.arithmetic, mixed.arithmetic) == ("float32", "float16 autocast")
    pending = mixed.submit(images, offsets)
    assert not pending.finite
    expected = exact.result(exact.submit(images, offsets), offsets)
    assert np.array_equal(mixed.result(pending, offsets), expected)
    near = mixed.tokens(images / 100)[0]["fine"], exact.tokens(images / 100)[0]["fine"]
    assert 0 < (near[0] - near[1]).norm() / near[1].norm() < 2e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_on_a_gpu(photos: list[Path], cache: Path, dtype: str) -> None:
    on_gpu = extract_tokens(patch_backbone(), photos, grid=(3, 3), device="cuda", batch_size=4, dtype=dtype)
    on_cpu = extract_tokens(patch_backbone(), photos, grid=(3, 3), batch_size=4, dtype=dtype)
    assert on_gpu.folder != on_cpu.folder  # their arithmetic differs
    rows = np.arange(11)
    near = {"rtol": 3e-3, "atol": 5e-3} if dtype == "float16" else {"rtol": 1e-2, "atol": 3e-2}
    expanded = on_gpu.expand(on_gpu.records(rows).cuda())
    for there, here, read in zip(expanded, on_cpu.batch(rows), on_gpu.batch(rows), strict=True):
        for layer in on_cpu.layers:
            torch.testing.assert_close(there[layer].cpu(), here[layer], **near)
            assert torch.equal(there[layer].cpu(), read[layer])
    assert extract_tokens(patch_backbone(), photos, grid=(3, 3), device="cuda", dtype=dtype).extracted == 0
