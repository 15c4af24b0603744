"""A contrast as a file, as lines of text and as a figure."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.cortex.vertices import CUSTOM
from brainkit.errors import UsageError
from brainkit.insilico.contrast import COLUMNS, SIGNIFICANT, Contrast, ImageSet
from brainkit.metrics.significance import describe_passing
from brainkit.predict.outputs.description import write_streaming
from brainkit.predict.outputs.formats import check_output, suffix_of
from brainkit.predict.outputs.rows import Layout
from brainkit.utils.files import atomic_write

ABOUT_P = (
    "p and q are over images: they say how certainly other images of these two kinds would differ in the predictions "
    "of this model, which is deterministic. They are not over subjects or scans, and include no noise of an experiment."
)


def check_contrast_output(out: Path, overwrite: bool) -> Path:
    """Check that `out` can be written, before any work is done.

    Returns
    -------
    Path
        Of the JSON file next to it.

    Raises
    ------
    UsageError
        If the suffix is not .npz or .csv, or the file exists and `overwrite` is False.
    """
    if not out.name.lower().endswith((".npz", ".csv")):
        raise UsageError(f"{out}: the file of a contrast must end in .npz or .csv")
    return check_output(out, overwrite)


def write_contrast(result: Contrast, out: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a contrast, and a JSON file next to it that describes it.

    Parameters
    ----------
    result : Contrast
    out : path-like
        ``.npz``: the arrays of ``COLUMNS``, and ``vertices``; ``.csv``: one row per vertex.
    overwrite : bool

    Returns
    -------
    Path
        Of the JSON file.

    Raises
    ------
    UsageError
        As :func:`check_contrast_output`.
    """
    out = Path(out)
    json_path = check_contrast_output(out, overwrite)
    ids = result.vertices.ids if result.columns is None else result.encoder.vertices.ids[result.columns]
    with atomic_write(out) as temporary:
        if suffix_of(out) == ".npz":
            space = np.array(result.vertices.space)
            np.savez(temporary, vertices=ids, space=space, **result.arrays())  # type: ignore[arg-type]
        else:
            _write_csv(temporary, result, ids)
        with atomic_write(json_path) as described, described.open("w", encoding="utf-8") as stream:
            write_streaming(stream, _description(result, out))
    return json_path


def table_lines(result: Contrast) -> list[str]:
    """The table by ROI as aligned lines of text."""
    rows = result.table()
    width = max(len("region"), *(len(row["region"]) for row in rows))
    lines = [f"{'region':<{width}}  {'vertices':>8}  {'difference':>10}  {'mean g':>7}  {'q < 0.05':>8}"]
    for row in rows:
        difference, effect = (
            "-" if row[key] is None else f"{row[key]:+.3f}" for key in ("mean_difference", "mean_hedges_g")
        )
        share = f"{100 * row['share_significant']:.0f} %"
        lines.append(f"{row['region']:<{width}}  {row['vertices']:>8}  {difference:>10}  {effect:>7}  {share:>8}")
    return lines


def passing(result: Contrast, max_q: float = SIGNIFICANT) -> str:
    """How many vertices pass, in words: ``12 of 200 vertices pass q < 0.05``."""
    return describe_passing(result.statistics.q, max_q)


def draw_contrast(result: Contrast, folder: str | os.PathLike[str], *, max_q: float | None = None) -> Path:
    """Draw the effect size on the flattened cortex, as ``effect-size.png``.

    Parameters
    ----------
    result : Contrast
    folder : path-like
        Created if it does not exist.
    max_q : float, optional
        Vertices with a smaller q pass (by default 0.05); all others are drawn pale, and the title says how many pass.

    Returns
    -------
    Path

    Raises
    ------
    UsageError, DataError, MissingDependency
        As :func:`brainkit.maps.draw_predictions.check_drawable`.
    """
    from brainkit.maps.brain_map import MapSet
    from brainkit.maps.definitions import effect
    from brainkit.maps.draw import draw_maps
    from brainkit.maps.draw_predictions import check_drawable

    target = check_drawable(folder, result.encoder)
    target.mkdir(exist_ok=True)
    drawn = effect(
        result.statistics.hedges_g,
        result.statistics.q,
        names=(result.a.name, result.b.name),
        counts=(len(result.a.images), len(result.b.images)),
        max_q=SIGNIFICANT if max_q is None else max_q,
    )
    volume = result.encoder.volume
    if volume is not None and result.columns is not None:
        volume = volume.select(result.columns)
    return draw_maps(target, MapSet("", result.vertices, result.rois, (drawn,), result.encoder.note, volume))[0]


def _write_csv(path: Path, result: Contrast, ids: np.ndarray) -> None:
    arrays = result.arrays()
    custom = result.vertices.space == CUSTOM
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["vertex", "hemisphere", *arrays])
        for row, vertex in enumerate(ids.tolist()):
            hemisphere = "" if custom else "left" if row < result.vertices.n_left else "right"
            table.writerow([vertex, hemisphere, *(f"{values[row]:.9g}" for values in arrays.values())])


def _description(result: Contrast, out: Path) -> dict[str, Any]:
    def described(images: ImageSet) -> dict[str, Any]:
        return {
            "name": images.name,
            "images": list(images.images),
            "skipped": [{"path": path, "reason": reason} for path, reason in images.skipped],
            "notes": [{"path": path, "note": note} for path, note in images.notes],
        }

    info = result.encoder
    return {
        "file": out.name,
        "what": "contrast of the responses predicted to two sets of images: a vs b, at each vertex",
        "arrays": COLUMNS,
        "about_p": ABOUT_P,
        **Layout(info, result.columns).to_json(),
        "units_of": ["mean_a", "mean_b", "sd_a", "sd_b", "difference"],
        "a": described(result.a),
        "b": described(result.b),
        "regions": result.table(),
        "encoder": {"sha256": info.digest, "backbone": info.backbone.get("name")},
        "note": info.note,
    }
