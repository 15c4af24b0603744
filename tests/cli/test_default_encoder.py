"""Which encoder file a command takes: the one given, that of a run folder, of the newest run, or the only one here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from command_line import call
from pixel_encoder import V, save_images, write_encoder

import brainkit
from brainkit import encoder_file
from brainkit.errors import EncoderFileError
from brainkit.runs.latest import name_latest


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two sets of images, and nothing else."""
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path / "a", 3)
    save_images(tmp_path / "b", 3, seed=1)
    drawn: list[Any] = []
    monkeypatch.setattr("brainkit.maps.draw.draw_maps", lambda folder, *_, **__: drawn.append(folder) or [])
    return tmp_path


COMMANDS = {
    "predict": ["predict", "a", "--out", "fmri.npy"],
    "contrast": ["contrast", "a", "b", "--out", "contrast.npz"],
    "info": ["info"],
    "verify": ["verify"],
    "map": ["map"],
}
every_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())


@every_command
def test_the_only_encoder_file_here_is_used_and_named(here: Path, command: list[str]) -> None:
    pytest.importorskip("matplotlib")
    write_encoder(here, "colleague.onnx")
    (here / "another-network.onnx").write_bytes(b"\x08\x0a of other software")
    result = call(*command)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if "colleague.onnx, the only" in line]
    assert len(lines) == 1
    if command[0] != "map":  # whose lines all go to standard output
        assert lines[0] not in result.stdout.splitlines()


@every_command
@pytest.mark.parametrize("count", [0, 2])
def test_without_one_or_with_several_the_error_says_what_to_give(here: Path, command: list[str], count: int) -> None:
    names = [write_encoder(here, f"{number}.onnx").name for number in range(count)]
    result = call(*command)
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1
    assert "brainkit train" not in result.stderr
    assert ("--encoder FILE" in result.stderr) == (command[0] in ("predict", "contrast"))
    assert all(name in result.stderr for name in names)
    assert sorted(path.name for path in here.iterdir()) == sorted([*names, "a", "b"])


@every_command
def test_the_newest_run_comes_first(here: Path, command: list[str]) -> None:
    write_encoder(here, "colleague.onnx")
    (here / "runs" / "first").mkdir(parents=True)
    name_latest("runs/first")
    if command[0] != "map":  # which draws from the run itself
        (here / "runs" / "first" / "run.json").write_text("{}")
        result = call(*command)
        assert result.exit_code == 1 and "brainkit export runs/first" in result.stderr
        assert "newest run (runs/latest)" in result.stderr
    write_encoder(here / "runs" / "first")
    result = call(*command)
    assert "colleague" not in result.output
    if command[0] != "map":
        assert result.exit_code == 0, result.output


def test_predict_tells_of_more_threads_than_cores(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brainkit.utils.system.available_cores", lambda: 2)
    file = write_encoder(here, "one.onnx")
    result = call("predict", "a", "--encoder", file, "--out", "fmri.npy", "--threads", "3")
    assert result.exit_code == 0 and "3 threads asked for, but there are only 2 cores" in result.stderr


def test_a_run_folder_stands_for_its_encoder(here: Path) -> None:
    run = here / "runs" / "first"
    run.mkdir(parents=True)
    file = write_encoder(run)
    shutil.copy(file, run / "encoder-subset.onnx")
    (run / "run.json").write_text("{}")
    expected = brainkit.load(file, "cpu")
    assert brainkit.load(run, "cpu").info.digest == encoder_file.read(run).digest == expected.info.digest
    assert call("predict", "a", "--encoder", run, "--out", "fmri.npy").exit_code == 0
    np.testing.assert_array_equal(np.load("fmri.npy"), expected.predict("a"))
    assert call("contrast", "a", "b", "--encoder", run, "--out", "contrast.csv").exit_code == 0
    assert str(file) in call("info", run).stdout
    assert json.loads(call("info", run, "--json").stdout)["sha256"] == expected.info.digest
    assert call("verify", run).exit_code == 0
    assert len(brainkit.contrast("a", "b", run).vertices) == V


def test_a_run_with_one_encoder_of_another_name(here: Path) -> None:
    write_encoder(here / "a", "areas.onnx")
    assert encoder_file.read("a").digest == encoder_file.read("a/areas.onnx").digest


def test_a_folder_without_an_encoder_says_what_to_do(here: Path) -> None:
    def refused(folder: str) -> str:
        with pytest.raises(EncoderFileError) as caught:
            brainkit.load(folder)
        assert str(caught.value).startswith(folder) and "\n" not in str(caught.value)
        return str(caught.value)

    assert "folder without" in refused("a")
    (here / "a" / "config.yaml").touch()
    assert "brainkit train --resume --out a" in refused("a")
    (here / "a" / "run.json").write_text("{}")
    assert "brainkit export a" in refused("a")
    for subject in ("subj01", "subj02"):
        (here / "a" / subject).mkdir()
        write_encoder(here / "a" / subject)
    assert "a/subj01/encoder.onnx, a/subj02/encoder.onnx" in refused("a")


def test_other_files_are_named_by_what_they_are(here: Path) -> None:
    write_encoder(here, "colleague.onnx")
    assert call("predict", "a", "--out", "fmri.npy").exit_code == 0
    np.savez("arrays.npz", a=np.zeros(3))
    Image.new("RGB", (4, 4)).save("picture.jpg")
    Path("table.csv").write_text("image,V1\n")
    for file, found in {
        "fmri.npy": r".npy array; fmri.npy.json describes it",
        "arrays.npz": ".npz archive",
        "picture.jpg": "brainkit predict",
        "table.csv": "text",
    }.items():
        for command in (["info", file], ["verify", file], ["predict", "a", "--encoder", file, "--out", "x.npy"]):
            result = call(*command)
            assert result.exit_code == 1 and found in result.stderr, result.stderr
            assert len(result.stderr.splitlines()) == 1


def test_a_checkpoint_is_not_an_encoder(here: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"weight": torch.zeros(2)}, "best.ckpt")
    assert "brainkit export" in call("info", "best.ckpt").stderr
