"""Names, options and preprocessing of backbones."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from brainkit.backbones import ALIASES, load_backbone  # noqa: E402
from brainkit.backbones.loading import timm_preprocessing  # noqa: E402
from brainkit.errors import BrainkitError, UsageError  # noqa: E402
from brainkit.images import PUBLISHED  # noqa: E402

VIT = "test_vit"  # timm's own for tests: 6 blocks, width 64, patches of 16 px


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("dinov4", "dinov2"),
        ("resnet5o", "resnet50"),
        ("convnextt_tiny", "convnext_tiny"),
        ("resnet18.a1_in1kk", "a1_in1k"),
        ("efficientnet_lite", r"nearest: efficientnet_lite0"),
        ("efficientnet_lite.ra", r"nearest: efficientnet_lite0"),
        ("DINOv2", r"nearest: dinov2"),
        ("dinov2_vitb14", r"nearest: dinov2"),
    ],
)
def test_unknown_names_suggest_the_nearest(name, nearest):
    with pytest.raises(UsageError, match=nearest) as caught:
        load_backbone(name)
    assert "\n" not in str(caught.value)


def test_a_network_without_trained_weights():
    with pytest.raises(BrainkitError, match=r"vit_small_patch16_18x2_224.*--random-weights"):
        load_backbone("vit_small_patch16_18x2_224")


def test_weights_and_random_weights_exclude_each_other(tmp_path):
    with pytest.raises(UsageError, match="exclude"):
        load_backbone(VIT, weights=tmp_path / "w.pth", random_weights=True)


def test_aliases_are_the_networks_of_the_papers():
    assert {"dinov2", "clip", "sam", "mae", "mocov3", "imagenet"} <= set(ALIASES)
    assert ALIASES["dinov2"].architecture == "vit_base_patch14_dinov2.lvd142m"
    assert ALIASES["clip"].hub_file == ("laion/CLIP-ViT-B-16-DataComp.L-s1B-b8K", "open_clip_pytorch_model.bin")
    assert (ALIASES["sam"].architecture, ALIASES["sam"].size) == ("samvit_base_patch16.sa1b", 1024)
    assert ALIASES["mae"].architecture == "vit_base_patch16_224.mae"
    for name, alias in ALIASES.items():
        if alias.loader == "timm":
            assert timm.get_pretrained_cfg(alias.architecture) is not None, name
        sizes = {"sam": 1024, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
        assert alias.size == sizes.get(name, 224)


def test_preprocessing_options():
    crop = load_backbone("resnet18", random_weights=True, fit="crop", size=64).preprocessing
    assert (crop.fit, crop.size, crop.crop_fraction) == ("crop", 64, 0.95)
    assert load_backbone(VIT, random_weights=True, preset="published").preprocessing == PUBLISHED


def test_crop_is_timms_or_refused():
    data = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "squash"}
    assert timm_preprocessing(data, 64, "crop", "x").fit == "whole"
    with pytest.raises(UsageError, match="squash"):
        timm_preprocessing(data | {"crop_pct": 0.9}, 64, "crop", "x")
    assert timm_preprocessing(data | {"crop_pct": 0.9}, 64, "whole", "x").crop_fraction == 0.9


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"fit": "stretch"}, "fit must be"),
        ({"preset": "own"}, "preset must be"),
        ({"preset": "published", "fit": "crop"}, "excludes"),
        ({"size": 65}, "multiple of its patches"),
        ({"size": -1}, "positive"),
    ],
)
def test_options_that_are_refused(options, expected):
    with pytest.raises(UsageError, match=expected):
        load_backbone(VIT, random_weights=True, **options)
