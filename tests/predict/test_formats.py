"""Every format that predictions are written in: read back by the libraries that own it, the same numbers, resumable."""

from __future__ import annotations

import csv
import doctest
import hashlib
import json
import os
import sys
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
from pixel_encoder import SIZE, V, make_info, write_encoder

import brainkit
from brainkit import encoder_file
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices, from_ranges, to_ranges
from brainkit.cortex.volume import Volume
from brainkit.errors import BrainkitError, DataError, EncoderFileError, MissingDependency, UsageError
from brainkit.predict import Encoder, PredictResult, description_path, load, predict_to_file
from brainkit.predict.outputs import brain_images
from brainkit.predict.outputs.brain_images import StagedRows, Target, gifti_file, mgz_file, nifti_file
from brainkit.predict.outputs.csv import RoiMeanRows
from brainkit.predict.outputs.description import write_streaming
from brainkit.predict.outputs.formats import FORMATS
from brainkit.predict.outputs.npz import NpzRows
from brainkit.predict.outputs.rows import Layout, RowWriter
from brainkit.predict.regions import region_means

N = 10
AFFINE = [[2.0, 0, 0, -10], [0, 0, 2.0, 4], [0, -2.0, 0, 7], [0, 0, 0, 1]]


@pytest.fixture(scope="module")
def volume_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same encoder, its columns voxels."""
    rng = np.random.default_rng(5)
    voxels = np.stack(np.unravel_index(rng.choice(4 * 5 * 6, V, replace=False), (4, 5, 6)), axis=1)
    volume = Volume((4, 5, 6), np.array(AFFINE), voxels)
    return write_encoder(tmp_path_factory.mktemp("volume"), vertices=Vertices.custom(V), volume=volume)


def predict(photos: Path, out: Path, encoder: Any, **options: Any) -> tuple[PredictResult, dict[str, Any]]:
    done = predict_to_file(photos, out, encoder, batch_size=4, **options)
    description = json.loads(description_path(out).read_text("utf-8"))
    assert done.n == len(description["images"]) == N
    assert [Path(entry["path"]).name for entry in description["skipped"]] == ["image-003.png"]
    assert description["note"] == "simulated" and description["units"] == "z-scored percent signal change"
    return done, description


def on_surface(rows: np.ndarray, vertices: Vertices, hemisphere: int) -> np.ndarray:
    """(n, V) -> (vertices of the hemisphere, n), by the vertices' own method."""
    return np.stack([vertices.to_surface(row)[hemisphere] for row in rows], axis=1)


def test_npz(encoder: Encoder, photos: Path, rows: np.ndarray, tmp_path: Path) -> None:
    _, description = predict(photos, tmp_path / "fmri.npz", encoder)
    with np.load(tmp_path / "fmri.npz") as found:
        assert found["fmri"].dtype == np.float32
        np.testing.assert_array_equal(found["fmri"], rows)
        np.testing.assert_array_equal(found["vertices"], encoder.vertices.ids)
        assert found["images"].tolist() == description["images"]
        assert (str(found["space"]), str(found["units"])) == ("fsaverage5", "z-scored percent signal change")
    with zipfile.ZipFile(tmp_path / "fmri.npz") as archive:
        assert archive.testzip() is None
        assert {member.date_time[0] for member in archive.infolist()} == {1980}  # the clock leaves no trace
    assert sorted(os.listdir(tmp_path)) == ["fmri.npz", "fmri.npz.json"]


def test_hemispheres_as_the_challenge_takes_them(
    encoder: Encoder, photos: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    _, description = predict(photos, tmp_path / "pred_test.npy", encoder, hemispheres=True)
    left, right = (np.load(tmp_path / f"{side}_pred_test.npy") for side in ("lh", "rh"))
    assert left.dtype == right.dtype == np.float32
    np.testing.assert_array_equal(left, rows[:, :11])
    np.testing.assert_array_equal(right, rows[:, 11:])
    assert description["file"] == ["lh_pred_test.npy", "rh_pred_test.npy"]
    assert [part["columns"] for part in description["hemispheres"]] == [[0, 11], [11, 20]]
    assert sorted(os.listdir(tmp_path)) == ["lh_pred_test.npy", "pred_test.npy.json", "rh_pred_test.npy"]
    with pytest.raises(UsageError, match=r"lh_pred_test\.npy"):
        predict_to_file(photos, tmp_path / "pred_test.npy", encoder, hemispheres=True)
    with pytest.raises(UsageError, match=r"--hemispheres.*\.npy"):
        predict_to_file(photos, tmp_path / "fmri.npz", encoder, hemispheres=True)


def test_outputs_of_the_same_stem_live_side_by_side(encoder: Encoder, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    outs = [tmp_path / f"fmri{suffix}" for suffix in (".npy", ".csv", ".npz", ".zarr", ".func.gii", ".mgz")]
    before = {out: predict(photos, out, encoder)[1] for out in outs}
    assert len({description_path(out) for out in outs}) == len(outs)
    for out in outs:
        done = predict_to_file(photos / "image-001.png", out, encoder, overwrite=True)
        assert done.description == tmp_path / f"{out.name}.json"
        for other in outs:
            described = json.loads(description_path(other).read_text("utf-8"))
            assert (described == before[other]) == (other != out)
        before[out] = json.loads(description_path(out).read_text("utf-8"))


@pytest.mark.parametrize("hemispheres", [True, False])
def test_one_description_does_not_serve_both_shapes_of_an_output(
    encoder: Encoder, photos: Path, tmp_path: Path, hemispheres: bool
) -> None:
    predict(photos, tmp_path / "fmri.npy", encoder, hemispheres=hemispheres)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match=r"fmri\.npy\.json"):
        predict_to_file(photos, tmp_path / "fmri.npy", encoder, hemispheres=not hemispheres, overwrite=True)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".npz", ".mgz"])
@pytest.mark.parametrize("rois", [None, ["V1", "PPA"]])
def test_a_description_names_the_vertices(
    encoder: Encoder, photos: Path, tmp_path: Path, suffix: str, rois: list[str] | None
) -> None:
    _, description = predict(photos, tmp_path / f"fmri{suffix}", encoder, rois=rois)
    regions = rois or (encoder.rois.names if suffix == ".csv" else [])  # a table of means has those of its regions
    members = [encoder.rois.members(name) for name in regions]
    columns = np.unique(np.concatenate(members)) if members else np.arange(V)
    vertices = description["vertices"]
    ids = np.concatenate([np.arange(first, end) for first, end in vertices["ranges"]])  # as docs/scoring.md says
    np.testing.assert_array_equal(ids, encoder.vertices.ids[columns])
    assert description["space"] == "fsaverage5" and vertices["count"] == len(ids)
    assert vertices["sha256"] == hashlib.sha256(ids.astype("<i4").tobytes()).hexdigest()


def test_the_vertices_of_a_whole_brain_take_a_line(tmp_path: Path) -> None:
    vertices = Vertices("fsaverage", np.delete(np.arange(2 * 163_842), [5, 6, 200_000]))
    described = Layout(make_info(20, vertices=vertices)).to_json()["vertices"]
    assert described["ranges"] == [[0, 5], [7, 200_000], [200_001, 327_684]]
    np.testing.assert_array_equal(from_ranges(described["ranges"]), vertices.ids)
    assert from_ranges(to_ranges(np.array([], np.int32))).tolist() == []
    assert to_ranges(np.array([9, 10, 3, 4, 1])) == [[9, 11], [3, 5], [1, 2]]  # voxels need not be sorted


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".func.gii", ".mgz"])
def test_surfaces_are_read_by_nilearn(
    encoder: Encoder, photos: Path, rows: np.ndarray, tmp_path: Path, suffix: str
) -> None:
    surface = pytest.importorskip("nilearn.surface")
    predict(photos, tmp_path / f"fmri{suffix}", encoder)
    for hemisphere, side in enumerate(("lh", "rh")):
        whole = on_surface(rows, encoder.vertices, hemisphere)
        np.testing.assert_array_equal(surface.load_surf_data(str(tmp_path / f"{side}.fmri{suffix}")), whole)


@pytest.mark.parametrize("suffix", [".func.gii", ".mgz"])
def test_surfaces_are_read_by_nibabel(
    encoder: Encoder, photos: Path, rows: np.ndarray, tmp_path: Path, suffix: str
) -> None:
    _, description = predict(photos, tmp_path / f"fmri{suffix}", encoder)
    assert description["file"] == [f"lh.fmri{suffix}", f"rh.fmri{suffix}"]
    for hemisphere, side in enumerate(("lh", "rh")):
        whole = on_surface(rows, encoder.vertices, hemisphere)
        image: Any = nibabel.load(tmp_path / f"{side}.fmri{suffix}")
        if suffix == ".mgz":
            assert image.shape == (10_242, 1, 1, N) and image.get_data_dtype() == np.dtype(">f4")
            np.testing.assert_array_equal(np.asarray(image.dataobj)[:, 0, 0], whole)
        else:
            assert image.meta["AnatomicalStructurePrimary"] == ("CortexLeft", "CortexRight")[hemisphere]
            assert [array.meta["Name"] for array in image.darrays] == description["images"]
            np.testing.assert_array_equal(np.stack([array.data for array in image.darrays], axis=1), whole)
    assert sorted(os.listdir(tmp_path)) == [f"fmri{suffix}.json", f"lh.fmri{suffix}", f"rh.fmri{suffix}"]


def test_a_hemisphere_without_vertices_has_no_file(encoder: Encoder, photos: Path, tmp_path: Path) -> None:
    _, description = predict(photos, tmp_path / "v1.mgz", encoder, rois=["V1"])  # 1000, 3000, 7000: all on the left
    assert description["file"] == ["lh.v1.mgz"]
    assert sorted(os.listdir(tmp_path)) == ["lh.v1.mgz", "v1.mgz.json"]


def test_nifti_holds_the_voxels(volume_path: Path, photos: Path, rows: np.ndarray, tmp_path: Path) -> None:
    info = encoder_file.read(volume_path)
    assert info.volume is not None and info.volume.shape == (4, 5, 6)
    _, description = predict(photos, tmp_path / "fmri.nii.gz", load(volume_path, "cpu"))
    described = description["volume"]
    flat = from_ranges(described["ranges"])
    np.testing.assert_array_equal(np.stack(np.unravel_index(flat, described["shape"]), 1), info.volume.voxels)
    assert described["affine"] == AFFINE
    image: Any = nibabel.load(tmp_path / "fmri.nii.gz")
    assert image.shape == (4, 5, 6, N)
    np.testing.assert_array_equal(image.affine, AFFINE)
    values = image.get_fdata(dtype=np.float32)
    np.testing.assert_array_equal(values[tuple(info.volume.voxels.T)], rows.T)
    assert np.isnan(values).sum() == (4 * 5 * 6 - V) * N
    predict(photos, tmp_path / "ppa.nii.gz", load(volume_path, "cpu"), rois=["PPA"])
    some: Any = nibabel.load(tmp_path / "ppa.nii.gz")
    values = some.get_fdata(dtype=np.float32)
    np.testing.assert_allclose(values[tuple(info.volume.voxels[[1, 19]].T)], rows[:, [1, 19]].T, atol=1e-6)
    assert np.isfinite(values).sum() == 2 * N


@pytest.mark.parametrize("count", [3, 1 << 15])
def test_nifti_and_mgz_are_those_that_nibabel_writes(tmp_path: Path, count: int) -> None:
    """Header, data and footer as nibabel's own writers store them; NIfTI-2 from 32,768 images on."""
    values = np.random.default_rng(0).normal(size=(count, 2, 1, 1)).astype(np.float32)
    volume = Target(tmp_path / "v.nii.gz", slice(None), np.arange(2), (2, 1, 1), affine=np.array(AFFINE))
    surface = Target(tmp_path / "s.mgz", slice(None), np.arange(2), (2,))
    for target, open_file in ((volume, nifti_file), (surface, mgz_file)):
        with open_file(target, count) as add_map:
            for one in values:
                add_map(one.ravel(), "")
    kind = nibabel.Nifti1Image if count < 1 << 15 else nibabel.Nifti2Image
    expected = kind(values.transpose(1, 2, 3, 0), np.array(AFFINE))
    found: Any = nibabel.load(volume.path)
    assert type(found) is kind
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))
    np.testing.assert_array_equal(found.affine, expected.affine)
    overlay: Any = nibabel.MGHImage(values.transpose(1, 2, 3, 0), None)
    overlay.to_filename(tmp_path / "nibabel.mgz")
    found = nibabel.load(surface.path)
    assert found.shape == overlay.shape
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(overlay.dataobj))
    for name in ("type", "dims", "version"):
        np.testing.assert_array_equal(found.header[name], overlay.header[name])


def test_zarr(encoder: Encoder, photos: Path, rows: np.ndarray, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    predict(photos, tmp_path / "fmri.zarr", encoder)
    array = zarr.open_array(tmp_path / "fmri.zarr", mode="r")
    assert array.metadata.zarr_format == 3 and array.shape == (N, V) and array.dtype == np.float32
    np.testing.assert_array_equal(array[:], rows)
    assert array.attrs["vertices"] == encoder.vertices.ids.tolist()
    assert (array.attrs["units"], array.attrs["space"]) == ("z-scored percent signal change", "fsaverage5")
    with pytest.raises(UsageError, match=r"fmri\.zarr"):
        predict_to_file(photos, tmp_path / "fmri.zarr", encoder)
    predict(photos, tmp_path / "fmri.zarr", encoder, overwrite=True, rois=["PPA"])
    assert zarr.open_array(tmp_path / "fmri.zarr", mode="r").shape == (N, 2)
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "precious").touch()
    (tmp_path / "file.zarr").write_text("precious")
    for name in ("mine.zarr", "file.zarr"):
        with pytest.raises(UsageError, match=name):
            predict_to_file(photos, tmp_path / name, encoder, overwrite=True)
    assert (tmp_path / "mine.zarr" / "precious").exists()
    assert (tmp_path / "file.zarr").read_text() == "precious"


def test_zarr_that_is_not_installed(photos: Path, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingDependency, match=r"brainkit\[zarr\]"):
        predict_to_file(photos, tmp_path / "fmri.zarr", path)
    assert os.listdir(tmp_path) == []


def test_means_by_region(encoder: Encoder, photos: Path, rows: np.ndarray, tmp_path: Path) -> None:
    _, description = predict(photos, tmp_path / "means.csv", encoder)
    table = list(csv.DictReader((tmp_path / "means.csv").open(newline="", encoding="utf-8")))
    assert list(table[0]) == ["image", "V1v", "V1d", "PPA"] == description["columns"]  # an empty region has no mean
    assert description["shape"] == [N, 3]
    assert [row["image"] for row in table] == description["images"]
    for name, index in (("V1v", [1, 3]), ("V1d", [7]), ("PPA", [1, 19])):
        np.testing.assert_allclose([float(row[name]) for row in table], rows[:, index].mean(1), atol=1e-6)
    predict(photos, tmp_path / "v1.csv", encoder, rois="V1")
    table = list(csv.DictReader((tmp_path / "v1.csv").open(newline="", encoding="utf-8")))
    assert list(table[0]) == ["image", "V1"]
    np.testing.assert_allclose([float(row["V1"]) for row in table], rows[:, [1, 3, 7]].mean(1), atol=1e-6)
    with pytest.raises(UsageError, match="absent"):
        predict_to_file(photos, tmp_path / "no.csv", encoder, rois=["V1", "absent"])


def test_means_need_regions(photos: Path, tmp_path: Path) -> None:
    bare = write_encoder(tmp_path, rois=RoiTable({}, V))
    with pytest.raises(UsageError, match="ROI"):
        predict_to_file(photos, tmp_path / "means.csv", bare, device="cpu")


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
    with pytest.raises(DataError, match=r"cut\.csv.* 9 .* 5"):
        RoiMeanRows(cut, regions, 9)


# --- interrupted --------------------------------------------------------------------------------------------------

EVERY_FORMAT = [*(suffix for suffix in FORMATS if suffix != ".nii.gz"), "hemispheres"]


def output_of(form: str) -> tuple[str, dict[str, Any]]:
    if form == ".zarr":
        pytest.importorskip("zarr")
    return ("fmri.npy", {"hemispheres": True}) if form == "hemispheres" else (f"fmri{form}", {})


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("form", EVERY_FORMAT)
def test_an_interrupted_output_is_resumed_to_the_same_bytes(
    encoder: Encoder, photos: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, options = output_of(form)
    options |= {"rois": ["V1", "PPA"]}
    if form == ".npy":
        options |= {"top": 2}
    if form == ".zarr":  # three rows of the four columns per chunk
        monkeypatch.setattr("brainkit.predict.outputs.zarr.CHUNK_BYTES", 3 * 4 * 4)
    for folder in ("whole", "parts"):
        (tmp_path / folder).mkdir()
    predict(photos, tmp_path / "whole" / name, encoder, **options)

    def stop(done: int, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_to_file(photos, tmp_path / "parts" / name, encoder, batch_size=4, progress=stop, **options)
    assert os.listdir(tmp_path / "parts") == [f".{name}.partial"]
    with pytest.raises(UsageError, match="contact sheets"):
        predict_to_file(photos, tmp_path / "parts" / name, encoder, **(options | {"top": 3}))
    predict(photos, tmp_path / "parts" / name, encoder, **options)
    assert files_in(tmp_path / "parts") == files_in(tmp_path / "whole")


@pytest.mark.parametrize("form", EVERY_FORMAT)
def test_a_failure_at_the_end_leaves_nothing_half_written(
    encoder: Encoder, photos: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, options = output_of(form)

    def full(*given: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("brainkit.predict.to_file.write_description", full)
        with pytest.raises(BrainkitError, match="No space left"):
            predict_to_file(photos, tmp_path / name, encoder, batch_size=4, **options)
    assert os.listdir(tmp_path) == [f".{name}.partial"]
    predict(photos, tmp_path / name, encoder, **options)  # finished rows are finished again
    assert not [file for file in os.listdir(tmp_path) if file.startswith(".")]


def test_rows_that_are_gone_are_noticed(tmp_path: Path) -> None:
    for writer in (
        lambda: NpzRows(tmp_path / "a.npz", 3, {}, 5),
        lambda: StagedRows(tmp_path / "a.mgz", 3, [], mgz_file, 5),
    ):
        with pytest.raises(DataError, match=r"a\.(npz|mgz)\.rows"):
            writer()


# --- what a format needs ------------------------------------------------------------------------------------------


def test_formats_that_do_not_suit(path: Path, volume_path: Path, photos: Path, tmp_path: Path) -> None:
    cases: list[tuple[Path, str, dict[str, Any]]] = [
        (path, "fmri.nii.gz", {}),
        (volume_path, "fmri.mgz", {}),
        (volume_path, "fmri.func.gii", {}),
        (volume_path, "fmri.npy", {"hemispheres": True}),
        (path, "fmri.tif", {}),
        (path, "fmri.gii", {}),
        (path, "fmri.nii", {}),
        (path, ".npz", {}),
    ]
    for encoder, name, options in cases:
        with pytest.raises(UsageError) as caught:
            predict_to_file(photos, tmp_path / name, encoder, device="cpu", **options)
        assert str(caught.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_file_that_lies_about_its_volume(volume_path: Path) -> None:
    text = json.loads(encoder_file.to_json(encoder_file.read(volume_path)))
    for change, match in (
        ({"shape": [1, 1, 1]}, "must lie within"),
        ({"affine": "x"}, "affine"),
        ({"shape": [10**9, 1, 1]}, "shape"),
        ({"voxels": encoder_file.pack_array(np.zeros((V, 3), np.int32))}, "columns"),
        ({"voxels": encoder_file.pack_array(np.zeros((V - 1, 3), np.int32))}, "shape"),
    ):
        lying = text | {"volume": text["volume"] | change}
        with pytest.raises(EncoderFileError, match=match):
            encoder_file.from_json(json.dumps(lying), source="lying.onnx")


# --- memory -------------------------------------------------------------------------------------------------------

COLUMNS = 1000
WRITERS: dict[str, tuple[int, Callable[[Path], RowWriter]]] = {  # suffix -> (rows, writer)
    ".npz": (20_000, lambda path: NpzRows(path, COLUMNS, {})),  # NumPy copies 16 MB at a time
    ".func.gii": (
        1000,
        lambda path: StagedRows(
            path, COLUMNS, [Target(path, slice(None), np.arange(COLUMNS), (1500,), "CortexLeft")], gifti_file
        ),
    ),
    ".mgz": (
        1000,
        lambda path: StagedRows(path, COLUMNS, [Target(path, slice(None), np.arange(COLUMNS), (1500,))], mgz_file),
    ),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the rows would not fit: a block, a map and the names of some images are in memory."""
    monkeypatch.setattr(brain_images, "_BLOCK", 1 << 16)
    count, open_writer = WRITERS[suffix]
    block = np.random.default_rng(0).random((200, COLUMNS), np.float32).round(2)
    names = [f"image-{index}.png" for index in range(count)]
    writer = open_writer(tmp_path / f"large{suffix}")
    tracemalloc.start()
    try:
        for start in range(0, count, len(block)):
            writer.append(block, names[start : start + len(block)])
        writer.finish(names)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        writer.close()
    assert peak < count * COLUMNS * 4 / 2
    assert (tmp_path / f"large{suffix}").stat().st_size > 1e5


def test_a_description_is_the_json_that_would_be_written_at_once(tmp_path: Path) -> None:
    value = {"a": [1, {"b": [2, "ü\n"]}], "none": [], "empty": {}, "text": "x", "many": [{"p": 1}, [3], "q"]}
    value |= {"nested": {"ranges": [[0, 5], [7, 9]], "names": ["V1", "ü"], "objects": [{"c": {}}, {}]}}
    streamed = {key: iter(each) if key in ("none", "many") else each for key, each in value.items()}
    with (tmp_path / "a.json").open("w", encoding="utf-8") as file:
        write_streaming(file, streamed)
    text = (tmp_path / "a.json").read_text("utf-8")
    assert json.loads(text) == value and list(json.loads(text)) == list(value) and text.endswith("}\n")
    assert '    "ranges": [[0, 5], [7, 9]],\n    "names": [\n      "V1",\n      "ü"\n    ],\n' in text


# --- examples -----------------------------------------------------------------------------------------------------


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
    found = [test for test in doctest.DocTestFinder(recurse=True).find(Encoder, "Encoder") if test.examples]
    assert len(found) == 4
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in found:
        output: list[str] = []
        test.globs = {"brainkit": brainkit, "np": np, "encoder": encoder}
        runner.run(test, out=output.append)
        assert not output, "".join(output)


@pytest.mark.slow
def test_the_examples_of_the_page_on_predicting(
    readable: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nilearn")
    monkeypatch.chdir(tmp_path)
    encoder = write_encoder(tmp_path, rois=RoiTable({"early": [1, 3], "midventral": [7], "ventral": [1, 19]}, V))
    for folder, some in (("photos", readable), ("faces", readable[:5]), ("objects", readable[5:])):
        Path(folder).mkdir()
        for image in some:
            (Path(folder) / image.name).write_bytes(image.read_bytes())
    for suffix in (".func.gii", ".mgz", ".npy"):
        predict_to_file("photos", f"fmri{suffix}", encoder, device="cpu", overwrite=True)
    page = (Path(__file__).resolve().parents[2] / "docs" / "scoring.md").read_text("utf-8")
    blocks = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    assert len(blocks) >= 2
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    np.testing.assert_array_equal(names["left"], names["same"])
    assert names["early"].shape == (N, 3) and names["left"].shape == (10_242, N)
    np.testing.assert_array_equal(names["ids"], np.arange(V) * 1000)


def test_the_page_on_predicting_names_every_format() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "scoring.md").read_text("utf-8")
    assert all(f"{suffix}`" in page for suffix in FORMATS)
