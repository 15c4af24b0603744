"""The layout of the package: contracts between folders, what importing costs, and a README in every folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "brainkit"
FOLDERS = sorted(
    path.parent
    for top in (PACKAGE, ROOT / "kernels", ROOT / "cli")
    for path in top.rglob("__init__.py")
    if path.parent != PACKAGE
)

# Folders that scoring and drawing stand on: none of their files may load these when it is imported.
LIGHT = ("utils", "cortex", "data", "encoder_file", "images", "insilico", "maps", "metrics", "predict")
LIGHT_FILES = ("_version", "config", "errors")
HEAVY = ("torch", "onnxruntime", "onnx", "timm", "triton", "pytorch_lightning", "scipy", "nilearn", "matplotlib")


def test_the_contracts_between_folders_hold(tmp_path: Path) -> None:
    """The contracts are in pyproject.toml; `kernels` and `cli` are put where an installation has them."""
    pytest.importorskip("importlinter")
    code = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    shutil.copytree(PACKAGE, tmp_path / "brainkit", ignore=code)
    for folder in ("kernels", "cli"):
        shutil.copytree(ROOT / folder, tmp_path / "brainkit" / folder, ignore=code)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_few_modules_lie_in_the_root() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 12


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_every_folder_has_a_short_readme(folder: Path) -> None:
    lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    assert 3 <= len(lines) <= 25


def loaded_by(statement: str, names: tuple[str, ...]) -> str:
    """Which of these packages are loaded once a statement has run in a new process."""
    report = f"import sys\n{statement}\nprint(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["brainkit", "brainkit.kernels", "brainkit.cli"])
def test_importing_is_cheap(module: str) -> None:
    assert loaded_by(f"import {module}", (*HEAVY, "numpy")) == ""


def test_files_that_scoring_stands_on_load_nothing_heavy() -> None:
    files = [path for folder in LIGHT for path in (PACKAGE / folder).rglob("*.py")]
    files += [PACKAGE / f"{name}.py" for name in LIGHT_FILES]
    modules = [
        ".".join(("brainkit", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in files
    ]
    assert loaded_by("\n".join(f"import {module}" for module in sorted(modules)), HEAVY) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("brainkit.scoring.load", "brainkit.predict.encoder.load"),
        ("brainkit.scoring.list_images", "brainkit.predict.list_images"),
        ("brainkit.features.fit_statistics", "brainkit.training.fit_statistics"),
    ],
)
def test_old_names_still_work_and_say_where_they_went(old: str, new: str) -> None:
    def resolve(dotted: str) -> object:
        module, _, name = dotted.rpartition(".")
        return getattr(__import__(module, fromlist=[name]), name)

    if "fit_statistics" in old:
        pytest.importorskip("torch")
    with pytest.warns(DeprecationWarning, match=old.rpartition(".")[2]):
        assert resolve(old) is resolve(new)
