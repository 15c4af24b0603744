"""The groups of vertices that results are summarised by: hemispheres, regions and streams, and common names of them."""

from __future__ import annotations

import numpy as np

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import CUSTOM, Vertices

LEFT, RIGHT = "left hemisphere", "right hemisphere"


def vertex_groups(vertices: Vertices, rois: RoiTable) -> dict[str, np.ndarray]:
    """Name the groups of vertices that a result is summarised by.

    Parameters
    ----------
    vertices : Vertices
        The V vertices.
    rois : RoiTable
        Of them.

    Returns
    -------
    dict of str to array of shape (k,), int32
        Positions in 0 .. V-1, increasing: both hemispheres, if the vertices lie on a surface; common names that stand
        for several regions of the table, such as ``V1`` for V1v and V1d; then the regions themselves, streams included.
        Regions without vertices are kept.
    """
    groups: dict[str, np.ndarray] = {}
    if vertices.space != CUSTOM:
        positions = np.arange(len(vertices), dtype=np.int32)
        sides = {LEFT: positions[: vertices.n_left], RIGHT: positions[vertices.n_left :]}
        groups = {name: members for name, members in sides.items() if len(members)}
    common = {name: rois.members(name) for name in rois.common_names}
    # A region of the data's own that has one of these names stands for itself.
    return groups | common | dict(rois)
