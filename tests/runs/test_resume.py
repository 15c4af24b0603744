"""Stopped runs resume to the same result; what they were started with is checked, and complete runs are left alone."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import csv
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")
pytest.importorskip("timm")
pytest.importorskip("nilearn")

from small_runs import SMALL, draw_one_map, make_own_data, quiet

from brainkit.cli import group
from brainkit.config import Config
from brainkit.errors import DataError, UsageError
from brainkit.runs import stages
from brainkit.runs.latest import latest_run
from brainkit.runs.log import RunLog
from brainkit.runs.train import train
from brainkit.utils.files import read_json, write_json


class Stop(Exception):
    pass


def fit(net: str, data: Path | None, **options: Any) -> Path:
    return train(net, data=data, **{"out": "run", "epochs": 2, "overrides": SMALL, "say": quiet, **options})


def raising(error: BaseException) -> Callable[..., Any]:
    def function(*_: object, **__: object) -> None:
        raise error

    return function


def stop_after(monkeypatch: pytest.MonkeyPatch, epoch: int, error: type[BaseException]) -> Callable[[], None]:
    """Stop training after an epoch; call what is returned to undo it."""
    real = stages.fit

    def fit(*arguments: Any, on_epoch: Callable[[dict[str, float]], None], **options: Any) -> Any:
        def watch(row: dict[str, float]) -> None:
            on_epoch(row)
            if row["epoch"] == epoch:
                raise error

        return real(*arguments, on_epoch=watch, **options)

    monkeypatch.setattr(stages, "fit", fit)
    return lambda: monkeypatch.setattr(stages, "fit", real)


def stopped_run(net: str, data: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """A run that was stopped after its first epoch."""
    undo = stop_after(monkeypatch, 1, Stop)
    with pytest.raises(Stop):
        fit(net, data, **options)
    undo()


def test_a_resumed_run_ends_like_one_that_was_never_stopped(
    net: str, own_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(net, own_data, out="through", epochs=3)
    stopped_run(net, own_data, monkeypatch, out="halves", epochs=3)
    assert not Path("halves/run.json").exists()
    assert "stopped: Stop" in Path("halves/log.txt").read_text()
    with pytest.raises(UsageError, match="halves: exists already"):
        fit(net, own_data, out="halves", epochs=3)
    fit(net, own_data, out="halves", epochs=3, resume=True)
    for name in ("selectors.npz", "scores.npz"):
        with np.load(Path("through") / name) as a, np.load(Path("halves") / name) as b:
            assert all(np.array_equal(a[key], b[key], equal_nan=a[key].dtype.kind == "f") for key in a.files)
    with Path("halves/metrics.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]


def test_resume_takes_the_settings_of_the_run(net: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_own_data(workplace / "data")
    stopped_run(net, Path("data"), monkeypatch, seed=5)
    with pytest.raises(UsageError, match="seed was 5, got 6"):
        fit(net, data, seed=6, resume=True)
    with pytest.raises(UsageError, match=r"backbone\.random_weights"):
        train(net, out="run", random_weights=True, resume=True)
    with pytest.raises(UsageError, match=r"backbone\.name was .*Colours', got 'efficientnet_lite0'"):
        fit("efficientnet_lite0", data, seed=5, resume=True)
    lines: list[str] = []
    fit(net, Path("data"), seed=5, resume=True, say=lines.append)  # a relative path is the same folder
    assert Config.read("run/config.yaml").seed == 5
    monkeypatch.setattr(stages, "fit", raising(AssertionError("it trained")))
    assert train(net, out="run", resume=True, say=lines.append) == Path("run")
    assert "nothing to resume" in lines[-1]


def test_how_a_run_is_computed_may_change(net: str, own_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_run(net, own_data, monkeypatch)
    lines: list[str] = []
    changed = ["train.residency=host", "train.save_minutes=1", "train.cuda_graph=off"]
    train(net, out="run", resume=True, overrides=changed, say=lines.append)
    assert any("1 epoch and 0 steps" in line for line in lines)
    assert Config.read("run/config.yaml").train.residency == "host"


def test_settings_may_change_before_anything_was_trained(
    net: str, own_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(stages, "fit", raising(Stop()))
        with pytest.raises(Stop):
            fit(net, own_data, seed=5)
    fit(net, own_data, seed=6, resume=True)
    assert Config.read("run/config.yaml").seed == 6


def test_ctrl_c_while_tokens_are_extracted(net: str, own_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("brainkit.features.extract.extract_tokens", raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            fit(net, own_data, seed=5)
    # The command that was shown names neither data nor settings: they are those of the run.
    train(net, out="run", resume=True, overrides=["train.epochs=2"], say=quiet)
    stored = Config.read("run/config.yaml")
    assert (stored.data.path, stored.seed) == (str(own_data.resolve()), 5)
    assert Path("run/run.json").is_file()


def test_ctrl_c_shows_the_command_that_resumes(net: str, own_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undo = stop_after(monkeypatch, 1, KeyboardInterrupt)
    arguments = ["train", "--backbone", net, "--data", str(own_data), "--out", "run", "--epochs", "2"]
    result = CliRunner().invoke(group, arguments)
    assert result.exit_code == 130
    command = shlex.split(result.stdout.splitlines()[-1].partition(": ")[2])
    assert command == ["brainkit", "train", "--backbone", net, "--resume", "--out", "run"]
    undo()
    result = CliRunner().invoke(group, command[1:])
    assert result.exit_code == 0, result.output
    assert Path("run/run.json").is_file()


def test_resume_with_nothing_to_resume(net: str, own_data: Path) -> None:
    with pytest.raises(UsageError, match="no run to resume"):
        fit(net, own_data, out=None, resume=True)
    fit(net, own_data, out="new", resume=True)  # stopped before it began: it starts
    assert Path("new/run.json").is_file()
    Path("else").mkdir()
    Path("else/letter.txt").write_text("")
    Path("file").write_text("")
    for name in ("else", "file"):
        with pytest.raises(DataError, match=rf"{name}: .*config\.yaml"):
            fit(net, own_data, out=name, resume=True)


def test_resume_takes_the_network_of_the_run(net: str, own_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the messages about unfinished runs say: ``brainkit train --resume --out run``."""
    stopped_run(net, own_data, monkeypatch)
    result = CliRunner().invoke(group, ["train", "--resume", "--out", "run"])
    assert result.exit_code == 0, result.output
    assert read_json("run/run.json")["backbone"]["name"].endswith("net.py:Colours")
    # Where there is no run, no other network is trained in its place.
    result = CliRunner().invoke(group, ["train", "--resume", "--out", "new"])
    assert result.exit_code == 2 and "new" in result.output and not Path("new").exists()
    result = CliRunner().invoke(group, ["train", "--resume"])
    assert result.exit_code == 2 and "--out" in result.output


def test_a_folder_that_exists_is_called_what_it_is(net: str, own_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_run(net, own_data, monkeypatch)
    with pytest.raises(UsageError, match=r"run: .*unfinished run.*--resume"):
        fit(net, own_data)
    fit(net, own_data, resume=True)
    Path("else").mkdir()
    for name in ("run", "else"):
        with pytest.raises(UsageError, match=f"{name}: exists already") as refusal:
            fit(net, own_data, out=name)
        assert "--resume" not in str(refusal.value)


def test_resume_notices_other_data(net: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_own_data(workplace / "data")
    stopped_run(net, data, monkeypatch)
    (data / "images" / "000.png").rename(data / "images" / "0000.png")
    with pytest.raises(DataError, match=r"split\.json"):
        train(net, out="run", resume=True)
    (data / "images" / "0000.png").rename(data / "images" / "000.png")
    responses = np.load(data / "responses.npy")
    np.save(data / "responses.npy", responses + 1)
    with pytest.raises(DataError, match=r"last\.ckpt.*images or responses \(was \w{12}, "):
        train(net, out="run", resume=True)
    np.save(data / "responses.npy", responses)
    train(net, out="run", resume=True, say=quiet)


def test_a_run_that_was_stopped_before_its_maps_is_finished(
    net: str, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brainkit.maps.draw.draw_maps", draw_one_map)
    fit(net, tiny_sample)
    shutil.rmtree("run/maps")
    Path("runs/latest").unlink()
    train(net, out="run", resume=True, say=quiet)
    assert Path("run/maps/layer.png").is_file()
    assert latest_run().samefile("run")

    # A figure that is missing may have been deleted on purpose.
    Path("run/maps/layer.png").unlink()
    lines: list[str] = []
    train(net, out="run", resume=True, say=lines.append)
    assert not Path("run/maps/layer.png").exists() and len(lines) == 1

    # Stopped while maps were drawn: the report is missing.
    summary = read_json("run/run.json")
    del summary["memory"]
    write_json("run/run.json", {**summary, "seconds": {"training": summary["seconds"]["training"]}})
    train(net, out="run", resume=True, say=lines.append)
    assert Path("run/maps/layer.png").is_file()
    done = read_json("run/run.json")
    assert done["seconds"].keys() == {"training", "maps"}
    assert done["memory"]["phases"].keys() == {"maps"}
    assert any(line.startswith("test scores on") for line in lines)


def test_two_processes_cannot_train_in_one_folder(net: str, own_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_run(net, own_data, monkeypatch)
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    with RunLog(quiet) as log:
        log.open_file(Path("run/log.txt"))  # as the other process does
        with pytest.raises(UsageError, match="run: another process"):
            train(net, out="run", resume=True)
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before
    train(net, out="run", resume=True, say=quiet)  # the lock ended with its holder


def test_a_folder_that_appears_meanwhile_is_left_alone(
    net: str, own_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brainkit.runs.train.check_is_new", lambda folder: folder.mkdir())
    with pytest.raises(UsageError, match="run: exists already"):
        fit(net, own_data)
    assert not any(Path("run").iterdir())
