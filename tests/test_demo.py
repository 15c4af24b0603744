"""The examples: a small demo in a folder with a space; and the network that users copy."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainkit.backbones import load_backbone
from brainkit.data.photographs import TEST_PHOTOGRAPHS

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_the_photographs_were_not_trained_on() -> None:
    spec = importlib.util.spec_from_file_location("demo", EXAMPLES / "demo.py")
    assert spec is not None and spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    assert set(demo.PHOTOGRAPHS) <= set(TEST_PHOTOGRAPHS)


def run_demo(folder: Path, *options: str, **process: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "demo.py"), "--folder", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, **process)


@pytest.mark.slow
def test_the_demo_writes_what_it_lists(tmp_path: Path) -> None:
    folder, home = tmp_path / "a demo", tmp_path / "home"
    home.mkdir()
    # A home folder of its own shows what is written outside the demo's folder.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "BRAINKIT_"))}
    small = ("--images", "30", "--vertices", "100", "--epochs", "2")
    done = run_demo(folder, *small, env={**environment, "HOME": str(home)}, cwd=home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "$ brainkit sample subject" in done.stdout
    assert "$ brainkit export --onnx" in done.stdout
    listed = [line.split("  ")[1] for line in done.stdout.partition("Files:")[2].splitlines() if "  /" in line]
    assert len(listed) == 6
    assert all(Path(path).exists() for path in listed), listed
    photographs = list((folder / "photographs").iterdir())
    assert len(np.load(folder / "fmri.npy")) == len(list((folder / "responses").glob("*.png"))) == len(photographs)
    assert not list(home.iterdir())


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
