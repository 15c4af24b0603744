"""``brainkit import``: published weights become a run that export, predict and map can use."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
for needed in ("pytorch_lightning", "timm", "nilearn", "onnx", "onnxscript", "onnxruntime", "skimage"):
    pytest.importorskip(needed)

from torch.nn import functional as F

import brainkit
from bench import published as seed
from brainkit import encoder_file
from brainkit.backbones import load_backbone
from brainkit.cli import group
from brainkit.config import Config
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.surface import sphere_coordinates
from brainkit.cortex.vertices import Vertices
from brainkit.data import Algonauts
from brainkit.data.photographs import load_photographs
from brainkit.images import decode, normalise, prepare
from brainkit.runs.folder import load_model
from brainkit.runs.import_published import import_published
from brainkit.runs.latest import latest_run

WIDTHS = {"0": 6, "1": 6}
NETWORK = """
import torch


class Colours(torch.nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(6, 3, 8, 8, generator=generator) * 0.2)

    def get_tokens(self, images):
        fine = torch.relu(torch.nn.functional.conv2d(images, self.weight, stride=8))  # 28 x 28: 3.5 times the grid
        coarse = torch.nn.functional.avg_pool2d(fine, 2) ** 2
        local = {"fine": fine, "coarse": coarse}
        return local, {name: tokens.mean((2, 3)) for name, tokens in local.items()}
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("plug-in") / "net.py"
    file.write_text(NETWORK)
    return f"{file}:Colours"


def seed_model(coordinates: np.ndarray, widths: dict[str, int] = WIDTHS) -> seed.FactorTopy:
    torch.manual_seed(0)
    model = seed.FactorTopy(widths, torch.from_numpy(coordinates), bottleneck=4, selector_width=8)
    with torch.no_grad():
        for network in (model.space_selector_mlp, model.layer_selector_mlp, model.scale_selector_mlp):
            network[5].weight.normal_(std=0.8)
        model.weight.mul_(50)
    return model


def seed_predictions(model: seed.FactorTopy, net: str, pixels: np.ndarray) -> np.ndarray:
    """The published model on the published preprocessing, in plain torch."""
    backbone = load_backbone(net, preset="published")
    with torch.inference_mode():
        local, whole = backbone.get_tokens(torch.from_numpy(normalise(pixels, backbone.preprocessing)))
        names = dict(zip(WIDTHS, local, strict=True))
        small = {
            theirs: F.interpolate(local[ours], (8, 8), mode="bilinear", align_corners=False)
            for theirs, ours in names.items()
        }
        return model(small, {theirs: whole[ours] for theirs, ours in names.items()})[0].numpy()


def saved(model: torch.nn.Module, coordinates: np.ndarray) -> tuple[str, str]:
    torch.save(model.state_dict(), "subj01.pth")
    np.save("coords.npy", coordinates)
    return "subj01.pth", "coords.npy"


def call(*words: object) -> str:
    done = CliRunner().invoke(group, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.slow
def test_with_its_subject_it_is_a_run_like_any_other(net: str, tiny_sample: Path) -> None:
    subject = Algonauts(tiny_sample)
    kept = np.sort(np.random.default_rng(0).choice(len(subject.vertices), 40, replace=False))
    coordinates = subject.coordinates[kept]  # the published model predicts some of a subject's vertices only
    model = seed_model(coordinates)
    file, places = saved(model, coordinates)
    printed = call("import", file, "--coordinates", places, "--backbone", net, "--data", tiny_sample, "--out", "run")
    assert "0 is fine, 1 is coarse" in printed
    assert latest_run().samefile("run")
    assert {path.relative_to("run").as_posix() for path in Path("run").rglob("*") if path.is_file()} == {
        *(
            "config.yaml",
            "run.json",
            "scores.npz",
            "predictions.npz",
            "selectors.npz",
            "rois.json",
            "parity.npz",
            "log.txt",
        ),
        "checkpoints/best.ckpt",
        *(f"maps/{name}.png" for name in ("accuracy", "explained", "layer", "location", "scale")),
    }
    assert all(line in Path("run/log.txt").read_text() for line in printed.splitlines())

    rows = np.flatnonzero(subject.official_test)
    pixels = np.stack(
        [prepare(decode(subject.images[row]), load_backbone(net, preset="published").preprocessing) for row in rows]
    )
    expected = seed_predictions(model, net, pixels)
    responses = subject.responses.rows(rows)[:, kept]
    with np.load("run/scores.npz") as scores, np.load("run/selectors.npz") as selectors:
        r = [np.corrcoef(expected[:, v], responses[:, v])[0, 1] for v in range(40)]
        np.testing.assert_allclose(scores["r"], r, atol=1e-4)
        np.testing.assert_array_equal(scores["noise_ceiling"], subject.noise_ceiling[kept])
        np.testing.assert_array_equal(scores["vertices"], subject.vertices.ids[kept])
        assert int(scores["images"]) == len(rows) and str(selectors["gauge"]) == "published"
    rois = RoiTable.from_json(json.loads(Path("run/rois.json").read_text()), 40)
    assert {name: kept[at].tolist() for name, at in rois.items()} == {
        name: sorted(set(at.tolist()) & set(kept.tolist())) for name, at in subject.rois.items()
    }
    settings = Config.read("run/config.yaml")
    assert (settings.model.gauge, settings.model.standardise, settings.data.preset) == ("published", False, "published")
    summary = json.loads(Path("run/run.json").read_text())
    assert summary["scores"]["all"]["r"] == pytest.approx(np.median(r), abs=1e-4)
    assert summary["imported"]["file"] == "subj01.pth" and summary["seed"] is None

    call("export", "--onnx")
    encoder = brainkit.load("run/encoder.onnx", device="cpu")
    found = encoder.predict([subject.images[row] for row in rows])
    assert np.abs(found - expected).max() < 1e-5 * expected.std(0).mean()
    assert "gauge: published" in encoder.info.note and encoder.info.gauge == "published"
    assert "train" not in encoder.info.provenance["config"]
    assert encoder.info.provenance["imported"]["sha256"] == summary["imported"]["sha256"]


@pytest.mark.slow
def test_what_is_unknown_stays_empty(net: str) -> None:
    vertices = Vertices("fsaverage5", np.array([3, 80, 4000, 10_300, 11_000, 20_000]))
    file, places = saved(seed_model(sphere_coordinates(vertices)), sphere_coordinates(vertices))
    call("import", file, "--coordinates", places, "--backbone", net, "--out", "run")
    with np.load("run/scores.npz") as scores:
        assert all(np.isnan(scores[name]).all() for name in ("r", "R2", "noise_ceiling"))
        np.testing.assert_array_equal(scores["vertices"], vertices.ids)
    table = json.loads(Path("run/run.json").read_text())["scores"]
    assert (table["images"], table["all"]["r"], table["official"]) == (0, None, None)
    assert sorted(path.name for path in Path("run/maps").iterdir()) == ["layer.png", "location.png", "scale.png"]
    call("export", "run")
    info = encoder_file.read("run/encoder.onnx")
    assert np.isnan(info.r).all() and np.isnan(info.noise_ceiling).all()
    assert info.provenance["scores"] is None and info.units == ""
    assert "all" in call("info", "run/encoder.onnx")
    assert "layer.png" in call("map", "run/encoder.onnx", "--out", "again")
    assert sorted(path.name for path in Path("again").iterdir()) == ["layer.png", "location.png", "scale.png"]
    # It is complete: there is nothing to train.
    assert "nothing to resume" in call("train", "--backbone", net, "--resume", "--out", "run")


@pytest.mark.slow
def test_coordinates_of_no_surface_and_own_photographs(net: str) -> None:
    coordinates = np.random.default_rng(0).uniform(-60, 60, (5, 3)).astype(np.float32)
    file, _ = saved(seed_model(coordinates), coordinates)
    torch.save(torch.from_numpy(coordinates), "coords.pt")
    Path("photos").mkdir()
    for name, photograph in load_photographs(["coffee", "chelsea", "rocket"]).items():
        photograph.save(f"photos/{name}.png")
    call("import", file, "--coordinates", "coords.pt", "--backbone", net, "--images", "photos", "--out", "run")
    assert not Path("run/maps").exists()
    call("export", "run")
    assert encoder_file.read("run/encoder.onnx").vertices == Vertices.custom(5)
    with np.load("run/parity.npz") as parity:
        assert parity["images"].shape == (3, 224, 224, 3)


@pytest.mark.slow
def test_without_its_network_there_are_maps_and_no_predictions() -> None:
    vertices = Vertices("fsaverage5", np.arange(100, 20_000, 997))
    Path("vertices.json").write_text(json.dumps({"space": "fsaverage5", "ids": vertices.ids.tolist()}))
    file, _ = saved(seed_model(sphere_coordinates(vertices)), sphere_coordinates(vertices))
    printed = call("import", file, "--vertices", "vertices.json", "--out", "run")
    assert "fsaverage's sphere" in printed and "--backbone NAME" in printed
    assert sorted(path.name for path in Path("run/maps").iterdir()) == ["layer.png", "location.png", "scale.png"]
    assert load_model("run").layers == ("0", "1")
    assert "--backbone NAME" in fails("export", "run")


@pytest.mark.slow
def test_some_layers_by_name(net: str) -> None:
    coordinates = np.random.default_rng(0).uniform(-60, 60, (5, 3)).astype(np.float32)
    file, places = saved(seed_model(coordinates, {"7": 6}), coordinates)
    line = fails("import", file, "--coordinates", places, "--backbone", net, "--out", "run")
    assert "layers 7 " in line and "--layers A,B,..." in line
    call("import", file, "--coordinates", places, "--backbone", net, "--layers", "coarse", "--out", "run")
    assert json.loads(Path("run/run.json").read_text())["backbone"]["layers"] == ["coarse"]
    call("export", "run")


def fails(*words: object, code: int = 1) -> str:
    done = CliRunner().invoke(group, [str(word) for word in words])
    assert done.exit_code == code, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("brainkit") and "unexpected" not in line
    return line


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("harm"),)  # type: ignore[return-value]


RANDOM = ("good.pth", "--coordinates", "c.npy", "--backbone", "resnet10t", "--random-weights")


@pytest.mark.parametrize(
    ("words", "expected", "code"),
    [
        (("gone.pth",), "gone.pth: weight file not found", 1),
        (("text.pth",), "text.pth: expected", 1),
        (("harm.pth",), "harm.pth: expected a state dict of tensors, found a damaged file or one that runs code", 1),
        (("other.pth",), "other.pth: expected local_token_bottleneck.<layer>.weight", 1),
        (("unknown.pth", "--coordinates", "c.npy"), "unknown.pth: found the unknown key extra", 1),
        (("good.pth",), "give --coordinates FILE", 2),
        (("good.pth", "--coordinates", "gone.npy"), "gone.npy: file not found; expected coordinates", 1),
        (("good.pth", "--coordinates", "few.npy"), "few.npy: expected coordinates of shape (5, 3), found (4, 3)", 1),
        (("good.pth", "--coordinates", "good.pth"), "expected a tensor of coordinates, found OrderedDict", 1),
        (("good.pth", "--coordinates", "nan.npy"), "expected finite coordinates", 1),
        (("good.pth", "--coordinates", "c.npy", "--vertices", "few.json"), "few.json: expected 5 ids", 1),
        (("good.pth", "--coordinates", "c.npy", "--layers", "fine"), "give --backbone too", 2),
        (("good.pth", "--coordinates", "c.npy", "--data", "gone"), "gone: expected a data folder, found nothing", 1),
        (("good.pth", "--coordinates", "c.npy", "--backbone", "dinov22"), "unknown backbone 'dinov22'", 2),
        (
            (*RANDOM, "--layers", "stage1,stage2"),
            "its layer 0 has 6 channels, and stage1 of resnet10t has 64",
            1,
        ),
        (
            (*RANDOM, "--layers", "stage1"),
            "has 2 layers (0, 1), and --layers names 1",
            2,
        ),
    ],
)
def test_what_is_refused(words: tuple[str, ...], expected: str, code: int) -> None:
    coordinates = np.random.default_rng(0).uniform(-60, 60, (5, 3)).astype(np.float32)
    state = seed_model(coordinates).state_dict()
    torch.save(state, "good.pth")
    torch.save({**state, "extra": torch.zeros(1)}, "unknown.pth")
    torch.save({"a": torch.zeros(1)}, "other.pth")
    Path("text.pth").write_text("no weights")
    Path("harm.pth").write_bytes(pickle.dumps({"weight": Harm()}, protocol=2))
    np.save("c.npy", coordinates)
    np.save("few.npy", coordinates[:4])
    np.save("nan.npy", np.where(coordinates == coordinates[0, 0], np.nan, coordinates))
    Path("few.json").write_text(json.dumps({"space": "fsaverage5", "ids": [1, 2]}))
    before = sorted(Path().iterdir())
    assert expected in fails("import", *words, "--out", "run", code=code)
    assert sorted(Path().iterdir()) == before


def test_a_subject_with_other_vertices(tiny_sample: Path) -> None:
    coordinates = np.random.default_rng(0).uniform(-60, 60, (5, 3)).astype(np.float32)
    file, places = saved(seed_model(coordinates), coordinates)
    line = fails("import", file, "--coordinates", places, "--data", tiny_sample, "--out", "run")
    assert "5 vertices" in line and "has 60" in line and "--vertices" in line
    others = np.setdiff1d(np.arange(10_000, 10_600), Algonauts(tiny_sample).vertices.ids)[[0, 3, 4, 300, 400]]
    Path("v.json").write_text(json.dumps({"space": "fsaverage5", "ids": others.tolist()}))
    line = fails("import", file, "--coordinates", places, "--data", tiny_sample, "--vertices", "v.json")
    assert "has none of the model's 5 vertices" in line
    assert not Path("runs").exists()


def test_an_output_that_is_there_is_kept() -> None:
    coordinates = np.random.default_rng(0).uniform(-60, 60, (5, 3)).astype(np.float32)
    file, places = saved(seed_model(coordinates), coordinates)
    run = import_published(file, coordinates=places, say=lambda line: None)
    assert run.parent == Path("runs") and run.name.endswith("-subj01")
    assert "exists already" in fails("import", file, "--coordinates", places, code=2)
