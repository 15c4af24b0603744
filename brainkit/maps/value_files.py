"""Any file with one value (or several) for each vertex, as maps."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import CUSTOM, SPACES, Vertices, from_ranges
from brainkit.cortex.volume import Volume, read_shape
from brainkit.errors import DataError, UsageError
from brainkit.maps import definitions
from brainkit.maps.brain_map import BrainMap, Categorical, Continuous, MapSet
from brainkit.maps.limits import same_limits, share_limits
from brainkit.maps.value_readers import LEFT, RIGHT, SUFFIXES, Values, read_values, without_side
from brainkit.predict.outputs.formats import description_path
from brainkit.utils.file_names import PART, file_stem
from brainkit.utils.files import read_json
from brainkit.utils.text import plural

MOST_ROWS = 12  # drawn of a file with several maps, by default
_NO_CLASS = ("???", "unknown", "medial_wall")
Pair = list[Values]  # one file, or those of the left and the right hemisphere


def is_value_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name says that it holds values of vertices."""
    return os.fspath(path).lower().endswith(SUFFIXES)


def read_value_files(
    paths: Sequence[str | os.PathLike[str]],
    *,
    like: MapSet | None = None,
    rows: Sequence[int] = (),
    mean: bool = False,
    own_limits: bool = False,
) -> list[MapSet]:
    """Read files as maps; files of the two hemispheres whose names differ in nothing else become one.

    Parameters
    ----------
    paths : sequence of path-like
        ``.npy`` of shape (V,) or (n, V): an output of ``brainkit predict`` with its ``.npy.json``, or any other array;
        GIFTI (``.gii``); FreeSurfer (``.mgz``, ``.mgh``, ``.annot``).
    like : MapSet, optional
        Whose vertices the values may be, with the ROIs that are outlined.
    rows : sequence of int
        Which of a file's n rows, counted from 0; by default the first `MOST_ROWS`.
    mean : bool
        The mean over the rows (all, or those of `rows`) instead.
    own_limits : bool
        Each map has limits of its own. By default the rows of a file share them, and the files of the same unit, but
        for those with negative values and those without.

    Returns
    -------
    list of MapSet
        One for each file or pair of hemispheres.

    Raises
    ------
    DataError
        If a file cannot be read, or its values are of no known vertices.
    UsageError
        If a row does not exist.
    """
    sets: list[MapSet] = []
    for pair in _paired([read_values(Path(path)) for path in paths]):
        described = _description(pair[0].path) if len(pair) == 1 else None
        vertices, rois, volume = _vertices(pair, like, described)
        count = len(pair[0].rows)
        chosen = list(rows) or list(range(count if mean else min(count, MOST_ROWS)))
        for row in chosen:
            if not 0 <= row < count:
                raise UsageError(f"{pair[0].path}: has rows 0 .. {count - 1}, not {row}")
        if pair[0].labels is not None:
            maps = [_classes(pair, row) for row in chosen]
        else:
            maps = _numbers(pair, chosen, mean, described)
        note = None if described is None else described.get("note")
        sets.append(MapSet("", vertices, rois, tuple(maps if own_limits else same_limits(maps)), note, volume))
    return sets if own_limits else share_limits(sets, _kind)


def _kind(brain_map: BrainMap) -> tuple[str, str]:
    """Unit and colours: maps that agree in both may be of one quantity."""
    coding = brain_map.coding
    return coding.label, coding.colours if isinstance(coding, Continuous) else ""


def _paired(files: list[Values]) -> list[Pair]:
    """Files alone, and left with right where their names differ in nothing else."""
    groups: dict[tuple[Path, str], list[Values]] = {}
    for each in files:
        groups.setdefault((each.path.parent, without_side(each.path.name)), []).append(each)
    found: list[Pair] = []
    for group in groups.values():
        sides = sorted(group, key=lambda each: each.hemisphere)
        found += [sides] if len(sides) == 2 and _are_a_pair(*sides) else [[each] for each in group]
    return found


def _are_a_pair(one: Values, other: Values) -> bool:
    same_labels = (one.labels and one.labels[0]) == (other.labels and other.labels[0])
    return [one.hemisphere, other.hemisphere] == [LEFT, RIGHT] and len(one.rows) == len(other.rows) and same_labels


def _description(path: Path) -> dict[str, Any] | None:
    """Of an output of `brainkit predict`, the JSON next to it."""
    beside = description_path(path)
    if path.suffix.lower() != ".npy" or not beside.is_file():
        return None
    content = read_json(beside)
    if not isinstance(content, dict) or not isinstance(content.get("vertices"), dict):
        raise DataError(f"{beside}: expected a description of predictions, with images and vertices")
    return content


_Columns = tuple[Vertices, RoiTable, Volume | None]


def _vertices(pair: Pair, like: MapSet | None, described: dict[str, Any] | None) -> _Columns:
    """Whose vertices the values are, their ROIs, and which voxels they are."""
    widths = [each.rows.shape[1] for each in pair]
    if described is not None:
        told = described["vertices"]
        ids = np.asarray(from_ranges(told["ranges"]) if "ranges" in told else told.get("ids", ()))
        if len(ids) == widths[0]:
            space = str(described.get("space", CUSTOM))
            return _custom(described, len(ids), like) if space == CUSTOM else _with_rois(Vertices(space, ids), like)
    if like is not None and (chosen := _part_of(like.vertices, pair, widths)) is not None:
        volume = like.volume and like.volume.select(np.flatnonzero(chosen))
        return like.vertices.select(chosen), like.rois.subset(chosen), volume
    for space, size in SPACES.items():
        if widths in ([2 * size], [size, size]):
            return _with_rois(Vertices(space, np.arange(2 * size)), like)
        if widths == [size] and pair[0].hemisphere:
            start = 0 if pair[0].hemisphere == LEFT else size
            return _with_rois(Vertices(space, np.arange(start, start + size)), like)
    raise DataError(_misfit(pair, widths[0], like))


def _part_of(vertices: Vertices, pair: Pair, widths: list[int]) -> np.ndarray | None:
    """Which of the vertices the values are: all, or those of a hemisphere; None if they do not fit. Mask (V,)."""
    left, every = np.arange(len(vertices)) < vertices.n_left, np.ones(len(vertices), dtype=bool)
    if widths in ([len(vertices)], [int(left.sum()), int((~left).sum())]):
        return every
    side = {LEFT: left, RIGHT: ~left}.get(pair[0].hemisphere)
    return side if side is not None and widths == [int(side.sum())] else None


def _with_rois(vertices: Vertices, like: MapSet | None) -> _Columns:
    """The vertices, with those ROIs of `like` that are among them."""
    rois: dict[str, np.ndarray] = {}
    if like is not None and like.vertices.space == vertices.space:
        for name, positions in like.rois.items():
            rois[name] = np.flatnonzero(np.isin(vertices.ids, like.vertices.ids[positions]))
    return vertices, RoiTable(rois, len(vertices)), None


def _custom(described: dict[str, Any], count: int, like: MapSet | None) -> _Columns:
    """Predicted vertices of the custom space, whose ids mean something to their encoder alone; voxels have places."""
    volume = _described_volume(described)
    vertices, rois = Vertices.custom(count), RoiTable({}, count)
    if like is None or like.vertices.space != CUSTOM:
        return vertices, rois, volume
    if volume is None:
        return (vertices, like.rois, like.volume) if count == len(like.vertices) else (vertices, rois, None)
    if like.volume is not None and (positions := like.volume.positions_of(volume)) is not None:
        rois = like.rois.subset(positions)
    return vertices, rois, volume


def _described_volume(described: dict[str, Any]) -> Volume | None:
    if (told := described.get("volume")) is None:
        return None
    try:
        shape = read_shape(told["shape"])
        return Volume(shape, told["affine"], np.stack(np.unravel_index(from_ranges(told["ranges"]), shape), axis=1))
    except (KeyError, TypeError, ValueError):
        raise DataError("volume of predictions: expected shape, affine and ranges, found others") from None


def _misfit(pair: Pair, width: int, like: MapSet | None) -> str:
    path = pair[0].path
    space = next((space for space, size in SPACES.items() if size == width), None)
    if len(pair) == 1 and space is not None:
        return (
            f"{path}: has the {width:,} vertices of one hemisphere of {space}, and does not say which; begin its name "
            "with lh. or rh."
        )
    fits = ", ".join(f"{2 * size:,} ({space}; {size:,} a hemisphere)" for space, size in SPACES.items())
    if like is None:
        told = "give --like RUN or an encoder file whose vertices they are"
    else:
        left = like.vertices.n_left
        told = f"--like has {len(like.vertices):,} ({left:,} left, {len(like.vertices) - left:,} right)"
    return f"{path}: expected a value for each vertex, found {width:,}; spaces have {fits}; {told}"


def _numbers(pair: Pair, chosen: list[int], mean: bool, described: dict[str, Any] | None) -> list[BrainMap]:
    stem = _stem(pair)
    units = "" if described is None else str(described.get("units", ""))
    label = f"response ({units})" if units else ""
    images = [] if described is None else list(described.get("images", ()))
    if mean:
        values = np.concatenate([each.rows[chosen].mean(axis=0, dtype=np.float64) for each in pair])
        title = f"{stem}: mean of {plural(len(chosen), 'row')}"
        if len(images) == len(pair[0].rows):
            title = f"Mean predicted response to {plural(len(chosen), 'image')}"
        return [definitions.anything(f"{stem}-mean", values, title=title, label=label)]
    values = np.concatenate([np.asarray(each.rows[chosen], dtype=np.float64) for each in pair], axis=1)
    if len(images) == len(pair[0].rows):
        paths = [Path(str(images[row])) for row in chosen]
        names = [f"{row:04d}-{file_stem(path.stem, PART)}" for row, path in zip(chosen, paths, strict=True)]
        titles = [f"Predicted response to {path.name}" for path in paths]
    else:
        names = _row_names(pair[0], chosen)
        titles = [""] * len(names)
    return [
        definitions.anything(f"{stem}-{name}" if name else stem, row, title=title, label=label)
        for name, title, row in zip(names, titles, values, strict=True)
    ]


def _row_names(values: Values, chosen: list[int]) -> list[str]:
    """What tells the rows apart: numbers, with names in the file; nothing if there is one."""
    if len(values.rows) == 1:
        return [""]
    texts = [Path(values.names[row]).stem if values.names else "" for row in chosen]
    return [
        f"{row:04d}-{file_stem(text, PART)}" if text else f"{row:04d}" for row, text in zip(chosen, texts, strict=True)
    ]


def _stem(pair: Pair) -> str:
    name = without_side(pair[0].path.name) if len(pair) == 2 else pair[0].path.name
    stem = re.sub(r"(\.(npy|mgz|mgh|annot|gii|func|shape|label))+$", "", name, flags=re.IGNORECASE)
    return re.sub(r"[._-]{2,}", "_", stem).strip("._-")[:PART] or "map"


def _classes(pair: Pair, row: int) -> BrainMap:
    """Classes of a label file: those that have vertices, in the colours of the file."""
    names, colours = pair[0].labels or ((), np.empty((0, 3)))
    numbers = np.concatenate([each.rows[row] for each in pair])
    used = [number for number, name in enumerate(names) if (numbers == number).any() and name.lower() not in _NO_CLASS]
    shares = (numbers[:, None] == np.array(used, dtype=np.intp)[None]).astype(np.float64)
    shares[~shares.any(axis=1)] = np.nan
    coding = Categorical(tuple(names[number] for number in used), colours[used], "region")
    summary = f"{int(np.isin(numbers, used).sum()):,} of {plural(len(numbers), 'vertex', 'vertices')}"
    stem, distinct = _stem(pair), _row_names(pair[0], [row])[0]
    return BrainMap(f"{stem}-{distinct}" if distinct else stem, stem, shares, coding, summary=summary)
