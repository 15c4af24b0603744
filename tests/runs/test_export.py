"""From a run folder to encoder files: they predict what the model does, and a network that has changed is refused."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
for needed in ("pytorch_lightning", "timm", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(needed)

from small_runs import PLUG_IN, SMALL, make_own_data, quiet

import brainkit
from brainkit import encoder_file
from brainkit.backbones import load_backbone
from brainkit.errors import DataError, UsageError
from brainkit.images import decode, normalise, prepare
from brainkit.runs.encoder_info import encoder_info
from brainkit.runs.export import export, export_all
from brainkit.runs.folder import figure_note, finished_run, load_model
from brainkit.runs.train import train
from brainkit.runs.verify import verify


def predict_in_torch(run: Path, net: str, photos: list[Path]) -> np.ndarray:
    """Predictions (n, V) of a run's model."""
    backbone, model = load_backbone(net), load_model(run)
    pixels = np.stack([prepare(decode(photo), backbone.preprocessing) for photo in photos])
    with torch.inference_mode():
        return model(*backbone.get_tokens(torch.from_numpy(normalise(pixels, backbone.preprocessing)))).numpy()


@pytest.fixture
def copy(own_run: Any) -> Path:
    """A copy of the run on own data, to be changed."""
    return Path(shutil.copytree(own_run.path, "copy"))


@pytest.mark.slow
def test_the_file_predicts_what_the_model_does(
    own_run: Any, net: str, own_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = own_run.path
    monkeypatch.chdir(run.parent)
    target = tmp_path / "mine.onnx"
    exported = export(out=target, say=quiet)  # the newest run
    assert exported.path == target and target.stat().st_size == exported.bytes
    encoder = brainkit.load(target, device="cpu")
    photos = sorted((own_data / "images").iterdir())[:5]
    expected = predict_in_torch(run, net, photos)
    np.testing.assert_allclose(encoder.predict(photos), expected, atol=1e-4 * expected.std())
    with np.load(run / "scores.npz") as file:
        np.testing.assert_allclose(encoder.info.r, file["r"])
    assert encoder.info.layers == ("fine", "coarse")
    text = json.dumps(encoder.info.provenance)
    assert str(own_data.parent) not in text and own_data.name in text  # paths of this disk stay here


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_several_forms_of_some_vertices(copy: Path, net: str, own_data: Path) -> None:
    ids = Path("ids.txt")
    ids.write_text("4\n1\n")
    done = export_all(copy, forms=("onnx", "torchscript", "pt2"), target="gpu", vertices=ids, say=quiet)
    assert [file.path.name for file in done] == ["encoder-subset.onnx", "encoder-subset.pt", "encoder-subset.pt2"]
    photos = sorted((own_data / "images").iterdir())[:3]
    expected = predict_in_torch(copy, net, photos)[:, [1, 4]]
    found = brainkit.load(done[0].path, device="cpu").predict(photos)
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())
    for file in done:
        info = encoder_file.read(file.path)
        assert (len(info.vertices), info.form, info.certificate) == (2, "padded", file.certificate)
        assert info.provenance["subset"]["file"] == "ids.txt"
    assert verify(done[2].path, [copy]).holds
    single = brainkit.Run.open(copy).export("one.pt2", form="pt2", vertices=np.array([3]), say=quiet)
    assert len(encoder_file.read(single.path).vertices) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forms": ("onnx", "pt2"), "out": "e.onnx"}, "out .* 2 forms"),
        ({"forms": ("pt2",), "out": "e.onnx"}, r"e\.onnx: the pt2 form must end in \.pt2"),
        ({"forms": ("onnx",), "out": "e.pt"}, r"e\.pt: the onnx form must end in \.onnx"),
        ({"forms": ("pickle",)}, "form must be one of .*'pickle'"),
        ({"target": "tpu"}, "target must be one of .*'tpu'"),
        ({"rois": ("V1",)}, "'V1'"),
        ({"vertices": np.array([6])}, r"1 of 1 ids .* 6$"),
    ],
)
def test_requests_that_are_refused(own_run: Any, options: dict[str, Any], message: str) -> None:
    before = sorted(own_run.path.iterdir())
    with pytest.raises(UsageError, match=message):
        export_all(own_run.path, **{"say": quiet, **options})
    assert sorted(own_run.path.iterdir()) == before


def test_runs_and_outputs_that_do_not_exist(own_run: Any) -> None:
    with pytest.raises(DataError, match=re.escape(str(Path("deep/encoder.onnx")))):
        export(own_run.path, out="deep/encoder.onnx")
    with pytest.raises(DataError, match="nowhere"):
        export("nowhere")
    Path("half").mkdir()
    with pytest.raises(DataError, match="half: is not a run"):
        export("half")
    with pytest.raises(DataError, match="latest"):
        export()


def test_a_run_whose_files_are_missing(copy: Path) -> None:
    assert finished_run(copy)[1]["vertices"] == 6
    (copy / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(DataError, match=r"best\.ckpt"):
        export(copy)
    (copy / "run.json").unlink()
    with pytest.raises(DataError, match="not a finished run"):
        export(copy)


def test_a_network_made_in_python_is_given_again_for_export(
    net: str, own_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load_backbone(net, layers=["coarse"], size=64)
    run = brainkit.fit(network, own_data, out="run", epochs=1, seed=3, overrides=SMALL, say=quiet)
    assert run.summary["backbone"]["layers"] == ["coarse"] and run.summary["seed"] == 3
    with pytest.raises(DataError, match="other layers or another preprocessing"):
        export("run")
    exported_with: list[Any] = []
    monkeypatch.setattr(
        "brainkit.export.export_onnx", lambda model, network, *_, **__: exported_with.append(network) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        export("run", backbone=network, say=quiet)
    assert exported_with == [network]
    with torch.no_grad():
        next(network.network.parameters()).mul_(2)
    network._weights_hash = None
    with pytest.raises(DataError, match="other weights"):
        export("run", backbone=network)


@pytest.mark.slow
@pytest.mark.parametrize("stated", ["", "    pretrained = False\n"])
def test_a_network_whose_code_has_changed_is_refused(own_data: Path, stated: str) -> None:
    file, code = Path("net.py").resolve(), PLUG_IN + stated
    file.write_text(code)
    train(f"{file}:Colours", data=own_data, out="run", epochs=2, overrides=SMALL, say=quiet)
    file.write_text(code.replace("torch.relu(", "torch.sigmoid("))
    with pytest.raises(DataError, match="Colours predicts something else"):
        export("run")
    assert not Path("run/encoder.onnx").exists()
    file.write_text(code.replace('{"fine": fine, "coarse": coarse}', '{"coarse": coarse, "fine": fine}'))
    with pytest.raises(DataError, match=r"Colours.*another order.*coarse, fine.*fine, coarse"):
        export("run")
    file.write_text(code.replace("manual_seed(0)", "manual_seed(1)"))
    with pytest.raises(DataError, match=r"other weights of .*Colours.*constructor"):
        export("run")
    file.write_text(code)
    export("run", say=quiet)
    assert Path("run/encoder.onnx").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [torch.bfloat16, torch.float64])
def test_a_network_in_other_numbers_trains_and_exports_in_float32(own_data: Path, numbers: torch.dtype) -> None:
    """And keeps its own; its class is in no file."""
    module: dict[str, Any] = {"__name__": "__main__"}
    exec(PLUG_IN.replace("conv2d(images, ", "conv2d(images.to(self.weight.dtype), "), module)
    network = module["Colours"]().to(numbers)
    before, lines = network.weight.detach().clone(), []
    run = brainkit.fit(network, own_data, out="run", epochs=1, overrides=SMALL, say=lines.append)
    assert any("float32" in line and str(numbers).removeprefix("torch.") in line for line in lines)
    exported = run.export(backbone=network, say=quiet)
    assert exported.certificate["enforced"] and exported.certificate["largest"] < 1e-4
    assert network.weight.dtype == numbers and torch.equal(network.weight, before) and network.weight.requires_grad


@pytest.mark.slow
def test_export_needs_neither_the_data_nor_the_folder_of_training(
    net: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_own_data(workplace / "data")
    train(net, data="data", out="run", epochs=1, overrides=SMALL, say=quiet)
    data.rename(workplace / "gone")
    (workplace / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert export("../run", say=quiet).path.is_file()


@pytest.mark.slow
def test_figures_and_encoder_state_an_untrained_network(finished: Any) -> None:
    run, summary = finished_run(finished.path)
    assert figure_note(summary) == summary["note"]
    summary["backbone"]["pretrained"] = False
    assert figure_note(summary) == f"{summary['note']}; network with RANDOM weights"
    summary["note"] = None
    info = encoder_info(run, summary, load_model(run))
    assert info.note == "network with RANDOM weights"
    assert info.terms["backbone"] == "efficientnet_lite0: random weights, drawn by brainkit: none"
    assert info.backbone["licence"] is None


def test_a_network_of_ones_own_has_the_terms_that_it_states(own_run: Any) -> None:
    run, summary = finished_run(own_run.path)
    assert any(line.startswith("warning:") and "net.py:Colours" in line for line in own_run.lines)
    backbone = summary["backbone"]
    assert backbone["pretrained"] is backbone["licence"] is backbone["citation"] is None
    info = encoder_info(run, summary, load_model(run))
    assert "not stated" in info.terms["backbone"] and "not stated" in figure_note(summary)
    assert "not stated" in (info.note or "") and "authors of net.py:Colours" in info.citation
    backbone |= {"pretrained": False, "licence": "mit", "citation": "Me (2026), Colours"}
    info = encoder_info(run, summary, load_model(run))
    assert info.terms["backbone"] == "net.py:Colours: MIT" and "RANDOM" in (info.note or "")
    assert "Me (2026), Colours" in info.citation.splitlines() and info.backbone["licence"] == "mit"
    backbone |= {"name": "vit_mine_dinov2.py:Net", "citation": None}  # nothing is guessed from its name
    assert "Oquab" not in encoder_info(run, summary, load_model(run)).citation
    del backbone["citation"]  # a run of an earlier version
    backbone |= {"name": "dinov2", "pretrained": True, "source": "timm"}
    assert "Oquab" in encoder_info(run, summary, load_model(run)).citation
