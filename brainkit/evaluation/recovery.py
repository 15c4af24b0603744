"""How well training recovers the selectors that were planted in the simulated sample subject."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from brainkit.cortex.vertices import Vertices
from brainkit.errors import DataError, TrainingError
from brainkit.evaluation.scores import Scores
from brainkit.metrics.scores import RELIABLE_CEILING
from brainkit.utils.arrays import read_arrays
from brainkit.utils.table import Table
from brainkit.utils.text import plural

ROW_NAMES = {
    "depth_r": "layer: correlation with the planted depth",
    "depth_within_one": "layer: share of vertices within one layer",
    "location_median": "location: median error (the image is -1 to 1)",
    "scale_r": "scale: correlation with the planted scale",
    "accuracy_share": "accuracy: median r2 / noise ceiling",
}
"""What the rows of `compare_with_truth` are, for people."""

_TRUTH = ("layer_weights", "locations", "scale", "vertices", "layers", "backbone", "weights_hash")


def read_truth(truth_file: Path) -> dict[str, np.ndarray]:
    """Read the planted selectors of the sample subject.

    Parameters
    ----------
    truth_file : Path
        ``truth.npz`` in the subject's folder.

    Raises
    ------
    DataError
        If it is damaged, or another version of brainkit wrote it.
    """
    truth = read_arrays(truth_file)
    if missing := [name for name in _TRUTH if name not in truth]:
        raise DataError(
            f"{truth_file}: expected {', '.join(_TRUTH)}, found no {missing[0]}; "
            "delete the sample subject and run `brainkit sample` again"
        )
    return truth


def compare_with_truth(
    truth: dict[str, np.ndarray],
    *,
    vertices: Vertices,
    layers: tuple[str, ...],
    backbone: str,
    weights_hash: str,
    layer_weights: np.ndarray,
    locations: np.ndarray,
    scale: np.ndarray,
    scores: Scores,
) -> dict[str, Any]:
    """Compare trained selectors with the planted ones, over vertices with a noise ceiling above 0.3.

    Parameters
    ----------
    truth : dict
        From :func:`read_truth`.
    vertices, layers, backbone, weights_hash
        Of the trained model. Depth is compared only if network, weights and layers are the planted ones; otherwise its
        rows are missing and ``left_out`` says why.
    layer_weights, locations, scale : arrays of shape (V, L), (V, 2), (V,)
        The trained selectors.
    scores : Scores
        On the test images.

    Returns
    -------
    dict
        ``rows`` -> ``depth_r`` and ``depth_within_one`` (expected depth: correlation, and share of vertices within one
        layer), ``location_median`` (error; the image spans [-1, 1]), ``scale_r``, ``accuracy_share`` (median r^2 /
        noise ceiling), each with its ``value`` and that of the best constant (``constant``); ``vertices``,
        ``ceiling_above``, ``left_out``.

    Raises
    ------
    DataError
        If a vertex has no planted selectors.
    TrainingError
        If a value is not a number: the selectors are constant, so training found nothing.
    """
    order = _positions(truth["vertices"], vertices.ids)
    good = scores.noise_ceiling > RELIABLE_CEILING
    found: dict[str, Any] = {"vertices": int(good.sum()), "ceiling_above": RELIABLE_CEILING, "rows": {}}
    if good.sum() < 2:
        why = f"all rows: two vertices with a noise ceiling above {RELIABLE_CEILING} are needed, found {good.sum()}"
        return found | {"left_out": why}

    planted_layers = tuple(truth["layers"].tolist())
    rows: dict[str, tuple[float, float]] = {}
    left_out = None
    if str(truth["weights_hash"]) == weights_hash and planted_layers == layers:
        steps = np.arange(len(layers))
        rows |= _depth_rows((truth["layer_weights"][order] @ steps)[good], (layer_weights @ steps)[good])
    else:
        other = "" if backbone != str(truth["backbone"]) else " with other weights or layers"
        left_out = (
            f"depth rows: the truth was planted in {truth['backbone']} ({plural(len(planted_layers), 'layer')}), "
            f"and depth in {backbone}{other} ({plural(len(layers), 'layer')}) cannot be compared with it"
        )
    planted = truth["locations"][order][good]
    center = np.median(planted, axis=0)
    errors = [np.linalg.norm(planted - location, axis=1) for location in (locations[good], center)]
    rows["location_median"] = float(np.median(errors[0])), float(np.median(errors[1]))
    rows["scale_r"] = _correlation(truth["scale"][order][good], scale[good]), 0.0
    share = np.nan_to_num(scores.r[good]).clip(min=0) ** 2 / scores.noise_ceiling[good]
    rows["accuracy_share"] = float(np.median(share)), 0.0
    if bad := [name for name, (value, _) in rows.items() if not np.isfinite(value)]:
        raise TrainingError(f"recovery: {', '.join(bad)} is not a number: the selectors are constant over the cortex")
    named = {name: {"value": value, "constant": constant} for name, (value, constant) in rows.items()}
    return found | {"rows": named, "left_out": left_out}


def recovery_table(found: dict[str, Any]) -> Table:
    """What `compare_with_truth` returns, for people."""
    vertices = plural(found["vertices"], "vertex", "vertices")
    return Table(
        title=f"recovery of the planted truth, {vertices} with ceiling > {found['ceiling_above']}",
        header=("", "found", "best constant"),
        rows=tuple(
            (ROW_NAMES[name], f"{row['value']:.3f}", f"{row['constant']:.3f}") for name, row in found["rows"].items()
        ),
        notes=(f"left out: {found['left_out']}",) if found["left_out"] else (),
    )


def _positions(planted: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Where each vertex stands among the planted ones."""
    position = {int(vertex): index for index, vertex in enumerate(planted)}
    try:
        return np.array([position[int(vertex)] for vertex in ids])
    except KeyError as error:
        raise DataError(f"truth.npz: has no planted selectors of vertex {error.args[0]}") from None


def _depth_rows(planted: np.ndarray, found: np.ndarray) -> dict[str, tuple[float, float]]:
    within, within_constant = (float((np.abs(planted - depth) <= 1).mean()) for depth in (found, np.median(planted)))
    return {"depth_r": (_correlation(planted, found), 0.0), "depth_within_one": (within, within_constant)}


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
