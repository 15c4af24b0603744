"""How good an encoder is: scores on held-out images, by ROI, and against a planted truth where there is one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainkit.cortex.surface import RoiTable, Vertices
from brainkit.errors import DataError, TrainingError
from brainkit.metrics.scores import StreamingScore, bootstrap_interval, explained_share, official_score
from brainkit.model.ensemble import Ensemble
from brainkit.model.factor_topy import FactorTopy
from brainkit.training.datamodule import ResponseSource, TokenSource
from brainkit.utils.files import write_beside, write_json

# Vertices below this ceiling tell little about recovery: their responses are mostly noise.
CEILING_FOR_RECOVERY = 0.3
_TRUTH = ("layer_weights", "locations", "scale", "vertices", "layers", "backbone", "weights_hash")


@dataclass(frozen=True)
class Scores:
    """Accuracy per vertex on held-out images: correlation, R2 (1 - residual / total) and noise ceiling of r^2. (V,)

    Where there is no noise ceiling it is NaN.
    """

    r: np.ndarray
    R2: np.ndarray
    noise_ceiling: np.ndarray
    images: int

    @property
    def share(self) -> np.ndarray:
        """Share of what can be explained, see :func:`brainkit.metrics.scores.explained_share`. (V,)"""
        return explained_share(self.r, self.noise_ceiling)

    def write(self, path: Path, vertices: Vertices) -> None:
        """Write as ``scores.npz``."""
        with write_beside(path) as beside:
            np.savez(
                beside,
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
) -> Scores:
    """Compare predictions with the responses to the images of `rows`, streamed: nothing of (n, V) is kept."""
    streamed = StreamingScore(len(model.weight))
    device = model.weight.device
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            chosen = np.sort(rows[start : start + batch_size])
            local, whole = tokens.batch(chosen)
            local = {layer: value.to(device) for layer, value in local.items()}
            whole = {layer: value.to(device) for layer, value in whole.items()}
            streamed.update(model(local, whole).cpu().numpy(), responses.rows(chosen))
    ceiling = np.full(len(model.weight), np.nan) if noise_ceiling is None else np.asarray(noise_ceiling, float)
    return Scores(np.asarray(streamed.r), np.asarray(streamed.R2), ceiling, len(rows))


def summarise(scores: Scores, rois: RoiTable) -> dict[str, Any]:
    """Medians over all vertices and by ROI, with a 95 % bootstrap interval over vertices; JSON-ready.

    Keys: ``all`` and each ROI's name -> ``vertices``, ``r``, ``R2``, ``share`` (null where there is no ceiling),
    ``r_interval``; and ``official`` (mean and median, percent) where there is a ceiling.
    """
    table: dict[str, Any] = {"images": scores.images, "all": _row(scores, np.arange(len(scores.r)))}
    table["rois"] = {name: _row(scores, members) for name, members in rois.items()}
    if np.isfinite(scores.noise_ceiling).any() and (np.nan_to_num(scores.noise_ceiling) > 0).any():
        official = official_score(np.nan_to_num(scores.r), np.nan_to_num(scores.noise_ceiling))
        table["official"] = {"mean": official.mean, "median": official.median, "vertices": official.n}
    else:
        table["official"] = None
    return table


def read_truth(truth_file: Path) -> dict[str, np.ndarray]:
    """What was planted in the sample subject.

    Parameters
    ----------
    truth_file : Path
        ``truth.npz`` in the subject's folder.

    Raises
    ------
    DataError
        If it is not of this version's make.
    """
    with np.load(truth_file) as file:
        truth = {name: file[name] for name in file.files}
    if missing := [name for name in _TRUTH if name not in truth]:
        raise DataError(
            f"{truth_file}: expected {', '.join(_TRUTH)}, found no {missing[0]}; make the sample subject anew"
        )
    return truth


def recovery(
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
    """Compare what training chose with what was planted in the sample subject.

    Over vertices with a noise ceiling above 0.3: ``depth_r`` and ``depth_within_one`` (expected depth: correlation,
    and share within one layer), ``location_median`` (error, image spanning [-1, 1]), ``scale_r`` and
    ``accuracy_share`` (median r^2 / ceiling). Each stands beside what the best constant would get (``constant``).

    Parameters
    ----------
    truth : dict
        As :func:`read_truth` gives it.
    vertices, layers, backbone, weights_hash
        Of the trained model; with another network, weights or layers than the planted ones depth means something
        else, so its rows are left out and ``left_out`` says why.
    layer_weights, locations, scale : arrays (V, L), (V, 2), (V,)
        What training chose.
    scores : Scores
        On the test images.

    Raises
    ------
    TrainingError
        If a correlation is not a number: the selectors are constant, so training found nothing.
    """
    place = {int(vertex): index for index, vertex in enumerate(truth["vertices"])}
    try:
        order = np.array([place[int(vertex)] for vertex in vertices.ids])
    except KeyError as error:
        raise DataError(f"truth.npz: has no truth for vertex {error.args[0]}") from None
    good = scores.noise_ceiling > CEILING_FOR_RECOVERY
    if good.sum() < 2:
        why = f"all rows: {good.sum()} vertices have a noise ceiling above {CEILING_FOR_RECOVERY}, and two are needed"
        return {"vertices": int(good.sum()), "ceiling_above": CEILING_FOR_RECOVERY, "rows": {}, "left_out": why}

    rows: dict[str, dict[str, float]] = {}
    left_out = None
    planted_layers = tuple(truth["layers"].tolist())
    if str(truth["weights_hash"]) == weights_hash and planted_layers == layers:
        steps = np.arange(len(layers))
        planted = (truth["layer_weights"][order] @ steps)[good]
        found = (layer_weights @ steps)[good]
        rows["depth_r"] = {"value": _correlation(planted, found), "constant": 0.0}
        middle = np.median(planted)
        rows["depth_within_one"] = {
            "value": float((np.abs(planted - found) <= 1).mean()),
            "constant": float((np.abs(planted - middle) <= 1).mean()),
        }
    else:
        other = "" if backbone != str(truth["backbone"]) else " with other weights or layers"
        left_out = (
            f"depth rows: the truth was planted in {truth['backbone']} ({len(planted_layers)} layers), "
            f"and depth in {backbone}{other} ({len(layers)} layers) cannot be compared with it"
        )
    planted_place = truth["locations"][order][good]
    miss = np.linalg.norm(planted_place - locations[good], axis=1)
    still = np.linalg.norm(planted_place - np.median(planted_place, axis=0), axis=1)
    rows["location_median"] = {"value": float(np.median(miss)), "constant": float(np.median(still))}
    rows["scale_r"] = {"value": _correlation(truth["scale"][order][good], scale[good]), "constant": 0.0}
    share = np.nan_to_num(scores.r[good]).clip(min=0) ** 2 / scores.noise_ceiling[good]
    rows["accuracy_share"] = {"value": float(np.median(share)), "constant": 0.0}
    bad = [name for name, row in rows.items() if not np.isfinite(row["value"])]
    if bad:
        raise TrainingError(f"recovery: {', '.join(bad)} is not a number: the selectors are constant over the cortex")
    return {"vertices": int(good.sum()), "ceiling_above": CEILING_FOR_RECOVERY, "rows": rows, "left_out": left_out}


def write_summary(path: Path, table: dict[str, Any]) -> None:
    """Write a table of scores as JSON; what is not a number becomes null."""
    write_json(path, plain_summary(table))


def plain_summary(table: dict[str, Any]) -> dict[str, Any]:
    """A table of scores as JSON has it; what is not a number becomes None."""
    plain: dict[str, Any] = json.loads(json.dumps(table, default=float), parse_constant=lambda _: None)
    return plain


def score_lines(table: dict[str, Any]) -> list[str]:
    """The table of scores as the terminal shows it."""

    def number(value: float | None, form: str = "6.3f") -> str:
        return format(value, form) if value is not None else "     -"

    lines = [f"test scores on {table['images']} images (medians over vertices)"]
    lines.append(f"  {'ROI':<16}{'vertices':>9}{'r':>9}{'R2':>9}{'r2/ceiling':>12}")
    for name, row in [("all", table["all"]), *table["rois"].items()]:
        if row["vertices"]:
            numbers = f"{number(row['r']):>9}{number(row['R2']):>9}{number(row['share']):>12}"
            lines.append(f"  {name:<16}{row['vertices']:>9}{numbers}")
    if table["official"]:
        lines.append(
            f"  official score: mean {table['official']['mean']:.1f} %, median {table['official']['median']:.1f} % "
            "of the noise ceiling"
        )
    return lines


def recovery_lines(found: dict[str, Any]) -> list[str]:
    """The recovery table as the terminal shows it."""
    lines = [f"recovery of the planted truth, {found['vertices']} vertices with ceiling > {found['ceiling_above']}"]
    lines.append(f"  {'':<20}{'found':>8}{'constant':>10}")
    lines += [f"  {name:<20}{row['value']:>8.3f}{row['constant']:>10.3f}" for name, row in found["rows"].items()]
    if found["left_out"]:
        lines.append(f"  left out: {found['left_out']}")
    return lines


def _row(scores: Scores, members: np.ndarray) -> dict[str, Any]:
    def median(values: np.ndarray, statistic: Callable[[np.ndarray], Any] = np.median) -> float | None:
        finite = values[np.isfinite(values)]
        return float(statistic(finite)) if len(finite) else None

    r = scores.r[members]
    finite = r[np.isfinite(r)]
    interval = [float(end) for end in bootstrap_interval(finite)] if len(finite) > 1 else None
    return {
        "vertices": len(members),
        "r": median(r),
        "r_interval": interval,
        "R2": median(scores.R2[members]),
        "share": median(scores.share[members]),
    }


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
