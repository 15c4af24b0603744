"""Tables of regions of interest: aliases, subsets, JSON."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.cortex.rois import RoiTable
from brainkit.errors import DataError, UsageError


@pytest.fixture
def table():
    rois = {"V1v": [0, 1], "V1d": [2], "FFA-1": [5, 4], "FFA-2": [4, 6], "OVWFA": [9], "mTL-words": [], "PPA": [7]}
    return RoiTable({name: np.array(at, dtype=int) for name, at in rois.items()}, 10)


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("V1v", [0, 1]),
        ("v1", [0, 1, 2]),
        ("FFA", [4, 5, 6]),
        ("ffa-1", [4, 5]),
        ("OWFA", [9]),
        ("ovwfa", [9]),
        ("MTL-words", []),
        ("floc-places", [7]),
    ],
)
def test_roi_members(table, name, members):
    found = table.members(name)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, members)


@pytest.mark.parametrize(("name", "offered"), [("FAA", "FFA"), ("PPPA", "PPA"), ("v1x", "V1"), ("qqqq", "mTL-words")])
def test_unknown_roi_names_the_nearest(table, name, offered):
    with pytest.raises(UsageError, match=offered) as caught:
        table.members(name)
    assert "\n" not in str(caught.value)


def test_roi_of_an_empty_table():
    with pytest.raises(UsageError, match="no ROI table"):
        RoiTable({}, 3).members("V1")


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        ("FFA", ("FFA",)),
        (["V1v,PPA", "ffa"], ("V1v", "PPA", "ffa")),
        ("V1v, PPA,", ("V1v", "PPA")),
        ("area 1, dorsal", ("area 1, dorsal",)),
        ("AREA 1, Dorsal ", ("AREA 1, Dorsal",)),
        ("PPA,area 1, dorsal, V1", ("PPA", "area 1, dorsal", "V1")),
        ("area 1, dorsal, part", ("area 1, dorsal, part",)),
        ("area 1,PPA", ("area 1", "PPA")),
        ("nowhere, PPA", ("nowhere", "PPA")),
        ([], ()),
    ],
)
def test_names_with_commas_are_found_where_they_are_names(table, texts, names):
    with_commas = RoiTable({**table, "area 1, dorsal": [8], "area 1, dorsal, part": [9]}, 10)
    assert with_commas.split_names(texts) == names


def test_a_text_without_a_name(table):
    for text in ("", " , "):
        with pytest.raises(UsageError, match="expected a name"):
            table.split_names(text)


def test_a_mask_is_no_list_of_positions():
    with pytest.raises(DataError, match="mask"):
        RoiTable.from_json({"V1": [0, 1, 1, 0]}, 4)
    assert RoiTable.from_json({"V1": [0, 1]}, 2)["V1"].tolist() == [0, 1]
    assert RoiTable.from_json({"V1": [0, 1]}, 4)["V1"].tolist() == [0, 1]


def test_a_name_of_its_own_beats_an_alias():
    table = RoiTable({"V1": np.array([3]), "V1v": np.array([0])}, 4)
    np.testing.assert_array_equal(table.members("V1"), [3])


def test_roi_table_is_a_mapping(table):
    assert table.names == tuple(table) == ("V1v", "V1d", "FFA-1", "FFA-2", "OVWFA", "mTL-words", "PPA")
    assert table.empty == ("mTL-words",) and len(table) == 7 and "PPA" in table
    np.testing.assert_array_equal(table["FFA-1"], [4, 5])


def test_roi_subset_renumbers(table):
    for index in (np.array([1, 4, 6, 9]), np.isin(np.arange(10), [1, 4, 6, 9])):
        part = table.subset(index)
        assert part.n_vertices == 4
        expected = {"V1v": [0], "V1d": [], "FFA-1": [1], "FFA-2": [1, 2], "OVWFA": [3], "mTL-words": [], "PPA": []}
        assert part.to_json() == expected
        assert set(part.empty) == {"V1d", "mTL-words", "PPA"}


def test_roi_json_round_trip(table):
    again = RoiTable.from_json(table.to_json(), 10)
    assert again.to_json() == table.to_json() and again.names == table.names


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1, 2], "object"),
        ({"V1": 3}, "whole numbers"),
        ({"V1": [0.5]}, "whole numbers"),
        ({"V1": [True]}, "whole numbers"),
        ({"V1": [10]}, r"0 \.\. 9"),
        ({"V1": [-1]}, r"0 \.\. 9"),
        ({"V1": [1], "v1": [2]}, "ignore case"),
    ],
)
def test_roi_json_refuses(value, said):
    with pytest.raises(DataError, match=said):
        RoiTable.from_json(value, 10)
