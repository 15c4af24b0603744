"""Two sets of images compared: where on the cortex the predicted responses differ."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.encoder_file import EncoderInfo
from brainkit.errors import DataError, UsageError
from brainkit.metrics.moments import Moments
from brainkit.metrics.significance import Comparison, compare, describe_passing
from brainkit.predict import Encoder, ImageList, list_images, load, local_blocks
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.predict.inputs.remote import is_url
from brainkit.predict.regions import as_names, select_columns
from brainkit.utils.arrays import Arrays
from brainkit.utils.progress import Progress, Say
from brainkit.utils.text import as_text, plural

Images = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

SIGNIFICANT = 0.05  # vertices with a smaller q are counted as significant

# The arrays of a contrast and of its file, in this order.
COLUMNS = {
    "mean_a": "mean prediction over set a",
    "mean_b": "mean prediction over set b",
    "sd_a": "s.d. over set a (n - 1)",
    "sd_b": "s.d. over set b (n - 1)",
    "difference": "mean_a - mean_b",
    "cohens_d": "difference / pooled s.d.",
    "hedges_g": "cohens_d times Hedges' correction for small samples",
    "t": "Welch's t",
    "df": "degrees of freedom of Welch's t (Welch-Satterthwaite)",
    "p": "two-sided p of t, over images",
    "q": "false discovery rate after Benjamini and Hochberg, over the vertices of this file",
}


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One of the two sets, and the predictions for it.

    Attributes
    ----------
    name : str
        For figures and tables.
    images : tuple of str
        Names of the images that could be read.
    skipped : tuple of (str, str)
        Names of the others, each with the reason: not readable, or the same image once more.
    mean, sd : array of shape (V,), float64
        Of the predictions over the images.
    notes : tuple of (str, str)
        What of the set was ignored or given more than once: a name and a remark each.
    """

    name: str
    images: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    mean: np.ndarray
    sd: np.ndarray
    notes: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return f"ImageSet({self.name[:80]!r}, {plural(len(self.images), 'image')}, {len(self.skipped):,} skipped)"


@dataclass(frozen=True, eq=False)
class Contrast:
    """Set a against set b at each of V vertices.

    Attributes
    ----------
    a, b : ImageSet
    statistics : Comparison
        Difference, effect sizes, t, df, p and q; each (V,).
    vertices : Vertices
    rois : RoiTable
    columns : array of shape (V,), int, or None
        The vertices' columns in the encoder; None: all.
    encoder : EncoderInfo
    """

    a: ImageSet
    b: ImageSet
    statistics: Comparison
    vertices: Vertices
    rois: RoiTable
    columns: np.ndarray | None
    encoder: EncoderInfo

    def __repr__(self) -> str:
        a, b = (f"{each.name[:80]!r} ({plural(len(each.images), 'image')})" for each in (self.a, self.b))
        passing = describe_passing(self.statistics.q, SIGNIFICANT)
        return f"Contrast({a} vs {b}, {self.vertices.space}, {passing})"

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays named in ``COLUMNS``, each (V,), float64."""
        means = {"mean_a": self.a.mean, "mean_b": self.b.mean, "sd_a": self.a.sd, "sd_b": self.b.sd}
        return Arrays((name, means[name] if name in means else getattr(self.statistics, name)) for name in COLUMNS)

    def table(self) -> list[dict[str, Any]]:
        """A row for all vertices and one per ROI: vertices, mean difference, mean effect size, share at q < 0.05.

        Means are over the vertices that have a value; None if none has.
        """
        rows = {
            "all": np.arange(len(self.vertices)),
            **{name: index for name, index in self.rois.items() if len(index)},
        }
        return [
            {
                "region": name,
                "vertices": len(index),
                "mean_difference": _finite_mean(self.statistics.difference[index]),
                "mean_hedges_g": _finite_mean(self.statistics.hedges_g[index]),
                "share_significant": float((self.statistics.q[index] < SIGNIFICANT).mean()),
            }
            for name, index in rows.items()
        ]


def contrast(
    a: Images,
    b: Images,
    encoder: Encoder | str | os.PathLike[str],
    *,
    rois: str | Iterable[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    batch_size: int | None = None,
    names: tuple[str, str] | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
) -> Contrast:
    """Compare the responses predicted to two sets of images. Memory does not grow with them, apart from their names.

    Parameters
    ----------
    a, b : path-like or iterable of path-like
        Files, folders, patterns, lists, tar shards and URLs, as for :func:`brainkit.predict.list_images`. Unreadable
        images are skipped and reported. Every image counts once, also if a list repeats it.
    encoder : Encoder or path-like
    rois : str or iterable of str, optional
        Only the vertices of these ROIs, also for the false discovery rate; the table has no others.
    device : {"auto", "cpu", "cuda"}
    threads : int, optional
        To open `encoder` with, if it is a path; see :func:`brainkit.load`.
    batch_size : int, optional
    names : tuple of two str, optional
        Names of the sets; by default those of the folders.
    progress : callable, optional
        Called with (images done, images in total).
    say : callable, optional
        Called with a line of text about the images: what was ignored, or given more than once.

    Returns
    -------
    Contrast

    Raises
    ------
    UsageError
        If an image is in both sets, under whatever name, a set has fewer than two readable images, or a ROI is unknown.
    DataError
        If no image of a set can be read.
    """
    # A repeated image would not be independent of itself.
    lists = list_images(a, order="any"), list_images(b, order="any")
    if say is not None:
        for remark in [remark for images in lists for remark in images.remarks()]:
            say(remark)
    _check_disjoint(*lists)
    if not isinstance(encoder, Encoder):
        encoder = load(encoder, device, threads=threads)
    columns, regions = select_columns(encoder.rois, as_names(rois, encoder.rois))
    total, done = sum(map(len, lists)), 0
    parts = []
    met: dict[bytes, str] = {}
    for name, images in zip(names or _set_names(a, b), lists, strict=True):
        advance = _offset(progress, done, total)
        parts.append(_predict_set(encoder, name, images, columns, batch_size, met, advance))
        done += len(images)
    (set_a, first), (set_b, second) = parts
    statistics = compare(first.mean, first.variance, first.count, second.mean, second.variance, second.count)
    return Contrast(
        set_a,
        set_b,
        statistics,
        encoder.vertices if columns is None else encoder.vertices.select(columns),
        encoder.rois if columns is None else RoiTable(regions, len(columns)),
        columns,
        encoder.info,
    )


def _check_disjoint(a: ImageList, b: ImageList) -> None:
    """Raise UsageError if the sets share an image: they would not be independent."""
    files = set(map(_real_file, _entries(a)))
    shared = [entry.name for entry in _entries(b) if _real_file(entry) in files]
    if shared:
        count = plural(len(shared), "image is", "images are")
        raise UsageError(f"{as_text(shared[0])}: is in both sets ({count} in both); they must not share images")


def _real_file(entry: ImageSource) -> tuple[str, int]:
    """The file of an image, with links resolved, and its offset in it."""
    return entry.file if is_url(entry.file) else os.path.realpath(entry.file), entry.offset


def _entries(images: ImageList) -> Iterator[ImageSource]:
    for start in range(0, len(images), 1024):
        yield from images.entries(start, start + 1024)


def _set_names(a: Images, b: Images) -> tuple[str, str]:
    names = [Path(images).resolve().name if isinstance(images, str | os.PathLike) else "" for images in (a, b)]
    first, second = (as_text(Path(name)) if name else default for name, default in zip(names, "ab", strict=True))
    return (first, second) if first != second else (f"{first} (a)", f"{second} (b)")


def _offset(progress: Progress | None, before: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(before + done, total)


def _predict_set(
    encoder: Encoder,
    name: str,
    images: ImageList,
    columns: np.ndarray | None,
    batch_size: int | None,
    met: dict[bytes, str],
    progress: Progress | None,
) -> tuple[ImageSet, Moments]:
    """Predict a set; `met` has the names of the other set's images by their content, and gets those of this one.

    Two files with the same pixels (as the network sees them) are one image: it counts once in a set, and must not be in
    both, because a test takes images to be independent.
    """
    moments = Moments(len(encoder.vertices) if columns is None else len(columns))
    read: list[str] = []
    skipped: list[tuple[str, str]] = []
    own: dict[bytes, str] = {}
    digests: collections.deque[bytes] = collections.deque()

    def watch(batch: np.ndarray) -> None:
        digests.extend(hashlib.blake2b(image.data, digest_size=16).digest() for image in batch)

    blocks = local_blocks(encoder, images, batch_size=batch_size, columns=columns, watch=watch)
    with contextlib.closing(blocks):
        for block in blocks:
            is_new = np.ones(len(block.names), bool)
            for row, image in enumerate(block.names):
                digest = digests.popleft()
                if digest in met:
                    raise UsageError(f"{image}: is in both sets, as {met[digest]} too; they must not share images")
                first = own.setdefault(digest, image)
                if first is not image:
                    is_new[row] = False
                    skipped.append((image, f"is the same image as {first}, which counts once"))
            moments.add(block.fmri[is_new])
            read.extend(itertools.compress(block.names, is_new))
            skipped.extend(block.skipped)
            images.mark_of_several(block.of_several)
            if progress is not None:
                progress(block.done, len(images))
    met.update(own)
    if not read:
        raise DataError(f"{name}: none of its images can be read; the first: {skipped[0][0]}: {skipped[0][1]}")
    if len(read) < 2:
        raise UsageError(f"{name}: a set must have at least 2 readable images, got {len(read)}")
    notes = tuple((as_text(path), as_text(note)) for path, note in images.notes())
    return ImageSet(name, tuple(read), tuple(skipped), moments.mean, np.sqrt(moments.variance), notes), moments


def _finite_mean(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None
