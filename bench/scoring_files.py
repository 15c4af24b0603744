"""Encoder files to time: networks with random weights, and parts of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from brainkit.backbones import Backbone, load_backbone
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.export import describe, export_onnx
from brainkit.export.onnx_graph import quiet
from brainkit.model.factor_topy import FactorTopy


class TinyBackbone(nn.Module):
    """Two small convolutions, much cheaper than everything around the network."""

    pretrained = False

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 4, stride=4)
        self.second = nn.Conv2d(4, 6, 2, stride=2)

    def get_tokens(self, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Tokens of both layers, and their means."""
        early = torch.relu(self.first(images))
        late = torch.relu(self.second(early))
        local = {"early": early, "late": late}
        return local, {name: tokens.mean((2, 3)) for name, tokens in local.items()}


def random_model(widths: dict[str, int], vertices: Vertices, bottleneck: int) -> FactorTopy:
    """A model whose vertices have different locations; at the start of training all have the same."""
    torch.manual_seed(0)
    coordinates = np.random.default_rng(2).uniform(-80, 80, (len(vertices), 3))  # do not matter for speed
    model = FactorTopy(widths, coordinates, bottleneck=bottleneck).eval()
    with torch.no_grad():
        for network in (model.space_selector_mlp, model.layer_selector_mlp, model.scale_selector_mlp):
            network[5].weight.normal_(0, 0.8)
        model.weight.normal_()
    return model


def some_vertices(count: int) -> Vertices:
    """Random vertices of fsaverage."""
    ids = np.random.default_rng(0).choice(327_684, count, replace=False)
    return Vertices("fsaverage", np.sort(ids).astype(np.int32))


def encoder_info(model: FactorTopy, backbone: Any, vertices: Vertices, name: str) -> Any:
    """The file's metadata."""
    return describe(
        model.folded(),
        vertices=vertices,
        rois=RoiTable({"some": np.arange(min(1000, len(vertices)))}, len(vertices)),
        preprocessing=backbone.preprocessing,
        backbone={"name": name, "weights_hash": "", "pretrained": False, "licence": ""},
        note="random weights",
    )


def write_encoder(path: Path, backbone: Any, name: str, vertices: int, bottleneck: int, **options: Any) -> FactorTopy:
    """Write an encoder file of a network with random weights; returns its model."""
    chosen = some_vertices(vertices)
    size = backbone.preprocessing.size
    images = np.random.default_rng(1).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    with torch.no_grad():
        local, _ = backbone.get_tokens(torch.zeros((1, 3, size, size)))
    model = random_model({layer: tokens.shape[1] for layer, tokens in local.items()}, chosen, bottleneck)
    export_onnx(
        model, backbone, path, info=encoder_info(model, backbone, chosen, name), images=images, enforce=False, **options
    )
    return model


def write_bare(path: Path, backbone: Backbone) -> None:
    """The backbone alone, with the same exporter: uint8 images -> the last layer's global token."""
    mean, std = (
        torch.tensor(values).reshape(1, 3, 1, 1) for values in (backbone.preprocessing.mean, backbone.preprocessing.std)
    )

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = backbone
            self.register_buffer("mean", mean)
            self.register_buffer("std", std)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            normal = (images.permute(0, 3, 1, 2).to(torch.float32) / 255.0 - self.mean) / self.std
            return list(self.network.get_tokens(normal)[1].values())[-1]

    size = backbone.preprocessing.size
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            Bare().eval(),
            (torch.zeros((2, size, size, 3), dtype=torch.uint8),),
            dynamo=True,
            opset_version=20,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            input_names=["images"],
            output_names=["token"],
            external_data=False,
            verbose=False,
        )
        program.save(path, external_data=False)


def write_readout(path: Path, encoder: Path) -> None:
    """The readout alone, extracted from an encoder file: tokens -> fmri."""
    onnx.utils.extract_model(encoder, path, ["tokens"], ["fmri"], check_model=False)


def vision_transformer() -> Backbone:
    """A ViT-B/14 at 224 with random weights."""
    return load_backbone("dinov2", random_weights=True)
