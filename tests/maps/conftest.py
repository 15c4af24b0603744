"""A small subject at the back of the brain, its maps and figures of them."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.surface import mesh
from brainkit.cortex.vertices import Vertices

NOTE = "SIMULATED subject, not a brain"


def posterior(count, hemispheres=("left", "right")):
    masks = {}
    for hemisphere in ("left", "right"):
        sphere = mesh("fsaverage5", hemisphere, "sphere")[0]
        pole = mesh("fsaverage5", hemisphere, "pial")[0][:, 1].argmin()
        masks[hemisphere] = np.zeros(10242, dtype=bool)
        if hemisphere in hemispheres:
            masks[hemisphere][np.argsort(-(sphere @ sphere[pole]))[:count]] = True
    return Vertices.from_masks(masks["left"], masks["right"])


@pytest.fixture(scope="session")
def back():
    """`posterior`, for tests that need another part of it."""
    return posterior


@pytest.fixture(scope="session")
def subject():
    """Arguments of `trained_maps`, and the vertices and regions they are of."""
    vertices = posterior(300)
    count = len(vertices)
    weights = np.full((count, 3), 0.05)
    weights[np.arange(count), np.arange(count) * 3 // count] = 0.9
    side = np.where(np.arange(count) < vertices.n_left, 1.0, -1.0)
    rois = {"early": np.arange(0, count, 1)[: count // 4], "none": np.array([], dtype=int)}
    return {
        "vertices": vertices,
        "rois": RoiTable(rois, count),
        "layers": ("stage1", "stage2", "stage3"),
        "layer_weights": weights,
        "locations": np.column_stack([0.6 * side, np.zeros(count)]),
        "scale": np.linspace(0.05, 0.7, count),
        "r": np.full(count, 0.6),
        "R2": np.full(count, 0.3),
        "noise_ceiling": np.full(count, 0.5),
    }


@pytest.fixture(scope="session")
def map_set(subject):
    """Makes the subject's `MapSet`: of given maps, or of all, with some arguments of `trained_maps` replaced."""
    from brainkit.maps.brain_map import MapSet
    from brainkit.maps.catalog import trained_maps

    def make(*maps, title="who", note=NOTE, rois=None, **changed):
        values = {name: given for name, given in subject.items() if name not in ("vertices", "rois")}
        maps = maps or trained_maps(**{**values, **changed})
        return MapSet(title, subject["vertices"], subject["rois"] if rois is None else rois, tuple(maps), note)

    return make


@pytest.fixture(scope="session")
def figure_of(map_set):
    """Draws one map of the subject."""
    from brainkit.maps.figure import MapFigure
    from brainkit.maps.style import DEFAULT

    def draw(brain_map, style=DEFAULT, picture=None, **more):
        return MapFigure(map_set(brain_map, **more), brain_map, style, 120, picture)

    return draw
