"""Every alias reads its published files: small networks with files in the same layouts, read as the real ones are."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")
hub = pytest.importorskip("huggingface_hub")
pytest.importorskip("safetensors")

import published_files as layouts  # noqa: E402

from brainkit.backbones import (  # noqa: E402
    ALIASES,
    load_backbone,
    weight_sources,
)
from brainkit.backbones.timm_backbone import TimmNetwork  # noqa: E402
from brainkit.backbones.torchvision_vit import TorchvisionVit  # noqa: E402
from brainkit.errors import DataError, UsageError  # noqa: E402

LAION = "laion/CLIP-ViT-B-16-DataComp.L-s1B-b8K"
MOCOV3 = "https://dl.fbaipublicfiles.com/moco-v3/vit-b-300ep/vit-b-300ep.pth.tar"
IJEPA = "https://dl.fbaipublicfiles.com/ijepa/IN1K-vit.h.14-300e.pth.tar"
TORCHVISION = "https://download.pytorch.org/models/vit_b_16-c867db91.pth"
SAFE = "model.safetensors"
# alias: where its weights are published, the file's name there ("" for an address), and its layout
PUBLISHED = {
    alias: (f"timm/{entry.architecture}", SAFE, layouts.resnet if alias.startswith("resnet") else layouts.timm_hub)
    for alias, entry in ALIASES.items()
    if entry.package is None  # other tests load the real weights of the one in a package
} | {
    "clip": (LAION, "open_clip_pytorch_model.bin", layouts.open_clip),
    "mocov3": (MOCOV3, "", layouts.mocov3),
    "imagenet": (TORCHVISION, "", layouts.torchvision_vit),
    "ijepa": (IJEPA, "", layouts.ijepa),
}
# Files that users may have: the authors' originals, and converted ones.
FILES = [
    ("dinov2", "dinov2_vitb14_pretrain.pth", layouts.dinov2),
    ("dinov2", "model.safetensors", layouts.timm_hub),
    ("clip", "open_clip_pytorch_model.bin", layouts.open_clip),
    ("clip", "open_clip_model.safetensors", layouts.open_clip),
    ("sam", "sam_vit_b_01ec64.pth", layouts.sam),
    ("sam", "model.safetensors", layouts.timm_hub),
    ("mae", "mae_pretrain_vit_base.pth", layouts.mae),
    ("mae", "mae_pretrain_vit_base_full.pth", layouts.mae_with_decoder),
    ("mocov3", "vit-b-300ep.pth.tar", layouts.mocov3),
    ("imagenet", "vit_b_16-c867db91.pth", layouts.torchvision_vit),
    ("dinov3", "dinov3_vitb16_pretrain_lvd1689m.pth", layouts.dinov3),
    ("siglip2", "open_clip_model.safetensors", layouts.open_clip_of_timm),
    ("eva02", "eva02_B_pt_in21k_p14.pt", layouts.eva02),
    ("pe_core", "PE-Core-B16-224.pt", layouts.perception_encoder),
    ("ijepa", "IN1K-vit.h.14-300e.pth.tar", layouts.ijepa),
    ("convnext", "convnext_base_22k_1k_224.pth", layouts.convnext),
    ("swin", "swin_base_patch4_window7_224_22kto1k.pth", layouts.swin),
    ("resnet50", "resnet50-0676ba61.pth", layouts.resnet),
]


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path) -> Path:
    """Small networks, the test's own caches, and no connection."""
    layouts.make_networks_small(monkeypatch)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weight_sources, "_check_reachable", lambda *args: pytest.fail("used the network"))
    return tmp_path


def source(alias: str, **options) -> torch.nn.Module:
    """A network of the alias, at the size that its weights are published for."""
    if alias == "imagenet":
        network = torchvision.models.vit_b_16(**options)
        network.heads = torch.nn.Identity()
    else:
        network = timm.create_model(ALIASES[alias].architecture, num_classes=0, **options)
    return layouts.perturbed(network)


def tokens(network: torch.nn.Module, size: int):
    """The tokens of a network itself for two images; timm resamples position embeddings as it runs, if necessary."""
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    if isinstance(network, torchvision.models.VisionTransformer):
        network = TorchvisionVit(network)
    elif hasattr(network, "forward_intermediates"):
        network = TimmNetwork(network, size=size)
    with torch.no_grad():
        return network.get_tokens(images)


def check_same_tokens(backbone, network) -> None:
    found, expected = tokens(backbone, backbone.preprocessing.size), tokens(network, backbone.preprocessing.size)
    for ours, theirs in zip(found, expected, strict=True):
        assert tuple(ours) == tuple(theirs)
        for layer in theirs:
            torch.testing.assert_close(ours[layer], theirs[layer], rtol=1e-4, atol=1e-5)


def publish(folder: Path, alias: str, network: torch.nn.Module) -> Path:
    """Write a network's weights to where downloaded ones are cached."""
    address, name, layout = PUBLISHED[alias]
    if name:
        return layouts.in_hub_cache(folder / "hub", address, name, layout(network.state_dict()))
    target = folder / "torch" / "hub" / "checkpoints" / address.rpartition("/")[2]
    return layouts.save(layout(network.state_dict()), target)


@pytest.mark.parametrize("alias", PUBLISHED)
def test_published_weights_come_from_the_cache(small, alias):
    # DINOv2 is published for 518 px and used at 224, so timm resamples as it runs.
    network = source(alias, **({"dynamic_img_size": True} if "dinov2" in ALIASES[alias].architecture else {}))
    publish(small, alias, network)
    backbone = load_backbone(alias)
    assert backbone.pretrained and backbone.preprocessing.size == (1024 if alias == "sam" else 224)
    address = PUBLISHED[alias][0]
    assert address in backbone.source or (alias == "imagenet" and "ViT_B_16_Weights.IMAGENET1K_V1" in backbone.source)
    if alias == "sam":  # attention over 64 x 64 tokens: one pass is enough here
        assert torch.equal(backbone.network.model.pos_embed, network.pos_embed)
        backbone = load_backbone(alias, size=256)
    check_same_tokens(backbone, network)


@pytest.mark.parametrize(("alias", "name", "layout"), FILES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_weights_from_a_file_of_the_authors(small, alias, name, layout, capsys):
    network = source(alias, **({"dynamic_img_size": True} if "dinov2" in ALIASES[alias].architecture else {}))
    file = layouts.save(layout(network.state_dict()), small / "mine" / name)
    backbone = load_backbone(alias, weights=file, size=256 if alias == "sam" else None)
    assert backbone.source == f"file {name}"
    check_same_tokens(backbone, network)
    assert capsys.readouterr().out == ""


def test_dinov2_position_embedding_is_resampled_as_timm_does(small):
    network = source("dinov2")
    assert network.pos_embed.shape == (1, 37 * 37 + 1, layouts.WIDTH)
    publish(small, "dinov2", network)
    found = load_backbone("dinov2").network.model.pos_embed
    expected = timm.layers.resample_abs_pos_embed(network.pos_embed, (16, 16), num_prefix_tokens=1)
    torch.testing.assert_close(found, expected)
    # timm's own loader reads the same file with the same result.
    file = layouts.save(layouts.dinov2(network.state_dict()), small / "d.pth")
    name, overlay = "vit_base_patch14_dinov2.lvd142m", {"file": str(file)}
    theirs = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, img_size=224, num_classes=0)
    torch.testing.assert_close(found, theirs.pos_embed)


@pytest.mark.parametrize(
    ("alias", "size"),
    [("dinov2", 448), ("clip", 128), ("mae", 64), ("mocov3", 96), ("dinov3", 64), ("siglip2", 256), ("sam", 128)],
)
def test_other_sizes_resample_as_timm_does_as_it_runs(small, alias, size):
    free = {"dynamic_img_size": True} if alias not in ("sam", "dinov3") else {}
    network = source(alias, **free)
    publish(small, alias, network)
    backbone = load_backbone(alias, size=size)
    check_same_tokens(backbone, network)


@pytest.mark.parametrize(
    ("alias", "name", "layout"),
    [("pe_core", "PE-Core-B16-224.pt", layouts.perception_encoder), ("clip", "c.bin", layouts.open_clip)],
)
def test_originals_at_other_sizes(small, alias, name, layout):
    network = source(alias)
    file = layouts.save(layout(network.state_dict()), small / name)
    found = load_backbone(alias, weights=file, size=128).network.model
    expected = timm.layers.resample_abs_pos_embed(network.pos_embed, (8, 8), num_prefix_tokens=1)
    torch.testing.assert_close(found.pos_embed, expected)


@pytest.mark.parametrize("published", [True, False])
def test_torchvision_at_another_size(small, published):
    from torchvision.models.vision_transformer import interpolate_embeddings

    network = source("imagenet")
    file = publish(small, "imagenet", network)
    backbone = load_backbone("imagenet", size=64, weights=None if published else file)
    state = interpolate_embeddings(64, 16, dict(network.state_dict()))
    other = source("imagenet", image_size=64)
    other.load_state_dict(state)
    check_same_tokens(backbone, other)


def test_the_safetensors_form_of_open_clip_comes_first(small):
    first, second = source("clip"), layouts.perturbed(source("clip"), seed=5)
    repository, name, layout = PUBLISHED["clip"]
    file = layouts.in_hub_cache(small / "hub", repository, name, layout(second.state_dict()))
    layouts.save(layout(first.state_dict()), file.with_name("open_clip_model.safetensors"))
    check_same_tokens(load_backbone("clip"), first)


def test_an_open_clip_file_computes_what_torch_s_own_layers_do(small):
    """Not only the names: query, key and value in this order, norms first, exact GELU, epsilon 1e-5."""
    width, n_patches = layouts.WIDTH, 14 * 14
    torch.manual_seed(3)
    options = {"dim_feedforward": 4 * width, "activation": "gelu", "batch_first": True, "norm_first": True}
    blocks = [torch.nn.TransformerEncoderLayer(width, 2, dropout=0.0, **options) for _ in range(layouts.DEPTH)]
    conv = torch.nn.Conv2d(3, width, 16, 16, bias=False)
    first, last = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
    parts = torch.nn.ModuleList([conv, first, last, *blocks])
    layouts.perturbed(parts)
    begin, positions = torch.randn(width), torch.randn(n_patches + 1, width)
    names = (
        ("self_attn", "attn"),
        ("linear1", "mlp.c_fc"),
        ("linear2", "mlp.c_proj"),
        ("norm1", "ln_1"),
        ("norm2", "ln_2"),
    )
    state = {"visual.conv1.weight": conv.weight, "visual.class_embedding": begin, "logit_scale": torch.ones(())}
    state |= {"visual.positional_embedding": positions, "visual.proj": torch.zeros(width, 8)}
    for name, norm in (("ln_pre", first), ("ln_post", last)):
        state |= layouts.renamed(norm.state_dict(), prefix=f"visual.{name}.")
    for index, block in enumerate(blocks):
        state |= layouts.renamed(block.state_dict(), *names, prefix=f"visual.transformer.resblocks.{index}.")
    file = layouts.save({key: value.detach() for key, value in state.items()}, small / "open_clip_model.safetensors")
    local, global_ = tokens(load_backbone("clip", weights=file), 224)
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        hidden = torch.cat([begin.expand(2, 1, -1), conv(images).flatten(2).transpose(1, 2)], 1)
        hidden = first(hidden + positions)
        for index, block in enumerate(blocks, 1):
            hidden = block.train()(hidden)  # in evaluation mode torch takes a fused path
            torch.testing.assert_close(global_[f"block{index}"], hidden[:, 0], rtol=1e-4, atol=1e-4)
            patches = local[f"block{index}"].flatten(2).transpose(1, 2)
            torch.testing.assert_close(patches, hidden[:, 1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("alias", "layout", "expected"),
    [
        ("dinov2", layouts.mae, r"dinov2 .*\d+ missing \(first: blocks.0.ls1.gamma\)"),
        ("clip", layouts.sam, "missing"),
        ("sam", layouts.dinov2, "missing"),
        ("imagenet", layouts.convnext, "missing"),
        ("convnext", layouts.torchvision_vit, "missing"),
    ],
)
def test_weights_of_another_network_are_refused_in_one_line(small, alias, layout, expected):
    other = {layouts.mae: "mae", layouts.sam: "sam", layouts.dinov2: "dinov2", layouts.convnext: "convnext"}
    file = layouts.save(layout(source(other.get(layout, "imagenet")).state_dict()), small / "w.pth")
    with pytest.raises(DataError, match=expected) as caught:
        load_backbone(alias, weights=file)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)


@pytest.mark.parametrize("alias", ["imagenet", "mocov3", "sam"])
def test_a_damaged_download_is_named(small, alias):
    file = publish(small, alias, source(alias))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError) as caught:
        load_backbone(alias)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_the_error_of_a_wrong_size_has_the_reason(small):
    with pytest.raises(UsageError, match="14 px"):
        load_backbone("dinov2", random_weights=True, size=225)
