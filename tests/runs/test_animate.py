"""`brainkit train --animate` and `brainkit map --animate`."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

for needed in ("torch", "pytorch_lightning", "timm", "matplotlib", "nilearn"):
    pytest.importorskip(needed)

from command_line import call, one_line

from brainkit.errors import DataError, UsageError
from brainkit.runs.animate import animate_run
from brainkit.runs.train import train

pytestmark = pytest.mark.slow


def keep(folder: Path, step: int, run: Path) -> None:
    with np.load(run / "selectors.npz") as file:
        layers, vertices = file["layer_weights"].shape[1], len(file["scale"])
    folder.mkdir(exist_ok=True)
    weights = np.random.default_rng(step).dirichlet(np.ones(layers), vertices)
    np.savez(
        folder / f"{step:08d}.npz",
        layer_weights=(255 * weights).astype(np.uint8),
        locations=np.zeros((vertices, 2), np.float16),
        scale=np.full(vertices, 0.5, np.float16),
    )


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "run")
    for step in (0, 5):
        keep(tmp_path / "run" / "snapshots", step, tmp_path / "run")
    return tmp_path / "run"


def test_snapshots_become_frames_and_the_finished_map_the_last(run, tmp_path):
    lines = []
    paths = animate_run([run], out=tmp_path / "gifs", names=("layer", "scale"), say=lines.append)
    assert [path.name for path in paths] == ["layer-training.gif", "scale-training.gif"] and len(lines) == 1
    with Image.open(paths[0]) as picture:
        frames = []
        for number in range(picture.n_frames):
            picture.seek(number)
            frames.append(np.asarray(picture.convert("RGB")).astype(int))
    assert len(frames) == 3
    assert all(np.abs(one - other).mean() > 0.1 for one, other in itertools.pairwise(frames))
    first = paths[0].read_bytes()
    animate_run([run], out=tmp_path / "gifs", say=lines.append)
    assert paths[0].read_bytes() == first


def test_mp4_has_the_frames_and_the_same_bytes_again(run, tmp_path):
    av = pytest.importorskip("av")
    (path,) = animate_run([run], out=tmp_path / "films", formats=("mp4",), say=lambda _: None)
    with av.open(str(path)) as film:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in film.decode(video=0)]
    assert path.suffix == ".mp4" and np.abs(frames[0] - frames[1]).mean() > 0.1
    assert np.abs(frames[2] - frames[-1]).mean() < 2  # the last is shown for longer
    first = path.read_bytes()
    animate_run([run], out=tmp_path / "films", formats=("mp4",), say=lambda _: None)
    assert path.read_bytes() == first


def test_what_cannot_be_animated_is_said(finished, run, tmp_path):
    one_line(call("map", run, "--animate", "--theme", "transparent", "--out", tmp_path / "gifs"), 2)
    one_line(call("map", run, "--animate", "--format", "png", "--out", tmp_path / "gifs"), 2)
    assert not (tmp_path / "gifs").exists()
    with pytest.raises(DataError, match="--animate"):
        animate_run([finished.path])
    with pytest.raises(UsageError, match="layer"):
        animate_run([run], names=("accuracy",))
    np.savez(run / "snapshots" / "00000007.npz", layer_weights=np.ones((2, 2)), locations=np.ones((2, 2)), scale=[1, 1])
    one_line(call("map", run, "--animate", "--out", tmp_path / "gifs"), 1)


def test_training_keeps_them_and_draws_the_animation(tiny_sample, tmp_path):
    folder = train(
        "efficientnet_lite0", data=tiny_sample, out=tmp_path / "run", epochs=2, animate=True, say=lambda _: None
    )
    assert (folder / "maps" / "layer-training.gif").is_file()
    assert len(list((folder / "snapshots").glob("*.npz"))) > 2
