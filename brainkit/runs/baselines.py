"""Baselines of a run: fitted to its tokens and split, scored as it is, and tabulated beside it.

Each is complete or absent in ``RUN/baselines/NAME``, so that an interrupted command goes on with the next one.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit._version import __version__
from brainkit.config import Config
from brainkit.data.split import Split
from brainkit.data.subject import Subject
from brainkit.errors import DataError, UsageError, require
from brainkit.evaluation.baselines.catalog import Baseline, Workplace, catalog, choose, compute
from brainkit.evaluation.baselines.factor_topy import Recipe, parameter_count
from brainkit.evaluation.baselines.problem import Problem, Result
from brainkit.evaluation.evaluate import evaluate
from brainkit.evaluation.vertex_groups import vertex_groups
from brainkit.images import content_hash
from brainkit.runs.baseline_tables import Row, Rows
from brainkit.runs.depth_agreement import write_agreement
from brainkit.runs.export import check_network
from brainkit.runs.folder import figure_note, finished_run, load_model, read_settings
from brainkit.runs.network import extract_subject_tokens, load_network
from brainkit.runs.predictions import Predictions, read_predictions, write_predictions
from brainkit.runs.provenance import package_versions
from brainkit.runs.run_data import open_run_data
from brainkit.runs.settings import MAY_CHANGE
from brainkit.utils.files import atomic_write, check_folder, create_folder, read_json, write_json
from brainkit.utils.progress import Say, progress_bar
from brainkit.utils.system import cores
from brainkit.utils.table import Table

if TYPE_CHECKING:
    from torch import nn

    from brainkit.backbones import Backbone
    from brainkit.features.cache import TokenCache

FOLDER = "baselines"
RUN_ITSELF, RANDOM = "factor-topy", "random-network"
DRAWS = 2000  # bootstraps
_FILE, _ARRAYS = "baseline.json", "arrays.npz"


def compute_baselines(
    run: str | os.PathLike[str] | None = None,
    only: Sequence[str] = (),
    *,
    data: str | os.PathLike[str] | Subject | None = None,
    network: nn.Module | None = None,
    threads: int | None = None,
    say: Say = print,
) -> Rows:
    """Fit baselines to the data of a run, and compare them with it on the same test images.

    What is there already is not computed again, unless the run, its data or the method have changed.

    Parameters
    ----------
    run : path-like, optional
        A finished run of one subject; by default the newest.
    only : sequence of str
        Names of baselines, see :func:`brainkit.evaluation.baselines.catalog.catalog`, and ``ridge-layers`` for those of
        all layers; by default all.
    data : path-like or Subject, optional
        Where the run's data are now, if they have moved.
    network : Module, optional
        The network of the run, if it was made in Python.
    threads : int, optional
        Processor threads; by default one for each core that it may use.
    say : callable
        Called with each line of progress.

    Returns
    -------
    Rows
        The run and all baselines computed so far; written to ``RUN/baselines.json``, ``.csv`` and ``.png``.

    Raises
    ------
    UsageError
        If a baseline is unknown, or there is no such network with random weights.
    DataError
        If the run is not finished or has no training data, or the data have changed.
    """
    for package in ("sklearn", "himalaya"):
        require(package, extra="train", purpose="brainkit baselines")
    from threadpoolctl import threadpool_limits

    from brainkit.training.threads import limit_threads

    folder, summary = finished_run(run)
    if not (folder / "split.json").is_file():
        raise DataError(f"{folder}: expected a run with a split, found imported weights: their training is unknown")
    known = catalog(summary["backbone"]["layers"])
    if reason := _why_no_random_network(summary["backbone"]):
        if RANDOM in only:
            raise UsageError(f"{RANDOM}: {folder}: {reason}")
        del known[RANDOM]
    wanted = choose(only, known)
    check_folder(folder / FOLDER)
    kept = read_predictions(folder, data=data.root if isinstance(data, Subject) else data)
    with limit_threads(threads or 0), threadpool_limits(cores()):
        work = _Work(folder, summary, open_run_data(folder, summary, data), network, say)
        work.score_run(kept)
        for number, name in enumerate(wanted, 1):
            if work.is_done(name, known[name]):
                continue
            say(f"{number} of {len(wanted)}: {known[name].title}")
            work.fit(name, known[name])
        agreement = work.compare_depth() if "banded" in wanted else None
        rows = Rows(
            folder,
            [work.row(name) for name in (RUN_ITSELF, *known) if name == RUN_ITSELF or work.is_done(name, known[name])],
            work.provenance(),
            agreement,
        )
    rows.write(note=figure_note(summary))
    return rows


@dataclass(frozen=True, eq=False)
class _Work:
    """One call: the run, its data, and what is loaded when it is first needed."""

    run: Path
    summary: dict[str, Any]
    subject: Subject
    given_network: nn.Module | None
    say: Say

    @functools.cached_property
    def settings(self) -> Config:
        return read_settings(self.run)

    @functools.cached_property
    def split(self) -> Split:
        return Split.read(self.run / "split.json", names=[path.name for path in self.subject.images])

    @functools.cached_property
    def network(self) -> Backbone:
        network = load_network(self.settings, self.given_network, self.say)
        check_network(self.run, self.summary["backbone"], network)
        return network

    @functools.cached_property
    def device(self) -> str:
        from brainkit.training.fit import choose_device

        return choose_device(self.settings.train.device)

    @functools.cached_property
    def workplace(self) -> Workplace:
        problem = Problem(
            self._tokens(self.network), self.subject.images, self.subject.responses, self.subject.groups, self.split
        )
        return Workplace(
            problem, Recipe(self.settings, self._train), lambda: self.random_tokens, self._load, self._seconds
        )

    @functools.cached_property
    def responses(self) -> np.ndarray:
        return self.subject.responses.rows(self.split.test)

    @functools.cached_property
    def groups(self) -> np.ndarray:
        return np.asarray(self.subject.groups)[self.split.test]

    def folder(self, name: str) -> Path:
        return self.run / FOLDER / name

    def fingerprint(self, baseline: Baseline) -> str:
        """A hash of everything that the stored result depends on."""
        rows = np.concatenate([self.split.train, [-1], self.split.validation, [-1], self.split.test])
        facts: dict[str, Any] = {
            "version": baseline.version,
            "data": self.summary["data"]["hash"],
            "split": hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest(),
            "backbone": {key: self.summary["backbone"][key] for key in ("weights_hash", "layers", "preprocessing")},
            "grid": self.settings.model.grid,
            "tokens": self.settings.data.token_dtype,
            "draws": DRAWS,
        }
        if baseline.is_trained:
            train = {key: value for key, value in vars(self.settings.train).items() if key not in MAY_CHANGE}
            facts |= {"model": vars(self.settings.model), "train": train, "seed": self.settings.seed}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def is_done(self, name: str, baseline: Baseline) -> bool:
        """Whether its result is there, and still that of this run."""
        file = self.folder(name) / _FILE
        return file.is_file() and read_json(file).get("fingerprint") == self.fingerprint(baseline)

    def row(self, name: str) -> Row:
        """Its row of the table."""
        return Row.from_json(read_json(self.folder(name) / _FILE)["row"])

    def fit(self, name: str, baseline: Baseline) -> None:
        """Compute and score a baseline, and write its folder; ``baseline.json`` is last."""
        folder, started = self.folder(name), time.monotonic()
        create_folder(folder)
        (folder / _FILE).unlink(missing_ok=True)
        if name == RANDOM:
            _ = self.random_tokens  # now, because the network's own time does not count
        with progress_bar(name, "steps") as advance:
            result, seconds = compute(baseline, replace(self.workplace, progress=advance))
        write_predictions(folder, result.predictions, self.subject, self.split.test, self.subject.vertices)
        arrays: dict[str, Any] = dict(result.arrays)
        with atomic_write(folder / _ARRAYS) as temporary:
            np.savez(temporary, **arrays)
        row = self._scored(name, baseline.title, result.predictions, seconds, result.parameters)
        write_json(
            folder / _FILE,
            {
                "schema": 1,
                "fingerprint": self.fingerprint(baseline),
                "row": row.to_json(),
                "wall_seconds": round(time.monotonic() - started, 2),
                "device": self.device if baseline.is_trained else "cpu",
                "provenance": self.provenance(),
            },
        )
        self.say(f"  {row.describe()}")

    def score_run(self, predictions: Predictions) -> None:
        """Score the run's own predictions in the same way, for the table's first row."""
        folder = self.folder(RUN_ITSELF)
        fingerprint = hashlib.sha256(f"{DRAWS}".encode() + predictions.predictions.tobytes()).hexdigest()
        if (folder / _FILE).is_file() and read_json(folder / _FILE).get("fingerprint") == fingerprint:
            return
        create_folder(folder)
        seconds = self.summary.get("training", {}).get("cpu_seconds")
        parameters = parameter_count(load_model(self.run))
        row = self._scored(RUN_ITSELF, "FactorTopy (this run)", predictions.predictions, seconds, parameters)
        content = {"schema": 1, "fingerprint": fingerprint, "row": row.to_json(), "provenance": self.provenance()}
        write_json(folder / _FILE, content)

    def compare_depth(self) -> Table | None:
        """Compare the depth of the vertices with banded ridge's; None if there is one layer only."""
        if len(self.summary["backbone"]["layers"]) < 2:
            return None
        with np.load(self.folder("banded") / _ARRAYS) as file:
            layer_predictions, mean, unit = file["layer_predictions"], file["mean"], file["unit"]
        return write_agreement(
            self.run,
            layer_predictions,
            (self.responses - mean) / unit,
            self.groups,
            self.subject,
            note=figure_note(self.summary),
            provenance=self.provenance(),
        )

    def provenance(self) -> dict[str, Any]:
        """What the numbers come from; nothing that two equal calls differ in."""
        backbone = self.summary["backbone"]
        return {
            "brainkit": __version__,
            "command": f"brainkit baselines {self.run.resolve().name}",
            "run": self.run.resolve().name,
            "encoder": content_hash(self.run / "checkpoints" / "best.ckpt"),
            "data": self.summary["data"]["hash"],
            "split": {"seed": self.split.seed, "side": "test", "images": len(self.split.test)},
            "seed": self.settings.seed,
            "backbone": {key: backbone[key] for key in ("name", "weights_hash")},
            "bootstrap": DRAWS,
            "versions": package_versions("numpy", "scipy", "scikit-learn", "himalaya", "torch", "timm"),
        }

    def _scored(self, name: str, title: str, predictions: np.ndarray, seconds: float | None, parameters: int) -> Row:
        found = evaluate(
            predictions,
            self.responses,
            noise_ceiling=self.subject.noise_ceiling_of(self.split.test),
            rois=vertex_groups(self.subject.vertices, self.subject.rois),
            groups=self.groups,
            bootstrap=DRAWS,
            permutations=0,
        )
        return Row(name, title, None if seconds is None else round(seconds, 2), parameters, found.to_dict())

    def _load(self, name: str) -> Result:
        with np.load(self.folder(name) / _ARRAYS) as file:
            arrays = {key: file[key] for key in file.files}
        return Result(read_predictions(self.folder(name)).predictions, self.row(name).parameters, arrays)

    def _seconds(self, name: str) -> float:
        return self.row(name).cpu_seconds or 0.0

    def _tokens(self, network: Backbone) -> TokenCache:
        grid = (self.settings.model.grid, self.settings.model.grid)
        options: dict[str, Any] = {"grid": grid, "device": self.device, "dtype": self.settings.data.token_dtype}
        return extract_subject_tokens(network, self.subject, **options, say=self.say).cache

    @functools.cached_property
    def random_tokens(self) -> TokenCache:
        """Of the run's network with random weights."""
        settings = replace(self.settings, backbone=replace(self.settings.backbone, weights="", random_weights=True))
        return self._tokens(load_network(settings, None, self.say))

    def _train(self, settings: Config, tokens: TokenCache, rows: np.ndarray | None) -> Any:
        from brainkit.runs.retrain import retrain

        return retrain(settings, self.network, self.subject, self.split, tokens, device=self.device, rows=rows)


def _why_no_random_network(backbone: dict[str, Any]) -> str | None:
    """Why there is no such network with random weights to compare with."""
    from brainkit.backbones.plugin import is_own

    if is_own(backbone["name"], backbone["source"]):
        return "brainkit does not know how to draw other weights for a network of your own"
    return "its network has random weights already" if backbone["pretrained"] is False else None
