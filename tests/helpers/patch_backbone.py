"""A tiny backbone of two layers that counts the images it processes, and photographs for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from brainkit.backbones import Backbone
from brainkit.features.cache import TokenCache
from brainkit.images import Preprocessing, decode, normalise, prepare

PREPROCESSING = Preprocessing(16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear")
RECORD = 2 * 4 * (3 * 3 + 1)  # numbers per image on a grid of 3 x 3
PROBES = 8 + 1  # images on which the offsets of a new store are measured, one of them alone too


class Patches(nn.Module):
    """Two layers of patches, the second one coarser."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 3, 4, 4, generator=generator) * gain)
        self.processed = 0
        self.extra = 1.0

    def get_tokens(self, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        self.processed += len(images)
        fine = nn.functional.conv2d(images, self.weight, stride=2) * self.extra
        local = {"fine": fine, "coarse": nn.functional.avg_pool2d(fine, 2)}
        return local, {layer: tokens.mean((2, 3)) for layer, tokens in local.items()}


def patch_backbone(network: nn.Module | None = None, **changes: object) -> Backbone:
    arguments: dict[str, Any] = {
        "name": "patches",
        "preprocessing": PREPROCESSING,
        "layers": {"fine": "fine", "coarse": "coarse"},
        "pretrained": True,
        "licence": "",
        "source": "",
    }
    backbone = Backbone(network or Patches(), **arguments | changes)
    backbone.network.processed = 0  # it was probed
    return backbone


def processed_by(backbone: Backbone) -> int:
    """Images that the network processed since the last call."""
    count, backbone.network.processed = backbone.network.processed, 0
    return count


def tokens_of(backbone: Backbone, paths: list[Path]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The backbone's own tokens of image files, which count as processed."""
    images = normalise(np.stack([prepare(decode(path), PREPROCESSING) for path in paths]), PREPROCESSING)
    return backbone.get_tokens(torch.from_numpy(images))


def record_bits(tokens: TokenCache) -> np.ndarray:
    return tokens.records(np.arange(len(tokens))).view(torch.int16).numpy()


def write_photos(folder: Path, count: int = 11) -> list[Path]:
    rng = np.random.default_rng(0)
    folder.mkdir()
    paths = [folder / f"{i:02d}.png" for i in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    return paths
