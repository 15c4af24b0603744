"""A small network with convolutions and products, models of its tokens, and what exporting them needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from brainkit import export
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.images import Preprocessing
from brainkit.model.factor_topy import FactorTopy

SIZE, V = 40, 300
WIDTHS = {"patches": 32, "mixed": 48}
PREPROCESSING = Preprocessing(SIZE, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), "bilinear", "whole", 1.0)


class Mixer(nn.Module):
    """Patches by a convolution, then products of constant weights: of maps (MatMul) and of one vector (Gemm)."""

    pretrained = True

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.norm = nn.LayerNorm(32)
        self.wide = nn.Linear(32, 64)
        self.narrow = nn.Linear(64, 48)
        self.whole = nn.Linear(48, 48)

    def get_tokens(self, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        patches = torch.tanh(self.patches(images))
        cells = self.norm(patches.flatten(2).transpose(1, 2))
        mixed = self.narrow(torch.relu(self.wide(cells))).transpose(1, 2).unflatten(2, patches.shape[2:])
        whole = self.whole(mixed.mean((2, 3)))
        return {"patches": patches, "mixed": mixed}, {"patches": patches.mean((2, 3)), "mixed": whole}


def make_backbone() -> Mixer:
    torch.manual_seed(1)
    return Mixer().eval()


def make_model(seed: int = 0, **options: Any) -> FactorTopy:
    """Random weights by the seed; the vertices have the same coordinates for every seed."""
    torch.manual_seed(seed)
    coordinates = np.random.default_rng(0).normal(0, 40, (V, 3))
    options = {"bottleneck": 6, "grid": (4, 5), "backend": "reference"} | options
    model = FactorTopy(WIDTHS, coordinates, **options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.1 if "selector" in name else 1.0)
    return model.eval()


def make_images(count: int = 7) -> np.ndarray:
    coarse = np.random.default_rng(2).integers(0, 256, (count, 10, 10, 3))
    return coarse.repeat(SIZE // 10, 1).repeat(SIZE // 10, 2).astype(np.uint8)


def export_tiny(path: Path, model: Any = None, backbone: Any = None, **options: Any) -> export.Exported:
    model = make_model() if model is None else model
    backbone = make_backbone() if backbone is None else backbone
    folded = model.folded()
    info = export.describe(
        folded,
        vertices=Vertices("fsaverage5", np.arange(V) * 30),
        rois=RoiTable({"early": np.arange(V // 2)}, V),
        preprocessing=PREPROCESSING,
        backbone={"name": "mixer", "pretrained": True},
        units="z-scored percent signal change",
    )
    if "ensemble" in options:
        info = dataclasses.replace(info, ensemble=options.pop("ensemble"))
    return export.export_onnx(model, backbone, path, info=info, images=make_images(), **options)
