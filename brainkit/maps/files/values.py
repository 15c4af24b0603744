"""What of a map is stored in files: columns of values, numbers and colours of classes, names."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.cortex.surface import HEMISPHERES
from brainkit.cortex.vertices import CUSTOM, SPACES
from brainkit.maps.brain_map import BrainMap, Categorical, Location, MapSet
from brainkit.utils.files import atomic_write

UNKNOWN = "???"  # what FreeSurfer and Workbench call what has no label


def class_numbers(brain_map: BrainMap) -> np.ndarray:
    """The class with the largest share at each vertex, counted from 1; 0 where unknown. (V,), int32."""
    numbers = np.argmax(np.nan_to_num(brain_map.values, nan=-np.inf), axis=1) + 1
    return np.where(brain_map.known, numbers, 0).astype(np.int32)


def class_colours(coding: Categorical) -> np.ndarray:
    """The palette in whole numbers, all different and none black, as tables of labels need them. (n, 3), uint8."""
    colours = np.rint(255 * np.clip(np.asarray(coding.palette, np.float64), 0, 1)).astype(np.int64)
    taken = {(0, 0, 0)}
    for colour in colours:
        while tuple(colour.tolist()) in taken:  # FreeSurfer tells labels apart by their colours, and none is 0
            code = (int(colour @ (65536, 256, 1)) + 1) % (1 << 24)
            colour[:] = code >> 16, code >> 8 & 255, code & 255
        taken.add(tuple(colour.tolist()))
    return colours.astype(np.uint8)


def hemispheres_of(maps: MapSet) -> list[str]:
    """Hemispheres with vertices; the other has no files."""
    left, _, ids = _places(maps)
    found = {"left": (ids < left).any(), "right": (ids >= left).any()}
    return [side for side in HEMISPHERES if found[side]]


def stored_columns(brain_map: BrainMap, maps: MapSet, hemisphere: str) -> Iterator[tuple[str, np.ndarray]]:
    """What is stored of a hemisphere, all of its vertices: names and values (n,)."""
    whole = on_hemisphere(stored_values(brain_map), maps, hemisphere, unknown_value(brain_map))
    yield from zip(column_names(brain_map), whole.T, strict=True)


def column_names(brain_map: BrainMap) -> list[str]:
    if isinstance(brain_map.coding, Location):
        return [f"{brain_map.title}, x to the right", f"{brain_map.title}, y down"]
    return [brain_map.title]


def stored_values(brain_map: BrainMap) -> np.ndarray:
    """What is stored: numbers of classes (V, 1) int32, or values (V, 1 or 2) float32."""
    if isinstance(brain_map.coding, Categorical):
        return class_numbers(brain_map)[:, None]
    return np.asarray(brain_map.values, np.float32).reshape(len(brain_map.values), -1)


def unknown_value(brain_map: BrainMap) -> float:
    return 0 if isinstance(brain_map.coding, Categorical) else np.nan


def on_hemisphere(values: np.ndarray, maps: MapSet, hemisphere: str, fill: float = np.nan) -> np.ndarray:
    """Values (V, ...) on all vertices of a hemisphere: (n, ...), of the same type."""
    left, right, ids = _places(maps)
    whole = np.full((left + right, *values.shape[1:]), fill, values.dtype)
    whole[ids] = values
    return whole[:left] if hemisphere == "left" else whole[left:]


def _places(maps: MapSet) -> tuple[int, int, np.ndarray]:
    """Vertices of both hemispheres, and where the V values lie, the right hemisphere's after the left's."""
    if maps.vertices.space != CUSTOM:
        size = SPACES[maps.vertices.space]
        return size, size, maps.vertices.ids
    surface = maps.surface
    assert surface is not None  # formats.check_format
    return len(surface.left), len(surface.right), surface.ids_of(maps.vertices, maps.ids)


def class_labels(coding: Categorical) -> list[tuple[str, tuple[int, int, int, int]]]:
    """Name and RGBA in 0 .. 255 of key 0, which is unknown and transparent, and of each class from key 1."""
    colours = class_colours(coding).tolist()
    classes = [(plain(name), (*rgb, 255)) for name, rgb in zip(coding.names, colours, strict=True)]
    return [(UNKNOWN, (255, 255, 255, 0)), *classes]  # type: ignore[list-item]


def describe(brain_map: BrainMap) -> str:
    return plain("; ".join(part for part in (brain_map.title, brain_map.summary, brain_map.detail) if part))


def plain(text: str) -> str:
    """Text that XML and tables of labels can hold: control characters, line breaks too, become spaces."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def save(image: Any, path: Path) -> Path:
    """Write an image of nibabel's; the bytes depend neither on the clock nor on the file's name."""
    import nibabel

    with atomic_write(path) as temporary:
        if path.name.endswith(".nii.gz"):
            temporary.write_bytes(gzip.compress(image.to_bytes(), mtime=0))
        else:
            nibabel.save(image, temporary)
    return path
