"""The same predictions on the workers of a Ray cluster, one of which is killed on the way."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import builtins
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ray = pytest.importorskip("ray", reason="predicting over Ray needs brainkit[ray]")
psutil = pytest.importorskip("psutil")
pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")

from PIL import Image
from pixel_encoder import save_images
from ray.cluster_utils import Cluster

from brainkit import encoder_file
from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.predict import Block, list_images, load, local_blocks, predict_to_file
from brainkit.predict import ray as on_ray

IMAGES, BROKEN = 200, 71


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    """A cluster of this machine: a head that computes nothing, and two nodes of one core each."""
    plain_print = builtins.print
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TQDM_PATCH_PRINT", "0")  # otherwise Ray replaces print, for later tests too
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100_000_000})
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        yield cluster
        ray.shutdown()
        cluster.shutdown()
    assert builtins.print is plain_print


@pytest.fixture(scope="module")
def folder(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder and a folder of images, of which one is broken."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "encoder.onnx").write_bytes(path.read_bytes())
    save_images(folder / "photos", IMAGES, broken=(BROKEN,))
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> tuple[bytes, Any]:
    """The output of this process: its bytes and its description."""
    predict_to_file(folder / "photos", folder / "alone.npy", folder / "encoder.onnx", batch_size=4)
    description = json.loads((folder / "alone.npy.json").read_text())
    return (folder / "alone.npy").read_bytes(), {**description, "file": None}


def workers() -> list[Any]:
    """Worker processes of this test's own cluster."""
    mine = psutil.Process().children(recursive=True)
    return [process for process in mine if "_Worker" in " ".join(process.cmdline())]


@pytest.mark.slow
def test_the_same_bytes_though_a_worker_is_killed_on_the_way(
    two_nodes: Cluster, folder: Path, alone: tuple[bytes, Any], tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if not killed and done < total and (found := workers()):
            found[0].kill()
            killed.append(found[0].pid)

    result = predict_to_file(
        folder / "photos",
        tmp_path / "fmri.npy",
        folder / "encoder.onnx",
        batch_size=4,
        engine="ray",
        workers=2,
        progress=kill,
    )
    assert killed
    assert result.n == IMAGES - 1
    assert (tmp_path / "fmri.npy").read_bytes() == alone[0]
    description = json.loads((tmp_path / "fmri.npy.json").read_text())
    assert {**description, "file": None} == alone[1]
    assert [Path(entry["path"]).name for entry in description["skipped"]] == [f"image-{BROKEN:03d}.png"]


@pytest.mark.slow
def test_a_list_with_repeats_and_with_animations(two_nodes: Cluster, folder: Path, tmp_path: Path) -> None:
    first = Image.new("RGB", (9, 9), "red")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (9, 9), "blue")])
    lines = [str(folder / "photos" / f"image-{number:03d}.png") for number in (3, 1, 3, BROKEN, 1, 3)]
    (tmp_path / "trials.txt").write_text("\n".join([*lines, "a.gif", *lines]))
    outputs, said = [], []
    for engine in ("local", "ray"):
        out = tmp_path / f"{engine}.npy"
        lines_said: list[str] = []
        predict_to_file(
            tmp_path / "trials.txt", out, folder / "encoder.onnx", batch_size=2, engine=engine, say=lines_said.append
        )
        description = json.loads(Path(f"{out}.json").read_text())
        outputs.append((out.read_bytes(), {**description, "file": None}))
        said.append(lines_said)
    assert outputs[0] == outputs[1] and said[0] == said[1] and len(said[0]) == 2
    assert outputs[0][1]["shape"][0] == 11


@pytest.mark.slow
def test_one_engine_resumes_what_the_other_began(
    two_nodes: Cluster, folder: Path, alone: tuple[bytes, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 100:
            raise Stopped

    def predict(**more: Any) -> None:
        out, file = tmp_path / "fmri.npy", folder / "encoder.onnx"
        predict_to_file(folder / "photos", out, file, batch_size=4, **more)

    with pytest.raises(Stopped):
        predict(progress=stop)
    seen: list[int] = []
    predict(engine="ray", workers=1, progress=lambda done, total: seen.append(done))
    assert seen[0] == 104
    assert (tmp_path / "fmri.npy").read_bytes() == alone[0]


@pytest.mark.slow
def test_some_vertices_and_a_file_that_the_workers_do_not_see(
    two_nodes: Cluster, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(folder / "encoder.onnx")
    columns = np.array([1, 7, 19])
    listed = list_images(folder / "photos")
    kept = list(local_blocks(encoder, listed, start=160, batch_size=8, columns=columns))
    (tmp_path / "own.onnx").write_bytes((folder / "encoder.onnx").read_bytes())
    encoder.path = tmp_path / "own.onnx"
    blocks = on_ray.ray_blocks(encoder, listed, start=160, batch_size=8, columns=columns, workers=1)
    first = next(blocks)
    (tmp_path / "own.onnx").unlink()  # a worker that starts from now on has what was sent along
    found = [first, *blocks]
    np.testing.assert_array_equal(np.concatenate([b.fmri for b in found]), np.concatenate([b.fmri for b in kept]))
    assert [block.done for block in found] == [block.done for block in kept]


def test_the_file_that_was_sent_along_is_used_where_no_other_is(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    digest = encoder_file.read(folder / "encoder.onnx").digest
    data = np.fromfile(folder / "encoder.onnx", np.uint8)
    monkeypatch.setattr(ray, "get", lambda reference: data)
    columns = np.array([3, 1])
    file = str(tmp_path / "elsewhere.onnx")
    worker = on_ray._Worker([None], file, digest, "cpu", 1, columns=columns)
    assert worker._encoder.info.digest == digest
    assert worker._encoder.path.parent != tmp_path
    assert not worker._encoder.path.parent.exists()  # Ray kills its workers: what they leave behind stays
    side = worker._encoder.info.preprocessing.size
    batch = np.zeros((1, side, side, 3), np.uint8)
    found = worker._encoder.run(batch, columns)
    np.testing.assert_allclose(found, worker._encoder.run(batch)[:, columns], atol=1e-6)


def test_images_that_only_this_machine_sees_are_an_error(folder: Path) -> None:
    images = list_images(folder / "photos")
    name = images.entries(3, 4)[0].name
    block = Block(4, [], np.empty((0, 1), np.float32), [(name, "gone")], [3], missing=[3])
    with pytest.raises(DataError, match=r"image-003\.png.* far;"):
        on_ray._check_visible(block, images, "far")
    on_ray._check_visible(dataclasses.replace(block, missing=[]), images, "far")  # it is broken there too


@pytest.mark.slow
def test_what_fails_on_a_worker_is_one_line(two_nodes: Cluster, folder: Path, tmp_path: Path) -> None:
    encoder = load(folder / "encoder.onnx")
    listed = list_images(folder / "photos")
    columns = np.array([5_000])  # no such vertex
    with pytest.raises(BrainkitError, match=r"^Ray: ") as caught:
        list(on_ray.ray_blocks(encoder, listed, batch_size=8, columns=columns, workers=1))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.slow
def test_more_workers_than_cores_are_refused(two_nodes: Cluster, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="2 cores, got 9"):
        predict_to_file(folder / "photos", tmp_path / "fmri.npy", folder / "encoder.onnx", engine="ray", workers=9)
    assert not list(tmp_path.iterdir())


# --- what workers get -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machines", "device", "workers", "expected"),
    [
        ([{"CPU": 16}], "cpu", None, (4, 4)),
        ([{"CPU": 16}], "cpu", 8, (8, 2)),
        ([{"CPU": 1}, {"CPU": 1}, {}], "cpu", None, (2, 1)),
        ([{"CPU": 1}, {"CPU": 1}], "cpu", 1, (1, 1)),  # not two cores, which no machine has
        ([{"CPU": 8}, {"CPU": 2}], "cpu", 3, (3, 2)),
        ([{"CPU": 6}, {"CPU": 3}], "cpu", None, (1, 4)),
        ([{"CPU": 8, "GPU": 2}, {"CPU": 64}], "cuda", None, (2, 4)),
        ([{"CPU": 2, "GPU": 4}], "cuda", 2, (2, 1)),
    ],
)
def test_workers_fit_on_the_machines(machines: Any, device: str, workers: int | None, expected: Any) -> None:
    nodes = [{"Alive": True, "Resources": machine} for machine in machines]
    pretended = SimpleNamespace(nodes=lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 99, "GPU": 99}}])
    found = on_ray._pool(pretended, device, workers)
    assert (found.workers, found.cores) == expected
    assert found.gpus == int(device == "cuda")


def test_a_cluster_without_gpus() -> None:
    pretended = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": {"CPU": 4}}])
    with pytest.raises(BrainkitError, match="GPU"):
        on_ray._pool(pretended, "cuda", None)
