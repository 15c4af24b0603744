"""The maps of runs and evaluations, read from folders made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import brainkit
from brainkit.cortex.vertices import Vertices
from brainkit.cortex.volume import Volume
from brainkit.errors import DataError, UsageError
from brainkit.runs.draw import draw_all, draw_if_possible
from brainkit.runs.folder import write_volume
from brainkit.runs.map_sets import open_map_sets
from brainkit.utils.files import write_json

V = 30
SUMMARY = {
    "backbone": {"name": "net", "pretrained": True},
    "note": None,
    "gauge": "unit",
    "space": "fsaverage5",
    "scores": {"images": 50, "all": {"vertices": V, "r": 0.6, "R2": 0.3}},
}


def make_run(folder: Path, space: str = "fsaverage5", R2: float = 0.3, scores: bool = True) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    arrays = {"layer_weights": np.full((V, 2), 0.5), "locations": np.zeros((V, 2)), "scale": np.full(V, 0.5)}
    about = {"vertices": np.arange(V, dtype=np.int32), "space": np.array(space), "layers": np.array(["a", "b"])}
    np.savez(folder / "selectors.npz", **arrays, **about)
    if scores:
        np.savez(folder / "scores.npz", r=np.full(V, 0.6), R2=np.full(V, R2), noise_ceiling=np.full(V, np.nan))
    write_json(folder / "rois.json", {"early": [0, 1, 2]})
    write_json(folder / "run.json", SUMMARY | {"space": space})
    return folder


def test_a_run(tmp_path: Path) -> None:
    (maps,) = open_map_sets(make_run(tmp_path / "run")).values()
    assert maps.names == ("accuracy", "layer", "location", "scale") and maps.title == "net"
    assert "50 test images" in maps["accuracy"].detail and list(maps.rois) == ["early"]


def test_a_run_without_scores_has_its_other_maps(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", scores=False)
    write_json(run / "run.json", {name: value for name, value in SUMMARY.items() if name != "scores"})
    (maps,) = open_map_sets(run).values()
    assert maps.names == ("layer", "location", "scale")
    assert "net" in brainkit.Run.open(run)._repr_html_()


def test_subjects_of_a_run_share_their_limits(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name, R2 in (("one", 0.1), ("two", 0.7)):
        make_run(run / name, R2=R2)
    (run / "config.yaml").write_text("")
    write_json(run / "run.json", {"subjects": {"one": {}, "two": {}}})
    sets = open_map_sets(run)
    assert list(sets) == ["one", "two"] and sets["one"].title == "net, one"
    assert sets["one"]["accuracy"].coding == sets["two"]["accuracy"].coding
    with pytest.raises(UsageError, match="one, two"):
        brainkit.plot("layer", run)


def test_an_evaluation_in_a_run_has_its_regions(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run") / "evaluation"
    draw = np.random.default_rng(0)
    found = brainkit.evaluate(draw.random((12, V)), draw.random((12, V)), bootstrap=0, permutations=20)
    run = brainkit.Run.open(tmp_path / "run")
    (whole,) = open_map_sets(run.path).values()
    found.save(folder, whole.vertices, {"encoder": {"file": "e.onnx"}, "split": {"name": "test"}}, ["careful"])
    (maps,) = open_map_sets(folder).values()
    assert maps.names == ("correlation", "significance") and maps.title == "e.onnx, test"
    assert list(maps.rois) == ["early"] and maps.note == "careful"


def test_an_evaluation_of_voxels_has_the_volume_of_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", space="custom")
    voxels = np.stack(np.unravel_index(np.arange(V), (5, 3, 2)), axis=1)
    write_volume(run / "volume.npz", Volume((5, 3, 2), np.eye(4), voxels))
    draw = np.random.default_rng(0)
    for count, known in ((V, True), (V - 5, False)):  # some vertices of a custom space are numbered anew
        found = brainkit.evaluate(draw.random((12, count)), draw.random((12, count)), bootstrap=0, permutations=20)
        found.save(run / f"evaluation-{count}", Vertices.custom(count), {}, [])
        (maps,) = open_map_sets(run / f"evaluation-{count}").values()
        assert maps.is_drawable == known and ("early" in maps.rois) == known


def test_half_a_run_is_told_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "selectors.npz").write_bytes(b"PK half")
    with pytest.raises(DataError, match="selectors"):
        open_map_sets(run)
    (run / "selectors.npz").unlink()
    with pytest.raises(DataError, match="selectors"):
        open_map_sets(run)
    assert "<img" not in brainkit.Run.open(run)._repr_html_()
    (run / "run.json").unlink()
    with pytest.raises(DataError, match="--resume"):
        open_map_sets(run)


@pytest.mark.slow
def test_voxels_are_drawn_where_their_volume_is_known(tmp_path: Path) -> None:
    pytest.importorskip("nilearn")
    run = make_run(tmp_path / "run", space="custom")
    lines: list[str] = []
    draw_if_possible(run, lines.append)
    assert len(lines) == 1 and not (run / "maps").exists()
    with pytest.raises(UsageError, match="surface"):
        draw_all([run], say=lines.append)
    assert not (run / "maps").exists()
    voxels = np.stack(np.unravel_index(np.arange(V), (5, 3, 2)), axis=1)
    np.savez(run / "volume.npz", shape=np.array([5, 3, 2]), affine=np.diag([2.0, 2.0, 2.0, 1.0]), voxels=voxels)
    draw_if_possible(run, lines.append)
    assert (run / "maps" / "layer.png").is_file() and len(lines) == 2
