"""The examples: the demo in small, twice, in a folder with a space; and the network that users copy."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from brainkit.backbones import load_backbone
from brainkit.data.photographs import TEST_PHOTOGRAPHS

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run_demo(folder: Path, home: Path) -> str:
    # A home of its own shows what is written outside the folder.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "BRAINKIT_"))}
    tiny = ["--images", "40", "--vertices", "200", "--epochs", "3"]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py"), "--folder", str(folder), *tiny],
        env={**environment, "HOME": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_photographs_were_not_trained_on() -> None:
    spec = importlib.util.spec_from_file_location("demo", EXAMPLES / "demo.py")
    assert spec is not None and spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    assert set(demo.PHOTOGRAPHS) <= set(TEST_PHOTOGRAPHS)


@pytest.mark.slow
def test_the_demo_runs_twice_and_leaves_what_it_names(tmp_path: Path) -> None:
    folder, home = tmp_path / "a demo", tmp_path / "home"
    home.mkdir()
    first = run_demo(folder, home)
    assert "$ brainkit sample subject" in first
    assert "$ brainkit export --onnx" in first
    assert "How good is the encoder?" in first
    named = [line.split("  ")[1] for line in first.partition("Where everything lies:")[2].splitlines() if "  /" in line]
    assert len(named) == 6
    assert all(Path(place).exists() for place in named), named
    assert len(list((folder / "responses").glob("*.png"))) == len(list((folder / "photographs").iterdir()))
    assert len(np.load(folder / "fmri.npy")) == len(list((folder / "photographs").iterdir()))

    second = run_demo(folder, home)
    assert "is kept" in second
    assert "--out runs/2" in second
    assert (folder / "runs" / "latest").read_text().strip() == "2"
    assert (folder / "runs" / "1" / "encoder.onnx").is_file()
    assert not list(home.iterdir())


def test_the_demo_stops_where_a_command_fails(tmp_path: Path) -> None:
    (tmp_path / "subject").mkdir()  # no subject in it
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py"), "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "step 2 failed" in done.stderr


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
