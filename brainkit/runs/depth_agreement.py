"""The depth of a run's vertices beside that of banded ridge on the same tokens: files, a figure, a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from brainkit.cortex.vertices import CUSTOM
from brainkit.data.subject import Subject
from brainkit.evaluation.agreement import DepthAgreement, depth_agreement
from brainkit.evaluation.scores import json_ready
from brainkit.evaluation.vertex_groups import vertex_groups
from brainkit.metrics.depth import relative_depth
from brainkit.metrics.spin import Sphere, fit_sphere, fsaverage_sphere
from brainkit.utils.files import atomic_write, write_json
from brainkit.utils.table import Table, number

SCHEMA = 1
ROTATIONS = 1000
_EXPLAINED = "the {vertices:,} vertices at which banded ridge explains any variance of the test images"


def write_agreement(
    run: Path,
    layer_predictions: np.ndarray,
    responses: np.ndarray,
    groups: np.ndarray,
    subject: Subject,
    *,
    note: str | None,
    provenance: dict[str, Any],
) -> Table:
    """Compare the run's layer selection with banded ridge's layer shares.

    Writes ``agreement.json``, ``agreement.npz`` (per vertex) and ``agreement.png`` into the run folder.

    Parameters
    ----------
    run : Path
        The run folder.
    layer_predictions : array of shape (L, n, V)
        Of banded ridge for the test images.
    responses : array of shape (n, V)
        Without the mean training response, in the same units.
    groups : array of shape (n,)
        Stimuli.
    subject : Subject
    note : str or None
        Written on the figure.
    provenance : dict
    """
    from brainkit.maps.baseline_charts import draw_agreement

    with np.load(run / "selectors.npz") as file:
        depth = relative_depth(file["layer_weights"].astype(np.float64))
    vertices = subject.vertices
    found = depth_agreement(
        depth,
        layer_predictions,
        responses,
        groups=groups,
        rois=vertex_groups(vertices, subject.rois),
        sphere=_sphere(subject),
        rotations=ROTATIONS,
    )
    spin_test = {"p": found.p, "rotations": ROTATIONS if found.no_spin is None else 0, "missing": found.no_spin}
    content = json_ready({"groups": found.groups, "used": int(found.used.sum()), "spin_test": spin_test})
    write_json(run / "agreement.json", {"schema": SCHEMA, **content, "provenance": provenance})
    with atomic_write(run / "agreement.npz") as temporary:
        np.savez(
            temporary,
            depth=found.depth.astype(np.float32),
            banded_depth=found.other.astype(np.float32),
            banded_shares=found.shares.astype(np.float32),
            used=found.used,
            vertices=vertices.ids,
            space=np.array(vertices.space),
        )
    used = found.used
    draw_agreement(
        run / "agreement.png",
        found.depth[used],
        found.other[used],
        {
            f"{name} ({row['n']:,})" if name != "all" else name: {**row, "value": row["r"]}
            for name, row in content["groups"].items()
            if row["r"] is not None
        },
        title="Depth by FactorTopy and by the layer shares of banded ridge",
        detail=_EXPLAINED.format(vertices=int(used.sum())),
        note=note,
    )
    return _table(found)


def _table(found: DepthAgreement) -> Table:
    rows = []
    for name, row in json_ready(found.groups).items():
        if row["r"] is not None:
            ends = "" if row["low"] is None else f"[{row['low']:.2f}, {row['high']:.2f}]"
            rows.append((name, f"{row['n']:,}", number(row["r"], ".2f"), ends, number(row["reliability"], ".2f")))
    spin_test = f"p {found.p:.2g}" if found.no_spin is None else f"none: {found.no_spin}"
    return Table(
        title="depth by FactorTopy and by banded ridge's layer shares: correlation over vertices",
        header=("group", "vertices", "r", "interval", "reliability"),
        rows=tuple(rows),
        notes=(
            _EXPLAINED.format(vertices=int(found.used.sum())),
            "interval: for as many other test images; reliability: of the ridge's depth, over halves of these",
            f"spin test of all vertices (smooth maps correlate by chance): {spin_test}",
        ),
        bold=0,
    )


def _sphere(subject: Subject) -> Sphere | None:
    if subject.vertices.space != CUSTOM:
        return fsaverage_sphere(subject.vertices)
    return None if subject.own_coordinates is None else fit_sphere(subject.own_coordinates)
