"""Predicting in an environment that holds the base install only: no torch, no timm, no matplotlib.

The environment is real (its own prefix and site-packages); its packages are found from their metadata, so a dependency
that predicting needs and pyproject.toml does not name makes these tests fail.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import shutil
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="the encoder of these tests is built with onnx")
pytest.importorskip("onnxruntime")

from pixel_encoder import V, save_images, write_encoder

from brainkit.predict import load

pytestmark = pytest.mark.slow


def requirements(name: str, extras: frozenset[str] = frozenset()) -> dict[str, importlib.metadata.Distribution]:
    """What a distribution requires, and what that requires, as installed here: {name: distribution}."""
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
    ignored = shutil.ignore_patterns("__pycache__", *left_out)
    for name in ("brainkit", "brainkit.cli", "brainkit.kernels"):  # an editable install keeps the latter two elsewhere
        spec = importlib.util.find_spec(name)
        for source in spec.submodule_search_locations:
            shutil.copytree(source, site / name.replace(".", "/"), ignore=ignored, dirs_exist_ok=True)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder with an encoder file, three images, and one that is broken."""
    folder = tmp_path_factory.mktemp("encoder")
    write_encoder(folder)
    save_images(folder, 4, broken=(3,))
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
    for package in ("torch", "timm", "pytorch_lightning", "onnx", "matplotlib", "nilearn"):
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
    paths = [encoder / f"image-00{index}.png" for index in range(3)]
    np.testing.assert_allclose(rows, load(encoder / "encoder.onnx", "cpu").predict(paths), rtol=1e-5, atol=1e-6)
    described = json.loads((tmp_path / "fmri.npy.json").read_text())
    assert "image-003.png" in json.dumps(described["skipped"])


@pytest.mark.parametrize("name", ["means.csv", "fmri.func.gii", "fmri.npy"])
def test_results_of_the_base_install(base_python, encoder, tmp_path, name):
    more = ("--hemispheres",) if name == "fmri.npy" else ("--roi", "V1v", "--top", "1")
    arguments = ("predict", str(encoder), "--encoder", str(encoder / "encoder.onnx"), "--out", name, *more)
    done = run(base_python, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = {file.name for file in tmp_path.iterdir()}
    expected = {"fmri.npy": "lh_fmri.npy", "fmri.func.gii": "lh.fmri.func.gii"}
    assert {expected.get(name, name), f"{name}.json"} <= written
    assert (f"{name.split('.')[0]}-top-V1v.png" in written) == ("--top" in more)


def test_what_needs_more_than_the_base_install_says_the_pip_line(base_python, encoder, tmp_path):
    arguments = ("predict", str(encoder), "--encoder", str(encoder / "encoder.onnx"), "--out", "fmri.zarr")
    done = run(base_python, *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "pip install 'brainkit[zarr]'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_contrast(base_python, encoder, tmp_path):
    for folder, images in (("a", (0, 1)), ("b", (2,))):
        (tmp_path / folder).mkdir()
        for index in images:
            shutil.copy(encoder / f"image-00{index}.png", tmp_path / folder)
    with Image.open(encoder / "image-001.png") as image:
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b" / "turned.png")
    arguments = ("contrast", "a", "b", "--encoder", str(encoder / "encoder.onnx"), "--out", "contrast.npz")
    done = run(base_python, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "contrast.npz") as found:
        assert np.isfinite(found["p"]).all() and found["hedges_g"].shape == (V,)


def test_python_api(base_python, encoder, tmp_path):
    code = (
        "import sys, brainkit; e = brainkit.load(sys.argv[1]); p = e.predict([sys.argv[2]]);"
        f"assert p.shape == (1, {V}) and e.rois.names[0] == 'V1v' and e.selectors['scale'].shape == ({V},);"
        "assert 'torch' not in sys.modules"
    )
    arguments = [str(base_python), "-c", code, str(encoder / "encoder.onnx"), str(encoder / "image-000.png")]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_info_and_doctor(base_python, encoder, tmp_path):
    for arguments in (("info", str(encoder / "encoder.onnx")), ("doctor",)):
        done = run(base_python, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr


def test_verify_by_itself(base_python, encoder, tmp_path):
    file, image = str(encoder / "encoder.onnx"), str(encoder / "image-000.png")
    assert run(base_python, "verify", file, "--images", image, cwd=tmp_path).returncode == 1  # too few images
    done = run(base_python, "verify", file, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run(base_python, "verify", file, "--run", "runs/x", cwd=tmp_path)
    assert done.returncode == 1
    assert "pip install 'brainkit[train]'" in done.stderr
    done = run(base_python, "info", str(encoder / "encoder.onnx"), "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["backbone"]["name"] == "pixels"


def test_the_same_bytes_without_the_extension(base_python, python_without_extension, encoder, tmp_path):
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


def test_maps_say_the_pip_line_before_predicting(base_python, encoder, tmp_path):
    arguments = ("predict", str(encoder), "--out", "a.npy", "--maps", "m", "--encoder", str(encoder / "encoder.onnx"))
    done = run(base_python, *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "pip install 'brainkit[maps]'" in done.stderr
    assert not list(tmp_path.iterdir())
