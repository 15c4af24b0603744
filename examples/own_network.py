"""Your own vision network as a backbone. Copy this file, put your network in, then:

    brainkit train --backbone own_network.py:OwnNetwork

brainkit needs one method, ``get_tokens``. For each layer it gives a map of local tokens and one global token; the
cortex then picks among the layers, the places of the maps and the global tokens.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from torch import Tensor, nn

from brainkit.images import Preprocessing

# The weights of your network, as torch.save(network.state_dict(), ...) wrote them.
WEIGHTS = Path(__file__).with_name("own_network.pt")


class SmallNet(nn.Module):
    """Stands for your network: any module whose intermediate features you can reach."""

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
    """What brainkit sees. It is made without arguments, and loads its own weights."""

    # How your network was trained to see an image. Without this: 224 pixels, ImageNet's mean and s.d.
    preprocessing = Preprocessing(
        size=128, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bicubic"
    )
    licence = "my own"  # travels with the encoder file

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # while there is no weights file: the same random weights whenever it is made
            self.network = SmallNet()
        # A network without training is a control: brainkit then says so wherever its results are.
        self.pretrained = WEIGHTS.is_file()
        if self.pretrained:
            self.network.load_state_dict(torch.load(WEIGHTS, map_location="cpu", weights_only=True))

    def get_tokens(self, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Local tokens (B, C, H, W) and global tokens (B, C) of each layer, from shallow to deep.

        `images` is float32 (B, 3, S, S), normalised as `preprocessing` says. The maps may have any size, and each
        layer its own width. For a transformer: reshape the patch tokens to (B, C, H, W), and take the class token,
        or the mean, as the global one.
        """
        local, whole = {}, {}
        for number, stage in enumerate(self.network.stages, 1):
            images = stage(images)
            local[f"stage{number}"] = images
            whole[f"stage{number}"] = images.mean((2, 3))
        return local, whole
