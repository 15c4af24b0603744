"""A surface as the page stores it: coordinates in whole steps, finer points only where they cannot be computed."""

from __future__ import annotations

from typing import Any

import numpy as np

from brainkit.cortex.cortical_surface import CorticalSurface, Hemisphere
from brainkit.cortex.surface import HEMISPHERES, mesh, midpoints
from brainkit.page.pack import Pool

SHAPES = ("pial", "inflated", "sphere", "flat")
_BASE = "fsaverage5"
_FINER = {"fsaverage6": ("fsaverage6",), "fsaverage": ("fsaverage6", "fsaverage")}  # spaces subdivided from it
_CLOSE_ENOUGH = 0.05  # mm; a fiftieth of a pixel on a screen that shows the whole brain
_STEP = 0.02  # mm
_STEPS = 32_000  # at most, on either side of the middle
_CURVATURE = 0.25  # per mm; beyond it all is equally dark


def pack_surface(surface: CorticalSurface, pool: Pool) -> dict[str, Any]:
    """Put a surface's arrays into the pool, and describe them.

    A mesh of the fsaverage family is stored as fsaverage5 and, of the points that the page computes as midpoints, the
    differences from them, if there are any.
    """
    shapes = [shape for shape in SHAPES if shape in surface.shapes] or [surface.shapes[0]]
    largest = max(
        float(np.abs(_placed(surface.hemisphere(name), shape, name)).max()) for name in HEMISPHERES for shape in shapes
    )
    step = max(largest / _STEPS, _STEP)
    packed: dict[str, Any] = {}
    for name in HEMISPHERES:
        hemisphere = surface.hemisphere(name)
        parents = _parents(surface, name)
        faces = mesh(_BASE, name, "sphere")[1] if parents else hemisphere.faces
        packed[name] = {
            "count": len(hemisphere),
            "levels": len(parents),
            "faces": pool.add(faces.astype(np.int32), delta=True),
            "flatFaces": pool.add(np.packbits(_on_flatmap(hemisphere), bitorder="little")),
            "shapes": {
                shape: _pack_points(*_in_steps(hemisphere, shape, name, step), parents, _CLOSE_ENOUGH / step, pool)
                for shape in shapes
            },
            "curvature": _pack_curvature(hemisphere, parents, pool),
        }
    return {"name": surface.name, "step": step, "shapes": shapes, **packed}


def _placed(hemisphere: Hemisphere, shape: str, name: str) -> np.ndarray:
    """Points of a shape, centred; a flatmap stands upright, with its outer side away from the other hemisphere."""
    points = np.asarray(hemisphere.points[shape], dtype=np.float64)
    on = np.ones(len(points), dtype=bool)
    if shape == "flat":
        on = hemisphere.on_flatmap
        across = -points[:, 0] if name == "left" else points[:, 0]
        points = np.stack([np.zeros(len(points)), across, points[:, 1]], axis=1)
    centre = (points[on].min(axis=0) + points[on].max(axis=0)) / 2 if on.any() else np.zeros(3)
    return np.where(on[:, None], points - centre, 0.0)


def _in_steps(hemisphere: Hemisphere, shape: str, name: str, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Points in steps, and which of them mean something."""
    on = hemisphere.on_flatmap if shape == "flat" else np.ones(len(hemisphere), dtype=bool)
    return _placed(hemisphere, shape, name) / step, on


def _parents(surface: CorticalSurface, name: str) -> list[np.ndarray]:
    """Of each level of subdivision, the neighbours of its new vertices; empty for a mesh of another kind."""
    finer = _FINER.get(surface.space, ())
    if finer and np.array_equal(surface.hemisphere(name).faces, mesh(surface.space, name, "sphere")[1]):
        return [midpoints(space, name) for space in finer]
    return []


def _on_flatmap(hemisphere: Hemisphere) -> np.ndarray:
    """Which faces of the closed mesh the flatmap has. (m,) bool."""
    count = len(hemisphere)
    closed, flat = (
        np.sort(faces, axis=1).astype(np.int64).reshape(-1, 3) for faces in (hemisphere.faces, hemisphere.flat_faces)
    )
    every, flattened = ((faces[:, 0] * count + faces[:, 1]) * count + faces[:, 2] for faces in (closed, flat))
    return np.isin(every, flattened)


def _pack_points(
    points: np.ndarray, on: np.ndarray, parents: list[np.ndarray], tolerance: float, pool: Pool
) -> dict[str, Any]:
    """Points in steps; of midpoints, the differences from where the page computes them, unless all are tolerable."""
    whole = np.rint(points).astype(np.int32)
    coarse = whole[: len(whole) - sum(map(len, parents))]
    packed: dict[str, Any] = {"points": pool.add(coarse.astype(np.int16), delta=True)}
    if np.abs(_subdivided(coarse, parents) - points)[on].max(initial=0.0) > tolerance:
        packed["finer"] = []
        for ends in parents:
            known = len(coarse)
            guess = _subdivided(coarse, [ends])[known:]
            here = slice(known, known + len(ends))
            coarse = np.concatenate([coarse, np.where(on[here, None], whole[here], guess)])
            packed["finer"].append(pool.add((coarse[known:] - guess).astype(np.int16)))
    return packed


def _pack_curvature(hemisphere: Hemisphere, parents: list[np.ndarray], pool: Pool) -> dict[str, Any]:
    """Curvature in 1/127 of `_CURVATURE`; of midpoints only if the page cannot compute it."""
    scaled = np.clip(np.nan_to_num(hemisphere.curvature) / _CURVATURE, -1, 1) * 127
    whole = np.rint(scaled).astype(np.int32)
    coarse = whole[: len(whole) - sum(map(len, parents))]
    computed = np.abs(_subdivided(coarse, parents) - scaled).max(initial=0.0) < 3
    return pool.add((coarse if computed else whole).astype(np.int8))


def _subdivided(values: np.ndarray, parents: list[np.ndarray]) -> np.ndarray:
    """Whole numbers followed by those of the midpoints, rounded down, exactly as `assets/mesh.js` computes them."""
    for ends in parents:
        values = np.concatenate([values, (values[ends[:, 0]] + values[ends[:, 1]]) >> 1])
    return values
