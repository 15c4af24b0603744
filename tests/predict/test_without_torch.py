"""Scoring in an environment that holds the base install alone: no torch, no timm, no matplotlib.

The environment is real (its own prefix and site-packages); what is in it is found from the packages' metadata, so a
dependency that scoring needs and pyproject.toml does not name makes these tests fail.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainkit import backbones
from brainkit.cortex.surface import RoiTable, Vertices, sphere_coordinates
from brainkit.export import describe, export_onnx
from brainkit.images import decode, prepare
from brainkit.model.factor_topy import FactorTopy
from brainkit.predict import load

ROOT = Path(__file__).resolve().parents[2]


def requirements(name: str, extras: frozenset[str] = frozenset()) -> dict[str, importlib.metadata.Distribution]:
    """A distribution's needs, and theirs, as they are installed here: {name: distribution}."""
    from packaging.requirements import Requirement

    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [(name, extras)]
    while waiting:
        current, wanted = waiting.pop()
        distribution = importlib.metadata.distribution(current)
        for text in distribution.requires or []:
            needed = Requirement(text)
            marks = [{"extra": extra} for extra in wanted] or [{"extra": ""}]
            if needed.marker is not None and not any(needed.marker.evaluate(mark) for mark in marks):
                continue
            key = re.sub(r"[-_.]+", "-", needed.name).lower()
            if key not in found:
                found[key] = importlib.metadata.distribution(needed.name)
                waiting.append((needed.name, frozenset(needed.extras)))
    return found


@pytest.fixture(scope="module")
def base_python(tmp_path_factory):
    """The interpreter of an environment that sees brainkit and its base dependencies."""
    return environment(tmp_path_factory.mktemp("base install"))


@pytest.fixture(scope="module")
def python_without_extension(tmp_path_factory):
    """The same, installed as with ``BRAINKIT_NO_EXT=1``: there is no brainkit._C."""
    return environment(tmp_path_factory.mktemp("no extension"), "_C.*.so", "_C.*.pyd")


def environment(folder: Path, *left_out: str) -> Path:
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for distribution in requirements("brainkit").values():
        tops = {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            if not (site / top).exists():
                (site / top).symlink_to(Path(distribution.locate_file(top)).resolve())
    package = site / "brainkit"
    shutil.copytree(ROOT / "brainkit", package, ignore=shutil.ignore_patterns("__pycache__", *left_out))
    shutil.copytree(ROOT / "cli", package / "cli", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "kernels", package / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """An encoder file of a small random model, with photographs to score."""
    folder = tmp_path_factory.mktemp("encoder")
    draw = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(draw.integers(0, 256, (40, 60, 3), np.uint8)).save(folder / f"{index}.png")
    (folder / "broken.png").write_bytes(b"no image")
    network = backbones.load_backbone("efficientnet_lite0", random_weights=True, size=64)
    vertices = Vertices("fsaverage5", np.r_[0:30, 10_242:10_262].astype(np.int32))
    model = FactorTopy(network.widths, sphere_coordinates(vertices), bottleneck=8).eval()
    info = describe(
        model.folded(),
        vertices=vertices,
        rois=RoiTable({"V1v": np.arange(5)}, len(vertices)),
        preprocessing=network.preprocessing,
        backbone={"name": network.name, "weights_hash": network.weights_hash, "pretrained": False, "licence": "none"},
    )
    images = np.stack([prepare(decode(folder / f"{index}.png"), network.preprocessing) for index in range(3)])
    export_onnx(model, network, folder / "encoder.onnx", info=info, images=images)
    return folder


def run(python, *arguments, cwd):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "COLUMNS": "120"}
    return subprocess.run(
        [str(python), "-m", "brainkit.cli", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_environment_has_no_training_stack(base_python, tmp_path):
    for package in ("torch", "timm", "pytorch_lightning", "onnx", "matplotlib", "nilearn", "scipy"):
        probe = subprocess.run([str(base_python), "-c", f"import {package}"], cwd=tmp_path, capture_output=True)
        assert probe.returncode == 1, package


def test_predict(base_python, encoder, tmp_path):
    done = run(
        base_python,
        "predict",
        str(encoder),
        "--out",
        "fmri.npy",
        "--encoder",
        str(encoder / "encoder.onnx"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    rows = np.load(tmp_path / "fmri.npy")
    paths = [encoder / f"{index}.png" for index in range(3)]
    np.testing.assert_allclose(rows, load(encoder / "encoder.onnx", "cpu").predict(paths), rtol=1e-5, atol=1e-6)
    described = json.loads((tmp_path / "fmri.json").read_text())
    assert "broken.png" in json.dumps(described["skipped"])


@pytest.mark.parametrize("name", ["means.csv", "fmri.func.gii", "fmri.npy"])
def test_results_of_the_base_install(base_python, encoder, tmp_path, name):
    more = ("--hemispheres",) if name == "fmri.npy" else ("--roi", "V1v", "--top", "1")
    arguments = ("predict", str(encoder), "--encoder", str(encoder / "encoder.onnx"), "--out", name, *more)
    done = run(base_python, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = {file.name for file in tmp_path.iterdir()}
    expected = {"fmri.npy": "lh_fmri.npy", "fmri.func.gii": "lh.fmri.func.gii"}
    assert {expected.get(name, name), f"{name.split('.')[0]}.json"} <= written
    assert (f"{name.split('.')[0]}-top-V1v.png" in written) == ("--top" in more)


def test_what_needs_more_than_the_base_install_says_the_pip_line(base_python, encoder, tmp_path):
    arguments = ("predict", str(encoder), "--encoder", str(encoder / "encoder.onnx"), "--out", "fmri.zarr")
    done = run(base_python, *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "pip install 'brainkit[zarr]'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_contrast(base_python, encoder, tmp_path):
    for folder, images in (("a", (0, 1)), ("b", (2, 1))):
        (tmp_path / folder).mkdir()
        for index in images:
            shutil.copy(encoder / f"{index}.png", tmp_path / folder)
    arguments = ("contrast", "a", "b", "--encoder", str(encoder / "encoder.onnx"), "--out", "contrast.npz")
    done = run(base_python, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "contrast.npz") as found:
        assert np.isfinite(found["p"]).all() and found["hedges_g"].shape == (50,)


def test_python_api(base_python, encoder, tmp_path):
    code = (
        "import sys, brainkit; e = brainkit.load(sys.argv[1]); p = e.predict([sys.argv[2]]);"
        "assert p.shape == (1, 50) and e.rois.names == ('V1v',) and e.selectors['scale'].shape == (50,);"
        "assert 'torch' not in sys.modules"
    )
    arguments = [str(base_python), "-c", code, str(encoder / "encoder.onnx"), str(encoder / "0.png")]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_info_and_doctor(base_python, encoder, tmp_path):
    for arguments in (("info", str(encoder / "encoder.onnx")), ("doctor",)):
        done = run(base_python, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr


def test_verify_by_itself(base_python, encoder, tmp_path):
    done = run(base_python, "verify", str(encoder / "encoder.onnx"), "--images", str(encoder / "0.png"), cwd=tmp_path)
    assert done.returncode == 1
    assert "at least three images" in done.stderr
    done = run(base_python, "verify", str(encoder / "encoder.onnx"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ONNX Runtime with itself" in done.stdout
    done = run(base_python, "verify", str(encoder / "encoder.onnx"), "--run", "runs/x", cwd=tmp_path)
    assert done.returncode == 1
    assert "pip install 'brainkit[train]'" in done.stderr
    done = run(base_python, "info", str(encoder / "encoder.onnx"), "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["backbone"]["name"] == "efficientnet_lite0"


def test_scoring_without_the_extension_gives_the_same_bytes(base_python, python_without_extension, encoder, tmp_path):
    probe = subprocess.run(
        [str(python_without_extension), "-I", "-c", "import brainkit._C"], cwd=tmp_path, capture_output=True
    )
    assert probe.returncode == 1
    arguments = ("predict", str(encoder), "--encoder", str(encoder / "encoder.onnx"), "--out")
    for name, python in (("with", base_python), ("without", python_without_extension)):
        done = run(python, *arguments, f"{name}.npy", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "with.npy").read_bytes() == (tmp_path / "without.npy").read_bytes()
    done = run(python_without_extension, "verify", str(encoder / "encoder.onnx"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "BRAINKIT_NO_EXT=1" in run(python_without_extension, "doctor", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    "arguments", [("train", "--backbone", "dinov2"), ("export", "--onnx"), ("sample", "subject")], ids=lambda a: a[0]
)
def test_what_needs_training_says_the_pip_line(base_python, tmp_path, arguments):
    done = run(base_python, *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "pip install 'brainkit[train]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_maps_say_the_pip_line_before_scoring(base_python, encoder, tmp_path):
    arguments = ("predict", str(encoder), "--out", "a.npy", "--maps", "m", "--encoder", str(encoder / "encoder.onnx"))
    done = run(base_python, *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "pip install 'brainkit[maps]'" in done.stderr
    assert not list(tmp_path.iterdir())
