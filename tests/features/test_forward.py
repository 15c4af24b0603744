"""Batches through a frozen network: half precision, overflow, too little memory, a GPU."""

# ruff: noqa: E402
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from patch_backbone import Patches, patch_backbone

from brainkit.errors import BrainkitError
from brainkit.features.extract import extract_tokens
from brainkit.features.forward import TokenExtractor


@pytest.mark.parametrize(("gain", "expected"), [(1e6, "too large for float16"), (float("nan"), "not finite")])
def test_tokens_that_float16_cannot_hold(photos: list[Path], cache: Path, gain: float, expected: str) -> None:
    with pytest.raises(BrainkitError, match=f"layer fine: .*{expected}"):
        extract_tokens(patch_backbone(Patches(gain)), photos, grid=(3, 3))
    assert not list(cache.glob("*/*.shard"))
    if gain == 1e6:
        tokens = extract_tokens(patch_backbone(Patches(gain)), photos, grid=(3, 3), dtype="bfloat16")
        assert tokens.batch(np.arange(11))[0]["fine"].abs().max() > 65504


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
