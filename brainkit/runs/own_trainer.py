"""From a module that a user's own Trainer has fitted to a run folder."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard, cast

import torch

from brainkit.backbones import Backbone
from brainkit.backbones.wrapping import IN_PYTHON, given_back, name_of
from brainkit.config import Config, ModelConfig
from brainkit.data import open_subject
from brainkit.data.subject import Subject
from brainkit.errors import UsageError
from brainkit.evaluation import scores as evaluation
from brainkit.runs.folder import PhaseClock, RunLog
from brainkit.runs.prepare import chosen_backbone
from brainkit.runs.results import write_parity, write_results
from brainkit.runs.settings import choose_settings
from brainkit.runs.summary import report
from brainkit.runs.train import finish
from brainkit.training.calibration import calibrate
from brainkit.training.checkpoint import load_best
from brainkit.training.loss import leaves_gain_open
from brainkit.utils.files import write_beside
from brainkit.utils.system import PeakMemory

if TYPE_CHECKING:
    from brainkit.model.factor_topy import FactorTopy
    from brainkit.training.datamodule import EncodingData
    from brainkit.training.module import EncodingModule


def save_run(
    out: str | os.PathLike[str],
    module: EncodingModule,
    data: EncodingData,
    *,
    backbone: torch.nn.Module,
    subject: str | os.PathLike[str] | Subject,
    checkpoint: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Make a run folder of a module that your own Trainer has fitted: scores on the test images, selectors, maps.

    Parameters
    ----------
    out : path-like
        The run folder; it must not exist.
    module : EncodingModule
        Fitted. It is left as it was, but for `checkpoint`.
    data : EncodingData
        What it was fitted on.
    backbone : Module
        The network that the tokens of `data` came from.
    subject : path-like or Subject
        Where the responses of `data` came from.
    checkpoint : path-like, optional
        Weights to load into `module` first, as ``ModelCheckpoint.best_model_path`` names them; by default those that
        it has.
    say : callable
        Takes lines of progress.

    Returns
    -------
    Path
        The run folder; ``runs/latest`` names it.

    Raises
    ------
    UsageError
        If the folder exists, or module, data and subject do not belong together.
    DataError
        If the checkpoint cannot be read.
    """
    folder = Path(out)
    if folder.exists():
        raise UsageError(f"{folder}: exists already; name another folder")
    person = subject if isinstance(subject, Subject) else open_subject(subject)
    _check(module, data, person)
    if checkpoint is not None:
        load_best(module, Path(checkpoint))
    model = copy.deepcopy(module.model).cpu().eval()
    settings = _settings(module, data, model, backbone, person)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with RunLog(say) as log, PeakMemory() as memory:
        clock = PhaseClock(memory)
        with given_back(backbone), write_beside(folder) as place:
            network = chosen_backbone(settings, backbone)
            if list(network.widths.items()) != list(model.widths.items()):
                raise UsageError(
                    f"backbone must be the one the module was fitted on, with the layers {', '.join(model.layers)}, "
                    f"got {network.name} with {', '.join(network.layer_names)}"
                )
            if leaves_gain_open(module.config):
                calibrate(model, data.tokens, data.responses, data.split.train)
            place.mkdir()
            settings.write(place / "config.yaml")
            data.split.write(place / "split.json")
            (place / "checkpoints").mkdir()
            state = {f"model.{key}": value for key, value in model.state_dict().items()}
            torch.save({"state_dict": state}, place / "checkpoints" / "best.ckpt")
            scores = evaluation.score(model, data.tokens, data.responses, data.split.test, person.noise_ceiling)
            clock.lap("evaluation")
            truth_file = person.root / "truth.npz"
            truth = evaluation.read_truth(truth_file) if truth_file.is_file() else None
            write_parity(place, model, network, person, data.split, data.tokens)
            write_results(place, settings, person, network, model, scores, truth, data.split, clock, log)
        log.into(folder / "log.txt")
        finish(folder, log)
        clock.lap("maps")
        report(folder, clock, log)
        log(f"done: {folder}")
    return folder


def _check(module: EncodingModule, data: EncodingData, subject: Subject) -> None:
    vertices, rows = len(module.model.weight), max(int(data.split.test.max()), int(data.split.train.max()))
    if len(subject.vertices) != vertices:
        raise UsageError(f"subject must have the module's {vertices} vertices, got {len(subject.vertices)}")
    if rows >= len(subject):
        raise UsageError(f"subject must have the images of data's split, up to row {rows}, got {len(subject)} images")
    if module.model.grid[0] != module.model.grid[1]:
        raise UsageError(f"a run's token grid must be square, got {module.model.grid}")


def _settings(
    module: EncodingModule, data: EncodingData, model: FactorTopy, backbone: torch.nn.Module, subject: Subject
) -> Config:
    """What a run that was trained by brainkit would have in its ``config.yaml``."""
    shape = ModelConfig(
        bottleneck=model.weight.shape[1],
        grid=model.grid[0],
        selector_width=_selector_width(model),
        topography=model.free_selectors is None,
        gauge=model.gauge,
        backend=model.backend,
        precision=model.precision,
    )
    return choose_settings(
        Config(seed=data.seed, model=shape, train=module.config),
        name=name_of(backbone),
        data=subject.root,
        weights=None,
        random_weights=_is_named(backbone) and not backbone.pretrained,
        epochs=None,
        seed=None,
        config=None,
        overrides=[f"backbone.layers=[{', '.join(model.layers)}]"],
    )


def _selector_width(model: FactorTopy) -> int:
    if model.free_selectors is not None:
        return ModelConfig().selector_width  # it has none
    return len(cast(torch.nn.Linear, model.space_selector_mlp[1]).weight)


def _is_named(backbone: torch.nn.Module) -> TypeGuard[Backbone]:
    """Whether its name brings it back, in contrast to plug-ins and modules, which bring their own weights."""
    return isinstance(backbone, Backbone) and backbone.source != IN_PYTHON and ".py:" not in backbone.name
