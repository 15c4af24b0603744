"""Small models and tokens in memory, shared by the tests that train."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from brainkit.config import TrainConfig
from brainkit.data.split import Split
from brainkit.features.cache import TokenCache
from brainkit.model.factor_topy import FactorTopy
from brainkit.training.datamodule import EncodingData
from brainkit.training.joint import JointData, JointModule
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


class Records:
    """Tokens of another source, one record for each image: what the token cache promises, and no more."""

    dtype = torch.float16

    def __init__(self, source: Any, n: int) -> None:
        local, whole = source.batch(np.arange(n))
        self.shapes = {layer: value.shape[1:] for layer, value in local.items()}
        parts = [value.flatten(1) for value in (*local.values(), *whole.values())]
        self.held = torch.cat(parts, 1).half()
        self.record = self.held.shape[1]
        self.asked: list[list[int]] = []

    def records(self, rows: np.ndarray, out: Any = None) -> Any:
        self.asked.append(rows.tolist())
        return torch.index_select(self.held, 0, torch.from_numpy(rows), out=out)

    def expand(self, records: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        sizes = [*(shape.numel() for shape in self.shapes.values()), *(shape[0] for shape in self.shapes.values())]
        parts = records.float().split(sizes, 1)
        n = len(self.shapes)
        local = {layer: part.unflatten(1, self.shapes[layer]) for layer, part in zip(self.shapes, parts, strict=False)}
        return local, dict(zip(self.shapes, parts[n:], strict=True))

    def batch(self, rows: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.expand(self.records(rows))


def problem_with_records(**options: Any) -> tuple[EncodingModule, EncodingData, np.ndarray]:
    """The small problem with records, and the rows of training and validation."""
    module, data = problem(**options)
    data.tokens = Records(data.tokens, 40)
    return module, data, np.concatenate([data.split.train, data.split.validation])


def two_subjects(**train: Any) -> tuple[JointModule, JointData]:
    """Subjects of 20 and 12 vertices who saw 24 and 5 training images, made by models of the same kind."""
    parts, models = [], []
    for k, (vertices, images) in enumerate(((20, 24), (12, 5))):
        tokens = memory_tokens(seed=k)
        truth = small_model(tokens, vertices)
        with torch.inference_mode():
            values = truth(*tokens.batch(np.arange(len(tokens)))).numpy()
        split = Split(np.arange(images), np.arange(24, 30 + 2 * k), np.arange(34, 40), seed=0)
        parts.append(EncodingData(tokens, Responses(values), split, batch_size=4, seed=0))
        torch.manual_seed(k)
        model = FactorTopy(tokens.widths, coordinates(vertices), bottleneck=6, grid=tokens.grid, selector_width=16)
        model.set_response_scale(values[:images].mean(0), values[:images].std(0))
        models.append(model)
    data = JointData(parts)
    config = TrainConfig(**({"epochs": 3} | train))
    module = JointModule(models, config, data.steps * config.epochs)
    fit_statistics(models[0], [(part.tokens, part.split.train) for part in parts])  # type: ignore[misc]
    return module, data
