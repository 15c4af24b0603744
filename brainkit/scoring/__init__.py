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
from brainkit.files import write_beside
from brainkit.images import find_images
from brainkit.scoring.decoding import as_text, counted, prepared_batches, reason_without_name
from brainkit.scoring.encoder import DEVICES, Encoder, load
from brainkit.scoring.outputs import NpyRows, check_output, chosen_columns, write_description

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
    """

    path: Path
    n: int
    skipped: tuple[tuple[Path, str], ...]
    seconds: float
    images: tuple[Path, ...] = field(default=(), repr=False)


def predict_to_file(
    images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    encoder: Encoder | str | os.PathLike[str],
    *,
    device: str = "auto",
    rois: Iterable[str] | None = None,
    batch_size: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PredictResult:
    """Predict the response to images and write it as it comes: ``fmri.npy``, with ``fmri.json`` beside it.

    Parameters
    ----------
    images : path-like or iterable of path-like
        Files and folders. Unreadable images are skipped, and reported.
    out : path-like
        Ends in ``.npy``: float32 (n, V), row i the i-th readable image in sorted order.
    encoder : Encoder or path-like
    device : {"auto", "cpu", "cuda"}
        For opening `encoder`, where it is a path.
    rois : iterable of str, optional
        Keep only the vertices of these regions, in the encoder's order.
    batch_size : int, optional
    overwrite : bool
        Replace `out` and its JSON where they exist.
    progress : callable, optional
        Called with (images done, images in all).

    Returns
    -------
    PredictResult

    Raises
    ------
    UsageError
        If `out` exists and may not be replaced, or a region is unknown.
    DataError
        If the folder of `out` does not exist.
    BrainkitError
        If not one image could be read; nothing is written.
    """
    out = Path(out)
    beside = check_output(out, overwrite)
    paths = find_images(images)
    if not isinstance(encoder, Encoder):
        encoder = load(encoder, device)
    columns, regions = chosen_columns(encoder.rois, None if rois is None else tuple(rois))
    started = time.perf_counter()
    written: list[Path] = []
    skipped: list[tuple[Path, str]] = []
    with write_beside(out) as unfinished:
        width = len(encoder.vertices) if columns is None else len(columns)
        with unfinished.open("wb") as stream, NpyRows(stream, width) as rows:
            for done, (indices, batch, failed) in counted(
                prepared_batches(paths, encoder.info.preprocessing, encoder.batch_size_for(batch_size))
            ):
                if len(indices):
                    rows.append(encoder.run(batch, columns))
                written.extend(paths[index] for index in indices)
                skipped.extend((paths[index], reason_without_name(error, paths[index])) for index, error in failed)
                if progress is not None:
                    progress(done, len(paths))
        if not written:
            count = f"none of the {len(paths)} images" if len(paths) > 1 else "not one image"
            raise BrainkitError(f"{count} could be read; the first: {as_text(skipped[0][0])}: {skipped[0][1]}")
        write_description(beside, out, encoder, written, skipped, columns, regions)
    return PredictResult(out, len(written), tuple(skipped), time.perf_counter() - started, tuple(written))
