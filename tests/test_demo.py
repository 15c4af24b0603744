"""The examples: a small demo in a folder with a space, those of README and docs where it left off, and the network that
users copy."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from small_runs import draw_one_map

from brainkit.backbones import load_backbone
from brainkit.cli import group
from brainkit.data.photographs import TEST_PHOTOGRAPHS

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
NO_LIMIT = 10**9  # seconds: nbclient has no name for none
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_photographs_were_not_trained_on() -> None:
    spec = importlib.util.spec_from_file_location("demo", EXAMPLES / "demo.py")
    assert spec is not None and spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    assert set(demo.PHOTOGRAPHS) <= set(TEST_PHOTOGRAPHS)


def run_demo(folder: Path, *options: str, **process: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "demo.py"), "--folder", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, **process)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A small demo: its ``folder``, what it ``printed``, and the files it left in the ``home`` folder."""
    place = tmp_path_factory.mktemp("a demo")
    home = place / "home"
    home.mkdir()
    # A home folder of its own shows what is written outside the demo's folder.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "BRAINKIT_"))}
    small = ("--images", "40", "--vertices", "100", "--epochs", "2")
    done = run_demo(place / "demo", *small, env={**environment, "HOME": str(home)}, cwd=home)
    assert done.returncode == 0, done.stdout + done.stderr
    return SimpleNamespace(folder=place / "demo", printed=done.stdout, home=list(home.iterdir()))


@pytest.mark.slow
def test_the_demo_writes_what_it_lists(demo: SimpleNamespace) -> None:
    assert "$ brainkit sample subject" in demo.printed
    assert "$ brainkit export --onnx" in demo.printed
    listed = [line.split("  ")[1] for line in demo.printed.partition("Files:")[2].splitlines() if "  /" in line]
    assert len(listed) == 8
    assert all(Path(path).exists() for path in listed), listed
    photographs = list((demo.folder / "photos").iterdir())
    responses = np.load(demo.folder / "responses.npy")
    assert len(responses) == len(list((demo.folder / "responses").glob("*.png"))) == len(photographs)
    assert not demo.home


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run_where_the_demo_left_off(
    page: Path, demo: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(demo.folder, folder, ignore=shutil.ignore_patterns("cache"))
    (tmp_path / "examples").symlink_to(EXAMPLES)
    scripts = {".venv/bin/activate": "", "bin/brainkit": f'exec "{sys.executable}" -m brainkit.cli "$@"'}
    for script, text in scripts.items():
        (tmp_path / script).parent.mkdir(parents=True)
        (tmp_path / script).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / script).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("BRAINKIT_CACHE", str(demo.folder / "cache"))
    monkeypatch.setattr("brainkit.maps.draw.draw_maps", draw_one_map)  # the figures of a run take seconds
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    for block in example_blocks(page):
        if block.not_run:
            continue
        where = f"{page.name}:{block.line}"
        if block.language == "python":
            # Line numbers of the page, so that a failure names its line there.
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
        elif commands := only_commands(block.text):
            for words in commands:
                with pytest.raises(SystemExit) as end:
                    group.main(words)
                assert end.value.code == 0, f"{where}: brainkit {' '.join(words)}"
        else:
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", block.text], capture_output=True, text=True)
            assert done.returncode == 0, f"{where}: {done.stdout}{done.stderr}"


@pytest.mark.slow
def test_the_gallery_is_made_where_the_demo_left_off(
    demo: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jinja2")
    monkeypatch.setenv("BRAINKIT_CACHE", str(demo.folder / "cache"))
    script = ROOT / "docs" / "make_gallery.py"
    command = [sys.executable, str(script), "--demo", str(demo.folder), "--docs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = re.findall(r"\]\((gallery/[^)]+)\)", (tmp_path / "gallery.md").read_text(encoding="utf-8"))
    assert len(shown) >= 10 and all((tmp_path / path).is_file() for path in shown)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda notebook: notebook.name)
def test_a_notebook_runs_where_the_demo_left_off(
    notebook: Path, demo: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    shutil.copytree(demo.folder, tmp_path / "demo", ignore=shutil.ignore_patterns("cache"))
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    monkeypatch.setenv("BRAINKIT_CACHE", str(demo.folder / "cache"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    content = nbformat.read(notebook, as_version=4)
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), "outputs are not kept in the repository"
    where = {"metadata": {"path": str(tmp_path / "examples")}}
    nbclient.NotebookClient(content, timeout=None, startup_timeout=NO_LIMIT, resources=where).execute()
    shown = {kind for cell in code for output in cell.outputs for kind in output.get("data", ())}
    assert {"image/png", "text/html"} <= shown


def test_only_what_a_test_cannot_have_is_not_run() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = example_blocks(page)
        reasons = [block.not_run for block in blocks if block.not_run]
        assert len(reasons) == text.count("<!-- not run"), f"{page.name}: such a comment is the line before its block"
        assert all(re.match(r"(needs|downloads|installs) \w+", reason) for reason in reasons), (page.name, reasons)


def only_commands(text: str) -> list[list[str]]:
    """The words after ``brainkit`` of a block's lines, if it has no other; they need no processes of their own."""
    lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    lines = [words for words in lines if words and words[0] != "source"]
    return [words[1:] for words in lines] if all(words[0] == "brainkit" for words in lines) else []


class Block(NamedTuple):
    """An example in a page: its first ``line`` there, and why it is ``not_run``, if it is not."""

    line: int
    language: str
    text: str
    not_run: str


def example_blocks(page: Path) -> list[Block]:
    """The blocks of shell commands and of Python; a comment ``<!-- not run: ... -->`` before one says why."""
    pattern = r"(?:^<!-- not run: (.*?) -->\n)?^```(sh|python)\n(.*?)^```$"
    text = page.read_text(encoding="utf-8")
    found = re.finditer(pattern, text, re.MULTILINE | re.DOTALL)
    return [Block(text.count("\n", 0, one.start(3)) + 1, one[2], one[3], one[1] or "") for one in found]


@pytest.mark.slow
def test_a_second_demo_keeps_subject_and_runs_and_stops_at_a_failed_command(tmp_path: Path) -> None:
    (tmp_path / "subject").mkdir()  # empty, so that train fails
    (tmp_path / "runs" / "1").mkdir(parents=True)
    done = run_demo(tmp_path)
    assert done.returncode == 1
    assert "brainkit sample" not in done.stdout
    assert "--out runs/2" in done.stdout
    assert "step 2 failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["1"]


def test_own_network_is_a_backbone(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    file = tmp_path / "own_network.py"
    shutil.copy(EXAMPLES / "own_network.py", file)
    untrained = load_backbone(f"{file}:OwnNetwork")
    assert untrained.layer_names == ("stage1", "stage2", "stage3", "stage4")
    assert untrained.widths == {"stage1": 16, "stage2": 32, "stage3": 64, "stage4": 128}
    assert not untrained.pretrained
    assert untrained.weights_hash == load_backbone(f"{file}:OwnNetwork").weights_hash

    weights = {key.removeprefix("network."): value + 1 for key, value in untrained.network.state_dict().items()}
    torch.save(weights, file.with_suffix(".pt"))
    trained = load_backbone(f"{file}:OwnNetwork")
    assert trained.pretrained
    assert trained.licence == "my own"
    assert trained.weights_hash != untrained.weights_hash
    local, whole = trained.get_tokens(images)
    assert local["stage4"].shape == (2, 128, 8, 8) and whole["stage4"].shape == (2, 128)
    # What export does with it: the whole network as one graph.
    program = torch.export.export(trained, (images,))
    torch.testing.assert_close(program.module()(images)[0]["stage4"], local["stage4"])
