"""Figures of predictions: each image next to the map of the response to it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.cortex.vertices import CUSTOM, from_ranges
from brainkit.encoder_file import EncoderInfo
from brainkit.errors import DataError, UsageError, require
from brainkit.images import decode
from brainkit.maps import definitions
from brainkit.maps.brain_map import BrainMap, MapSet
from brainkit.maps.draw import check_drawable_set
from brainkit.maps.figure import MapFigure
from brainkit.maps.frame import write_png
from brainkit.maps.limits import symmetric
from brainkit.maps.style import DEFAULT, FORMATS
from brainkit.predict.outputs.formats import description_path
from brainkit.utils.file_names import PART, file_stem
from brainkit.utils.files import read_json
from brainkit.utils.text import as_text, first_line

if TYPE_CHECKING:
    from PIL.Image import Image


def check_drawable(folder: str | os.PathLike[str], info: EncoderInfo) -> Path:
    """Check that figures can be drawn, before long work starts. Creates nothing.

    Parameters
    ----------
    folder : path-like
        Folder of the figures; it may be missing, but its parent must exist.
    info : EncoderInfo
        Of the encoder whose predictions are drawn.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    MissingDependency
        If matplotlib or nilearn is not installed.
    UsageError
        If the encoder's vertices are in the custom space, which has no surface.
    DataError
        If the folder cannot be used.
    """
    for module in ("matplotlib", "nilearn"):
        require(module, extra="maps", purpose="drawing brain maps")
    if info.vertices.space == CUSTOM and info.volume is None:
        raise UsageError(
            "maps need an encoder of an fsaverage space or of the voxels of a volume, got vertices without a surface"
        )
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise DataError(f"{path}: expected a folder for the figures, found a file")
    if not path.parent.is_dir():
        raise DataError(f"{path}: its folder {path.parent} does not exist; create it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise DataError(f"{path}: is not writable")
    return path


def draw_prediction_file(
    file: str | os.PathLike[str],
    encoder_info: EncoderInfo,
    folder: str | os.PathLike[str],
    *,
    images: Sequence[Any] | None = None,
    max_maps: int = 12,
) -> list[Path]:
    """Draw the output of `brainkit.predict.predict_to_file`.

    Parameters
    ----------
    file : path-like
        The ``.npy`` file of predictions, with its ``.npy.json`` next to it.
    encoder_info : EncoderInfo
        Metadata of the encoder that predicted them.
    folder, max_maps
        As in `draw_predictions`.
    images : sequence, optional
        The image of each row, as in ``PredictResult.sources``; by default those named in the ``.json``, where names
        that are not UTF-8 are escaped and images in tar shards cannot be found.

    Returns
    -------
    list of Path
        The figures.

    Raises
    ------
    DataError
        If the files are not an output of predict, or an image can no longer be read.
    """
    file = Path(file)
    json_path = description_path(file)
    if not json_path.exists() and (old := file.with_suffix(".json")).exists():  # as brainkit 0.1.0 named it
        json_path = old
    description = read_json(json_path)
    try:
        named, vertices = list(description["images"]), description["vertices"]
        ids = from_ranges(vertices["ranges"]) if "ranges" in vertices else vertices.get("ids")
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DataError(f"{json_path}: expected a description of predictions, with images and vertices") from None
    columns = None if ids is None else np.flatnonzero(np.isin(encoder_info.vertices.ids, ids))
    try:
        rows = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: expected a .npy array, which cannot be read: {first_line(error)}") from None
    sources = named if images is None else images
    return draw_predictions(encoder_info, rows, sources, folder, columns=columns, max_maps=max_maps)


def draw_predictions(
    encoder_info: EncoderInfo,
    prediction_rows: np.ndarray,
    image_paths: Sequence[Any],
    folder: str | os.PathLike[str],
    *,
    columns: np.ndarray | None = None,
    max_maps: int = 12,
) -> list[Path]:
    """Draw images next to the responses predicted to them, with one colour range for all.

    Parameters
    ----------
    encoder_info : EncoderInfo
        Metadata of the encoder file: vertices, ROIs, units, note.
    prediction_rows : array of shape (n, V)
        Predicted responses, in the encoder's units; of a memory map only the rows drawn are read.
    image_paths : sequence
        The image of each row: a path, or an object with `name` and ``open()``, which gives a path or an open file.
    folder : path-like
        Folder of the figures, one PNG per image, named by row and image.
    columns : int array of shape (V,), optional
        The encoder's columns that `prediction_rows` has; all by default.
    max_maps : int
        Largest number of images to draw; the first ones are drawn.

    Returns
    -------
    list of Path
        The figures, in the order of the rows.

    Raises
    ------
    UsageError, DataError, MissingDependency
        As `check_drawable`; DataError also if rows and images, or columns and vertices, do not match.
    """
    target = check_drawable(folder, encoder_info)
    vertices, rois, volume = encoder_info.vertices, encoder_info.rois, encoder_info.volume
    if columns is not None:
        vertices, rois = vertices.select(columns), rois.subset(columns)
        volume = None if volume is None else volume.select(columns)
    if prediction_rows.shape != (len(image_paths), len(vertices)):
        raise DataError(
            f"predictions: expected {len(image_paths)} rows (images) and {len(vertices)} columns (vertices), "
            f"found an array of shape {prediction_rows.shape}"
        )
    target.mkdir(exist_ok=True)
    rows = np.asarray(prediction_rows[:max_maps], dtype=np.float32)
    maps, limit = MapSet("", vertices, rois, (), encoder_info.note, volume), symmetric(rows, 1e-3)
    check_drawable_set(maps)
    with ThreadPoolExecutor(1) as writer:  # compresses a figure while the next one is drawn
        written: list[Future[Path]] = []
        for index, (row, image) in enumerate(zip(rows, image_paths, strict=False)):
            source = Path(image if isinstance(image, str | os.PathLike) else image.name)
            title = f"Predicted response to {as_text(source.name)}"
            response = definitions.response(row, encoder_info.units, limit, title)
            picture = decode(image if isinstance(image, str | os.PathLike) else image.open())
            pixels = draw_pixels(maps, response, picture)
            if written:
                written[-1].result()  # nothing piles up, and a full disk ends the work
            path = target / f"{index:04d}-{file_stem(source.stem, PART)}.png"
            written.append(writer.submit(write_png, path, pixels, FORMATS["png"]))
        return [each.result() for each in written]


def draw_pixels(maps: MapSet, response: BrainMap, picture: Image) -> np.ndarray:
    """The figure of a response beside its image: (H, W, 3), uint8."""
    return MapFigure(maps, response, DEFAULT, FORMATS["png"], picture).render()
