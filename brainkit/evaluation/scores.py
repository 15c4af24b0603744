"""Accuracy of an encoder on held-out images: per vertex, then summarised over all vertices and by ROI."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.metrics.correlation import StreamingCorrelation
from brainkit.metrics.intervals import bootstrap_interval
from brainkit.metrics.scores import explained_share, official_score
from brainkit.model.ensemble import Ensemble
from brainkit.model.factor_topy import FactorTopy
from brainkit.training.datamodule import ResponseSource, TokenSource
from brainkit.utils.files import atomic_write
from brainkit.utils.table import Table, number
from brainkit.utils.text import plural

FEW_IMAGES = 30  # with fewer test images, scores are shown with a remark


@dataclass(frozen=True)
class Scores:
    """Accuracy per vertex on held-out images.

    Attributes
    ----------
    r : array of shape (V,)
        Pearson correlation.
    R2 : array of shape (V,)
        1 - residual / total sum of squares.
    noise_ceiling : array of shape (V,)
        The largest r^2 that the noise allows; NaN where unknown.
    images : int
        Number of test images.
    """

    r: np.ndarray
    R2: np.ndarray
    noise_ceiling: np.ndarray
    images: int

    def __repr__(self) -> str:
        vertices = plural(len(self.r), "vertex", "vertices")
        return f"Scores({vertices}, {plural(self.images, 'test image')}, median r {number(_median(self.r), '.3f')})"

    @property
    def share(self) -> np.ndarray:
        """Explained share of the explainable variance (V,), see :func:`brainkit.metrics.scores.explained_share`."""
        return explained_share(self.r, self.noise_ceiling)

    def write(self, path: Path, vertices: Vertices) -> None:
        """Write ``scores.npz``."""
        with atomic_write(path) as temporary:
            np.savez(
                temporary,
                r=self.r.astype(np.float32),
                R2=self.R2.astype(np.float32),
                noise_ceiling=self.noise_ceiling.astype(np.float32),
                vertices=vertices.ids,
                space=np.array(vertices.space),
                images=np.array(self.images),
            )


def score(
    model: FactorTopy | Ensemble,
    tokens: TokenSource,
    responses: ResponseSource,
    rows: np.ndarray,
    noise_ceiling: np.ndarray | None,
    *,
    batch_size: int = 64,
    keep: Callable[[np.ndarray], None] | None = None,
) -> Scores:
    """Compare predictions with the responses to some images, in one pass that holds nothing of shape (n, V).

    Parameters
    ----------
    model : FactorTopy or Ensemble
        Put in evaluation mode.
    tokens, responses
        Of all images.
    rows : int array
        The images to score on, increasing.
    noise_ceiling : array of shape (V,) or None
    batch_size : int
        Images predicted at a time.
    keep : callable, optional
        Called with the predictions (k, V) of each batch, in order.
    """
    streamed = StreamingCorrelation(len(model.weight))
    for batch, predictions in predict_rows(model, tokens, rows, batch_size=batch_size):
        streamed.update(predictions, responses.rows(batch))
        if keep is not None:
            keep(predictions)
    ceiling = np.full(len(model.weight), np.nan) if noise_ceiling is None else np.asarray(noise_ceiling, float)
    return Scores(np.asarray(streamed.r), np.asarray(streamed.R2), ceiling, len(rows))


def predict_rows(
    model: FactorTopy | Ensemble, tokens: TokenSource, rows: np.ndarray, *, batch_size: int = 64
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Predict some images from their tokens, a batch at a time.

    Yields
    ------
    rows : int array of shape (k,)
        Of the batch, increasing.
    predictions : array of shape (k, V), float32
    """
    device = model.weight.device
    model.eval()
    for start in range(0, len(rows), batch_size):
        batch = np.sort(rows[start : start + batch_size])
        with torch.inference_mode():
            local_tokens, global_tokens = (
                {layer: value.to(device) for layer, value in part.items()} for part in tokens.batch(batch)
            )
            predictions = model(local_tokens, global_tokens).cpu().numpy()
        yield batch, predictions


def summarise(scores: Scores, rois: RoiTable) -> dict[str, Any]:
    """Medians over all vertices and by ROI.

    Returns
    -------
    dict
        ``images``; ``all`` and ``rois`` -> name -> ``vertices``, ``r``, ``r_interval`` (95 %, bootstrap over vertices),
        ``R2``, ``share`` (of the noise ceiling); ``official``: the official score's ``mean`` and ``median`` in percent,
        None without noise ceilings. Other unknown numbers are None too.
    """
    ceiling = np.nan_to_num(scores.noise_ceiling)
    official = None
    if (ceiling > 0).any() and np.isfinite(scores.r).any():
        found = official_score(np.nan_to_num(scores.r), ceiling)
        official = {"mean": found.mean, "median": found.median, "vertices": found.n}
    return {
        "images": scores.images,
        "all": _medians(scores, np.arange(len(scores.r))),
        "rois": {name: _medians(scores, members) for name, members in rois.items()},
        "official": official,
    }


def score_table(summary: dict[str, Any]) -> Table:
    """What `summarise` returns, for people; ROIs without vertices are left out."""
    named = [("all", summary["all"]), *summary["rois"].items()]
    notes = []
    if official := summary["official"]:
        notes.append(
            f"official score: mean {official['mean']:.1f} %, median {official['median']:.1f} % of the noise ceiling"
        )
    if 1 < summary["images"] < FEW_IMAGES:
        chance = min(1.96 / math.sqrt(summary["images"] - 1), 1.0)
        notes.append(
            f"{summary['images']} test images are few: a correlation of up to {chance:.2f} at a vertex may be chance"
        )
    return Table(
        title=f"test scores on {plural(summary['images'], 'image')} (medians over vertices)",
        header=("ROI", "vertices", "r", "R2", "r2/ceiling"),
        rows=tuple(
            (name, f"{row['vertices']:,}", *(number(row[key], ".3f") for key in ("r", "R2", "share")))
            for name, row in named
            if row["vertices"]
        ),
        notes=tuple(notes),
        bold=0,
    )


def json_ready(table: dict[str, Any]) -> dict[str, Any]:
    """A table of results as JSON holds it: plain numbers, and None for NaN and infinity."""
    plain: dict[str, Any] = json.loads(json.dumps(table, default=float), parse_constant=lambda _: None)
    return plain


def _medians(scores: Scores, members: np.ndarray) -> dict[str, Any]:
    r = _finite(scores.r[members])
    return {
        "vertices": len(members),
        "r": _median(r),
        "r_interval": [float(end) for end in bootstrap_interval(r)] if len(r) > 1 else None,
        "R2": _median(_finite(scores.R2[members])),
        "share": _median(_finite(scores.share[members])),
    }


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None
