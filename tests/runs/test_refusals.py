"""Bad input to `brainkit train`: one line, the right exit code, and nothing left behind."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import errno
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")
pytest.importorskip("timm")
pytest.importorskip("nilearn")

from small_runs import PLUG_IN, make_own_data

from brainkit.cli import group
from brainkit.utils.files import cache_folder


def fails(*arguments: object, code: int = 1) -> str:
    """Check that a command fails with one line, and return the line."""
    result = CliRunner().invoke(group, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("brainkit") and "Traceback" not in result.output and "unexpected" not in line
    return line


def left() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def test_data_that_does_not_exist_or_is_empty(net: str) -> None:
    assert "gone: expected a data folder, found nothing" in fails("train", "--backbone", net, "--data", "gone")
    Path("empty").mkdir()
    assert "empty" in fails("train", "--backbone", net, "--data", "empty", "--out", "run")
    Path("file").write_text("")
    assert "found a file" in fails("train", "--backbone", net, "--data", "file", "--out", "run")
    assert left() == ["empty", "file"]


def test_images_and_rows_that_do_not_match(net: str) -> None:
    data = make_own_data(Path("data"))
    (data / "images" / "003.png").unlink()
    line = fails("train", "--backbone", net, "--data", data, "--out", "run")
    assert "expected 23 rows" in line and "found 24" in line
    assert left() == ["data"]


def test_a_truncated_image(net: str) -> None:
    data = make_own_data(Path("data"))
    photo = data / "images" / "007.png"
    photo.write_bytes(photo.read_bytes()[:300])
    assert "007.png" in fails("train", "--backbone", net, "--data", data, "--out", "run")
    assert left() == ["data"]
    assert not list((cache_folder() / "tokens").glob(".*"))


def test_responses_that_are_all_nan(net: str) -> None:
    data = make_own_data(Path("data"))
    np.save(data / "responses.npy", np.full((24, 6), np.nan, np.float32))
    assert "responses" in fails("train", "--backbone", net, "--data", data, "--out", "run")
    assert left() == ["data"]


def test_too_few_stimulus_groups(net: str) -> None:
    data = make_own_data(Path("data"), images=2)
    assert "at least 3 stimulus groups" in fails("train", "--backbone", net, "--data", data, "--out", "run")
    assert left() == ["data"]


def test_an_unknown_network_is_refused_before_a_sample_is_created(monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(say: object) -> Path:
        raise AssertionError("it created a sample subject")

    monkeypatch.setattr("brainkit.sample.default_sample", unexpected)
    assert "efficientnet_lite0" in fails("train", "--backbone", "eficientnet_lite0", code=2)
    assert left() == []


def test_layers_that_do_not_exist(net: str, own_data: Path) -> None:
    line = fails("train", "--backbone", net, "--data", own_data, "--set", "backbone.layers=[fine, finer]", code=2)
    assert "finer" in line and "coarse" in line
    assert left() == []


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        (["--set", "train.epoch=3"], 2, ["train.epochs"]),
        (["--config", "gone.yaml"], 1, ["gone.yaml"]),
        (["--set", "train.cuda_graph=on"], 2, ["train.cuda_graph"]),
        (["--set", "model.bottleneck=1000000000000"], 2, ["1000000000000", "model.bottleneck"]),
        (["--set", "model.selector_width=100000000"], 2, ["model.selector_width"]),
        (["--set", "model.precision=bfloat16"], 2, ["model.precision", "cuda"]),
    ],
)
def test_settings_that_are_refused(net: str, own_data: Path, options: list[str], code: int, named: list[str]) -> None:
    fixed = ("train", "--backbone", net, "--data", own_data, "--out", "run", "--set", "train.device=cpu")
    line = fails(*fixed, *options, code=code)
    assert all(name in line for name in named)
    assert left() == []


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_available(net: str, own_data: Path, device: str) -> None:
    if {"cuda": torch.cuda, "mps": torch.backends.mps}[device].is_available():
        pytest.skip(f"there is {device}")
    line = fails("train", "--backbone", net, "--data", own_data, "--set", f"train.device={device}", code=2)
    assert f"'{device}'" in line and "cpu" in line
    line = fails("train", "--backbone", net, "--data", own_data, "--set", "model.backend=triton", code=1)
    assert "model.backend 'triton'" in line
    assert left() == []


def test_tokens_that_do_not_fit_on_the_device(net: str, own_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brainkit.training.batch_source.free_memory", lambda device: 10_000)
    options = ("--out", "run", "--set", "train.device=cpu", "--set", "train.residency=device")
    assert "train.residency" in fails("train", "--backbone", net, "--data", own_data, *options, code=2)


def test_an_output_that_cannot_be_created(net: str, own_data: Path) -> None:
    Path("file").write_text("")
    assert "file/run" in fails("train", "--backbone", net, "--data", own_data, "--out", "file/run").replace("\\", "/")
    assert "exists already" in fails("train", "--backbone", net, "--data", own_data, "--out", "file", code=2)
    assert left() == ["file"]


def test_a_full_disk_while_tokens_are_written(net: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_own_data(Path("data"), images=20)
    monkeypatch.setenv("BRAINKIT_CACHE", str(workplace / "cache"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("brainkit.features.shard.ShardWriter.add", full)
    line = fails("train", "--backbone", net, "--data", data, "--out", "run")
    assert "No space left on device" in line and "cache" in line
    assert left() == ["cache", "data"]
    assert not list(Path("cache/tokens").glob("*/*.shard"))


def test_tokens_that_run_out_of_memory(net: str, own_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has a total capacity of")

    monkeypatch.setattr("brainkit.features.extract.extract_tokens", full)
    line = fails("train", "--backbone", net, "--data", own_data, "--out", "run")
    assert "9.00 GiB" in line and "backbone" in line
    assert left() == []


def test_a_network_that_does_not_repeat_itself(own_data: Path) -> None:
    program = PLUG_IN.replace("torch.relu(", "torch.nn.functional.dropout(training=True, input=")
    Path("net.py").write_text(program)
    before = sorted(cache_folder().rglob("*"))
    line = fails("train", "--backbone", "net.py:Colours", "--data", own_data, "--out", "run")
    assert "net.py:Colours" in line and "'fine'" in line and "dropout" in line
    assert left() == ["net.py"] and sorted(cache_folder().rglob("*")) == before


def test_an_error_in_the_networks_code_is_found_by_its_line(own_data: Path) -> None:
    Path("net.py").write_text(
        PLUG_IN.replace("        coarse =", "        if len(images) > 2: images.no_such\n        coarse =")
    )
    line = fails("train", "--backbone", "net.py:Colours", "--data", own_data, "--out", "run")
    assert "net.py:Colours" in line and "no_such" in line and re.search(r"\(net\.py:\d+\)", line)
    assert left() == ["net.py"]


def test_a_loss_that_is_not_finite(net: str, own_data: Path) -> None:
    line = fails(
        *("train", "--backbone", net, "--data", own_data, "--out", "run", "--epochs", "2"),
        *("--set", "train.lr_weight=1e30", "--set", "train.lr_bottleneck=1e30"),
    )
    assert "no longer finite at step" in line
    assert not Path("run/run.json").exists() and not Path("runs").exists()


def test_no_newest_run(own_data: Path) -> None:
    for command in (["export"], ["map"], ["predict", own_data / "images", "--out", "fmri.npy"]):
        assert "runs/latest" in fails(*command).replace("\\", "/")
    assert left() == []
