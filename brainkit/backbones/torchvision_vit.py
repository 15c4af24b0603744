"""torchvision's ViT-B/16 (the alias "imagenet"), with the tokens after each encoder block."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from brainkit.backbones.probe import TokenPair


class TorchvisionVit(nn.Module):
    """Tokens after every encoder block of a torchvision ``VisionTransformer``; the global one is the class token.

    Parameters
    ----------
    model : torchvision.models.VisionTransformer
    depth : int or None
        Number of blocks to run; None for all.
    """

    class_token = True
    model: Any  # torch types every attribute of a module as a tensor or a module

    def __init__(self, model: Any, *, depth: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.depth = depth or len(self.model.encoder.layers)

    def get_tokens(self, images: torch.Tensor) -> TokenPair:
        """See :meth:`brainkit.backbones.Backbone.get_tokens`."""
        model = self.model
        patches = model._process_input(images)  # (B, P, C)
        class_tokens = model.class_token.expand(images.shape[0], -1, -1)
        hidden = torch.cat([class_tokens, patches], dim=1) + model.encoder.pos_embedding
        side = images.shape[-1] // model.patch_size
        local, global_ = {}, {}
        for number, block in enumerate(list(model.encoder.layers)[: self.depth], start=1):
            hidden = block(hidden)
            # "b (h w) c -> b c h w", in torch's own operations: einops would change the exported graph.
            local[f"block{number}"] = hidden[:, 1:].transpose(1, 2).unflatten(2, (side, side)).contiguous()
            global_[f"block{number}"] = hidden[:, 0]
        return local, global_
