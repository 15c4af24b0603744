"""npz: all maps in one file, with a description."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from brainkit.cortex.vertices import CUSTOM, SPACES, Vertices
from brainkit.maps.brain_map import Categorical, Continuous, Location, MapSet
from brainkit.maps.files.values import describe
from brainkit.utils.files import atomic_write


def write_npz(folder: Path, maps: MapSet) -> Iterator[Path]:
    """``maps.npz``: all maps as they are, with what is needed to place them; ``description`` says what is what."""
    vertices = maps.vertices
    arrays: dict[str, np.ndarray] = {"space": np.array(vertices.space), "vertices": vertices.ids}
    lines = [
        f"Maps of {len(vertices):,} vertices, written by brainkit. Rows of all arrays are the vertices, in one order;",
        "NaN is unknown.",
        *([f"NOTE: {maps.note}"] if maps.note else []),
        "",
        "space, vertices: where they lie; " + _place(vertices),
    ]
    if maps.volume is not None:
        arrays |= {"voxels": maps.volume.voxels, "volume_shape": np.array(maps.volume.shape)}
        arrays["affine"] = maps.volume.affine
        lines.append("voxels, volume_shape, affine: their voxels, the volume, and voxel indices to mm")
    for name, members in maps.rois.items():
        arrays[f"roi:{name}"] = members
    if maps.rois:
        lines.append("roi:NAME: rows of the vertices of a region")
    for brain_map in maps.maps:
        name, coding = brain_map.name, brain_map.coding
        arrays[name] = np.asarray(brain_map.values)
        lines += ["", f"{name}: {describe(brain_map)}"]
        if isinstance(coding, Continuous):
            lines.append(f"  {coding.label}; drawn from {coding.low:g} to {coding.high:g} in {coding.colours}")
        elif isinstance(coding, Location):
            lines.append("  two columns: x to the right, y down, from -1 to 1 over the image")
        else:
            arrays |= {f"{name}:classes": np.array(coding.names), f"{name}:palette": np.asarray(coding.palette)}
            lines.append(f"  a column per class, named by {name}:classes, drawn in the sRGB colours {name}:palette")
        if brain_map.reliable is not None:
            arrays[f"{name}:reliable"] = np.asarray(brain_map.reliable)
            lines.append(f"  {name}:reliable: False where the value may be chance")
        if brain_map.strength is not None:
            arrays[f"{name}:strength"] = np.asarray(brain_map.strength)
            meaning = coding.strength_label if isinstance(coding, Categorical) else ""
            lines.append(f"  {name}:strength: {meaning or 'how clear the class is'}, from 0 to 1")
    arrays["description"] = np.array("\n".join(lines))
    path = folder / "maps.npz"
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
    yield path


def _place(vertices: Vertices) -> str:
    if vertices.space == CUSTOM:
        return "custom vertices are only numbered"
    return f"ids of {vertices.space}, those of the right hemisphere offset by {SPACES[vertices.space]}"
