"""From Python: any module as a backbone, an opened subject as data, a run as an object, one's own Trainer."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import csv
import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
for needed in ("pytorch_lightning", "timm", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(needed)

from small_runs import SMALL, draw_one_map, quiet
from torch import nn

import brainkit
from brainkit.config import Config, TrainConfig
from brainkit.data import Algonauts, make_split
from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.features.extract import extract_tokens
from brainkit.images import PUBLISHED, Preprocessing
from brainkit.runs import stages
from brainkit.runs.latest import latest_run

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "own_trainer.py"


class Colours(nn.Module):
    """A user's own network, as the published plug-in interface has it."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.filters = nn.Parameter(torch.randn(6, 3, 8, 8, generator=generator) * 0.2)
        self.norm = nn.BatchNorm2d(6)

    def get_tokens(self, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        fine = self.norm(torch.relu(nn.functional.conv2d(images, self.filters, stride=8)))
        coarse = nn.functional.avg_pool2d(fine, 2) ** 2
        local = {"fine": fine, "coarse": coarse}
        return local, {name: tokens.mean((2, 3)) for name, tokens in local.items()}


@pytest.fixture(autouse=True)
def _quick_maps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds: only the test that looks at the figures draws them."""
    if "real_maps" not in request.fixturenames:
        monkeypatch.setattr("brainkit.maps.draw.draw_maps", draw_one_map)


@pytest.fixture
def real_maps() -> None:
    pass


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(network: nn.Module | str, data: Any, **options: Any) -> brainkit.Run:
    options = {"out": "run", "epochs": 2, "overrides": SMALL, "say": quiet} | options
    return brainkit.fit(network, data, **options)


@pytest.mark.slow
def test_a_module_and_an_opened_subject_become_a_run(
    tiny_sample: Path, real_maps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Colours()
    network.filters.requires_grad_(False)
    network.train()
    network.norm.eval()
    subject = Algonauts(tiny_sample)
    few = subject.take(range(40))  # what was opened is what is fitted, not what the folder holds
    run = fit(network, few, overrides=[*SMALL, "backbone.size=64"])
    # The module is left as it was.
    assert network.training and not network.norm.training
    assert not network.filters.requires_grad and network.norm.weight.requires_grad

    assert run.path == Path("run") and run.scores is run.summary["scores"]
    assert run.summary["backbone"]["name"] == "Colours"
    assert run.summary["backbone"]["preprocessing"] == dataclasses.replace(PUBLISHED, size=64).to_json()
    assert run.summary["data"]["images"] == 40
    assert {name: array.shape for name, array in run.selectors.items()} == {
        "layer_weights": (60, 2), "locations": (60, 2), "scale": (60,), "layers": (2,), "vertices": (60,),
    }  # fmt: skip
    r = run.vertex_scores["r"]
    assert run.scores["all"]["r"] == pytest.approx(np.median(r[np.isfinite(r)]), abs=1e-6)
    assert [figure.name for figure in run.maps][-1] == "scale.png" and len(run.maps) == 5
    assert run.encoder is None

    exported = run.export(say=quiet)
    assert run.encoder == exported.path == Path("run/encoder.onnx")
    assert network.training and network.norm.weight.requires_grad
    encoder = brainkit.load(run.encoder, device="cpu")
    assert encoder.predict(list(few.images[:2])).shape == (2, 60)

    again = brainkit.Run.open()
    assert again.path.resolve() == run.path.resolve() and again.scores == run.scores
    with pytest.raises(DataError, match=r"Colours; .* brainkit\.Run\.open"):
        again.export()
    again.export("second.onnx", backbone=network, say=quiet)
    assert Path("second.onnx").stat().st_size == exported.bytes
    other = Colours()
    nn.init.ones_(other.filters)
    with pytest.raises(DataError, match="other weights"):
        again.export(backbone=other)
    monkeypatch.setattr("brainkit.maps.draw.draw_maps", lambda folder, *_, **__: [Path(folder) / "one.png"])
    assert again.draw("figures", say=quiet) == [Path("figures/one.png")]


def test_a_module_says_its_own_preprocessing(tiny_sample: Path) -> None:
    network = Colours()
    own = Preprocessing(size=96, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), interpolation="bicubic")
    network.preprocessing, network.pretrained, network.licence = own, False, "mine"
    backbone = brainkit.wrap_network(network, layers=["coarse"])
    assert (backbone.preprocessing, backbone.pretrained, backbone.licence) == (own, False, "mine")
    assert (backbone.name, backbone.layer_names, backbone.grids) == ("Colours", ("coarse",), {"coarse": (6, 6)})
    assert brainkit.wrap_network(network, preset="published", name="n").preprocessing == PUBLISHED
    run = fit(backbone, tiny_sample, epochs=1)  # wrapped already
    assert run.summary["backbone"]["layers"] == ["coarse"] and run.backbone is backbone


@pytest.mark.parametrize(
    ("network", "options", "error", "message"),
    [
        (nn.Linear(2, 2), {}, UsageError, r"a torch\.nn\.Module with get_tokens\(images\), got Linear"),
        (3, {}, UsageError, "got int"),
        (Colours(), {"random_weights": True}, UsageError, "a network brings its own"),
        (Colours(), {"overrides": ["backbone.layers=[deep]"]}, UsageError, "Colours has no layer 'deep'"),
        (Colours(), {"overrides": ["backbone.size=4"]}, BrainkitError, "Colours: get_tokens failed.* 4 px"),
    ],
)
def test_modules_that_are_refused(
    network: Any, options: dict[str, Any], error: type[Exception], message: str, tiny_sample: Path
) -> None:
    with pytest.raises(error, match=message):
        fit(network, tiny_sample, **options)
    assert not Path("run").exists()


def test_a_stopped_run_of_a_module_is_resumed(tiny_sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):
        pass

    real = stages.fit

    def stopping(*arguments: Any, on_epoch: Any, **options: Any) -> Path:
        def watch(row: dict[str, float]) -> None:
            on_epoch(row)
            raise Stop

        return real(*arguments, on_epoch=watch, **options)

    with monkeypatch.context() as patch:
        patch.setattr(stages, "fit", stopping)
        with pytest.raises(Stop):
            fit(Colours(), tiny_sample)
    fit(Colours(), tiny_sample, resume=True)
    with Path("run/metrics.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


# --- one's own Trainer ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tiny_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> brainkit.Run:
    """What the example makes."""
    spec = importlib.util.spec_from_file_location("own_trainer", EXAMPLE)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    place = tmp_path_factory.mktemp("own trainer")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("brainkit.maps.draw.draw_maps", draw_one_map)
        return example.main(tiny_sample, place / "run", epochs=3)


@pytest.mark.slow
def test_the_example_trains_with_its_own_loggers_and_callbacks(own: brainkit.Run) -> None:
    logs = own.path.with_name("run-logs")
    (table,) = logs.glob("csv/*/metrics.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(bool(row["val_r"]) for row in rows) == 3 and sum(bool(row["train_loss"]) for row in rows) == 3
    assert any(name.startswith("lr-AdamW") for name in rows[0])
    if importlib.util.find_spec("tensorboard") is not None:
        assert list(logs.glob("tensorboard/*/events.out.tfevents.*"))
    (best,) = (logs / "checkpoints").glob("*.ckpt")
    kept = torch.load(best, weights_only=True)["state_dict"]
    refitted = [key for key, value in own.model().state_dict().items() if not torch.equal(kept[f"model.{key}"], value)]
    assert refitted == ["weight", "bias"]


@pytest.mark.slow
def test_what_it_leaves_is_a_run(own: brainkit.Run, tiny_sample: Path) -> None:
    assert {path.name for path in own.path.iterdir()} == {
        *("checkpoints", "config.yaml", "encoder.onnx", "log.txt", "maps", "parity.npz", "recovery.json", "rois.json"),
        *("predictions.npz", "image_hashes.npz", "run.json", "scores.npz", "selectors.npz", "split.json"),
    }
    assert own.summary["seed"] == 0 and own.summary["split"]["test"] == 20
    encoder = brainkit.load(own.encoder, device="cpu")
    np.testing.assert_allclose(encoder.info.r, own.vertex_scores["r"])
    assert latest_run(own.path.parent / "runs") == own.path
    held = Config.read(own.path / "config.yaml")  # its backbone has a name, by which export finds it again
    assert (held.backbone.name, held.backbone.random_weights) == ("efficientnet_lite0", False)
    assert list(held.backbone.layers) == own.summary["backbone"]["layers"]
    assert (held.model.bottleneck, held.train.epochs, held.data.path) == (32, 3, str(tiny_sample.resolve()))


@pytest.mark.slow
def test_pieces_that_do_not_belong_together(own: brainkit.Run, tiny_sample: Path) -> None:
    from small_models import problem

    module, data = problem()
    backbone = brainkit.wrap_network(Colours())
    for options, message in (
        ({"out": own.path, "subject": tiny_sample}, "exists already"),
        ({"out": "new", "subject": tiny_sample}, "subject must have the module's 20 vertices, got 60"),
    ):
        with pytest.raises(UsageError, match=message):
            brainkit.save_run(options["out"], module, data, backbone=backbone, subject=options["subject"], say=quiet)
    module, data = problem(60)
    with pytest.raises(UsageError, match=r"a run's token grid must be square, got \(3, 4\)"):
        brainkit.save_run("new", module, data, backbone=backbone, subject=tiny_sample, say=quiet)
    module.model.grid = (3, 3)
    with pytest.raises(UsageError, match="with the layers early, late, got Colours with fine, coarse"):
        brainkit.save_run("new", module, data, backbone=backbone, subject=tiny_sample, say=quiet)
    assert not Path("new").exists()


def test_a_run_of_other_settings_is_kept_as_it_is(tiny_sample: Path) -> None:
    subject = Algonauts(tiny_sample)
    backbone = brainkit.wrap_network(Colours(), size=64)
    tokens = extract_tokens(backbone, subject.images, grid=(4, 4))
    split = make_split(subject.groups, subject.official_test)
    options: dict[str, Any] = {"bottleneck": 3, "grid": (4, 4), "topography": False, "gauge": "published"}
    model = brainkit.FactorTopy(tokens.widths, subject.coordinates, **options)
    for parameter in model.free_selectors.parameters():
        nn.init.normal_(parameter)
    module = brainkit.EncodingModule(model, TrainConfig(loss="pearson"), 10)
    data = brainkit.EncodingData(tokens, subject.responses, split)
    before = model.weight.detach().clone()
    run = brainkit.save_run("run", module, data, backbone=backbone, subject=subject, say=quiet)
    assert torch.equal(model.weight, before)
    kept = run.model()
    assert (kept.grid, kept.gauge, kept.free_selectors is None) == ((4, 4), "published", False)
    # The loss leaves gain and offset open: they are fitted to the training images.
    with torch.inference_mode():
        predicted = kept(*tokens.batch(split.train)).numpy()
    np.testing.assert_allclose(predicted.mean(0), subject.responses.rows(split.train).mean(0), atol=1e-4)
    assert run.summary["gauge"] == "published"


def test_every_public_name_is_there() -> None:
    for name in brainkit.__all__:
        assert getattr(brainkit, name) is not None
    assert set(brainkit.__all__) == {"__version__", *brainkit._LAZY}
    assert brainkit.data.open_subject is not None
