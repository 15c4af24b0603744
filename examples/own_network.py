"""Your own vision network as a backbone. Copy this file, put your network in, then:

    brainkit train --backbone own_network.py:OwnNetwork

brainkit needs one method, ``get_tokens``. For each layer it returns a map of local tokens and a global token; each
cortical vertex then selects layers, a location on the maps, and between local and global tokens.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from torch import Tensor, nn

from brainkit.images import Preprocessing

# The weights of your network, written by torch.save(network.state_dict(), ...).
WEIGHTS = Path(__file__).with_name("own_network.pt")


class SmallNet(nn.Module):
    """A placeholder for your network: any module whose intermediate features you can access."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, 128)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.GELU())
            for before, after in itertools.pairwise(widths)
        )
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        for stage in self.stages:
            images = stage(images)
        return self.head(images.mean((2, 3)))


class OwnNetwork(nn.Module):
    """The backbone. It is created without arguments, and loads its own weights."""

    # The preprocessing that your network was trained with. By default: 224 pixels, ImageNet's mean and s.d.
    preprocessing = Preprocessing(
        size=128, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bicubic"
    )
    licence = "my own"  # of its weights; stored in the encoder file, as is `citation`
    citation = "Me (2026), My Own Network"

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # without a weights file: the same random weights every time
            self.network = SmallNet()
        # State whether the weights are trained. An untrained network is a control, and marked as such in all results.
        self.pretrained = WEIGHTS.is_file()
        if self.pretrained:
            self.network.load_state_dict(torch.load(WEIGHTS, map_location="cpu", weights_only=True))

    def get_tokens(self, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Local tokens (B, C, H, W) and global tokens (B, C) of each layer, from shallow to deep.

        `images` is float32 (B, 3, S, S), normalised according to `preprocessing`. The maps may have any size, and each
        layer its own number of channels. For a transformer, reshape the patch tokens to (B, C, H, W), and use the class
        token, or the mean, as the global token.
        """
        local_tokens, global_tokens = {}, {}
        for number, stage in enumerate(self.network.stages, 1):
            images = stage(images)
            local_tokens[f"stage{number}"] = images
            global_tokens[f"stage{number}"] = images.mean((2, 3))
        return local_tokens, global_tokens
