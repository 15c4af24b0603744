"""The groups of vertices that results are summarised by."""

from __future__ import annotations

import numpy as np

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.evaluation.vertex_groups import vertex_groups


def test_hemispheres_common_names_and_regions() -> None:
    vertices = Vertices("fsaverage5", np.array([1, 5, 10_242, 10_250, 10_260]))
    rois = RoiTable({"V1v": [0, 2], "V1d": [3], "FFA-1": [4], "hV4": [1], "absent": []}, 5)
    groups = vertex_groups(vertices, rois)
    assert groups["left hemisphere"].tolist() == [0, 1]
    assert groups["right hemisphere"].tolist() == [2, 3, 4]
    assert groups["V1"].tolist() == [0, 2, 3]
    assert "FFA" not in groups and "V4" not in groups  # one part: the region's own name says it
    assert groups["absent"].tolist() == []
    assert list(groups)[-5:] == list(rois)


def test_a_region_of_the_data_keeps_its_name() -> None:
    rois = RoiTable({"v1": [0], "V1v": [1], "V1d": [2]}, 3)
    groups = vertex_groups(Vertices.custom(3), rois)
    assert groups["v1"].tolist() == [0] and "V1" not in groups
    assert not any("hemisphere" in name for name in groups)
