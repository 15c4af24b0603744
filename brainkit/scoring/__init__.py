"""Predicting fMRI from images with an encoder file: ONNX Runtime and NumPy, no torch.

Images are decoded and resized in threads, ahead of the network; results are written as they come, so that of each
image only its path stays in memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from brainkit.errors import BrainkitError
from brainkit.images import find_images
from brainkit.scoring.decoding import as_text, counted, prepared_batches, reason_without_name
from brainkit.scoring.encoder import DEVICES, Encoder, load
from brainkit.scoring.npy_rows import NpyRows
from brainkit.scoring.outputs import (
    check_output,
    description_path,
    suffix_of,
    write_description,
    writing,
)
from brainkit.scoring.sheets import Sheets
from brainkit.scoring.tables import chosen_columns, regions_with_vertices

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PredictResult:
    """What :func:`predict_to_file` did.

    Parameters
    ----------
    path : Path
        The predictions; what the rows and columns are is said in the ``.json`` beside it.
    n : int
        Rows written.
    skipped : tuple of (Path, str)
        Images that could not be read, with the reason.
    seconds : float
        From the first image to the last byte.
    images : tuple of Path
        The image of each row. The names in the ``.json`` are the same, but escaped where they are not UTF-8.
    sheets : tuple of Path
        Contact sheets drawn, one a region.
    """

    path: Path
    n: int
    skipped: tuple[tuple[Path, str], ...]
    seconds: float
    images: tuple[Path, ...] = field(default=(), repr=False)
    sheets: tuple[Path, ...] = ()


def predict_to_file(
    images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    encoder: Encoder | str | os.PathLike[str],
    *,
    device: str = "auto",
    rois: Iterable[str] | None = None,
    batch_size: int | None = None,
    overwrite: bool = False,
    hemispheres: bool = False,
    top: int | None = None,
    progress: Progress | None = None,
) -> PredictResult:
    """Predict the response to images and write it as it comes, with a ``.json`` beside that says what is what.

    Parameters
    ----------
    images : path-like or iterable of path-like
        Files and folders. Unreadable images are skipped, and reported.
    out : path-like
        Its suffix is the format: ``.npy``, float32 (n, V), row i the i-th readable image in sorted order; ``.npz``;
        ``.csv``, means by region; ``.zarr``; ``.func.gii`` and ``.mgz``, a file a hemisphere; ``.nii.gz``.
    encoder : Encoder or path-like
    device : {"auto", "cpu", "cuda"}
        For opening `encoder`, where it is a path.
    rois : iterable of str, optional
        Keep only the vertices of these regions, in the encoder's order; with ``.csv`` these regions are the columns,
        all of the encoder by default.
    batch_size : int, optional
    overwrite : bool
        Replace `out` and what goes beside it where they exist.
    hemispheres : bool
        With ``.npy``: two files, ``lh_`` and ``rh_`` before the name, as the Algonauts challenge takes them.
    top : int, optional
        For each of `rois` draw the images that drive it most, and least: so many of each.
    progress : callable, optional
        Called with (images done, images in all).

    Returns
    -------
    PredictResult

    Raises
    ------
    UsageError
        If `out` exists and may not be replaced, its format does not suit the encoder, or a region is unknown.
    DataError
        If the folder of `out` does not exist.
    BrainkitError
        If not one image could be read; nothing is written.
    """
    out = Path(out)
    beside = check_output(out, overwrite, hemispheres)
    named = None if rois is None else tuple(rois)
    sheets = None if top is None else Sheets(out, named, top, overwrite)
    paths = find_images(images)
    if not isinstance(encoder, Encoder):
        encoder = load(encoder, device)
    if suffix_of(out) == ".csv" and not named:
        named = regions_with_vertices(encoder.rois)
    columns, regions = chosen_columns(encoder.rois, named)
    if sheets is not None:
        sheets.begin(regions)
    started = time.perf_counter()
    written: list[Path] = []
    skipped: list[tuple[Path, str]] = []
    with writing(out, encoder.info, columns, hemispheres=hemispheres, regions=regions) as rows:
        for done, (indices, batch, failed) in counted(
            prepared_batches(paths, encoder.info.preprocessing, encoder.batch_size_for(batch_size))
        ):
            if len(indices):
                fmri = encoder.run(batch)
                fmri = fmri if columns is None else fmri[:, columns]
                opened = [paths[index] for index in indices]
                names = [as_text(path) for path in opened]
                rows.append(fmri, names)
                if sheets is not None:
                    sheets.add(names, fmri, opened)
                written.extend(opened)
            skipped.extend((paths[index], reason_without_name(error, paths[index])) for index, error in failed)
            if progress is not None:
                progress(done, len(paths))
        if not written:
            count = f"none of the {len(paths)} images" if len(paths) > 1 else "not one image"
            raise BrainkitError(f"{count} could be read; the first: {as_text(skipped[0][0])}: {skipped[0][1]}")
        rows.finish([as_text(path) for path in written])
        more = {} if sheets is None else {"top": sheets.finish(encoder.info)}
        write_description(beside, out, encoder, written, skipped, columns, regions, hemispheres=hemispheres, more=more)
    drawn = () if sheets is None else sheets.paths
    return PredictResult(out, len(written), tuple(skipped), time.perf_counter() - started, tuple(written), drawn)
