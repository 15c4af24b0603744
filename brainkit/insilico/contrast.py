"""Two sets of images against each other: where on the cortex the predicted responses differ."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.cortex.surface import CUSTOM, RoiTable, Vertices
from brainkit.encoder_file import EncoderInfo
from brainkit.errors import BrainkitError, UsageError
from brainkit.metrics.moments import Moments
from brainkit.metrics.significance import Comparison, compare
from brainkit.predict import Encoder, ImageList, list_images, load, local_blocks
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.predict.inputs.remote import is_url
from brainkit.predict.outputs.formats import check_output, suffix_of
from brainkit.predict.regions import as_names, select_columns
from brainkit.utils.files import write_beside, write_json
from brainkit.utils.text import as_text

Progress = Callable[[int, int], None]
Images = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

ABOUT_P = (
    "p and q are over images: they say how surely other images of these two kinds would differ in the predictions of "
    "this model, which is deterministic. They are not over subjects or scans, and know of no experiment's noise."
)
SIGNIFICANT = 0.05  # q under which a vertex is counted

# What is in the file, in this order.
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
    """One of the two sets, seen through the encoder.

    Attributes
    ----------
    name : str
        As it is called in figures.
    images : tuple of str
        Names of those that could be read.
    skipped : tuple of (str, str)
        Those that could not, with the reason.
    mean, sd : array of shape (V,), float64
    """

    name: str
    images: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    mean: np.ndarray
    sd: np.ndarray


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
        Which of the encoder's vertices they are; None: all.
    encoder : EncoderInfo
    """

    a: ImageSet
    b: ImageSet
    statistics: Comparison
    vertices: Vertices
    rois: RoiTable
    columns: np.ndarray | None
    encoder: EncoderInfo

    def arrays(self) -> dict[str, np.ndarray]:
        """All figures by the names of ``COLUMNS``, each (V,), float64."""
        found = self.statistics
        means = {"mean_a": self.a.mean, "mean_b": self.b.mean, "sd_a": self.a.sd, "sd_b": self.b.sd}
        return {name: means[name] if name in means else getattr(found, name) for name in COLUMNS}

    def table(self) -> list[dict[str, Any]]:
        """By region, all vertices first: count, mean difference, mean effect size, share of vertices at q < 0.05.

        Means are over the vertices that have a value; None where none has.
        """
        every = {"all": np.arange(len(self.vertices)), **{name: at for name, at in self.rois.items() if len(at)}}
        return [
            {
                "region": name,
                "vertices": len(at),
                "mean_difference": _mean(self.statistics.difference[at]),
                "mean_hedges_g": _mean(self.statistics.hedges_g[at]),
                "share_significant": float((self.statistics.q[at] < SIGNIFICANT).mean()),
            }
            for name, at in every.items()
        ]


def contrast(
    a: Images,
    b: Images,
    encoder: Encoder | str | os.PathLike[str],
    *,
    rois: str | Iterable[str] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    names: tuple[str, str] | None = None,
    progress: Progress | None = None,
) -> Contrast:
    """Compare the responses predicted to two sets of images; of these only the names stay in memory.

    Parameters
    ----------
    a, b : path-like or iterable of path-like
        Files, folders, patterns, lists, tar shards and addresses, as :func:`brainkit.predict.list_images` takes them;
        unreadable images are skipped, and reported.
    encoder : Encoder or path-like
    rois : str or iterable of str, optional
        Only the vertices of these regions, also for the false discovery rate; the table names no others.
    device : {"auto", "cpu", "cuda"}
        For opening `encoder`, where it is a path.
    batch_size : int, optional
    names : tuple of two str, optional
        What the sets are called; by default after the folders.
    progress : callable, optional
        Called with (images done, images in all).

    Returns
    -------
    Contrast

    Raises
    ------
    UsageError
        If an image lies in both sets, a set has fewer than two readable images, or a region is unknown.
    """
    lists = list_images(a), list_images(b)
    _check_apart(*lists)
    if not isinstance(encoder, Encoder):
        encoder = load(encoder, device)
    columns, regions = select_columns(encoder.rois, as_names(rois))
    total, before = len(lists[0]) + len(lists[1]), 0
    called = names or _names(a, b)
    seen = []
    for name, listed in zip(called, lists, strict=True):
        seen.append(_seen(encoder, name, listed, columns, batch_size, _shifted(progress, before, total)))
        before += len(listed)
    (set_a, first), (set_b, second) = seen
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


def check_contrast_output(out: Path, overwrite: bool) -> Path:
    """Refuse what cannot be written, before any work is done; the path of the JSON beside."""
    if not out.name.lower().endswith((".npz", ".csv")):
        raise UsageError(f"{out}: a contrast must end in .npz or .csv")
    return check_output(out, overwrite)


def write_contrast(found: Contrast, out: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a contrast, and a JSON beside that says what it is; the path of the JSON.

    Parameters
    ----------
    found : Contrast
    out : path-like
        ``.npz``: the arrays of ``COLUMNS``, and ``vertices``; ``.csv``: a row a vertex.
    overwrite : bool

    Raises
    ------
    UsageError
        If `out` exists and may not be replaced, or ends in something else.
    """
    out = Path(out)
    beside = check_contrast_output(out, overwrite)
    ids = found.vertices.ids if found.columns is None else found.encoder.vertices.ids[found.columns]
    arrays = found.arrays()
    held: dict[str, Any] = {"vertices": ids, "space": np.array(found.vertices.space), **arrays}
    with write_beside(out) as unfinished:
        if suffix_of(out) == ".npz":
            np.savez(unfinished, **held)
        else:
            _write_table(unfinished, found, ids, arrays)
        write_json(beside, _description(found, out, ids))
    return beside


def table_lines(found: Contrast) -> list[str]:
    """The table by region as lines of text."""
    rows = found.table()
    wide = max(len("region"), *(len(row["region"]) for row in rows))
    lines = [f"{'region':<{wide}}  {'vertices':>8}  {'difference':>10}  {'mean g':>7}  {'q < 0.05':>8}"]
    for row in rows:
        difference, effect = (
            "-" if row[key] is None else f"{row[key]:+.3f}" for key in ("mean_difference", "mean_hedges_g")
        )
        share = f"{100 * row['share_significant']:.0f} %"
        lines.append(f"{row['region']:<{wide}}  {row['vertices']:>8}  {difference:>10}  {effect:>7}  {share:>8}")
    return lines


def draw_contrast(found: Contrast, folder: str | os.PathLike[str], *, max_q: float | None = None) -> Path:
    """Draw the effect size on the flattened cortex, ``effect-size.png`` in `folder`.

    Parameters
    ----------
    found : Contrast
    folder : path-like
        Made where it does not exist.
    max_q : float, optional
        Draw only vertices whose q is under it.

    Returns
    -------
    Path

    Raises
    ------
    UsageError, DataError, MissingDependency
        As :func:`brainkit.maps.draw_predictions.check_drawable`.
    """
    from brainkit.maps import draw as static
    from brainkit.maps import draw_predictions as predicted

    target = predicted.check_drawable(folder, found.encoder)
    target.mkdir(exist_ok=True)
    return static.draw_effect_size(
        target / "effect-size.png",
        vertices=found.vertices,
        rois=found.rois,
        effect=found.statistics.hedges_g,
        q=found.statistics.q,
        max_q=max_q,
        names=(found.a.name, found.b.name),
        counts=(len(found.a.images), len(found.b.images)),
        note=found.encoder.note,
    )


def _seen(
    encoder: Encoder,
    name: str,
    listed: ImageList,
    columns: np.ndarray | None,
    batch_size: int | None,
    progress: Progress | None,
) -> tuple[ImageSet, Moments]:
    moments = Moments(len(encoder.vertices) if columns is None else len(columns))
    read: list[str] = []
    skipped: list[tuple[str, str]] = []
    with contextlib.closing(local_blocks(encoder, listed, batch_size=batch_size, columns=columns)) as blocks:
        for block in blocks:
            moments.add(block.fmri)
            read.extend(block.names)
            skipped.extend(block.skipped)
            if progress is not None:
                progress(block.done, len(listed))
    if not read:
        raise BrainkitError(f"{name}: not one image could be read; the first: {skipped[0][0]}: {skipped[0][1]}")
    if len(read) < 2:
        raise UsageError(f"{name}: a contrast needs at least 2 images a set that can be read, found {len(read)}")
    return ImageSet(name, tuple(read), tuple(skipped), moments.mean, np.sqrt(moments.variance)), moments


def _check_apart(a: ImageList, b: ImageList) -> None:
    """Refuse sets that share an image: they would not be independent."""
    places = set(map(_real_place, _entries(a)))
    shared = [entry.name for entry in _entries(b) if _real_place(entry) in places]
    if shared:
        count = "1 image is" if len(shared) == 1 else f"{len(shared):,} images are"
        raise UsageError(f"{as_text(shared[0])}: lies in both sets ({count} in both); they must be apart")


def _real_place(entry: ImageSource) -> tuple[str, int]:
    """Where an image lies, whatever links lead there."""
    return entry.file if is_url(entry.file) else os.path.realpath(entry.file), entry.offset


def _entries(listed: ImageList) -> Iterator[ImageSource]:
    for start in range(0, len(listed), 1024):
        yield from listed.entries(start, start + 1024)


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(before + done, total)


def _names(a: Images, b: Images) -> tuple[str, str]:
    found = [Path(given).resolve().name if isinstance(given, str | os.PathLike) else "" for given in (a, b)]
    first, second = (as_text(Path(name)) if name else default for name, default in zip(found, "ab", strict=True))
    return (first, second) if first != second else (f"{first} (a)", f"{second} (b)")


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _write_table(path: Path, found: Contrast, ids: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
    left = found.vertices.n_left
    custom = found.vertices.space == CUSTOM
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["vertex", "hemisphere", *arrays])
        for at, vertex in enumerate(ids.tolist()):
            side = "" if custom else "left" if at < left else "right"
            table.writerow([vertex, side, *(f"{values[at]:.9g}" for values in arrays.values())])


def _description(found: Contrast, out: Path, ids: np.ndarray) -> dict[str, Any]:
    def described(images: ImageSet) -> dict[str, Any]:
        return {
            "name": images.name,
            "images": list(images.images),
            "skipped": [{"path": path, "reason": reason} for path, reason in images.skipped],
        }

    info = found.encoder
    return {
        "file": out.name,
        "what": "contrast of the responses predicted to two sets of images: a against b, at each vertex",
        "arrays": COLUMNS,
        "about_p": ABOUT_P,
        "units": info.units,
        "units_of": ["mean_a", "mean_b", "sd_a", "sd_b", "difference"],
        "space": info.vertices.space,
        "vertices": {"count": len(ids), "ids": ids.tolist()},
        "a": described(found.a),
        "b": described(found.b),
        "regions": found.table(),
        "encoder": {"sha256": info.digest, "backbone": info.backbone.get("name")},
        "note": info.note,
    }
