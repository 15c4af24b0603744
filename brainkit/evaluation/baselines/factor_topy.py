"""Controls of FactorTopy itself: trained as the run was, but without one of its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from brainkit.config import Config
from brainkit.evaluation.baselines.problem import Problem, Result
from brainkit.features.cache import TokenCache
from brainkit.model.factor_topy import FactorTopy
from brainkit.training.datamodule import TokenSource

_BATCH = 64  # images predicted at a time


@dataclass(frozen=True, eq=False)
class Recipe:
    """How models are trained.

    Attributes
    ----------
    settings : Config
        Of the run.
    train : callable
        Takes settings, tokens, and for each image the row of the responses to train it on, or None for its own; gives
        the model at its best epoch, on the CPU.
    """

    settings: Config
    train: Callable[[Config, TokenCache, np.ndarray | None], FactorTopy]


def without_topography(problem: Problem, recipe: Recipe) -> Result:
    """Every vertex has selectors of its own, without a network of the coordinates."""
    return _train(problem, recipe, topography=False)


def without_selector(selector: str, problem: Problem, recipe: Recipe) -> Result:
    """One selector is the same for all vertices: all layers weigh the same, the image's centre, or a scale of 0.5."""
    return _train(problem, recipe, fixed=tuple(dict.fromkeys((*recipe.settings.model.fixed, selector))))


def on_other_tokens(problem: Problem, recipe: Recipe, tokens: TokenCache) -> Result:
    """The same model of other tokens of the same images, such as those of the network with random weights."""
    return _result(recipe.train(recipe.settings, tokens, None), tokens, problem)


def with_shuffled_images(problem: Problem, recipe: Recipe) -> Result:
    """Responses are permuted among training images, and among validation images: there is nothing to be learnt."""
    draw, rows = np.random.default_rng((recipe.settings.seed, 5)), np.arange(len(problem.tokens))
    for side in (problem.split.train, problem.split.validation):
        rows[side] = draw.permutation(side)
    return _result(recipe.train(recipe.settings, problem.tokens, rows), problem.tokens, problem)


@torch.inference_mode()
def predict_images(model: FactorTopy, tokens: TokenSource, rows: np.ndarray) -> np.ndarray:
    """Responses (k, V) predicted to some images, float32."""
    batches = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
    return np.concatenate([model.eval()(*tokens.batch(batch)).numpy() for batch in batches])


def parameter_count(model: FactorTopy) -> int:
    """Numbers that are learnt."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _train(problem: Problem, recipe: Recipe, **changes: Any) -> Result:
    settings = replace(recipe.settings, model=replace(recipe.settings.model, **changes))
    return _result(recipe.train(settings, problem.tokens, None), problem.tokens, problem)


def _result(model: FactorTopy, tokens: TokenCache, problem: Problem) -> Result:
    return Result(predict_images(model, tokens, problem.split.test), parameter_count(model))
