"""Snapshots of what vertices select: they change nothing, and a resumed run completes them."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from small_models import problem
from small_runs import assert_same_run, weights_of

from brainkit.errors import StoppedTraining
from brainkit.training.fit import fit
from brainkit.training.snapshots import COUNT


def steps_in(folder: Path) -> list[int]:
    return [int(path.stem) for path in sorted(folder.glob("*.npz"))]


def trained(folder: Path, epochs: int = 4, **options):
    folder.mkdir()
    module, data = problem(epochs=epochs)
    fit(module, data, folder, **options)
    return module


def test_a_run_with_snapshots_is_the_same_run(tmp_path):
    trained(tmp_path / "a")
    trained(tmp_path / "b", snapshots=[tmp_path / "snapshots"])
    assert len(steps_in(tmp_path / "snapshots")) > 5
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_they_show_what_vertices_select_from_start_to_end(tmp_path):
    module, data = problem(epochs=4, refit=False)
    with torch.no_grad():
        before = module.model.selectors().layer_weights.numpy()
    fit(module, data, tmp_path, snapshots=[tmp_path / "snapshots"])
    steps = steps_in(tmp_path / "snapshots")
    assert steps[0] == 0 and steps[-1] == 12 and len(steps) <= COUNT + 1
    first, last = (np.load(tmp_path / "snapshots" / f"{step:08d}.npz") for step in (0, 12))
    np.testing.assert_allclose(first["layer_weights"] / 255, before, atol=0.5 / 255)
    module.load_state_dict(weights_of(tmp_path))
    with torch.no_grad():
        after = module.model.selectors()
    np.testing.assert_allclose(last["layer_weights"] / 255, after.layer_weights.numpy(), atol=0.6 / 255)
    np.testing.assert_allclose(last["locations"], after.locations.numpy(), atol=2e-3)
    np.testing.assert_allclose(last["scale"], after.scale.numpy(), atol=2e-3)


@pytest.mark.slow
def test_long_runs_have_a_few_dozen(tmp_path):
    trained(tmp_path / "a", epochs=40, snapshots=[tmp_path / "a" / "snapshots"])
    steps = np.array(steps_in(tmp_path / "a" / "snapshots"))
    assert 30 <= len(steps) <= COUNT + 1 and steps[-1] == 120
    assert (np.diff(steps)[:5]).mean() < np.diff(steps)[-5:].mean()  # denser at the start


def test_a_resumed_run_completes_them(tmp_path):
    snapshots = [tmp_path / "snapshots"]

    def stop(row):
        if row["epoch"] == 2:
            raise StoppedTraining("stop")

    module, data = problem(epochs=4)
    with pytest.raises(StoppedTraining):
        fit(module, data, tmp_path, on_epoch=stop, snapshots=snapshots)
    half = steps_in(snapshots[0])
    assert half[-1] == 6
    module, data = problem(epochs=4)
    fit(module, data, tmp_path, resume=True, snapshots=snapshots)
    trained(tmp_path / "whole", snapshots=[tmp_path / "whole" / "snapshots"])
    assert steps_in(snapshots[0]) == steps_in(tmp_path / "whole" / "snapshots")
