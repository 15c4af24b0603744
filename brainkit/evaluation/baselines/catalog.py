"""All baselines by name, in the order of the table."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from brainkit.errors import UsageError
from brainkit.evaluation.baselines import banded, factor_topy, gabor, pca_ols, pixels, ridge, stacked, trivial
from brainkit.evaluation.baselines.factor_topy import Recipe
from brainkit.evaluation.baselines.kernels import TokenKernels
from brainkit.evaluation.baselines.problem import Problem, Result
from brainkit.features.cache import TokenCache
from brainkit.utils.progress import Progress
from brainkit.utils.text import nearest_name

LAYERS = "ridge-layers"  # all of them, where baselines are chosen


@dataclass(frozen=True, eq=False)
class Workplace:
    """What a baseline works with.

    Attributes
    ----------
    problem : Problem
    recipe : Recipe, optional
        For the controls of FactorTopy.
    random_tokens : callable, optional
        Gives the tokens of the network with random weights.
    load : callable, optional
        Gives the result of a baseline that another one needs, by name.
    seconds_of : callable
        Its CPU seconds.
    progress : callable, optional
        Called with (done, total) by baselines that take long.
    """

    problem: Problem
    recipe: Recipe | None = None
    random_tokens: Callable[[], TokenCache] | None = None
    load: Callable[[str], Result] | None = None
    seconds_of: Callable[[str], float] = lambda name: 0.0
    progress: Progress | None = None

    @functools.cached_property
    def kernels(self) -> TokenKernels:
        """Of the tokens, shared by the regressions."""
        return TokenKernels(self.problem)


@dataclass(frozen=True)
class Baseline:
    """An encoding model to compare with.

    Attributes
    ----------
    title : str
        What tables call it.
    version : int
        Increased when the method changes, so that stored results are computed again.
    needs : tuple of str
        Names of baselines whose results it uses.
    is_trained : bool
        Whether it is trained with the settings of the run.
    """

    title: str
    fit: Callable[[Workplace], Result] = field(repr=False)
    needs: tuple[str, ...] = ()
    is_trained: bool = False
    version: int = 1


def catalog(layers: Sequence[str]) -> dict[str, Baseline]:
    """The baselines of a network with these layers, by name."""
    by_layer = {f"ridge-layer-{number}": layer for number, layer in enumerate(layers, 1)}
    names = tuple(by_layer)
    found = {
        "mean": Baseline("mean response", lambda work: trivial.mean_response(work.problem)),
        "pixels": Baseline("pixels, ridge", lambda work: pixels.pixels(work.problem)),
        "gabor": Baseline("Gabor pyramid, ridge", lambda work: gabor.gabor(work.problem)),
    }
    for name, layer in by_layer.items():
        found[name] = Baseline(f"layer {layer}, ridge", functools.partial(_layer, layer))
    return found | {
        "best-layer": Baseline(
            "best layer of each vertex, ridge",
            lambda work: ridge.best_layer(_loaders(work, names), _seconds(work, names)),
            names,
        ),
        "ridge-global": Baseline("global tokens, ridge", lambda work: ridge.global_ridge(work.problem, work.kernels)),
        "ridge-all": Baseline("all tokens, ridge", lambda work: ridge.all_ridge(work.problem, work.kernels)),
        "banded": Baseline(
            "all tokens, banded ridge",
            lambda work: banded.banded_ridge(work.problem, work.kernels, progress=work.progress),
            version=2,
        ),
        "pca-ols": Baseline(
            "all tokens, PCA and least squares", lambda work: pca_ols.pca_ols(work.problem, work.kernels)
        ),
        "stacked": Baseline(
            "stacked ridge of the layers",
            lambda work: stacked.stacked(work.problem, work.kernels, _loaders(work, names), _seconds(work, names)),
            names,
        ),
        "no-topography": _control("FactorTopy without topography", factor_topy.without_topography),
        **{
            f"no-{selector}-selector": _control(
                f"FactorTopy without {selector} selector", functools.partial(factor_topy.without_selector, selector)
            )
            for selector in ("layer", "location", "scale")
        },
        "random-network": Baseline("FactorTopy, network with random weights", _random_network, is_trained=True),
        "shuffled-images": _control("FactorTopy, shuffled images", factor_topy.with_shuffled_images),
    }


def choose(names: Iterable[str], known: Mapping[str, Baseline]) -> list[str]:
    """The baselines to compute: those named, and before them those that they need; all if none is named.

    Parameters
    ----------
    names : iterable of str
        Also ``ridge-layers``, all layers' ridges; separated by commas or apart.
    known : mapping of str to Baseline

    Raises
    ------
    UsageError
        If a name is unknown; suggests the nearest.
    """
    wanted: set[str] = set()
    for name in (part.strip() for given in names for part in given.split(",")):
        layers = [other for other in known if other.startswith("ridge-layer-")]
        if name != LAYERS and name not in known:
            choice = [other for other in known if other not in layers] + [LAYERS]
            raise UsageError(f"no such baseline: {name!r}{nearest_name(name, choice)}")
        wanted.update(layers if name == LAYERS else [name])
    wanted = wanted or set(known)
    wanted |= {needed for name in wanted for needed in known[name].needs}
    return [name for name in known if name in wanted]


def compute(baseline: Baseline, work: Workplace) -> tuple[Result, float]:
    """Fit a baseline.

    Returns
    -------
    result : Result
    seconds : float
        CPU seconds, with its share in work that several baselines use: each counts a kernel as if it were alone.
    """
    shared, started = work.kernels.seconds, time.process_time()
    result = baseline.fit(work)
    own = time.process_time() - started - (work.kernels.seconds - shared)
    return result, own + result.shared_seconds


def compute_all(names: Iterable[str], work: Workplace) -> dict[str, tuple[Result, float]]:
    """Fit the chosen baselines and those that they need, in memory: result and CPU seconds by name."""
    known = catalog(work.problem.tokens.layers)
    found: dict[str, tuple[Result, float]] = {}
    work = replace(work, load=lambda name: found[name][0], seconds_of=lambda name: found[name][1])
    for name in choose(names, known):
        found[name] = compute(known[name], work)
    return found


def _control(title: str, fit: Callable[[Problem, Recipe], Result]) -> Baseline:
    return Baseline(title, lambda work: fit(work.problem, _recipe(work)), is_trained=True)


def _random_network(work: Workplace) -> Result:
    assert work.random_tokens is not None
    return factor_topy.on_other_tokens(work.problem, _recipe(work), work.random_tokens())


def _recipe(work: Workplace) -> Recipe:
    assert work.recipe is not None
    return work.recipe


def _layer(layer: str, work: Workplace) -> Result:
    return ridge.layer_ridge(layer, work.problem, work.kernels)


def _loaders(work: Workplace, names: Sequence[str]) -> list[Callable[[], Result]]:
    assert work.load is not None
    return [functools.partial(work.load, name) for name in names]


def _seconds(work: Workplace, names: Sequence[str]) -> float:
    return sum(work.seconds_of(name) for name in names)
