"""A small page for tests: some vertices at the back of fsaverage5, five maps, three photographs."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from brainkit.cortex.cortical_surface import average_surface
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.maps.brain_map import MapSet
from brainkit.maps.catalog import trained_maps
from brainkit.page import Fact, PageContent, Photographs, Still

HOSTILE = "</script><script>window.hacked = 1</script>\"'\n<img src=x onerror=hacked=1>{{data}}\u202eمرحبا"
"""Text as a file or a region may be named."""

LAYERS = ("early", "middle", "late")


def jpeg(colour):
    file = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(file, "JPEG")
    return file.getvalue()


def make_content(title="A subject", note="SIMULATED", names=("a.png", "b.png", "c.png"), roi="V1", layers=LAYERS):
    surface = average_surface("fsaverage5")
    points = np.concatenate([surface.left.points["pial"], surface.right.points["pial"]])
    vertices = Vertices("fsaverage5", np.flatnonzero(points[:, 1] < -70))
    place, count = points[vertices.ids], len(vertices)
    depth = np.clip((place[:, 1] + 105) / 35, 0, 1)
    weights = np.exp(-np.square(depth[:, None] * 2 - np.arange(3)) * 3)
    maps = trained_maps(
        layers=layers,
        layer_weights=weights / weights.sum(axis=1, keepdims=True),
        locations=np.clip(np.column_stack([-place[:, 0] / 50, -place[:, 2] / 60]), -1, 1),
        scale=depth,
        r=(r := np.where(place[:, 2] > 30, 0.02, 0.7 - 0.4 * depth)),
        R2=np.where(np.arange(count) == 5, np.nan, r**2),
        noise_ceiling=np.full(count, 0.6),
        test_images=100,
    )
    rois = RoiTable({roi: np.flatnonzero(depth < 0.45), "none": np.array([], int)}, count)
    responses = np.stack([np.sin(place[:, 0] / 9), np.cos(place[:, 2] / 9), 2 * depth - 1])
    return PageContent(
        MapSet(title, vertices, rois, maps, note),
        surface,
        (Fact("noise ceiling", np.full(count, 0.6)),),
        Photographs(names, tuple(jpeg(colour) for colour in ("red", "green", "blue")), responses, 1.0, "z"),
        ("from a test",),
        (Still("a map", jpeg("orange")),),
    )
