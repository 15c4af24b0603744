"""Comparing finished runs: the workflow behind `brainkit compare`. It reads from top to bottom."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainkit.cortex.vertices import CUSTOM, Vertices
from brainkit.data.subject import Subject
from brainkit.errors import MissingDependency, UsageError
from brainkit.evaluation.compare import (
    ALL,
    PairedComparison,
    Summary,
    compare_predictions,
    over_subjects,
    summarise_accuracy,
)
from brainkit.evaluation.hierarchy import AreaOrder, analyse_hierarchy, order_areas, shared_images
from brainkit.evaluation.vertex_groups import vertex_groups
from brainkit.metrics.depth import relative_depth
from brainkit.metrics.spin import Spins, fit_sphere, fsaverage_sphere, spin
from brainkit.runs.compared import Model, Shared, open_models, open_rois, open_shared
from brainkit.utils.progress import Say

LINES = ("slope", "intercept", "r2")


@dataclass(frozen=True)
class Settings:
    """How runs are compared; see `compare`."""

    bootstrap: int = 2000
    permutations: int = 2000
    rotations: int = 1000
    level: float = 0.95
    seed: int = 0
    order: str | None = None
    leaderboard: bool = False


@dataclass(frozen=True, eq=False)
class SubjectResult:
    """The models that one subject has, compared."""

    shared: Shared
    accuracy: dict[str, Summary]
    pairs: dict[tuple[str, str], PairedComparison]
    order: AreaOrder | None
    hierarchy: dict[str, dict[str, Any]]
    no_spin: str | None


@dataclass(frozen=True, eq=False)
class RunComparison:
    """What `compare` finds.

    Attributes
    ----------
    models : tuple of Model
        In the order given; for a leaderboard, best first.
    subjects : dict of str to SubjectResult
    pairs : tuple of (str, str)
        The models that were compared, first minus second.
    settings : Settings
    """

    models: tuple[Model, ...]
    subjects: dict[str, SubjectResult]
    pairs: tuple[tuple[str, str], ...]
    settings: Settings

    @property
    def single(self) -> SubjectResult | None:
        """The only subject, if there is one only."""
        return next(iter(self.subjects.values())) if len(self.subjects) == 1 else None

    def pair(self, pair: tuple[str, str]) -> Summary:
        """Differences by group of vertices: of the only subject, else over subjects."""
        found = {name: each.pairs[pair].groups for name, each in self.subjects.items() if pair in each.pairs}
        if self.single is not None:
            return next(iter(found.values()))
        level = self.settings.level
        return _over_subjects(found, lambda values: over_subjects(values, level), "difference")

    def accuracy(self, model: str) -> Summary:
        """A model's accuracy by group of vertices: of the only subject, else over subjects."""
        found = {name: each.accuracy[model] for name, each in self.subjects.items() if model in each.accuracy}
        if self.single is not None:
            return next(iter(found.values()))

        def mean(values: Mapping[str, float | None]) -> dict[str, Any]:
            line = over_subjects(values, self.settings.level)
            ends = {f"mean_{key}": line[key] for key in ("low", "high")}
            return {"mean": line["difference"], **ends, "n": line["n"], "values": line["values"]}

        return _over_subjects(found, mean, "mean")

    def hierarchy(self, model: str) -> dict[str, Any] | None:
        """Slope, intercept and r2: of the only subject, else over subjects; None where there are none."""
        found = {name: each.hierarchy[model] for name, each in self.subjects.items() if model in each.hierarchy}
        if not found:
            return None
        if self.single is not None:
            return next(iter(found.values()))
        lines = {}
        for line in LINES:
            over = over_subjects({name: each[line]["value"] for name, each in found.items()}, self.settings.level)
            lines[line] = {"value": over.pop("difference"), **over}
        return lines


def compare(
    runs: Sequence[str | os.PathLike[str]],
    *,
    data: Sequence[str | os.PathLike[str]] = (),
    settings: Settings | None = None,
    say: Say = print,
) -> RunComparison:
    """Compare finished runs on the test images that they share.

    Parameters
    ----------
    runs : sequence of path-like or ``NAME=PATH``
        At least two: run folders, or baselines in them (``RUN/baselines/NAME``). Runs with one NAME are one model: on
        other subjects, or with other seeds or images of the same subject. By default a run is named by its folder.
    data : sequence of path-like
        Where the data are now, if they have moved: one folder per subject, named as the subject if there are several.
    settings : Settings, optional
    say : callable
        Called with each line of progress.

    Returns
    -------
    RunComparison

    Raises
    ------
    UsageError
        If fewer than two models are given, or no two have a subject in common.
    DataError
        If a run keeps no predictions, or runs of one subject have other vertices, responses or no test image in common.
    """
    settings = settings or Settings()
    models = open_models(runs)
    compared = {
        subject: having
        for subject in dict.fromkeys(name for model in models for name in model.runs)
        if len(having := [model for model in models if subject in model.runs]) > 1
    }
    for subject, having in compared.items():
        order_areas(open_rois(having, subject), settings.order)  # an unknown area is told before the work
    if not compared:
        found = "; ".join(f"{model.name}: {', '.join(model.runs)}" for model in models)
        raise UsageError(
            f"compare: expected two models of the same subject, found {found}; name the runs of one model alike: "
            "brainkit compare NAME=RUN NAME=RUN OTHER=RUN ..."
        )
    shared, accuracy = {}, {}
    for subject, having in compared.items():
        shared[subject] = open_shared(having, subject, data)
        say(shared[subject].describe())
        accuracy[subject] = _accuracies(having, shared[subject], settings, say)
    named = {model.name for having in compared.values() for model in having}
    ranked = [model for model in models if model.name in named]
    if settings.leaderboard:
        scores = {name: _mean_over_subjects(name, accuracy.values()) for name in named}
        ranked.sort(key=lambda model: -scores[model.name])
    pairs = tuple(
        pair
        for pair in _pairs([model.name for model in ranked], settings.leaderboard)
        if any(set(pair) <= set(found) for found in accuracy.values())
    )
    results = {
        subject: _compare_subject(having, shared[subject], accuracy[subject], pairs, settings, say)
        for subject, having in compared.items()
    }
    return RunComparison(tuple(ranked), results, pairs, settings)


def headline_measure(summary: Summary) -> str:
    """``explained``, or ``r`` where there are no noise ceilings."""
    return "explained" if summary[ALL]["explained"]["mean"] is not None else "r"


def _accuracies(models: Sequence[Model], shared: Shared, settings: Settings, say: Say) -> dict[str, Summary]:
    """Each model's accuracy by group of vertices."""
    found = {}
    for model in models:
        say(f"{shared.subject}: accuracy of {model.name}")
        found[model.name] = summarise_accuracy(
            shared.predictions[model.name], shared.responses, **_how(shared, settings)
        )
    return found


def _mean_over_subjects(model: str, accuracy: Iterable[Mapping[str, Summary]]) -> float:
    """What models are ranked by: the mean accuracy over the subjects that a model has."""
    values = [found[model][ALL][headline_measure(found[model])]["mean"] for found in accuracy if model in found]
    return float(np.mean([-np.inf if value is None else value for value in values]))


def _pairs(ranked: Sequence[str], leaderboard: bool) -> tuple[tuple[str, str], ...]:
    """All pairs of models; of a leaderboard, each with the best."""
    return tuple((name, ranked[0]) for name in ranked[1:]) if leaderboard else tuple(itertools.combinations(ranked, 2))


def _compare_subject(
    models: Sequence[Model],
    shared: Shared,
    accuracy: dict[str, Summary],
    pairs: Iterable[tuple[str, str]],
    settings: Settings,
    say: Say,
) -> SubjectResult:
    differences = {}
    for a, b in pairs:
        if a not in accuracy or b not in accuracy:
            continue
        say(f"{shared.subject}: {a} - {b}")
        differences[a, b] = compare_predictions(
            shared.predictions[a],
            shared.predictions[b],
            shared.responses,
            permutations=settings.permutations,
            **_how(shared, settings),
        )
    order = order_areas(shared.rois, settings.order)
    hierarchy: dict[str, dict[str, Any]] = {}
    no_spin = None
    if order is not None:
        spins, no_spin = _spins(shared.vertices, shared.data, order, settings)
        for model in models:
            found = _hierarchy(model, shared, order, spins, settings.level)
            hierarchy |= {} if found is None else {model.name: found}
    return SubjectResult(shared, accuracy, differences, order, hierarchy, no_spin)


def _how(shared: Shared, settings: Settings) -> dict[str, Any]:
    return {
        "noise_ceiling": shared.noise_ceiling,
        "rois": vertex_groups(shared.vertices, shared.rois),
        "groups": shared.groups,
        "bootstrap": settings.bootstrap,
        "level": settings.level,
        "seed": settings.seed,
    }


def _spins(vertices: Vertices, data: Subject, order: AreaOrder, settings: Settings) -> tuple[Spins | None, str | None]:
    """Rotations of the vertices of the areas, or why there are none."""
    try:
        if vertices.space == CUSTOM:
            sphere = None if data.own_coordinates is None else fit_sphere(data.own_coordinates)
            if sphere is None:
                return None, "the coordinates of the vertices do not lie on a sphere"
        else:
            sphere = fsaverage_sphere(vertices)
        return spin(sphere, order.vertices, settings.rotations, settings.seed), None
    except (MissingDependency, UsageError) as error:
        return None, str(error)


def _hierarchy(
    model: Model, shared: Shared, order: AreaOrder, spins: Spins | None, level: float
) -> dict[str, Any] | None:
    """Depth by area of the model's runs; None if they have no selectors, such as baselines."""
    selectors = model.selectors(shared.subject)
    if not selectors:
        return None
    depth = np.stack([relative_depth(each.layer_weights) for each in selectors])
    images = shared_images([each.training_rows for each in selectors])
    return analyse_hierarchy(depth, order, spins=spins, shared=images, level=level)


def _over_subjects(found: Mapping[str, Summary], line: Any, key: str) -> Summary:
    """One line over subjects for each group of vertices and measure that all subjects have."""
    first = next(iter(found.values()))
    groups = [group for group in first if all(group in summary for summary in found.values())]
    return {
        group: {
            measure: line({name: summary[group][measure][key] for name, summary in found.items()})
            for measure in first[group]
        }
        for group in groups
    }
