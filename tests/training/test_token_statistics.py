"""Statistics of tokens, against those of numpy in float64."""

# ruff: noqa: E402
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from patch_backbone import patch_backbone, write_photos
from small_models import arrays_of, coordinates, memory_tokens

from brainkit.features.cache import TokenCache
from brainkit.features.extract import extract_tokens
from brainkit.model.factor_topy import FactorTopy
from brainkit.training import token_statistics
from brainkit.training.token_statistics import fit_statistics


def exact_statistics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, s.d. and second moments of tokens (n, C, ...), in float64."""
    values = np.moveaxis(values.astype(np.float64), 1, -1).reshape(-1, values.shape[1])
    mean, std = values.mean(0), values.std(0)
    std = std * (std > 1e-6 * np.sqrt(mean**2 + std**2))
    scaled = (values - mean) / np.where(std > 0, std, np.inf)
    return mean, std, scaled.T @ scaled / len(scaled)


def model_of(tokens: TokenCache) -> FactorTopy:
    return FactorTopy(tokens.widths, coordinates(3), grid=tokens.grid)


def compare(model: FactorTopy, tokens: TokenCache, rows: np.ndarray) -> None:
    for layer in tokens.layers:
        fitted = model.local_statistics[layer], model.global_statistics[layer]
        for values, statistics in zip(tokens.layer(layer, rows), fitted, strict=True):
            mean, std, moment = exact_statistics(values.numpy())
            np.testing.assert_allclose(statistics.mean.numpy(), mean, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(statistics.std.numpy(), std, rtol=1e-5)
            np.testing.assert_allclose(statistics.moment.numpy(), moment, atol=1e-4)


@pytest.mark.parametrize("block", [2**25, 3000])
def test_tokens_in_memory(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(token_statistics, "_BLOCK", block)
    local, global_ = arrays_of(memory_tokens(n=300))
    local["late"][:, 4] = np.float16(2.7)
    local["early"][:, 2] += 3000  # a mean much larger than the variation
    tokens = TokenCache.of_arrays(local, global_, torch.bfloat16)
    rows = np.arange(0, 300, 2)
    model = model_of(tokens)
    fit_statistics(model, tokens, rows)
    assert model.local_statistics["late"].std[4] == 0
    compare(model, tokens, rows)


def test_tokens_of_a_store(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos")
    tokens = extract_tokens(patch_backbone(), photos, grid=(3, 3), cache=tmp_path / "cache")
    model = model_of(tokens)
    fit_statistics(model, tokens)
    compare(model, tokens, np.arange(11))


def test_an_image_of_several_subjects_counts_once(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos")
    both, one, two = (
        extract_tokens(patch_backbone(), part, grid=(3, 3), cache=tmp_path / "cache")
        for part in (photos, photos[:8], photos[3:])
    )
    model = model_of(both)
    fit_statistics(model, [(one, np.arange(1, 8)), (two, np.arange(0, 6))])
    compare(model, both, np.arange(1, 9))


def test_moments_of_many_images_come_from_evenly_spaced_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    local, global_ = arrays_of(memory_tokens(n=60))
    global_["early"][30:] *= 3
    tokens = TokenCache.of_arrays(local, global_)
    monkeypatch.setattr(token_statistics, "IMAGES_FOR_MOMENTS", 20)
    model = model_of(tokens)
    fit_statistics(model, tokens, np.arange(60))
    moment = model.global_statistics["early"].moment.double().numpy()
    values = global_["early"].astype(np.float16).astype(np.float64)
    chosen = values[np.linspace(0, 59, 20).astype(int)]
    scaled = (chosen - values.mean(0)) / values.std(0)
    np.testing.assert_allclose(moment, scaled.T @ scaled / 20, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_a_gpu(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos")
    tokens = extract_tokens(patch_backbone(), photos, grid=(3, 3), cache=tmp_path / "cache")
    models = [model_of(tokens) for _ in range(2)]
    fit_statistics(models[0], tokens, np.arange(11), device="cuda")
    fit_statistics(models[1], tokens, np.arange(11))
    for name, value in models[0].named_buffers():
        if "statistics" in name:
            torch.testing.assert_close(value, models[1].get_buffer(name), rtol=1e-5, atol=1e-4)
