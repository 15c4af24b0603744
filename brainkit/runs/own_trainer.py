"""From a module that a user's own Trainer has fitted to a run folder."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from brainkit.backbones import Backbone
from brainkit.backbones.plugin import backbone_name, drawn_seed, preserved_state
from brainkit.config import Config, ModelConfig
from brainkit.data import open_subject
from brainkit.data.leaks import note_leaks
from brainkit.data.subject import Subject
from brainkit.errors import UsageError
from brainkit.evaluation.model_scores import score
from brainkit.runs.finish import finish_run
from brainkit.runs.image_hashes import write_image_hashes
from brainkit.runs.log import PhaseClock, RunLog
from brainkit.runs.network import load_network
from brainkit.runs.predictions import open_predictions
from brainkit.runs.results import intervals_of_kept, write_model, write_parity, write_results
from brainkit.runs.settings import Overrides
from brainkit.runs.subjects import SubjectRun, subject_truth
from brainkit.training.calibration import finish
from brainkit.training.checkpoint import load_best
from brainkit.training.threads import limit_threads
from brainkit.utils.files import atomic_write
from brainkit.utils.progress import Say
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
    maps: bool = True,
    say: Say | None = None,
) -> Path:
    """Create the run folder of :func:`brainkit.save_run`; parameters as there.

    Returns
    -------
    Path
        The run folder; ``runs/latest`` names it.
    """
    folder = Path(out)
    if folder.exists():
        raise UsageError(f"{folder}: exists already; name another folder")
    opened = subject if isinstance(subject, Subject) else open_subject(subject)
    _check(module, data, opened)
    if checkpoint is not None:
        load_best(module, Path(checkpoint))
    model = copy.deepcopy(module.model).cpu().eval()
    settings = _settings(module, data, model, backbone, opened)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with limit_threads(), RunLog(say) as log, PeakMemory() as memory:
        (split,) = note_leaks([data.split], [opened])
        for note in split.notes[len(data.split.notes) :]:
            log(note)
        clock = PhaseClock(memory)
        with preserved_state(backbone), atomic_write(folder) as temporary:
            network = load_network(settings, backbone, log)
            _check_network(model, network)
            finish(module.config, model, data.tokens, data.responses, data.split.train)
            temporary.mkdir()
            settings.write(temporary / "config.yaml")
            split.write(temporary / "split.json")
            write_image_hashes(temporary, [(opened, split)])
            write_model(temporary, model)
            rows = data.split.test
            with open_predictions(temporary, opened, rows, opened.vertices) as keep:
                scores = score(model, data.tokens, data.responses, rows, opened.noise_ceiling_of(rows), keep=keep)
            scores = intervals_of_kept(scores, temporary, opened, opened.rois)
            clock.end_phase("evaluation")
            run = SubjectRun(opened.name, opened, settings, temporary, split, subject_truth(opened))
            write_parity(run, model, network, data.tokens)
            write_results(run, model, network, scores, facts={}, seconds=clock.seconds, log=log)
        log.open_file(folder / "log.txt")
        finish_run(folder, log, clock, maps=maps)
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


def _check_network(model: FactorTopy, network: Backbone) -> None:
    if list(network.widths.items()) != list(model.widths.items()):
        raise UsageError(
            f"backbone must be the one the module was fitted on, with the layers {', '.join(model.layers)}, "
            f"got {network.name} with {', '.join(network.layer_names)}"
        )


def _settings(
    module: EncodingModule, data: EncodingData, model: FactorTopy, backbone: torch.nn.Module, subject: Subject
) -> Config:
    """The ``config.yaml`` of a run that brainkit trains in the same way."""
    shape = ModelConfig(
        bottleneck=model.weight.shape[1],
        grid=model.grid[0],
        selector_width=_selector_width(model),
        topography=model.free_selectors is None,
        offsets=() if model.offsets is None else model.offsets.of,
        fixed=model.fixed,
        gauge=model.gauge,
        backend=model.backend,
        precision=model.precision,
    )
    overrides = Overrides(
        backbone=backbone_name(backbone),
        data=(subject,),
        rois=subject.chosen_rois,
        random_weights=drawn_seed(backbone) is not None,
        weights_seed=drawn_seed(backbone),
        assignments=(f"backbone.layers=[{', '.join(model.layers)}]",),
    )
    return overrides.apply(Config(seed=data.seed, model=shape, train=module.config))


def _selector_width(model: FactorTopy) -> int:
    if model.free_selectors is not None:
        return ModelConfig().selector_width  # it has no selector networks
    return len(cast(torch.nn.Linear, model.space_selector_mlp[1]).weight)
