"""A network and a model of a few weights, and what exporting them needs; shared by the tests of export."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from brainkit import encoder_file, export
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.images import Preprocessing, normalise
from brainkit.model.factor_topy import FactorTopy

SIZE = 40
PREPROCESSING = Preprocessing(SIZE, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), "bilinear", "whole", 1.0)
WIDTHS = {"fine": 8, "coarse": 12}


class Tiny(nn.Module):
    """Two layers whose maps are reduced to the model's grid in both ways, by averaging and bilinearly."""

    pretrained = True

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 8, 4, 4)
        self.coarse = nn.Conv2d(8, 12, 2, 2)
        self.dropout = nn.Dropout(0.5)

    def get_tokens(self, images: Any) -> tuple[dict, dict]:
        fine = torch.relu(self.fine(images))
        coarse = torch.tanh(self.coarse(self.dropout(fine)))
        return {"fine": fine, "coarse": coarse}, {"fine": fine.mean((2, 3)), "coarse": coarse.mean((2, 3))}


class Drifting(Tiny):
    """Predicts something else once exported."""

    def get_tokens(self, images: Any) -> tuple[dict, dict]:
        local, whole = super().get_tokens(images)
        if torch.compiler.is_compiling():
            local = {name: tokens * 1.01 for name, tokens in local.items()}
        return local, whole


class Branching(Tiny):
    """Cannot be traced: its control flow depends on the values."""

    def get_tokens(self, images: Any) -> tuple[dict, dict]:
        return super().get_tokens(images if float(images.mean()) > 0 else -images)


class Counting(Tiny):
    """Turns the batch size into a Python number, which tracing fixes in the graph."""

    def get_tokens(self, images: torch.Tensor) -> Any:
        count = len(images)
        local, whole = super().get_tokens(images.reshape(count, *images.shape[1:]))
        return local, whole


def make_model(n_vertices: int = 60, grid: tuple[int, int] = (4, 5), seed: int = 0) -> FactorTopy:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = FactorTopy(WIDTHS, rng.normal(0, 40, (n_vertices, 3)), bottleneck=6, grid=grid, backend="reference")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.1 if "selector" in name else 1.0)
    return model


def make_backbone(kind: type[Tiny] = Tiny) -> Tiny:
    torch.manual_seed(1)
    return kind().eval()


def make_info(model: FactorTopy) -> encoder_file.EncoderInfo:
    V = len(model.bias)
    return export.describe(
        model.folded(),
        vertices=Vertices("fsaverage5", np.arange(V) * 300),
        rois=RoiTable({"early": np.arange(V // 2), "one": [V - 1], "absent": []}, V),
        preprocessing=PREPROCESSING,
        backbone={"name": "tiny", "pretrained": True},
        r=np.linspace(-0.1, 0.5, V),
        units="z-scored percent signal change",
        note="a test",
        provenance={"seed": 0},
    )


def make_images(count: int = 7) -> np.ndarray:
    coarse = np.random.default_rng(2).integers(0, 256, (count, 5, 5, 3))
    return coarse.repeat(SIZE // 5, 1).repeat(SIZE // 5, 2).astype(np.uint8)


def in_torch(model: FactorTopy, backbone: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(*backbone.get_tokens(torch.from_numpy(normalise(images, PREPROCESSING)))).numpy()
