"""Training a run's model once more with other settings, tokens or responses, for the controls of its baselines."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from brainkit.backbones import Backbone
from brainkit.config import Config
from brainkit.data.split import Split
from brainkit.data.subject import Subject
from brainkit.features.cache import TokenCache
from brainkit.model.factor_topy import FactorTopy
from brainkit.runs.log import PhaseClock, RunLog
from brainkit.runs.network import SubjectTokens
from brainkit.runs.stages import Inputs, RunContext, build_model, fit_model
from brainkit.runs.subjects import SubjectRun
from brainkit.training.checkpoint import load_best
from brainkit.training.distributed import World


def retrain(
    settings: Config,
    network: Backbone,
    subject: Subject,
    split: Split,
    tokens: TokenCache,
    *,
    device: str,
    rows: np.ndarray | None = None,
) -> FactorTopy:
    """Train as `brainkit train` does, in one process and a folder that is removed.

    Parameters
    ----------
    settings : Config
    network : Backbone
        Of the run; its tokens need not be those that are used.
    subject : Subject
    split : Split
    tokens : TokenCache
        Of the subject's images.
    device : {"cpu", "cuda", "mps"}
    rows : int array of shape (n,), optional
        For each image the row of the responses to train on, instead of its own.

    Returns
    -------
    FactorTopy
        At its best epoch, on the CPU.
    """
    alone = replace(settings.train, devices=1, num_nodes=1, tensorboard="off", snapshots=False)
    settings = replace(settings, train=alone)
    if rows is not None:
        subject = replace(subject, responses=subject.responses.take(rows))
    with tempfile.TemporaryDirectory() as name, RunLog(_ignore) as log:
        folder = Path(name)
        run = RunContext(folder, False, device, World(), log, PhaseClock())
        inputs = Inputs(settings, network, (SubjectRun(subject.name, subject, settings, folder, split, None),))
        module, data, _ = build_model(run, inputs, [SubjectTokens(tokens, None)])
        load_best(module, fit_model(run, inputs, module, data).best)
    module.cpu()
    (model,) = module.models()
    if model.backend == "triton":
        model.backend = "auto"  # it predicts on the CPU
    return model.eval()


def _ignore(line: str) -> None:
    """The control is reported as a baseline, not as a run."""
