"""A brain of two small spheres with a bump: closed meshes of 66 vertices each, with a flatmap of their upper half."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from brainkit.cortex.cortical_surface import CorticalSurface, Hemisphere


def sphere(times: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """An octahedron, subdivided: unit vectors (n, 3), and faces that run counter-clockwise from outside (m, 3)."""
    points = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
    faces = [(0, 2, 4), (2, 1, 4), (1, 3, 4), (3, 0, 4), (2, 0, 5), (1, 2, 5), (3, 1, 5), (0, 3, 5)]
    unit = [np.array(point, float) for point in points]
    for _ in range(times):
        middle: dict[tuple[int, int], int] = {}
        finer = []
        for a, b, c in faces:
            ids = []
            for pair in ((a, b), (b, c), (c, a)):
                key = (min(pair), max(pair))
                if key not in middle:
                    middle[key] = len(unit)
                    mean = unit[pair[0]] + unit[pair[1]]
                    unit.append(mean / np.linalg.norm(mean))
                ids.append(middle[key])
            ab, bc, ca = ids
            finer += [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        faces = finer
    return np.array(unit), np.array(faces, np.int32)


def small_surface(times: int = 2, bumpy: float = 0.0) -> CorticalSurface:
    """Spheres of radius 20 mm around x = -30 and 30; `bumpy` pushes a shape's points in and out, so that it folds."""
    unit, faces = sphere(times)
    wave = 1 + bumpy * np.sin(7 * unit[:, :1]) * np.cos(6 * unit[:, 1:2]) * np.sin(5 * unit[:, 2:] + 1)
    upper = faces[(unit[faces, 2] >= -1e-9).all(axis=1)]
    halves = []
    for side in (-30.0, 30.0):
        shapes = {
            "pial": 20 * unit * wave + [side, 0, 0],
            "white": 17 * unit * wave + [side, 0, 0],
            "inflated": 24 * unit,
            "sphere": 100 * unit,
            "flat": 30 * unit * [1, 1, 0],
        }
        points = {name: each.astype(np.float32) for name, each in shapes.items()}
        halves.append(Hemisphere(points, faces, upper, unit[:, 2].astype(np.float32)))
    return CorticalSurface("small", "custom", *halves, source="made up")


def write_freesurfer(folder: Path, surface: CorticalSurface, shapes: tuple[str, ...] = ("pial", "white")) -> None:
    """The hemispheres as files of FreeSurfer: lh.pial and the like, lh.curv, and the flatmap as a patch."""
    from nibabel.freesurfer import write_geometry, write_morph_data

    folder.mkdir(parents=True, exist_ok=True)
    for prefix, half in (("lh", surface.left), ("rh", surface.right)):
        for shape in shapes:
            write_geometry(folder / f"{prefix}.{shape}", half.points[shape], half.faces)
        write_morph_data(folder / f"{prefix}.curv", half.curvature)
        on = np.flatnonzero(half.on_flatmap)
        rows = np.zeros(len(on), [("id", ">i4"), ("place", ">f4", 3)])
        rows["id"], rows["place"] = np.where(np.arange(len(on)) % 2, on + 1, -on - 1), half.points["flat"][on]
        header = np.array([-1, len(on)], ">i4").tobytes()
        (folder / f"{prefix}.full.flat.patch.3d").write_bytes(header + rows.tobytes())


def write_gifti(path: Path, *arrays: np.ndarray) -> None:
    """Points and faces, or values alone."""
    from nibabel.gifti import GiftiDataArray, GiftiImage

    intents = ("NIFTI_INTENT_POINTSET", "NIFTI_INTENT_TRIANGLE") if len(arrays) == 2 else ("NIFTI_INTENT_SHAPE",)
    data = [
        GiftiDataArray(array, intent=intent, datatype=f"NIFTI_TYPE_{'INT32' if array.dtype.kind == 'i' else 'FLOAT32'}")
        for array, intent in zip(arrays, intents, strict=True)
    ]
    GiftiImage(darrays=data).to_filename(path)
