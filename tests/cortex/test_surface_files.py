"""Surfaces read from files of FreeSurfer and GIFTI, and the average ones that the user has."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from small_surface import small_surface, write_freesurfer, write_gifti

from brainkit.cortex.cortical_surface import CorticalSurface, average_surface
from brainkit.cortex.surface_files import find_average_surface, read_surface
from brainkit.cortex.vertices import Vertices
from brainkit.errors import DataError, UsageError

pytest.importorskip("nilearn", reason="the average meshes come with nilearn")


@pytest.fixture
def brain():
    return small_surface()


def write_giftis(folder, brain):
    folder.mkdir()
    for side, half in (("L", brain.left), ("R", brain.right)):
        write_gifti(folder / f"sub-1_hemi-{side}_inflated.surf.gii", half.points["inflated"], half.faces)
        write_gifti(folder / f"sub-1_hemi-{side}_pial.surf.gii", half.points["pial"], half.faces)
        write_gifti(folder / f"sub-1_hemi-{side}_flat.surf.gii", half.points["flat"], half.flat_faces)


def test_a_subject_of_freesurfer(tmp_path, brain):
    write_freesurfer(tmp_path / "bert" / "surf", brain, ("pial", "white", "inflated", "sphere"))
    for folder in (tmp_path / "bert", tmp_path / "bert" / "surf"):
        found = read_surface(folder)
        assert (found.name, found.space, found.source) == ("bert", "custom", str(folder))
        assert found.shapes == ("pial", "white", "inflated", "sphere", "flat") and len(found) == 2 * 66
        for side in ("left", "right"):
            half, true = found.hemisphere(side), brain.hemisphere(side)
            np.testing.assert_array_equal(half.faces, true.faces)
            np.testing.assert_array_equal(half.flat_faces, true.flat_faces)
            on = true.on_flatmap
            np.testing.assert_allclose(half.points["flat"][on], true.points["flat"][on])
            np.testing.assert_allclose(half.points["pial"], true.points["pial"], atol=1e-4)


def test_scanner_coordinates_of_freesurfer(tmp_path, brain):
    from nibabel.freesurfer import write_geometry

    write_freesurfer(tmp_path, brain)
    info = {"head": [2, 0, 20], "valid": "1  # volume info valid", "filename": "x", "volume": [256] * 3}
    info |= {"voxelsize": [1.0] * 3, "xras": [-1.0, 0, 0], "yras": [0, 0, -1.0], "zras": [0, 1.0, 0]}
    info |= {"cras": [5.0, -3.0, 2.0]}
    write_geometry(tmp_path / "lh.pial", brain.left.points["pial"], brain.left.faces, volume_info=info)
    found = read_surface(tmp_path)
    np.testing.assert_allclose(found.left.points["pial"], brain.left.points["pial"] + [5, -3, 2], atol=1e-3)
    np.testing.assert_allclose(found.left.points["white"], brain.left.points["white"], atol=1e-3)


def test_gifti_files_without_curvature(tmp_path, brain):
    write_giftis(tmp_path / "anat", brain)
    found = read_surface(tmp_path / "anat")
    assert found.shapes == ("pial", "inflated", "flat") and found.space == "custom"
    np.testing.assert_array_equal(found.right.flat_faces, brain.right.flat_faces)
    assert (found.left.curvature < 0).all()  # a sphere has no sulci


def test_meshes_that_are_inside_out_are_turned(tmp_path, brain):
    turned = [CorticalSurface.hemisphere(brain, side) for side in ("left", "right")]
    for side, half in zip("lr", turned, strict=True):
        write_gifti(tmp_path / f"{side}h.pial.surf.gii", half.points["pial"], half.faces[:, [0, 2, 1]])
    np.testing.assert_array_equal(read_surface(tmp_path).left.faces, brain.left.faces)


def test_curvature_is_positive_in_sulci_whatever_its_sign_in_the_file(tmp_path):
    brain = small_surface(3, bumpy=0.3)
    write_freesurfer(tmp_path, brain)
    (tmp_path / "lh.curv").unlink()
    computed = read_surface(tmp_path).left.curvature
    from nibabel.freesurfer import write_morph_data

    write_morph_data(tmp_path / "lh.curv", -2 * computed)
    np.testing.assert_allclose(read_surface(tmp_path).left.curvature, 2 * computed, rtol=1e-5)


def test_the_average_brain_is_known_by_its_faces(tmp_path):
    average = average_surface("fsaverage5")
    write_freesurfer(tmp_path / "fsaverage5", average, ("pial",))
    assert read_surface(tmp_path / "fsaverage5").space == "fsaverage5"
    faces = average.left.faces[:, [1, 2, 0]].copy()
    faces[0] = faces[1]  # another mesh of this size
    write_gifti(tmp_path / "lh.pial.gii", average.left.points["pial"], faces)
    write_gifti(tmp_path / "rh.pial.gii", average.right.points["pial"], average.right.faces)
    assert read_surface(tmp_path).space == "custom"


@pytest.mark.parametrize("where", ["freesurfer", "nilearn", "pycortex"])
def test_average_surfaces_that_the_user_has(tmp_path, monkeypatch, where):
    for name in ("SUBJECTS_DIR", "FREESURFER_HOME", "NILEARN_DATA", "NILEARN_SHARED_DATA", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    average = average_surface("fsaverage6")
    assert find_average_surface("fsaverage6") is average
    if where == "freesurfer":
        monkeypatch.setenv("SUBJECTS_DIR", str(tmp_path))
        folder = tmp_path / "fsaverage6"
        write_freesurfer(folder / "surf", average, ("pial", "white", "inflated"))
    else:
        folder = tmp_path / "fsaverage6" / ("surfaces" if where == "pycortex" else "")
        folder.mkdir(parents=True)
        names = {"pial": "pial", "white": "wm", "inflated": "inflated"}
        for side, half in (("lh", average.left), ("rh", average.right)):
            for shape, name in names.items():
                write_gifti(folder / f"{name}_{side}.gii", half.points[shape], half.faces)
        monkeypatch.setenv("NILEARN_DATA", str(tmp_path) if where == "nilearn" else "")
        if where == "pycortex":
            monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
            (tmp_path / "config" / "pycortex").mkdir(parents=True)
            (tmp_path / "config" / "pycortex" / "options.cfg").write_text(f"[basic]\nfilestore = {tmp_path}\n")
    found = find_average_surface("fsaverage6")
    assert (found.space, found.source) == ("fsaverage6", str(folder))
    assert found.shapes == average.shapes  # those that are not in the files are regenerated
    shutil.rmtree(folder)
    assert find_average_surface("fsaverage6") is average


def break_missing_side(folder):
    for path in folder.glob("rh.*"):
        path.unlink()


def break_other_count(folder):
    other = small_surface(1)
    write_freesurfer(folder / "other", other)
    shutil.copy(folder / "other" / "lh.white", folder / "lh.white")


def break_damaged(folder):
    (folder / "rh.pial").write_bytes(b"no surface")


def break_patch(folder):
    (folder / "lh.full.flat.patch.3d").write_bytes(b"\xff\xff\xff\xff\x00\x00\x00\x09")


def break_curvature(folder):
    from nibabel.freesurfer import write_morph_data

    write_morph_data(folder / "lh.curv", np.zeros(5))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (break_missing_side, "right"),
        (break_other_count, "lh.white"),
        (break_damaged, "rh.pial"),
        (break_patch, "patch"),
        (break_curvature, "lh.curv"),
    ],
)
def test_damaged_folders(tmp_path, brain, harm, said):
    write_freesurfer(tmp_path, brain)
    harm(tmp_path)
    with pytest.raises(DataError, match=said) as caught:
        read_surface(tmp_path)
    assert "\n" not in str(caught.value)


def test_folders_without_surfaces(tmp_path, brain):
    with pytest.raises(DataError, match="nothing"):
        read_surface(tmp_path / "nowhere")
    with pytest.raises(DataError, match="both hemispheres"):
        read_surface(tmp_path)
    write_giftis(tmp_path / "two", brain)
    shutil.copy(tmp_path / "two" / "sub-1_hemi-L_pial.surf.gii", tmp_path / "two" / "sub-2_hemi-L_pial.surf.gii")
    with pytest.raises(DataError, match="expected one left pial"):
        read_surface(tmp_path / "two")


def test_where_values_lie_on_a_surface(brain):
    assert brain.ids_of(Vertices.custom(132)).tolist() == list(range(132))
    np.testing.assert_array_equal(brain.ids_of(Vertices.custom(2), np.array([70, 3])), [70, 3])
    for vertices, ids in ((Vertices.custom(5), None), (Vertices.custom(2), [1, 1]), (Vertices.custom(1), [132])):
        with pytest.raises(UsageError, match="small"):
            brain.ids_of(vertices, ids if ids is None else np.array(ids))
    with pytest.raises(UsageError, match="fsaverage5"):
        brain.ids_of(Vertices("fsaverage5", np.array([1])))
