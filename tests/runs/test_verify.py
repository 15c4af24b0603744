"""`brainkit verify`: repeats the certificate, refuses files of other runs, and checks a file by itself."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("pytorch_lightning")

from onnx import helper, numpy_helper
from small_runs import draw_one_map, make_own_data, quiet

from brainkit import encoder_file
from brainkit.cli import group
from brainkit.cortex.rois import RoiTable
from brainkit.errors import DataError, EncoderFileError, UsageError
from brainkit.runs.export import export
from brainkit.runs.train import train
from brainkit.runs.verify import verify

pytestmark = pytest.mark.slow

PLUG_IN = """
import torch


class Colours(torch.nn.Module):
    licence = "cc-by-nc-4.0"

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(SEED)
        self.weight = torch.nn.Parameter(torch.randn(6, 3, 8, 8, generator=generator) * 0.2)

    def get_tokens(self, images):
        fine = torch.relu(torch.nn.functional.conv2d(images, self.weight, stride=8))
        return {"fine": fine}, {"fine": fine.mean((2, 3))}
"""
SMALL = ("train.batch_size=16", "model.bottleneck=4", "model.selector_width=8", "backbone.size=32")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs on one subject: ``run`` and ``other`` of one network with two seeds, ``net`` of another network."""
    folder = tmp_path_factory.mktemp("verify")
    data = make_own_data(folder / "data")
    (data / "coordinates.npy").unlink()
    ids = [5, 80, 4000, 10_300, 11_000, 20_000]
    (data / "vertices.json").write_text(json.dumps({"space": "fsaverage5", "ids": ids}))
    for name in ("zero", "one"):
        (folder / f"{name}.py").write_text(PLUG_IN.replace("SEED", str(int(name == "one"))))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("brainkit.maps.draw.draw_maps", draw_one_map)
        for run, network, seed in (("run", "zero", 0), ("other", "zero", 1), ("net", "one", 0)):
            options: Any = {"epochs": 2, "seed": seed, "overrides": SMALL, "say": quiet}
            train(f"{folder / network}.py:Colours", data=data, out=folder / run, **options)
        export(folder / "run", say=quiet)
    return folder


def changed(source: Path, target: Path, change: Any, **metadata: Any) -> Path:
    """The same file with its graph changed, and a new digest."""
    info = encoder_file.read(source)
    proto = onnx.load(source)
    del proto.metadata_props[:]
    change(proto.graph)
    encoder_file.write(target, proto.SerializeToString(), dataclasses.replace(info, **metadata))
    return target


def scaled(by: float) -> Any:
    """Add `by` times their value to the predictions."""

    def change(graph: Any) -> None:
        (weight,) = (tensor for tensor in graph.initializer if tensor.name == "readout.weight")
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1 + by), weight.name))

    return change


def call(*arguments: object) -> Any:
    return CliRunner().invoke(group, ["verify", *map(str, arguments)])


def test_the_certificate_is_repeated(place: Path) -> None:
    file = place / "run" / "encoder.onnx"
    stored = encoder_file.read(file).certificate
    assert stored is not None
    found = verify(file, [place / "run"])
    assert found.holds
    assert found.largest == pytest.approx(stored["largest"], rel=0.5)
    assert found.median == pytest.approx(stored["median"], rel=0.5, abs=1e-9)
    result = call(file, "--run", place / "run")
    assert result.exit_code == 0
    for number in (f"largest {stored['largest']:.1e}", f"largest {found.largest:.1e}"):
        assert number in result.stdout


def test_a_file_by_itself(place: Path) -> None:
    assert call(place / "run" / "encoder.onnx").exit_code == 0
    assert call(place / "run" / "encoder.onnx", "--images", place / "data" / "images").exit_code == 0


def test_a_file_that_predicts_otherwise_fails(place: Path, tmp_path: Path) -> None:
    bad = changed(place / "run" / "encoder.onnx", tmp_path / "bad.onnx", scaled(0.01))
    assert verify(bad).holds  # by itself nothing is wrong with it
    found = verify(bad, [place / "run"])
    assert not found.holds
    assert found.largest == pytest.approx(0.02, rel=0.9)
    result = call(bad, "--run", place / "run")
    assert result.exit_code == 1
    assert "1.0e-04" in result.stderr


def test_a_smaller_form_is_judged_by_the_drift_it_states(place: Path, tmp_path: Path) -> None:
    source = place / "run" / "encoder.onnx"
    certificate = {**(encoder_file.read(source).certificate or {}), "drift": {"difference": 0.05}}
    near = changed(source, tmp_path / "near.onnx", scaled(0.005), certificate=certificate)
    assert verify(near, [place / "run"]).holds
    far = changed(source, tmp_path / "far.onnx", scaled(0.5), certificate=certificate)
    assert not verify(far, [place / "run"]).holds
    # One vertex that hardly varies makes the largest drift large: that does not excuse all the others.
    certificate = {**certificate, "drift": {"difference": 5.0, "median": 0.01}}
    assert verify(
        changed(source, tmp_path / "same.onnx", scaled(0.005), certificate=certificate), [place / "run"]
    ).holds
    every = changed(source, tmp_path / "every.onnx", scaled(0.5), certificate=certificate)
    found = verify(every, [place / "run"])
    assert found.largest < found.allowed and not found.holds
    assert found.allowed_median == pytest.approx(0.02, rel=0.01)
    assert "median" in call(every, "--run", place / "run").stderr


def test_a_file_of_some_vertices_is_compared_with_these(place: Path, tmp_path: Path) -> None:
    """A file of three of the six vertices: in the run's order, found by their ids."""
    source, kept = place / "run" / "encoder.onnx", np.array([1, 3, 5])

    def keep(graph: Any) -> None:
        graph.initializer.append(numpy_helper.from_array(kept, "kept"))
        for node in graph.node:
            node.output[:] = ["all" if name == "fmri" else name for name in node.output]
        graph.node.append(helper.make_node("Gather", ["all", "kept"], ["fmri"], axis=1))
        (fmri,) = (value for value in graph.output if value.name == "fmri")
        fmri.type.tensor_type.shape.dim[1].dim_value = 3

    whole = encoder_file.read(source)
    arrays = {name: getattr(whole, name)[kept] for name in ("layer_weights", "locations", "scale", "r", "R2")}
    some = changed(
        source,
        tmp_path / "some.onnx",
        keep,
        vertices=whole.vertices.select(kept),
        rois=RoiTable({}, 3),
        noise_ceiling=whole.noise_ceiling[kept],
        **arrays,
    )
    found = verify(some, [place / "run"])
    assert found.holds
    assert dict(found.facts)["compared"].startswith("3 vertices")


@pytest.mark.parametrize(
    ("name", "options", "runtime"),
    [
        ("torchscript.pt", {"form": "torchscript"}, "TorchScript"),
        ("program.pt2", {"form": "pt2"}, "torch.export"),
        ("half.onnx", {"storage": "float16"}, "ONNX Runtime"),
    ],
)
def test_every_form_is_verified(place: Path, tmp_path: Path, name: str, options: Any, runtime: str) -> None:
    file = tmp_path / name
    export(place / "run", out=file, say=quiet, **options)
    found = verify(file, [place / "run"])
    assert found.holds
    assert runtime in dict(found.facts)["compared"]
    if name.endswith(".onnx"):
        assert verify(file).holds
    else:
        with pytest.raises(UsageError, match="--run"):
            verify(file)


def test_an_ensemble_is_compared_with_all_its_runs(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "both.onnx"
    export(place / "run", ensemble=[place / "other"], out=file, say=quiet)
    assert verify(file, [place / "run", place / "other"]).holds
    with pytest.raises(UsageError, match="2 runs"):
        verify(file, [place / "run"])
    assert not verify(file, [place / "run", place / "run"]).holds


def test_other_runs_are_refused_in_one_line(place: Path, tmp_path: Path) -> None:
    file = place / "run" / "encoder.onnx"
    for run, differing in (("other", "seed 0, .* 1"), ("net", "weights of the backbone ")):
        with pytest.raises(EncoderFileError, match=f"another run than .*{run}: {differing}") as caught:
            verify(file, [place / run])
        assert "\n" not in str(caught.value)
    info = encoder_file.read(file)
    elsewhere = changed(file, tmp_path / "x.onnx", lambda graph: None, locations=-info.locations - 0.1)
    with pytest.raises(EncoderFileError, match="locations"):
        verify(elsewhere, [place / "run"])
    with pytest.raises(UsageError, match="1 run"):
        verify(file, [place / "run", place / "other"])
    with pytest.raises(DataError, match="no such run"):
        verify(file, [place / "nowhere"])


def test_the_licence_of_a_plug_in_is_in_the_file(place: Path) -> None:
    info = encoder_file.read(place / "run" / "encoder.onnx")
    assert info.terms["brainkit"] == "Apache-2.0"
    assert info.terms["backbone"].startswith("zero.py:Colours: CC-BY-NC-4.0, NON-COMMERCIAL")
    assert "not stated" in info.terms["data"]
    assert "arXiv:2312.01280" in info.citation
