"""The short names that users type, and exactly which network each stands for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Alias:
    """One short name.

    Attributes
    ----------
    kind : str
        Which loader serves it: "timm", "lite0", "mocov3" or "torchvision".
    timm_name : str
        The architecture, with its weights' tag where timm's own hub file is the right one.
    hub_file : tuple of (str, str), or None
        Hub repository and file that replace timm's own.
    size : int
        Side of the input in pixels.
    licence : str or None
        Where timm's entry does not say it, or says another network's.
    """

    kind: str
    timm_name: str
    hub_file: tuple[str, str] | None = None
    size: int = 224
    licence: str | None = None


ALIASES: dict[str, Alias] = {
    "efficientnet_lite0": Alias("lite0", "tf_efficientnet_lite0", licence="apache-2.0"),
    "dinov2": Alias("timm", "vit_base_patch14_dinov2.lvd142m"),
    # timm's own tags of this architecture (datacompxl, laion2b, openai) are other networks.
    "clip": Alias(
        "timm",
        "vit_base_patch16_clip_224.datacompxl",
        hub_file=("laion/CLIP-ViT-B-16-DataComp.L-s1B-b8K", "open_clip_pytorch_model.bin"),
        licence="mit",
    ),
    "sam": Alias("timm", "samvit_base_patch16.sa1b", size=1024),
    "mae": Alias("timm", "vit_base_patch16_224.mae"),
    "mocov3": Alias("mocov3", "vit_base_patch16_224", licence="cc-by-nc-4.0"),
    # Not timm's augreg_in1k: the network that torchvision trained.
    "imagenet": Alias("torchvision", "vit_b_16", licence="bsd-3-clause"),
    "dinov3": Alias("timm", "vit_base_patch16_dinov3.lvd1689m"),
    "siglip2": Alias("timm", "vit_base_patch16_siglip_224.v2_webli"),
    "eva02": Alias("timm", "eva02_base_patch14_224.mim_in22k"),
    "pe_core": Alias("timm", "vit_pe_core_base_patch16_224.fb"),
    "ijepa": Alias("timm", "vit_huge_patch14_gap_224.in1k_ijepa"),
    "convnext": Alias("timm", "convnext_base.fb_in22k_ft_in1k"),
    "swin": Alias("timm", "swin_base_patch4_window7_224.ms_in22k_ft_in1k"),
    "resnet50": Alias("timm", "resnet50.a1_in1k"),
    "resnet": Alias("timm", "resnet50.a1_in1k"),
}

MOCOV3_URL = "https://dl.fbaipublicfiles.com/moco-v3/vit-b-300ep/vit-b-300ep.pth.tar"
DEFAULT_SIZE = 224
