"""How long still maps take, in a process of its own: ``python -m bench.still_maps SPACE VIEW``; `bench.maps` calls it.

Prints JSON: seconds of the first figure with all imports, of each further one, and the size of a PDF.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from brainkit.cortex.cortical_surface import average_surface
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.maps import definitions
from brainkit.maps.brain_map import MapSet
from brainkit.maps.catalog import trained_maps
from brainkit.maps.draw import draw_map_file
from brainkit.maps.style import Style


def main() -> None:
    """Draw ten maps of the vertices at the back of the brain, again and again."""
    space, view, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3])
    maps, style = make_maps(space, everywhere=False), Style(view=view)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        draw_map_file(Path(folder) / "first", maps, maps.maps[0], style=style)
        found["first, s"] = round(time.time() - psutil.Process().create_time(), 2)
        again = time.perf_counter()
        for index in range(repeats):
            draw_map_file(Path(folder) / str(index), maps, maps.maps[index % len(maps.maps)], style=style)
        found["each further, s"] = round((time.perf_counter() - again) / repeats, 2)
        style = Style(view=view, width=7.2)
        (pdf,) = draw_map_file(Path(folder) / "map", maps, maps["layer"], style=style, formats=["pdf"])
        found["PDF, MB"] = round(pdf.stat().st_size / 1e6, 2)
    print(json.dumps(found))


def make_maps(space: str, everywhere: bool) -> MapSet:
    """Ten maps of the vertices at the back of the brain, or of all: smooth, with noise."""
    surface, rng, layers = average_surface(space), np.random.default_rng(0), 12
    points = np.concatenate([surface.left.points["pial"], surface.right.points["pial"]])
    vertices = Vertices(space, np.flatnonzero(everywhere | (points[:, 1] < -62)))
    place, count = points[vertices.ids], len(vertices)
    depth = (place[:, 1] + 110) / 190
    noise = rng.standard_normal((12, count))
    weights = np.exp(-np.square(depth[:, None] + 0.05 * noise[:1].T - np.linspace(0, 1, layers)) * 30)
    r = np.clip(0.7 - depth + 0.1 * noise[1], -1, 1)
    maps = trained_maps(
        layers=[f"blocks.{i}" for i in range(layers)],
        layer_weights=weights / weights.sum(axis=1, keepdims=True),
        locations=np.clip(place[:, [0, 2]] / 70 + 0.1 * noise[2:4].T, -1, 1),
        scale=np.clip(depth + 0.1 * noise[4], 0, 1),
        r=r,
        R2=np.sign(r) * r**2,
        noise_ceiling=np.full(count, 0.6),
        test_images=500,
    )
    more = [definitions.response(depth + 0.1 * noise[5 + i], title=f"response {i}") for i in range(10 - len(maps))]
    named = [type(each)(f"response-{i}", each.title, each.values, each.coding) for i, each in enumerate(more)]
    rois = {name: np.flatnonzero(np.linalg.norm(place - place[at], axis=1) < 20) for name, at in _seeds(count, rng)}
    return MapSet(f"{count:,} vertices of {space}", vertices, RoiTable(rois, count), (*maps, *named))


def _seeds(count: int, rng: np.random.Generator) -> list[tuple[str, int]]:
    return [(f"region {i}", int(at)) for i, at in enumerate(rng.integers(0, count, 12))]


if __name__ == "__main__":
    main()
