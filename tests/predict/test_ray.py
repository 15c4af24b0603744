"""The same scoring on the workers of a Ray cluster, one of which is killed on the way; and outputs at addresses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

ray = pytest.importorskip("ray", reason="scoring over Ray needs brainkit[ray]")
psutil = pytest.importorskip("psutil")
pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")

import pixel_encoder as tiny  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from brainkit import encoder_file  # noqa: E402
from brainkit.predict import list_images, load, local_blocks, predict_to_file, Block  # noqa: E402
from brainkit.errors import BrainkitError, DataError, UsageError  # noqa: E402
from brainkit.predict import ray as on_ray  # noqa: E402

IMAGES, BROKEN = 200, 71


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    """A cluster of this machine: a head that computes nothing, and two nodes of one core each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), *([before] if before else [])])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100_000_000})
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder and a folder of images, of which one is broken."""
    folder = tmp_path_factory.mktemp("cluster")
    tiny.write_encoder(folder)
    (folder / "photos").mkdir()
    draw = np.random.default_rng(0)
    for number in range(IMAGES):
        picture = Image.fromarray(draw.integers(0, 256, (20, 30, 3), np.uint8))
        picture.save(folder / "photos" / f"{number:04d}.png")
    (folder / "photos" / f"{BROKEN:04d}.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def alone(place: Path) -> tuple[bytes, Any]:
    """The output of this process: its bytes and its description."""
    predict_to_file(place / "photos", place / "alone.npy", place / "encoder.onnx", batch_size=4)
    description = json.loads((place / "alone.json").read_text())
    return (place / "alone.npy").read_bytes(), {**description, "file": None}


def workers() -> list[Any]:
    """Processes of this test's own cluster that score."""
    mine = psutil.Process().children(recursive=True)
    return [process for process in mine if "_Worker" in " ".join(process.cmdline())]


def test_the_same_bytes_though_a_worker_is_killed_on_the_way(
    two_nodes: Cluster, place: Path, alone: tuple[bytes, Any], tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if not killed and done < total and (found := workers()):
            found[0].kill()
            killed.append(found[0].pid)

    result = predict_to_file(
        place / "photos",
        tmp_path / "fmri.npy",
        place / "encoder.onnx",
        batch_size=4,
        engine="ray",
        workers=2,
        progress=kill,
    )
    assert killed
    assert result.n == IMAGES - 1
    assert (tmp_path / "fmri.npy").read_bytes() == alone[0]
    description = json.loads((tmp_path / "fmri.json").read_text())
    assert {**description, "file": None} == alone[1]
    assert [Path(entry["path"]).name for entry in description["skipped"]] == [f"{BROKEN:04d}.png"]


def test_one_engine_goes_on_with_what_the_other_began(
    two_nodes: Cluster, place: Path, alone: tuple[bytes, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 100:
            raise Stopped

    def predict(**more: Any) -> None:
        out, file = tmp_path / "fmri.npy", place / "encoder.onnx"
        predict_to_file(place / "photos", out, file, batch_size=4, **more)

    with pytest.raises(Stopped):
        predict(progress=stop)
    seen: list[int] = []
    predict(engine="ray", workers=1, progress=lambda done, total: seen.append(done))
    assert seen[0] == 104
    assert (tmp_path / "fmri.npy").read_bytes() == alone[0]


def test_some_vertices_and_a_file_that_the_workers_do_not_see(
    two_nodes: Cluster, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(place / "encoder.onnx")
    columns = np.array([1, 7, 19])
    listed = list_images(place / "photos")
    kept = list(local_blocks(encoder, listed, start=160, batch_size=8, columns=columns))
    (tmp_path / "own.onnx").write_bytes((place / "encoder.onnx").read_bytes())
    encoder.path = tmp_path / "own.onnx"
    blocks = on_ray.ray_blocks(encoder, listed, start=160, batch_size=8, columns=columns, workers=1)
    first = next(blocks)
    (tmp_path / "own.onnx").unlink()  # a worker that starts from now on has what was sent along
    found = [first, *blocks]
    np.testing.assert_array_equal(np.concatenate([b.fmri for b in found]), np.concatenate([b.fmri for b in kept]))
    assert [block.done for block in found] == [block.done for block in kept]


def test_the_file_that_was_sent_along_is_used_where_no_other_is(place: Path, tmp_path: Path, monkeypatch: Any) -> None:
    digest = encoder_file.read(place / "encoder.onnx").digest
    data = np.fromfile(place / "encoder.onnx", np.uint8)
    monkeypatch.setattr(ray, "get", lambda reference: data)
    columns = np.array([3, 1])
    file = str(tmp_path / "elsewhere.onnx")
    worker = on_ray._Worker([None], file, digest, "cpu", {"cores": 1}, columns=columns)
    assert worker._encoder.info.digest == digest
    assert worker._encoder.path.parent != tmp_path
    assert not worker._encoder.path.parent.exists()  # Ray kills its workers: what they leave behind stays
    side = worker._encoder.info.preprocessing.size
    batch = np.zeros((1, side, side, 3), np.uint8)
    found = worker._encoder.run(batch, columns)
    np.testing.assert_allclose(found, worker._encoder.run(batch)[:, columns], atol=1e-6)


def test_images_that_only_this_machine_sees_are_an_error(place: Path) -> None:
    listed = list_images(place / "photos")
    name = listed.entries(3, 4)[0].name
    block = Block(4, [], np.empty((0, 1), np.float32), [(name, "file not found")], [3])
    with pytest.raises(DataError, match=r"0003\.png: is here, but not on the worker far; put the images on a disk"):
        on_ray._check_seen(block, listed, "far")
    on_ray._check_seen(Block(4, [], block.fmri, [(name, "expected an image")], [3]), listed, "far")


def test_what_fails_on_a_worker_is_one_line(two_nodes: Cluster, place: Path, tmp_path: Path) -> None:
    encoder = load(place / "encoder.onnx")
    listed = list_images(place / "photos")
    columns = np.array([5_000])  # no such vertex
    with pytest.raises(BrainkitError, match=r"^Ray: ") as caught:
        list(on_ray.ray_blocks(encoder, listed, batch_size=8, columns=columns, workers=1))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_requests_that_cannot_be(two_nodes: Cluster, place: Path, tmp_path: Path) -> None:
    def predict(**more: Any) -> None:
        predict_to_file(place / "photos", tmp_path / "fmri.npy", place / "encoder.onnx", **more)

    with pytest.raises(UsageError, match="engine must be one of local, ray, got 'spark'"):
        predict(engine="spark")
    with pytest.raises(UsageError, match="workers are of the engine ray"):
        predict(workers=2)
    with pytest.raises(UsageError, match="workers must be at most the cluster's 2 cores, got 9"):
        predict(engine="ray", workers=9)
    assert not list(tmp_path.iterdir())


# --- addresses --------------------------------------------------------------------------------------------------


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """fsspec's file system in memory, and a cache of our own."""
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "cache"))
    system = pytest.importorskip("fsspec").filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.mark.parametrize("suffix", [".npy", ".zarr", ".csv"])
def test_outputs_at_an_address(place: Path, memory: Any, tmp_path: Path, suffix: str) -> None:
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    address = f"memory://bucket/results/fmri{suffix}"
    here = tmp_path / f"fmri{suffix}"
    predict_to_file(place / "photos", here, place / "encoder.onnx", batch_size=4)
    result = predict_to_file(place / "photos", address, place / "encoder.onnx", batch_size=4)
    assert result.path == address and result.n == IMAGES - 1
    local = [path for path in (here.rglob("*") if here.is_dir() else [here]) if path.is_file()]
    for path in [*local, tmp_path / "fmri.json"]:
        name = path.relative_to(tmp_path).as_posix()
        assert memory.cat_file(f"/bucket/results/{name}") == path.read_bytes(), name
    assert not list((tmp_path / "cache" / "outputs").iterdir())
    with pytest.raises(UsageError, match="exists already; --overwrite replaces it"):
        predict_to_file(place / "photos", address, place / "encoder.onnx")
    again = predict_to_file(place / "photos" / "0001.png", address, place / "encoder.onnx", overwrite=True)
    assert again.n == 1
    assert json.loads(memory.cat_file("/bucket/results/fmri.json"))["shape"][0] == 1


def test_contact_sheets_are_sent_too(place: Path, memory: Any) -> None:
    result = predict_to_file(place / "photos", "memory://bucket/fmri.npy", place / "encoder.onnx", rois=["PPA"], top=2)
    assert result.sheets == ("memory://bucket/fmri-top-PPA.png",)
    assert memory.cat_file("/bucket/fmri-top-PPA.png").startswith(b"\x89PNG")


def test_images_and_output_elsewhere(place: Path, memory: Any, alone: tuple[bytes, Any]) -> None:
    for path in sorted((place / "photos").iterdir()):
        memory.pipe_file(f"/photos/{path.name}", path.read_bytes())
    predict_to_file("memory://photos", "memory://results/fmri.npy", place / "encoder.onnx", batch_size=4)
    assert memory.cat_file("/results/fmri.npy") == alone[0]


def test_what_cannot_be_sent_is_not_lost(place: Path, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, path: str, address: str, **more: Any) -> None:
        raise OSError("no room in the bucket")

    monkeypatch.setattr(type(memory), "put_file", refuse)
    monkeypatch.setattr(scoring.remote, "_PAUSE", 0.001)
    address = "memory://bucket/fmri.npy"
    with pytest.raises(
        DataError, match="cannot be written: no room in the bucket; the output is complete in "
    ) as caught:
        predict_to_file(place / "photos", address, place / "encoder.onnx", batch_size=4)
    folder = Path(str(caught.value).split("complete in ")[1].removesuffix(", send it from there"))
    assert np.load(folder / "fmri.npy").shape == (IMAGES - 1, tiny.V)
    assert (folder / "fmri.json").is_file()


def test_an_interrupted_output_at_an_address_goes_on(place: Path, memory: Any, alone: tuple[bytes, Any]) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 100:
            raise Stopped

    address = "memory://bucket/fmri.npy"
    with pytest.raises(Stopped):
        predict_to_file(place / "photos", address, place / "encoder.onnx", batch_size=4, progress=stop)
    said: list[str] = []
    predict_to_file(place / "photos", address, place / "encoder.onnx", batch_size=4, say=said.append)
    assert any("goes on after" in line for line in said)
    assert memory.cat_file("/bucket/fmri.npy") == alone[0]


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
    assert (found["workers"], found["cores"]) == expected
    assert found["gpus"] == int(device == "cuda")


def test_a_cluster_with_nothing_to_score_with() -> None:
    pretended = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": {"CPU": 4}}])
    with pytest.raises(BrainkitError, match="the cluster has no GPUs to score with"):
        on_ray._pool(pretended, "cuda", None)
