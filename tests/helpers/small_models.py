"""Small models and tokens in memory, shared by the tests that train."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from brainkit.config import TrainConfig
from brainkit.data.splits import Split
from brainkit.features.cache import TokenCache
from brainkit.model.factor_topy import FactorTopy
from brainkit.training.datamodule import EncodingData
from brainkit.training.module import EncodingModule
from brainkit.training.token_statistics import fit_statistics

GRID = (3, 4)


def memory_tokens(
    n: int = 40, widths: dict[str, int] | None = None, grid: tuple[int, int] = GRID, seed: int = 0
) -> TokenCache:
    """Tokens of n images, with correlated channels, whose layers differ in scale and offset."""
    draw = np.random.default_rng(seed)
    local, whole = {}, {}
    for k, (layer, width) in enumerate((widths or {"early": 5, "late": 7}).items()):
        mix = draw.standard_normal((width, width))
        offset = draw.standard_normal(width) * 3
        tokens = np.einsum("nchw,cd->ndhw", draw.standard_normal((n, width, *grid)), mix)
        local[layer] = (tokens + offset[:, None, None]) * 10.0**k
        whole[layer] = (draw.standard_normal((n, width)) @ mix - offset) * 5.0**k
    return TokenCache.of_arrays(local, whole)


def arrays_of(tokens: TokenCache) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Local (n, C, H, W) and global (n, C) tokens, to be changed and given to ``TokenCache.of_arrays``."""
    local, whole = tokens.batch(np.arange(len(tokens)))
    return {k: v.numpy() for k, v in local.items()}, {k: v.numpy() for k, v in whole.items()}


def coordinates(n: int, seed: int = 0) -> np.ndarray:
    """Places of n vertices, in mm."""
    return (np.random.default_rng(seed).uniform(-80, 80, (n, 3)) + [0, 0, 30]).astype(np.float32)


def stir(model: FactorTopy, seed: int = 0) -> FactorTopy:
    """Give every vertex its own selection: at the start the selectors' last layers are zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for network in (model.space_selector_mlp, model.layer_selector_mlp, model.scale_selector_mlp):
            last = network[5].weight
            last.copy_(torch.randn(last.shape, generator=generator) * 0.8)
        model.weight.mul_(10.0)  # the readout is a mean over channels: at its start it says little
        model.bias.copy_(torch.randn(model.bias.shape, generator=generator))
    return model


def small_model(tokens: TokenCache, vertices: int = 20, **options: Any) -> FactorTopy:
    """A model of these tokens whose statistics are fitted to all of them; the same weights each time."""
    torch.manual_seed(0)
    options = {"bottleneck": 6, "grid": tokens.grid, "selector_width": 16} | options
    model = stir(FactorTopy(tokens.widths, coordinates(vertices), **options))
    fit_statistics(model, tokens, np.arange(len(tokens)))
    return model


class Responses:
    """Responses (n, V) in memory."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values.astype(np.float32)

    def rows(self, index: np.ndarray) -> np.ndarray:
        return self.values[index]


def problem(vertices: int = 20, *, seed: int = 0, **train: Any) -> tuple[EncodingModule, EncodingData]:
    """A module at its start, and data that another model of the same kind made: something that can be learnt."""
    tokens = memory_tokens()
    truth = small_model(tokens, vertices)
    with torch.inference_mode():
        values = truth(*tokens.batch(np.arange(len(tokens)))).numpy()
    split = Split(np.arange(24), np.arange(24, 32), np.arange(32, 40), seed=seed)
    data = EncodingData(tokens, Responses(values), split, batch_size=8, seed=seed)
    config = TrainConfig(**({"epochs": 4} | train))
    torch.manual_seed(seed + 1)
    model = FactorTopy(tokens.widths, coordinates(vertices), bottleneck=6, grid=tokens.grid, selector_width=16)
    fit_statistics(model, tokens, split.train)
    model.set_response_scale(values[:24].mean(0), values[:24].std(0))
    return EncodingModule(model, config, 3 * config.epochs), data
