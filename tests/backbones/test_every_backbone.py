"""Each alias through training, export and prediction: its real architecture, random weights, two early layers.

The networks have their full width but fewer blocks, because drawing weights takes long. What comes after the last layer
in use must neither run nor be exported.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
for package in ("pytorch_lightning", "torchvision", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

import brainkit  # noqa: E402
from brainkit.backbones import ALIASES, load_backbone, timm_backbone  # noqa: E402
from brainkit.images import decode, normalise, prepare  # noqa: E402
from brainkit.runs.export import export_all  # noqa: E402
from brainkit.runs.folder import load_model  # noqa: E402
from brainkit.runs.train import train  # noqa: E402

# alias: size in pixels, two layers
SMALL = {
    alias: (
        56 if "patch14" in entry.architecture else 64,
        ("block1", "block2") if re.search("vit|eva", entry.architecture) else ("stage1", "stage2"),
    )
    for alias, entry in ALIASES.items()
    if alias != "resnet"  # the same as resnet50
}
SMALL["swin"] = (56, ("stage1", "stage2"))  # windows of 7 x 7 patches of 4 px
SMALL["sam"] = (128, ("block2", "block3"))  # windows of 14 x 14, padded, then attention over the whole grid
# One of each kind, also for the torch forms: prefix tokens, torchvision's, convolutions, windows, SAM's attention.
FAMILIES = ("dinov3", "imagenet", "convnext", "swin", "sam")
SETTINGS = ("model.bottleneck=4", "model.selector_width=8", "model.grid=4", "train.batch_size=4")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A subject of 16 images and 30 vertices."""
    folder = tmp_path_factory.mktemp("subject")
    draw = np.random.default_rng(0)
    (folder / "images").mkdir()
    for row in range(16):
        coarse = draw.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((80, 60)).save(folder / "images" / f"{row:02d}.png")
    np.save(folder / "responses.npy", draw.standard_normal((16, 30)).astype(np.float32))
    np.save(folder / "coordinates.npy", draw.uniform(-50, 50, (30, 3)).astype(np.float32))
    return folder


@pytest.fixture(autouse=True)
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def few_blocks(name: str, **options: Any) -> torch.nn.Module:
        if re.search("vit|eva", name):
            options["depth"] = 4
        elif name.startswith(("swin", "convnext")):
            options["depths"] = (2, 2, 2, 2)
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", few_blocks)


def last_part(network: torch.nn.Module) -> torch.nn.Module:
    """The deepest block or stage of a network."""
    model = network.model
    if hasattr(model, "layer4"):
        return model.layer4
    for parts in ("blocks", "stages", "layers"):
        if hasattr(model, parts):
            return getattr(model, parts)[-1]
    return model.encoder.layers[-1]


def test_resnet_is_resnet50() -> None:
    assert ALIASES["resnet"] == ALIASES["resnet50"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("alias", SMALL)
def test_trains_exports_and_predicts(
    alias: str, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(timm_backbone, "MAX_ATTENTION_PAIRS", 1)  # one of SAM's images at a time, as at its full size
    size, layers = SMALL[alias]
    chosen = (f"backbone.size={size}", f"backbone.layers=[{','.join(layers)}]")
    quiet: list[str] = []
    run = train(
        alias,
        data=photographs,
        out="run",
        epochs=1,
        random_weights=True,
        overrides=(*SETTINGS, *chosen),
        say=quiet.append,
    )
    forms = ("onnx", "torchscript", "pt2") if alias in FAMILIES else ("onnx",)
    exported, *in_torch = export_all(run, forms=forms, say=quiet.append)

    backbone = load_backbone(alias, random_weights=True, size=size, layers=layers)
    assert backbone.preprocessing.size == size
    last_part(backbone.network).register_forward_pre_hook(lambda *_: pytest.fail("ran an unused layer"))
    photo = photographs / "images" / "03.png"
    pixels = prepare(decode(photo), backbone.preprocessing)[None]
    with torch.inference_mode():
        tokens = backbone.get_tokens(torch.from_numpy(normalise(pixels, backbone.preprocessing)))
        expected = load_model(run)(*tokens).numpy()
    encoder = brainkit.load(exported.path, device="cpu")
    found = encoder.predict([photo])
    assert found.shape == (1, 30)
    np.testing.assert_allclose(found, expected, atol=1e-3 * expected.std())
    assert encoder.info.layers == layers
    # The licence is that of the published weights, and these are others.
    assert encoder.info.backbone["name"] == alias and encoder.info.backbone["licence"] is None and backbone.licence
    assert encoder.info.terms["backbone"].endswith("drawn by brainkit: none")
    # The file holds the float32 parameters of the layers in use, and little else.
    used = sum(value.numel() for value in parameters_in_use(backbone, size).values())
    for file in (exported, *in_torch):
        assert file.bytes < 4 * used * 1.05 + 1e6
    batch = np.stack([prepare(decode(photo), backbone.preprocessing)] * 8)
    for file in in_torch:
        opened = torch.jit.load(file.path) if file.path.suffix == ".pt" else torch.export.load(file.path).module()
        for count in (1, 3, 8):
            fmri = opened(torch.from_numpy(batch[:count]))[0].numpy()
            np.testing.assert_allclose(fmri, expected.repeat(count, 0), atol=1e-3 * expected.std())
    assert len(in_torch) == len(forms) - 1


def parameters_in_use(backbone: torch.nn.Module, size: int) -> dict[str, torch.Tensor]:
    """The parameters on which the tokens depend."""
    backbone.requires_grad_(True)
    local, global_ = backbone.get_tokens(torch.rand(1, 3, size, size))
    sum(value.square().sum() for value in (*local.values(), *global_.values())).backward()
    return {name: value for name, value in backbone.named_parameters() if value.grad is not None}
