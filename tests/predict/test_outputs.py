"""Every format that predictions are written in: read back by those who own it, the same numbers, resumable, bounded."""

from __future__ import annotations

import csv
import dataclasses
import doctest
import json
import os
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

import nibabel
from click.testing import CliRunner
from pixel_encoder import SIZE, V, make_graph, make_info, write_encoder

import brainkit
from brainkit import encoder_file
from brainkit import predict as scoring
from brainkit.cli import group
from brainkit.cortex.surface import RoiTable, Vertices
from brainkit.cortex.volume import Volume
from brainkit.data import Folder
from brainkit.encoder_file import EncoderInfo
from brainkit.errors import BrainkitError, DataError, MissingDependency, UsageError
from brainkit.predict import encoder as encoder_module
from brainkit.predict.outputs import formats as outputs
from brainkit.predict.outputs.brain_images import Place, StagedRows
from brainkit.predict.outputs.csv import RoiMeanRows, region_means
from brainkit.predict.outputs.npz import NpzRows

N = 10
AFFINE = [[2.0, 0, 0, -10], [0, 0, 2.0, 4], [0, -2.0, 0, 7], [0, 0, 0, 1]]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def encoder(path: Path) -> scoring.Encoder:
    return scoring.load(path, "cpu")


@pytest.fixture(scope="module")
def volume_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same encoder, its columns voxels."""
    rng = np.random.default_rng(5)
    voxels = np.stack(np.unravel_index(rng.choice(4 * 5 * 6, V, replace=False), (4, 5, 6)), axis=1)
    volume = Volume((4, 5, 6), np.array(AFFINE), voxels)
    path = tmp_path_factory.mktemp("volume") / "encoder.onnx"
    info = dataclasses.replace(make_info(), vertices=Vertices.custom(V), volume=volume)
    encoder_file.write(path, make_graph(), info)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images, and one file that is none."""
    rng = np.random.default_rng(1)
    folder = tmp_path_factory.mktemp("photos")
    for index in range(N):
        pixels = rng.integers(0, 256, (9 + index, 14, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"image-{index:02d}.png")
    (folder / "image-03b.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def expected(encoder: scoring.Encoder, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The rows as .npy has them, which tests of their own compare with the definition."""
    out = tmp_path_factory.mktemp("expected") / "fmri.npy"
    predict(photos, out, encoder)
    return np.load(out)


def predict(photos: Path, out: Path, encoder: Any, **options: Any) -> tuple[scoring.PredictResult, dict[str, Any]]:
    done = scoring.predict_to_file(photos, out, encoder, batch_size=4, **options)
    said = json.loads(scoring.description_path(out).read_text("utf-8"))
    assert done.n == len(said["images"]) == N
    assert [Path(entry["path"]).name for entry in said["skipped"]] == ["image-03b.png"]
    assert said["note"] == "simulated" and said["units"] == "z-scored percent signal change"
    return done, said


def on_surface(rows: np.ndarray, info: EncoderInfo, hemisphere: int) -> np.ndarray:
    """(n, V) -> (vertices of the hemisphere, n), by the vertices' own method."""
    return np.stack([info.vertices.to_surface(row)[hemisphere] for row in rows], axis=1)


def test_npz(encoder: scoring.Encoder, photos: Path, expected: np.ndarray, tmp_path: Path) -> None:
    predict(photos, tmp_path / "fmri.npz", encoder)
    with np.load(tmp_path / "fmri.npz") as found:
        np.testing.assert_array_equal(found["fmri"], expected)
        np.testing.assert_array_equal(found["vertices"], encoder.vertices.ids)
        assert [Path(name).name for name in found["images"]] == [f"image-{index:02d}.png" for index in range(N)]
        assert (str(found["space"]), str(found["units"])) == ("fsaverage5", "z-scored percent signal change")
    with zipfile.ZipFile(tmp_path / "fmri.npz") as archive:
        assert archive.testzip() is None
        assert {member.date_time[0] for member in archive.infolist()} == {1980}  # the clock leaves no trace
    assert sorted(os.listdir(tmp_path)) == ["fmri.json", "fmri.npz"]


def test_hemispheres_as_the_challenge_takes_them(
    encoder: scoring.Encoder, photos: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    _, said = predict(photos, tmp_path / "pred_test.npy", encoder, hemispheres=True)
    left, right = (np.load(tmp_path / f"{side}_pred_test.npy") for side in ("lh", "rh"))
    assert left.dtype == right.dtype == np.float32
    np.testing.assert_array_equal(left, expected[:, :11])
    np.testing.assert_array_equal(right, expected[:, 11:])
    assert said["file"] == ["lh_pred_test.npy", "rh_pred_test.npy"]
    assert [part["columns"] for part in said["hemispheres"]] == [[0, 11], [11, 20]]
    assert sorted(os.listdir(tmp_path)) == ["lh_pred_test.npy", "pred_test.json", "rh_pred_test.npy"]
    with pytest.raises(UsageError, match=r"lh_pred_test\.npy: exists already"):
        scoring.predict_to_file(photos, tmp_path / "pred_test.npy", encoder, hemispheres=True)
    with pytest.raises(UsageError, match=r"--hemispheres is for \.npy"):
        scoring.predict_to_file(photos, tmp_path / "fmri.npz", encoder, hemispheres=True)


@pytest.mark.parametrize("suffix", [".func.gii", ".mgz"])
def test_surfaces_are_read_by_nibabel_and_nilearn(
    encoder: scoring.Encoder, photos: Path, expected: np.ndarray, tmp_path: Path, suffix: str
) -> None:
    surface = pytest.importorskip("nilearn.surface")
    _, said = predict(photos, tmp_path / f"fmri{suffix}", encoder)
    assert said["file"] == [f"lh.fmri{suffix}", f"rh.fmri{suffix}"]
    for hemisphere, side in enumerate(("lh", "rh")):
        file = tmp_path / f"{side}.fmri{suffix}"
        whole = on_surface(expected, encoder.info, hemisphere)
        np.testing.assert_array_equal(surface.load_surf_data(str(file)), whole)
        image: Any = nibabel.load(file)
        if suffix == ".mgz":
            assert image.shape == (10_242, 1, 1, N) and image.get_data_dtype() == np.dtype(">f4")
            np.testing.assert_array_equal(np.asarray(image.dataobj)[:, 0, 0], whole)
        else:
            assert image.meta["AnatomicalStructurePrimary"] == ("CortexLeft", "CortexRight")[hemisphere]
            assert [Path(array.meta["Name"]).name for array in image.darrays][3] == "image-03.png"
            np.testing.assert_array_equal(np.stack([array.data for array in image.darrays], axis=1), whole)
    assert sorted(os.listdir(tmp_path)) == ["fmri.json", f"lh.fmri{suffix}", f"rh.fmri{suffix}"]


def test_a_hemisphere_without_vertices_has_no_file(encoder: scoring.Encoder, photos: Path, tmp_path: Path) -> None:
    _, said = predict(photos, tmp_path / "v1.mgz", encoder, rois=["V1"])  # 1000, 3000, 7000: all on the left
    assert said["file"] == ["lh.v1.mgz"]
    assert sorted(os.listdir(tmp_path)) == ["lh.v1.mgz", "v1.json"]


def test_nifti_holds_the_voxels(volume_path: Path, photos: Path, expected: np.ndarray, tmp_path: Path) -> None:
    info = encoder_file.read(volume_path)
    assert info.volume is not None and info.volume.shape == (4, 5, 6)
    predict(photos, tmp_path / "fmri.nii.gz", scoring.load(volume_path, "cpu"))
    image: Any = nibabel.load(tmp_path / "fmri.nii.gz")
    assert image.shape == (4, 5, 6, N)
    np.testing.assert_array_equal(image.affine, AFFINE)
    values = image.get_fdata(dtype=np.float32)
    np.testing.assert_array_equal(values[tuple(info.volume.voxels.T)], expected.T)
    assert np.isnan(values).sum() == (4 * 5 * 6 - V) * N
    predict(photos, tmp_path / "ppa.nii.gz", scoring.load(volume_path, "cpu"), rois=["PPA"])
    some: Any = nibabel.load(tmp_path / "ppa.nii.gz")
    values = some.get_fdata(dtype=np.float32)
    np.testing.assert_allclose(values[tuple(info.volume.voxels[[1, 19]].T)], expected[:, [1, 19]].T, atol=1e-6)
    assert np.isfinite(values).sum() == 2 * N


def test_zarr(encoder: scoring.Encoder, photos: Path, expected: np.ndarray, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    predict(photos, tmp_path / "fmri.zarr", encoder)
    array = zarr.open_array(tmp_path / "fmri.zarr", mode="r")
    assert array.metadata.zarr_format == 3 and array.shape == (N, V) and array.dtype == np.float32
    np.testing.assert_array_equal(array[:], expected)
    assert array.attrs["vertices"] == encoder.vertices.ids.tolist()
    assert (array.attrs["units"], array.attrs["space"]) == ("z-scored percent signal change", "fsaverage5")
    with pytest.raises(UsageError, match="exists already"):
        scoring.predict_to_file(photos, tmp_path / "fmri.zarr", encoder)
    predict(photos, tmp_path / "fmri.zarr", encoder, overwrite=True, rois=["PPA"])
    assert zarr.open_array(tmp_path / "fmri.zarr", mode="r").shape == (N, 2)
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "precious").touch()
    with pytest.raises(UsageError, match="is a folder that is no Zarr array"):
        scoring.predict_to_file(photos, tmp_path / "mine.zarr", encoder, overwrite=True)
    assert (tmp_path / "mine.zarr" / "precious").exists()


def test_zarr_that_is_not_installed(photos: Path, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingDependency, match=r"brainkit\[zarr\]"):
        scoring.predict_to_file(photos, tmp_path / "fmri.zarr", path)
    assert os.listdir(tmp_path) == []


def test_means_by_region(encoder: scoring.Encoder, photos: Path, expected: np.ndarray, tmp_path: Path) -> None:
    _, said = predict(photos, tmp_path / "means.csv", encoder)
    rows = list(csv.DictReader((tmp_path / "means.csv").open(newline="", encoding="utf-8")))
    assert list(rows[0]) == ["image", "V1v", "V1d", "PPA"] == said["columns"]  # a region without vertices has no mean
    assert said["shape"] == [N, 3]
    assert [row["image"] for row in rows] == said["images"]
    for name, index in (("V1v", [1, 3]), ("V1d", [7]), ("PPA", [1, 19])):
        np.testing.assert_allclose([float(row[name]) for row in rows], expected[:, index].mean(1), atol=1e-6)
    predict(photos, tmp_path / "v1.csv", encoder, rois=["V1", "ppa"])
    rows = list(csv.DictReader((tmp_path / "v1.csv").open(newline="", encoding="utf-8")))
    np.testing.assert_allclose([float(row["V1"]) for row in rows], expected[:, [1, 3, 7]].mean(1), atol=1e-6)
    with pytest.raises(UsageError, match="absent: has no vertices in this encoder, so it has no mean"):
        scoring.predict_to_file(photos, tmp_path / "no.csv", encoder, rois=["V1", "absent"])


def test_names_in_tables_survive(tmp_path: Path) -> None:
    names = ['a,"b".png', "line\nbreak.png", "ünï.png", " space.png", "car\rriage.png"]
    regions = {"all": np.arange(3), "two, three": np.array([1, 2])}
    rows = np.float32([[1 / 3, 2, 3], [1e-30, 0, 1], [np.nan, 1, 2], [-1, -2, -3], [1e30, 1, 1]])
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    for path, stop in ((whole, 5), (cut, 3)):
        writer = RoiMeanRows(path, regions)
        writer.append(rows[:stop], names[:stop])
        assert writer.checkpoint() == stop
        writer.close()
    for kept in (3, 2, 1):  # whatever follows the rows kept is cut off, within quotes or not
        writer = RoiMeanRows(cut, regions, kept)
        writer.append(rows[kept:], names[kept:])
        writer.finish()
        writer.close()
        assert cut.read_bytes() == whole.read_bytes()
    found = list(csv.reader(whole.open(newline="", encoding="utf-8")))
    assert [row[0] for row in found] == ["image", *names]
    means = region_means(rows, regions)
    np.testing.assert_array_equal(np.float32([[float(value) for value in row[1:]] for row in found[1:]]), means)
    with pytest.raises(DataError, match="expected 9 rows to go on from, found 5"):
        RoiMeanRows(cut, regions, 9)


FORMATS = [".npy", ".npz", ".csv", ".zarr", ".func.gii", ".mgz", "hemispheres"]


def written(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_interrupted_goes_on_with_the_same_bytes(
    encoder: scoring.Encoder, photos: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == ".zarr":
        pytest.importorskip("zarr")
        from brainkit.predict.outputs import zarr as zarr_rows

        monkeypatch.setattr(zarr_rows, "CHUNK_BYTES", 3 * 4 * 4)  # three rows of the four columns a chunk
    options: dict[str, Any] = {"rois": ["V1", "PPA"], "top": 2, "hemispheres": form == "hemispheres"}
    name = "fmri.npy" if form == "hemispheres" else f"fmri{form}"
    for folder in ("whole", "parts"):
        (tmp_path / folder).mkdir()
    predict(photos, tmp_path / "whole" / name, encoder, **options)

    def stop(done: int, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scoring.predict_to_file(photos, tmp_path / "parts" / name, encoder, batch_size=4, progress=stop, **options)
    assert os.listdir(tmp_path / "parts") == [f".{name}.partial"]
    with pytest.raises(UsageError, match="unfinished output of other files or contact sheets"):
        scoring.predict_to_file(photos, tmp_path / "parts" / name, encoder, **(options | {"top": 3}))
    predict(photos, tmp_path / "parts" / name, encoder, **options)
    assert written(tmp_path / "parts") == written(tmp_path / "whole")


@pytest.mark.parametrize("form", FORMATS)
def test_a_failure_leaves_nothing_half_written(
    encoder: scoring.Encoder, photos: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == ".zarr":
        pytest.importorskip("zarr")

    def full(*given: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    name = "fmri.npy" if form == "hemispheres" else f"fmri{form}"
    options: dict[str, Any] = {"hemispheres": form == "hemispheres", "batch_size": 4}
    monkeypatch.setattr("brainkit.predict.write_description", full)
    with pytest.raises(BrainkitError, match="No space left"):
        scoring.predict_to_file(photos, tmp_path / name, encoder, **options)
    assert os.listdir(tmp_path) == [f".{name}.partial"]
    monkeypatch.undo()
    predict(photos, tmp_path / name, encoder, hemispheres=form == "hemispheres")  # finished rows are finished again
    assert not [left for left in os.listdir(tmp_path) if left.startswith(".")]


def test_formats_that_do_not_suit(path: Path, volume_path: Path, photos: Path, tmp_path: Path) -> None:
    cases: list[tuple[Path, str, dict[str, Any], str]] = [
        (path, "fmri.nii.gz", {}, "needs an encoder of volumetric data"),
        (volume_path, "fmri.mgz", {}, r"\.mgz needs an fsaverage space"),
        (volume_path, "fmri.func.gii", {}, r"\.func\.gii needs an fsaverage space"),
        (volume_path, "fmri.npy", {"hemispheres": True}, "--hemispheres needs an fsaverage space"),
        (path, "fmri.tif", {}, r"must end in \.npy, \.npz, \.csv, \.zarr, \.func\.gii, \.mgz, \.nii\.gz"),
        (path, "fmri.gii", {}, "must end in"),
        (path, "fmri.nii", {}, "must end in"),
        (path, ".npz", {}, "must end in"),
    ]
    for encoder, name, options, words in cases:
        with pytest.raises(UsageError, match=words) as caught:
            scoring.predict_to_file(photos, tmp_path / name, encoder, device="cpu", **options)
        assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_means_need_regions(photos: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.onnx"
    encoder_file.write(bare, make_graph(), dataclasses.replace(make_info(), rois=RoiTable({}, V)))
    with pytest.raises(UsageError, match="has no ROI table"):
        scoring.predict_to_file(photos, tmp_path / "means.csv", bare, device="cpu")


WRITERS: dict[str, Callable[[Path], outputs.RowWriter]] = {
    ".npz": lambda path: NpzRows(path, 1000, {}),
    ".func.gii": lambda path: StagedRows(
        path.with_suffix(".rows"), 1000, [Place(path, slice(None), np.arange(1000), 1500, "CortexLeft")], ".func.gii"
    ),
    ".mgz": lambda path: StagedRows(
        path.with_suffix(".rows"), 1000, [Place(path, slice(None), np.arange(1000), 1500)], ".mgz"
    ),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, suffix: str) -> None:
    """40 MB of rows within a few: what is held is a block, a map and the names."""
    block = np.random.default_rng(0).random((200, 1000), np.float32).round(2)
    names = [f"image-{index}.png" for index in range(50 * len(block))]
    writer = WRITERS[suffix](tmp_path / f"large{suffix}")
    tracemalloc.start()
    try:
        for start in range(0, len(names), len(block)):
            writer.append(block, names[start : start + len(block)])
            if suffix != ".npz" and start >= 9 * len(block):  # compressing all would take long; the blocks are the same
                names = names[: start + len(block)]
                break
        writer.finish(names)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        writer.close()
    assert peak < 14e6
    assert (tmp_path / f"large{suffix}").stat().st_size > 1e6


def test_own_volumetric_data(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for index in range(6):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{index}.png")
    responses = rng.normal(size=(6, 5)).astype(np.float32)
    responses[:, 2] = 1.0  # constant: left out, of the volume too
    np.save(tmp_path / "responses.npy", responses)
    voxels = np.array([[0, 0, 0], [1, 2, 3], [3, 4, 5], [2, 0, 1], [0, 4, 0]])
    affine = np.array(AFFINE)
    np.save(tmp_path / "coordinates.npy", voxels @ affine[:3, :3].T + affine[:3, 3])
    place = tmp_path / "volume.json"
    place.write_text(json.dumps({"shape": [4, 5, 6], "affine": AFFINE}))
    volume = Folder(tmp_path).volume
    assert volume is not None
    np.testing.assert_array_equal(volume.voxels, voxels[[0, 1, 3, 4]])
    for value, words in (
        ({"shape": [4, 5, 6], "affine": np.eye(4).tolist()}, "must lie within"),
        ({"shape": [3, 5, 6], "affine": AFFINE}, "must lie within"),
        ({"shape": [4, 5, 6], "affine": [*(np.array(AFFINE[:3]) * 1.3).tolist(), [0, 0, 0, 1]]}, "centres of voxels"),
        ({"shape": [4, 5], "affine": AFFINE}, "shape must be three"),
        ({"shape": [4, 5, 6], "affine": np.zeros((4, 4)).tolist()}, "the last 0 0 0 1"),
        ([], "shape must be three|affine must be"),
    ):
        place.write_text(json.dumps(value))
        with pytest.raises(DataError, match=words) as caught:
            Folder(tmp_path)
        assert str(caught.value).startswith(str(place))
    place.write_text(json.dumps({"shape": [4, 5, 6], "affine": AFFINE}))
    (tmp_path / "vertices.json").write_text(json.dumps({"space": "fsaverage5", "ids": [0, 1, 2, 3, 4]}))
    with pytest.raises(DataError, match="no fsaverage vertices beside it"):
        Folder(tmp_path)


def test_a_run_keeps_its_volume(volume_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from brainkit.runs import folder as run_folder

    volume = encoder_file.read(volume_path).volume
    assert volume is not None and run_folder.read_volume(tmp_path / "volume.npz") is None
    run_folder.write_volume(tmp_path / "volume.npz", volume)
    kept = run_folder.read_volume(tmp_path / "volume.npz")
    assert kept is not None and kept.shape == volume.shape
    np.testing.assert_array_equal(kept.affine, volume.affine)
    np.testing.assert_array_equal(kept.voxels, volume.voxels)


def test_a_file_that_lies_about_its_volume(volume_path: Path) -> None:
    info = encoder_file.read(volume_path)
    text = json.loads(encoder_file.to_json(info))
    for change, words in (
        ({"shape": [1, 1, 1]}, "must lie within"),
        ({"affine": "x"}, "affine must be"),
        ({"shape": [10**9, 1, 1]}, "shape must be"),
        ({"voxels": encoder_file.pack_array(np.zeros((V, 3), np.int32))}, "no two columns"),
        ({"voxels": encoder_file.pack_array(np.zeros((V - 1, 3), np.int32))}, "must have shape"),
    ):
        lying = text | {"volume": text["volume"] | change}
        with pytest.raises(brainkit.errors.EncoderFileError, match=words):
            encoder_file.from_json(json.dumps(lying), source="lying.onnx")


def test_the_python_interface_gives_parts_and_means(
    encoder: scoring.Encoder, photos: Path, expected: np.ndarray
) -> None:
    paths = sorted(photos.glob("image-??.png"))
    columns = [1, 3, 7, 19]
    np.testing.assert_allclose(encoder.predict(paths, 3, rois=["V1", "PPA"]), expected[:, columns], atol=1e-6)
    means = encoder.roi_means(paths, ["V1", "PPA"], batch_size=3)
    np.testing.assert_allclose(means["V1"], expected[:, [1, 3, 7]].mean(1), atol=1e-6)
    np.testing.assert_allclose(means["PPA"], expected[:, [1, 19]].mean(1), atol=1e-6)
    assert encoder.roi_means([], ["V1"])["V1"].shape == (0,)
    pictures = [np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)]
    assert {one.name for one in encoder.top(pictures, "V1", k=2)} == {"images[0]", "images[1]"}
    with pytest.raises(DataError, match="image-03b"):
        encoder.roi_means(photos)
    with pytest.raises(UsageError, match="V9"):
        encoder.predict(paths, rois=["V9"])
    with pytest.raises(UsageError, match="1 to 100"):
        encoder.top(paths, "V1", k=0)


def test_the_examples_in_the_docstrings(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("encoder.onnx").write_bytes(path.read_bytes())
    encoder = brainkit.load("encoder.onnx", "cpu")
    rng = np.random.default_rng(3)
    pictures = [rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for _ in range(3)]
    order = np.argsort(-encoder.roi_means(pictures, ["PPA"])["PPA"])
    Path("photos").mkdir()
    for name, index in zip("abc", order, strict=True):
        Image.fromarray(pictures[index]).save(f"photos/{name}.png")
    finder = doctest.DocTestFinder(recurse=True)
    found = [test for test in finder.find(encoder_module.Encoder, "Encoder") if test.examples]
    assert len(found) == 4
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in found:
        said: list[str] = []
        test.globs = {"brainkit": brainkit, "np": np, "encoder": encoder}
        runner.run(test, out=said.append)
        assert not said, "".join(said)


def test_the_examples_of_the_page_on_scoring(
    encoder: scoring.Encoder, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nilearn")
    monkeypatch.chdir(tmp_path)
    regions = RoiTable({"V1v": [1, 3], "V2d": [7], "FFA-1": [1, 19]}, V)
    encoder_file.write("encoder.onnx", make_graph(), dataclasses.replace(make_info(), rois=regions))
    images = sorted(photos.glob("image-??.png"))
    for folder, some in (("photos", images), ("faces", images[:5]), ("places", images[5:])):
        Path(folder).mkdir()
        for image in some:
            (Path(folder) / image.name).write_bytes(image.read_bytes())
    for suffix in (".func.gii", ".mgz"):
        scoring.predict_to_file("photos", f"fmri{suffix}", encoder, overwrite=True)
    page = (Path(__file__).resolve().parents[2] / "docs" / "scoring.md").read_text("utf-8")
    blocks = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    assert len(blocks) >= 2
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    np.testing.assert_array_equal(names["left"], names["same"])
    assert names["early"].shape == (N, 3) and names["left"].shape == (10_242, N)
    # Every suffix that can be written is in the page's table.
    assert all(f"{suffix}`" in page for suffix in outputs.FORMATS)


def test_the_options_of_the_command(path: Path, photos: Path, tmp_path: Path) -> None:
    command = ["predict", str(photos), "--encoder", str(path), "--out"]
    done = CliRunner().invoke(group, [*command, str(tmp_path / "pred_test.npy"), "--hemispheres"])
    assert done.exit_code == 0, done.output
    files = ", ".join(str(tmp_path / name) for name in ("lh_pred_test.npy", "rh_pred_test.npy"))
    assert done.stdout.startswith(f"{files}: 10 images in ")  # the files that are there, and no other name
    assert f"{tmp_path / 'pred_test.json'} says what is what" in done.output
    done = CliRunner().invoke(group, [*command, str(tmp_path / "fmri")])
    assert done.exit_code == 2 and f"{tmp_path / 'fmri'}: the output must end in" in done.output
    for name, more in (("fmri.npz", []), ("fmri.npy", ["--hemispheres"])):
        done = CliRunner().invoke(group, [*command, str(tmp_path / name), *more, "--maps", str(tmp_path / "maps")])
        assert done.exit_code != 0
    assert sorted(os.listdir(tmp_path)) == ["lh_pred_test.npy", "pred_test.json", "rh_pred_test.npy"]
