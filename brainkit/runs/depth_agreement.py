"""The depth of a run's vertices beside that of banded ridge on the same tokens: files, a figure, a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.evaluation.agreement import DepthAgreement, depth_agreement
from brainkit.evaluation.scores import json_ready
from brainkit.evaluation.vertex_groups import vertex_groups
from brainkit.metrics.depth import relative_depth
from brainkit.utils.files import atomic_write, write_json
from brainkit.utils.table import Table, number

SCHEMA = 1


def write_agreement(
    run: Path,
    layer_predictions: np.ndarray,
    responses: np.ndarray,
    groups: np.ndarray,
    vertices: Vertices,
    rois: RoiTable,
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
        Without the mean training response.
    groups : array of shape (n,)
        Stimuli.
    vertices : Vertices
    rois : RoiTable
    note : str or None
        Written on the figure.
    provenance : dict
    """
    from brainkit.maps.baseline_figures import draw_agreement

    with np.load(run / "selectors.npz") as file:
        depth = relative_depth(file["layer_weights"].astype(np.float64))
    found = depth_agreement(depth, layer_predictions, responses, groups=groups, rois=vertex_groups(vertices, rois))
    content = json_ready({"groups": found.groups, "used": int(found.used.sum())})
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
    draw_agreement(run / "agreement.png", found.depth[used], found.other[used], content["groups"], note=note)
    return _table(found)


def _table(found: DepthAgreement) -> Table:
    rows = []
    for name, row in json_ready(found.groups).items():
        if row["r"] is not None:
            ends = "" if row["low"] is None else f"[{row['low']:.2f}, {row['high']:.2f}]"
            rows.append((name, f"{row['n']:,}", number(row["r"], ".2f"), ends, number(row["reliability"], ".2f")))
    return Table(
        title="depth by FactorTopy and by banded ridge's layer shares: correlation over vertices",
        header=("group", "vertices", "r", "interval", "reliability"),
        rows=tuple(rows),
        notes=(
            f"of the {int(found.used.sum()):,} vertices at which banded ridge explains any variance",
            "interval: of other test images, as many as these; reliability: of the ridge's depth over halves of them",
        ),
        bold=0,
    )
