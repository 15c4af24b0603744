"""Sample subjects in memory, and models trained on them with any settings, for `bench.accuracy`."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainkit.backbones import load_backbone
from brainkit.config import Config
from brainkit.data import make_split, open_subject
from brainkit.data.split import Split
from brainkit.data.subject import Subject
from brainkit.evaluation.model_scores import score
from brainkit.evaluation.recovery import read_truth
from brainkit.evaluation.scores import Scores
from brainkit.features.cache import TokenCache
from brainkit.features.extract import extract_tokens
from brainkit.model.factor_topy import FactorTopy
from brainkit.runs.folder import model_shape
from brainkit.sample import BACKBONE, make_sample
from brainkit.training.checkpoint import load_best
from brainkit.training.datamodule import EncodingData
from brainkit.training.fit import fit
from brainkit.training.module import EncodingModule
from brainkit.training.token_statistics import fit_statistics
from brainkit.training.transfer import choose_start, keep_bottlenecks


@dataclass(frozen=True)
class Responses:
    """Responses (n, V) in memory."""

    values: np.ndarray

    def rows(self, index: np.ndarray) -> np.ndarray:
        return self.values[index]


@dataclass(frozen=True)
class Sample:
    """A sample subject with its tokens, responses (n, V), noise ceilings (V,) and planted selectors."""

    subject: Subject
    tokens: TokenCache
    responses: Responses
    ceiling: np.ndarray
    truth: dict[str, np.ndarray]

    def split(self, seed: int) -> Split:
        """The split of `brainkit train`."""
        names = [path.name for path in self.subject.images]
        return make_split(self.subject.groups, self.subject.official_test, seed, names=names)

    def noisier(self, share: float, seed: int) -> Sample:
        """The subject with added noise that multiplies every ceiling by `share`."""
        noise = np.random.default_rng((seed, 3)).standard_normal(self.responses.values.shape, np.float32)
        values = share**0.5 * self.responses.values + (1 - share) ** 0.5 * noise
        return replace(self, responses=Responses(values.astype(np.float32)), ceiling=share * self.ceiling)


@dataclass(frozen=True)
class Trained:
    """A trained model at its best epoch, its scores on the test images, and the CPU seconds of its training."""

    model: FactorTopy
    scores: Scores
    seconds: float
    best_epoch: int
    steps: int

    def selectors(self) -> dict[str, np.ndarray]:
        """Expected ``depth`` (V,), ``location`` (V, 2), ``scale`` (V,)."""
        with torch.inference_mode():
            selected = self.model.selectors()
        depth = selected.layer_weights.double().numpy() @ np.arange(len(self.model.layers))
        return {"depth": depth, "location": selected.locations.numpy(), "scale": selected.scale.numpy()}


def load_sample(folder: Path, seed: int, *, vertices: int, images: int) -> Sample:
    """Make a sample subject and extract its tokens."""
    path = folder / f"subject-{seed}"
    make_sample(path, seed=seed, vertices=vertices, images=images, say=lambda line: None)
    subject = open_subject(path)
    tokens = extract_tokens(load_backbone(BACKBONE), subject.images)
    responses = Responses(subject.responses.rows(np.arange(len(subject))))
    return Sample(subject, tokens, responses, np.asarray(subject.noise_ceiling), read_truth(path / "truth.npz"))


_STATISTICS: dict[tuple[Path, bytes], dict[str, torch.Tensor]] = {}


def train(sample: Sample, settings: Config, split: Split, start: FactorTopy | None = None) -> Trained:
    """Train and score as `brainkit train` does; `settings.seed` is the seed of weights and batches.

    With `start`, the model of another subject with the same vertices, as `brainkit train --from` does.
    """
    torch.manual_seed(settings.seed)
    model = FactorTopy(sample.tokens.widths, sample.subject.coordinates, **model_shape(settings.model))
    if start is not None:
        keep_bottlenecks(model, start)
    else:
        _set_statistics(model, sample, split)
        if not settings.model.standardise:
            model.leave_tokens_raw()
    training_responses = sample.responses.rows(split.train)
    model.set_response_scale(training_responses.mean(0), training_responses.std(0))
    batch_size = settings.train.batch_size
    data = EncodingData(sample.tokens, sample.responses, split, batch_size=batch_size, seed=settings.seed)
    steps = -(-len(split.train) // batch_size) * settings.train.epochs
    module = EncodingModule(model, settings.train, steps)
    if start is not None:
        module.priors.append(choose_start(model, start, np.arange(len(model.weight)), data).prior)
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        best = fit(module, data, Path(folder), on_epoch=rows.append).best
        seconds = time.process_time() - started
        load_best(module, best)
    scores = score(model, sample.tokens, sample.responses, split.test, sample.ceiling)
    best_epoch = 1 + int(np.argmax([row["val_r"] for row in rows]))
    return Trained(model, scores, seconds, best_epoch, int(rows[-1]["step"]))


def _set_statistics(model: FactorTopy, sample: Sample, split: Split) -> None:
    """Fit the token statistics once per subject and split: they do not depend on the settings."""
    key = sample.subject.root, split.train.tobytes()
    if key not in _STATISTICS:
        fit_statistics(model, sample.tokens, split.train)
        state: dict[str, Any] = model.state_dict()
        _STATISTICS[key] = {name: value.clone() for name, value in state.items() if "statistics" in name}
    model.load_state_dict(_STATISTICS[key], strict=False)
