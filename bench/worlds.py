"""How FactorTopy and ridge regressions fare where responses are not FactorTopy's own: ``python -m bench.worlds``.

A world is a simulated subject (see `bench.world_simulation`). ``load_world(seed, kind)`` and ``run_variant(world,
overrides)`` try a setting in half a minute of CPU; worlds and results stay in a folder, so that nothing is computed
twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import world_simulation
from bench.fitting import train
from bench.world_simulation import AREAS, World
from brainkit.config import Config
from brainkit.evaluation.scores import Scores
from brainkit.metrics.correlation import StreamingCorrelation
from brainkit.utils.files import cache_folder

GROUPS = ("all", *AREAS)


def load_world(seed: int, kind: str = "near", *, folder: Path | None = None, grid: int = 8) -> World:
    """A world by its seed and kind ("near" or "far"); made on first use in about two minutes."""
    return world_simulation.load_world(seed, kind, folder=folder or cache_folder() / "worlds", grid=grid)


def run_variant(world: World, overrides: Sequence[str] = (), seed: int = 0) -> dict[str, Any]:
    """Train with settings such as ``["model.topography=false"]``.

    Returns
    -------
    dict
        ``explained`` and ``signal``: medians over all vertices and by area of the explained share of the noise ceiling,
        and of the squared correlation with the responses without noise; ``seconds`` (CPU), ``best_epoch``.
    """
    split = world.split(seed)
    trained = train(world, Config().replace([f"seed={seed}", "train.threads=1", *overrides]), split)
    predicted = predictions(trained.model, world, split.test)
    found = summarise(world, predicted, split.test) | {"seconds": trained.seconds, "best_epoch": trained.best_epoch}
    return found | {"locations": location_errors(world, trained.selectors())}


def predictions(model: Any, world: World, rows: np.ndarray) -> np.ndarray:
    """A model's predictions (n, V) of some images."""
    import torch

    model.eval()
    with torch.inference_mode():
        parts = [model(*world.tokens.batch(part)).numpy() for part in np.array_split(rows, -(-len(rows) // 64))]
    return np.concatenate(parts)


def summarise(world: World, predicted: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    """Medians by area of the explained share and of the squared correlation with the noise-free responses."""
    noisy = StreamingCorrelation(predicted.shape[1])
    noisy.update(predicted, world.responses.rows(rows))
    share = Scores(np.asarray(noisy.r), np.asarray(noisy.R2), world.ceiling, len(rows)).share
    clean = StreamingCorrelation(predicted.shape[1])
    clean.update(predicted, world.signal[rows])
    squared = np.maximum(np.nan_to_num(np.asarray(clean.r)), 0) ** 2
    return {
        "explained": {group: float(np.nanmedian(share[world.of(group)])) for group in GROUPS},
        "signal": {group: float(np.median(squared[world.of(group)])) for group in GROUPS},
    }


def location_errors(world: World, selectors: dict[str, np.ndarray]) -> dict[str, float]:
    """Median distance of the selected location from the receptive field's centre, where there is one."""
    distance = np.linalg.norm(selectors["location"] - world.truth["centre"], axis=1)
    return {area: float(np.median(distance[world.of(area)])) for area in ("early", "mid")}


def run_ridges(world: World, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Each ridge regression of `bench.ridge` on the same tokens and split."""
    from bench import ridge

    split = world.split(seed)
    found = {}
    for name, (predicted, seconds) in ridge.predictions(world, split).items():
        found[name] = summarise(world, predicted, split.test) | {"seconds": seconds}
    return found


class Results:
    """Results by world and variant in a JSON file: what is there is not computed again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}

    def get(self, world: str, variant: str, compute: Callable[[], Any]) -> Any:
        """The result of a variant in a world."""
        if variant not in self.rows.setdefault(world, {}):
            found = compute()
            self.rows = json.loads(self.path.read_text()) if self.path.is_file() else self.rows
            self.rows.setdefault(world, {})[variant] = found
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.rows, indent=1))
        return self.rows[world][variant]
