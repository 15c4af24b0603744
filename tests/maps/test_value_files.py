"""Files of values: whose vertices they are, and what is refused."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices, to_ranges
from brainkit.cortex.volume import Volume
from brainkit.errors import DataError, UsageError
from brainkit.maps.brain_map import Categorical, MapSet
from brainkit.maps.value_files import is_value_file, read_value_files
from brainkit.utils.files import write_json

pytest.importorskip("matplotlib")
SIZE = 10242


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def save(name, *shape):
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    if name.endswith(".npy"):
        np.save(name, values)
    elif name.endswith(".mgz"):
        grid = values[:, None, None] if values.ndim == 1 else values.T[:, None, None, :]
        nibabel.save(nibabel.MGHImage(grid, np.eye(4)), name)
    else:
        arrays = [nibabel.gifti.GiftiDataArray(row, "NIFTI_INTENT_NONE") for row in np.atleast_2d(values)]
        nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), name)
    return np.atleast_2d(values)


@pytest.mark.parametrize("name", ["lh.x.npy", "x.lh.mgz", "sub-1_hemi-L_x.func.gii", "left_x.npy", "x.L.shape.gii"])
def test_a_hemisphere_is_known_by_its_name(name):
    values = save(name, SIZE)
    (maps,) = read_value_files([name])
    assert maps.vertices.space == "fsaverage5" and maps.vertices.n_left == len(maps.vertices) == SIZE
    np.testing.assert_array_equal(maps.maps[0].values, values[0])


@pytest.mark.parametrize("suffix", [".npy", ".mgz", ".func.gii"])
def test_files_of_two_hemispheres_are_one_map(suffix):
    left, right = save(f"lh.x{suffix}", 2, SIZE), save(f"rh.x{suffix}", 2, SIZE)
    (maps,) = read_value_files([f"rh.x{suffix}", f"lh.x{suffix}"])
    assert len(maps.vertices) == 2 * SIZE and len(maps.maps) == 2
    np.testing.assert_array_equal(maps.maps[1].values, np.concatenate([left[1], right[1]]))
    assert maps.maps[0].coding.high == maps.maps[1].coding.high
    assert len({each.name for each in maps.maps}) == 2


def test_gifti_says_its_hemisphere_itself():
    array = nibabel.gifti.GiftiDataArray(np.ones(SIZE, np.float32), "NIFTI_INTENT_NONE")
    meta = nibabel.gifti.GiftiMetaData(AnatomicalStructurePrimary="CortexRight")
    nibabel.save(nibabel.gifti.GiftiImage(darrays=[array], meta=meta), "x.gii")
    assert read_value_files(["x.gii"])[0].vertices.n_left == 0


def test_values_of_both_hemispheres_and_of_a_subject(map_set):
    save("whole.npy", 2 * SIZE)
    save("subject.npy", 3, 600)
    save("lh_part.npy", 300)
    like = map_set()
    whole, subject, part = read_value_files(["whole.npy", "subject.npy", "lh_part.npy"], like=like)
    assert len(whole.vertices) == 2 * SIZE and len(whole.rois["early"]) == 150
    assert subject.vertices == like.vertices and list(subject.rois) == list(like.rois)
    assert len(part.vertices) == part.vertices.n_left == 300


def test_predictions_are_read_with_their_description(map_set):
    values, vertices = save("fmri.npy", 3, 600), map_set().vertices
    told = {"ranges": to_ranges(vertices.ids)}
    images = ["a/cat <1>.png", "dog.png", "b/cat <1>.png"]
    write_json("fmri.npy.json", {"images": images, "units": "z", "space": "fsaverage5", "vertices": told, "note": "N"})
    (maps,) = read_value_files(["fmri.npy"], rows=[2, 0])
    assert maps.vertices == vertices and maps.note == "N" and len({*maps.names}) == 2
    assert "cat <1>.png" in maps.maps[0].title and maps.maps[0].coding.label == "response (z)"
    assert all("<" not in name for name in maps.names)
    np.testing.assert_array_equal(maps.maps[0].values, values[2])
    (mean,) = read_value_files(["fmri.npy"], mean=True)[0].maps
    np.testing.assert_allclose(mean.values, values.mean(axis=0), atol=1e-6)
    assert mean.title == f"Mean predicted response to {len(values)} images"
    with pytest.raises(UsageError, match="rows"):
        read_value_files(["fmri.npy"], rows=[3])
    write_json("fmri.npy.json", [])
    with pytest.raises(DataError, match=r"fmri\.npy\.json"):
        read_value_files(["fmri.npy"])


def test_labels_are_classes():
    labels = np.arange(SIZE) % 3
    names = ["unknown", "V1", "V2"]
    colours = np.array([[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 255, 0]])
    for side in ("lh", "rh"):
        nibabel.freesurfer.write_annot(f"{side}.x.annot", labels, colours, names, fill_ctab=True)
    (maps,) = read_value_files(["lh.x.annot", "rh.x.annot"])
    (found,) = maps.maps
    assert isinstance(found.coding, Categorical) and found.coding.names == ("V1", "V2")
    np.testing.assert_array_equal(found.coding.palette, [[1, 0, 0], [0, 0, 1]])
    assert found.known.sum() == 2 * (labels > 0).sum()


def test_predictions_of_some_voxels_are_known_by_their_places():
    voxels = np.array([[0, 0, 0], [1, 2, 3], [3, 1, 0], [2, 2, 2]])
    volume = Volume((4, 4, 4), np.eye(4), voxels)
    table = RoiTable({"V1": [1, 2]}, 4)
    like = MapSet("", Vertices.custom(4), table, (), volume=volume)
    np.save("fmri.npy", np.zeros((1, 2)))
    told = {"shape": [4, 4, 4], "affine": np.eye(4).tolist(), "ranges": [[27, 28], [52, 53]]}  # the second, the third
    described = {"space": "custom", "vertices": {"ranges": [[1, 3]]}, "images": ["a.png"]}
    write_json("fmri.npy.json", described | {"volume": told})
    (maps,) = read_value_files(["fmri.npy"], like=like)
    np.testing.assert_array_equal(maps.volume.voxels, voxels[1:3])
    assert maps.rois["V1"].tolist() == [0, 1]
    assert not read_value_files(["fmri.npy"])[0].rois
    write_json("fmri.npy.json", described)
    (maps,) = read_value_files(["fmri.npy"], like=like)
    assert maps.volume is None and not maps.rois  # which they are is not known
    write_json("fmri.npy.json", described | {"volume": {"shape": [4, 4]}})
    with pytest.raises(DataError, match="volume"):
        read_value_files(["fmri.npy"])


def test_a_length_that_fits_nothing_says_what_would(map_set):
    save("odd.npy", 777)
    save("half.npy", SIZE)
    with pytest.raises(DataError) as plain:
        read_value_files(["odd.npy"])
    assert all(word in str(plain.value) for word in ("777", "20,484", "fsaverage6", "--like"))
    with pytest.raises(DataError, match="600"):
        read_value_files(["odd.npy"], like=map_set())
    with pytest.raises(DataError, match="hemisphere"):
        read_value_files(["half.npy"])


def test_damaged_and_other_files_are_told_in_one_line():
    for name in ("a.npy", "a.gii", "a.mgz", "a.annot"):
        Path(name).write_bytes(b"not what it says")
    np.save("text.npy", np.array(["a"]))
    np.save("cube.npy", np.zeros((2, 2, 2)))
    for name in ("a.npy", "a.gii", "a.mgz", "a.annot", "text.npy", "cube.npy", "none.npy"):
        assert is_value_file(name)
        with pytest.raises(DataError) as caught:
            read_value_files([name])
        assert name in str(caught.value) and "\n" not in str(caught.value)
    Path("encoder.onnx").write_bytes(b"of another kind")
    with pytest.raises(DataError, match=r"encoder\.onnx: expected values of vertices in \.npy, .*, found \.onnx$"):
        read_value_files(["encoder.onnx"])
    assert not is_value_file("encoder.onnx") and not is_value_file("runs/1")


def test_files_of_one_unit_share_limits():
    values = np.random.default_rng(0).standard_normal((3, 2 * SIZE))
    for name, each in (("a", values[0]), ("b", 10 * values[1]), ("c", np.abs(values[2]))):
        np.save(f"{name}.npy", each)
    a, b, c = (one.maps[0].coding for one in read_value_files(["a.npy", "b.npy", "c.npy"]))
    assert (a.low, a.high, a.shared) == (b.low, b.high, b.shared) and a.shared == 2
    assert c.shared == 0 and c.high < a.high  # no values below 0: another quantity
    own = [one.maps[0].coding for one in read_value_files(["a.npy", "b.npy"], own_limits=True)]
    assert own[0].high < own[1].high and own[0].shared == 0


def test_rows_share_limits_whatever_their_signs():
    np.save("rows.npy", np.stack([np.linspace(-1, 1, 2 * SIZE), np.linspace(0, 3, 2 * SIZE)]))
    (maps,) = read_value_files(["rows.npy"])
    one, other = (each.coding for each in maps.maps)
    assert (one.low, one.high, one.colours) == (other.low, other.high, other.colours) and one.low == -one.high
