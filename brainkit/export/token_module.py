"""Backbone, normalisation and bottlenecks as one torch module that ends in tokens; predictions in torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.encoder_file import EncoderInfo
from brainkit.images import Preprocessing, normalise

if TYPE_CHECKING:
    import torch
    from torch import nn

    from brainkit.model.ensemble import Ensemble
    from brainkit.model.factor_topy import FactorTopy, Folded


@contextlib.contextmanager
def evaluation_mode(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards every submodule has its own mode again."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def export_mode(backbone: nn.Module) -> contextlib.AbstractContextManager[None]:
    """A block in which the backbone can be exported, for those that compute differently in training."""
    context: contextlib.AbstractContextManager[None] = getattr(backbone, "exporting", contextlib.nullcontext)()
    return context


def torch_predictions(
    model: FactorTopy | Ensemble, backbone: Any, images: np.ndarray, preprocessing: Preprocessing
) -> np.ndarray:
    """Predictions of the model and its backbone in torch: prepared images (n, S, S, 3) uint8 -> (n, V) float32."""
    import torch

    def device_of(module: nn.Module) -> torch.device:
        return next((p.device for p in module.parameters()), torch.device("cpu"))

    parts = []
    with torch.no_grad():
        for start in range(0, len(images), 4):
            batch = torch.from_numpy(normalise(images[start : start + 4], preprocessing)).to(device_of(backbone))
            tokens = backbone.get_tokens(batch)
            device = device_of(model)
            fmri = model(*({name: part[name].float().to(device) for name in model.layers} for part in tokens))
            parts.append(fmri.float().cpu().numpy())
    return np.concatenate(parts)


def token_map_sizes(folded: Folded, backbone: Any, info: EncoderInfo) -> list[tuple[int, int]]:
    """The different (height, width) of the backbone's token maps."""
    import torch

    size = info.preprocessing.size
    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    with torch.no_grad():
        local = backbone.get_tokens(torch.zeros((2, 3, size, size), device=device))[0]
    return sorted({(int(local[name].shape[-2]), int(local[name].shape[-1])) for name in folded.layers})


def token_module(
    folded: Folded, backbone: Any, preprocessing: Preprocessing, sizes: list[tuple[int, int]]
) -> nn.Module:
    """uint8 images (B, S, S, 3) -> tokens (B, L, D, P + 1), all constants folded; `sizes` are of `token_map_sizes`."""
    import torch
    from torch import nn

    from brainkit.ops.token_grid import grid_matrix

    def constant(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))

    class Tokens(nn.Module):
        mean: torch.Tensor
        std: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone
            self.register_buffer("mean", constant(np.asarray(preprocessing.mean)).reshape(1, 3, 1, 1))
            self.register_buffer("std", constant(np.asarray(preprocessing.std)).reshape(1, 3, 1, 1))
            for index, layer in enumerate(folded.layers):
                self.register_buffer(f"local_weight_{index}", constant(folded.local_weight[layer]))
                self.register_buffer(f"local_bias_{index}", constant(folded.local_bias[layer])[:, None])
                self.register_buffer(f"global_weight_{index}", constant(folded.global_weight[layer].T))
                self.register_buffer(f"global_bias_{index}", constant(folded.global_bias[layer]))
            for height, width in sizes:
                self.register_buffer(
                    f"grid_{height}x{width}", constant(grid_matrix(height, width, *folded.grid, folded.resize))
                )

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            # The same operations in the same order as images.normalise.
            normal = (images.permute(0, 3, 1, 2).to(torch.float32) / 255.0 - self.mean) / self.std
            local, whole = self.backbone.get_tokens(normal)
            tokens = []
            for index, layer in enumerate(folded.layers):
                grid = self.to_grid(local[layer].to(torch.float32))
                cells = torch.matmul(getattr(self, f"local_weight_{index}"), grid)
                cells = cells + getattr(self, f"local_bias_{index}")  # (B, D, P)
                token = torch.matmul(whole[layer].to(torch.float32), getattr(self, f"global_weight_{index}"))
                token = token + getattr(self, f"global_bias_{index}")  # (B, D)
                tokens.append(torch.cat([cells, token.unsqueeze(-1)], -1))
            return torch.stack(tokens, 1)

        def to_grid(self, tokens: torch.Tensor) -> torch.Tensor:
            """(B, C, H, W) -> (B, C, P). A constant matrix: ONNX's Resize is 1e-5 off on large maps."""
            height, width = tokens.shape[-2:]
            flat = tokens.flatten(2)
            if (height, width) == tuple(folded.grid):
                return flat
            return torch.matmul(flat, self.get_buffer(f"grid_{int(height)}x{int(width)}"))

    return Tokens().eval()
