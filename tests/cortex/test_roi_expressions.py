"""Unions and differences of regions, and regions in files."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.freesurfer import write_annot

from brainkit.cortex.roi_expressions import parse_expression, with_absolute_files
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.cortex.volume import Volume
from brainkit.errors import DataError, UsageError

ROIS = {
    "V1v": [0, 1],
    "V1d": [2],
    "hV4": [3, 5],
    "FFA-1": [5, 4],
    "FFA-2": [4, 6],
    "ecc4": [1, 7],
    "ecc4+": [8],
    "LO1 (prf)": [9],
}
NAMES = tuple(ROIS)
SIZE = 10_242


@pytest.fixture
def table():
    return RoiTable({name: np.array(at) for name, at in ROIS.items()}, 10)


@given(st.lists(st.tuples(st.sampled_from("+-"), st.sampled_from(NAMES)), min_size=1, max_size=6), st.booleans())
def test_expressions_are_set_operations(terms, spaces):
    table = RoiTable({name: np.array(at) for name, at in ROIS.items()}, 10)
    first, *others = terms
    wanted = set(ROIS[first[1]])
    text = first[1]
    for sign, name in others:
        text += f" {sign} {name}" if spaces else f"{sign}{name}"
        wanted = wanted | set(ROIS[name]) if sign == "+" else wanted - set(ROIS[name])
    found = table.members(text)
    assert found.dtype == np.int32
    assert found.tolist() == sorted(wanted)


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("FFA-1+FFA-2-V4", [4, 6]),
        ("ffa - v4", [4, 6]),
        ("V1+V4", [0, 1, 2, 3, 5]),
        ("ecc4+", [8]),
        ("ecc4++V1d", [2, 8]),
        ("ecc4+V1d", [1, 2, 7]),
        ("ecc4+-ecc4", [8]),
        (" LO1 (prf)+V1d ", [2, 9]),
        ("V1-V1", []),
    ],
)
def test_names_with_signs(table, text, members):
    assert table.members(text).tolist() == members
    assert table.split_names(f"{text},V1d") == (text.strip(), "V1d")


def test_a_shorter_name_is_taken_where_the_rest_needs_it():
    assert [name for _, name in parse_expression("A-B-C", ["A", "A-B", "B-C"])] == ["A", "B-C"]


@pytest.mark.parametrize(
    ("text", "part", "near"),
    [
        ("FFA-1+FFA-9-V4", "'FFA-9'", "FFA"),
        ("V1+V7", "'V7'", "V1"),
        ("V8-V1", "'V8'", "V1"),
        ("V1+", "'V1+'", "V1"),
        ("+V1", "'+V1'", "V1"),
        ("V1+ffa-1-here.label", "'here.label'", "no such file"),
        ("V1+a/b.label", "'a/b.label'", "no such file"),
        ("zzz+V1", "'zzz'", "available"),
    ],
)
def test_what_is_unknown_is_named(table, text, part, near):
    with pytest.raises(UsageError) as caught:
        table.members(text)
    assert part in str(caught.value) and near in str(caught.value) and "\n" not in str(caught.value)


# ---- files


@pytest.fixture
def on_surface(tmp_path):
    """Every 100th vertex of fsaverage5, and files around."""
    vertices = Vertices("fsaverage5", np.arange(0, 2 * SIZE, 100))
    return RoiTable({"half": np.arange(50)}, len(vertices)).on(vertices), vertices.ids, tmp_path


def write_label(path, ids, owner="fsaverage"):
    lines = "".join(f"{vertex}  0.0  0.0  0.0 0.0\n" for vertex in ids)
    path.write_text(f"#!ascii label  , from subject {owner} vox2ras=TkReg\n{len(ids)}\n{lines}")
    return path


@pytest.mark.parametrize("owner", ["fsaverage", "fsaverage5", ""])
def test_a_label(on_surface, owner):
    table, ids, folder = on_surface
    for side, offset in (("lh", 0), ("rh", SIZE)):
        file = write_label(folder / f"{side}.my-V1.label", range(1000, 1501), owner)
        assert ids[table.members(str(file))].tolist() == [
            each for each in ids.tolist() if 1000 + offset <= each <= 1500 + offset
        ]


def test_files_in_expressions_and_subsets(on_surface):
    table, _, folder = on_surface
    file = write_label(folder / "lh.my-V1+2.label", range(1001))
    assert table.members(f"half - {file}").tolist() == list(range(11, 50))
    assert table.members(f"{file}+half").tolist() == list(range(50))
    part = table.subset(np.arange(5, 205))
    assert part.members(str(file)).tolist() == list(range(6))


def test_labels_that_do_not_fit(on_surface):
    table, _, folder = on_surface
    for name, ids, owner, said in (
        ("lh.a.label", [1], "subj01", "subj01"),
        ("lh.b.label", [SIZE], "", "10241"),
        ("a.label", [1], "", "hemisphere"),
    ):
        with pytest.raises((DataError, UsageError), match=said):
            table.members(str(write_label(folder / name, ids, owner)))
    (folder / "lh.c.label").write_text("nothing\n")
    with pytest.raises(DataError, match="cannot be read"):
        table.members(str(folder / "lh.c.label"))
    fine = RoiTable({}, 1).on(Vertices("fsaverage", np.array([5])))
    with pytest.raises(DataError, match="fsaverage"):
        fine.members(str(write_label(folder / "lh.d.label", [5], "fsaverage5")))
    lr = RoiTable({}, 1).on(Vertices("fsLR", np.array([5])))
    with pytest.raises(DataError, match="fsLR"):
        lr.members(str(write_label(folder / "lh.d.label", [5], "fsaverage")))
    with pytest.raises(UsageError, match="surface"):
        RoiTable({}, 4).on(Vertices.custom(4)).members(str(write_label(folder / "lh.e.label", [1])))
    with pytest.raises(UsageError, match="no known space"):
        RoiTable({}, 4).members(str(folder / "lh.e.label"))


@pytest.mark.parametrize("size", [SIZE, 40_962])
def test_an_annotation(on_surface, size):
    table, ids, folder = on_surface
    labels = np.arange(size) // 1000 % 2
    colours = np.array([[10, 20, 30, 0, 0], [40, 50, 60, 0, 0]])
    write_annot(folder / "rh.some.annot", labels, colours, ["S_a-b", "other"], fill_ctab=True)
    wanted = [each for each in ids.tolist() if each >= SIZE and (each - SIZE) // 1000 % 2 == 0]
    assert ids[table.members(f"{folder}/rh.some.annot:s_a-b")].tolist() == wanted
    with pytest.raises(UsageError, match="did you mean 'other'"):
        table.members(f"{folder}/rh.some.annot:othr")
    with pytest.raises(UsageError, match="NAME"):
        table.members(f"{folder}/rh.some.annot")


def test_lists_of_vertices(on_surface):
    table, ids, folder = on_surface
    (folder / "some.txt").write_text("300\n\n301\n10300\n")
    (folder / "some.json").write_text(json.dumps([10300, 300]))
    for name in ("some.txt", "some.json"):
        assert ids[table.members(str(folder / name))].tolist() == [300, 10300]
    for content, said in (("3\nx\n", "line 2"), ("-1", "vertex id"), ("30000", "20483")):
        (folder / "some.txt").write_text(content)
        with pytest.raises(DataError, match=said):
            table.members(str(folder / "some.txt"))
    for value in ([1.5], {"a": 1}, [True]):
        (folder / "some.json").write_text(json.dumps(value))
        with pytest.raises(DataError, match="vertex id"):
            table.members(str(folder / "some.json"))


def test_masks_of_voxels(tmp_path):
    affine = np.diag([2.0, 2, 2, 1])
    voxels = np.argwhere(np.ones((3, 4, 5)))[::2]
    table = RoiTable({}, len(voxels)).on(Vertices.custom(len(voxels)), Volume((3, 4, 5), affine, voxels))
    values = np.zeros((3, 4, 5), np.int16)
    values[1], values[2, 0] = 1, -1

    def write(name, values, affine=affine):
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / name)
        return str(tmp_path / name)

    np.testing.assert_array_equal(table.members(write("m.nii.gz", values)), np.flatnonzero(voxels[:, 0] == 1))
    values[0] = 3
    with pytest.raises(UsageError, match="one of its labels"):
        table.members(write("m.nii", values))
    np.testing.assert_array_equal(table.members(f"{tmp_path}/m.nii:3"), np.flatnonzero(voxels[:, 0] == 0))
    with pytest.raises(UsageError, match="known: 1, 3"):
        table.members(f"{tmp_path}/m.nii:7")
    with pytest.raises(DataError, match="another affine"):
        table.members(write("n.nii", values, np.diag([3.0, 2, 2, 1])))
    with pytest.raises(DataError, match="grid"):
        table.members(write("n.nii", values[:2]))
    with pytest.raises(UsageError, match="voxels"):
        RoiTable({}, 1).on(Vertices("fsaverage5", np.array([5]))).members(write("n.nii", values))


def test_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lh.a-b.label").touch()
    (tmp_path / "c.nii.gz").touch()
    text = with_absolute_files("V1,FFA-1 + lh.a-b.label-c.nii.gz:3")
    assert text == f"V1,FFA-1 +{tmp_path}/lh.a-b.label-{tmp_path}/c.nii.gz:3"
    assert with_absolute_files("ecc4+,V1") == "ecc4+,V1"
