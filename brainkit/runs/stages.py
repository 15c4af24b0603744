"""The stages of a training run, in the order in which `brainkit.runs.train` calls them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from brainkit.backbones import Backbone
from brainkit.config import Config
from brainkit.data.subject import Subject
from brainkit.evaluation.model_scores import score
from brainkit.evaluation.scores import Scores
from brainkit.model.factor_topy import FactorTopy
from brainkit.runs.checks import check_model, choose_precision
from brainkit.runs.export import check_network
from brainkit.runs.folder import SNAPSHOTS, create_run_folder, model_shape
from brainkit.runs.image_hashes import read_image_hashes, write_image_hashes
from brainkit.runs.log import PhaseClock, RunLog
from brainkit.runs.network import SubjectTokens, extract_subject_tokens, load_network
from brainkit.runs.predictions import open_predictions
from brainkit.runs.results import (
    intervals_of_kept,
    work_facts,
    write_joint_summary,
    write_model,
    write_parity,
    write_results,
)
from brainkit.runs.settings import Data
from brainkit.runs.start import Start, begin_from, open_start, place
from brainkit.runs.subjects import (
    SubjectRun,
    check_data_folders,
    open_subjects,
    plan_subjects,
    response_scale,
    training_identity,
)
from brainkit.training.callbacks import check_tensorboard, open_tensorboard
from brainkit.training.checkpoint import check_identity, load_best
from brainkit.training.cuda_graph import check_cuda_graph
from brainkit.training.datamodule import EncodingData
from brainkit.training.distributed import World
from brainkit.training.fit import Fitted, fit
from brainkit.training.joint import JointData, JointModule
from brainkit.training.memory_budget import explain_out_of_memory
from brainkit.training.module import EncodingModule
from brainkit.training.token_statistics import fit_statistics
from brainkit.training.transfer import keep_bottlenecks
from brainkit.utils.progress import progress_bar, shows_bars
from brainkit.utils.text import plural

if TYPE_CHECKING:
    from torch import nn

# Images left out that are listed on the terminal; the log has all.
_REPORTED = 10


@dataclass(frozen=True)
class RunContext:
    """Where a run works and what it reports to; every stage takes it.

    Attributes
    ----------
    folder : Path
        The run folder.
    resume : bool
        Resume the run in the folder.
    device : {"cpu", "cuda", "mps"}
    world : World
        The processes of the run.
    log : RunLog
    clock : PhaseClock
    """

    folder: Path
    resume: bool
    device: str
    world: World
    log: RunLog
    clock: PhaseClock

    @property
    def last_checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"


@dataclass(frozen=True)
class Inputs:
    """What a run trains on; the stages after the first hand it on.

    Attributes
    ----------
    settings : Config
        Complete, with the absolute path of the data.
    network : Backbone
    subjects : tuple of SubjectRun
    start : Start, optional
        The finished run to start from.
    """

    settings: Config
    network: Backbone
    subjects: tuple[SubjectRun, ...]
    start: Start | None = None

    def identity(self) -> dict[str, str]:
        """What is trained on, see :func:`brainkit.runs.subjects.training_identity`."""
        found = training_identity(self.subjects, self.network)
        return found if self.start is None else found | {"run to start from": self.start.digest}


def open_inputs(run: RunContext, settings: Config, backbone: str | nn.Module | None, data: Sequence[Data]) -> Inputs:
    """Load the network, open the data and split it.

    Parameters
    ----------
    run : RunContext
    settings : Config
    backbone : Module, str or None
        A network made in Python; otherwise the settings name it.
    data : sequence of path-like or Subject
        Subjects opened in Python; otherwise the settings name them.
    """
    check_data_folders(settings)
    check_tensorboard(settings.train)
    start = open_start(settings.train.start, backbone) if settings.train.start else None
    network = load_network(settings, backbone, run.log)
    if start is not None:
        check_network(start.folder, start.summary["backbone"], network)
    # The first process may have to create the sample subject.
    subjects, complete = run.world.in_turn(lambda: open_subjects(settings, data, run.log))
    for subject in subjects:
        report_subject(run.log, subject)
    if network.pretrained is False:
        run.log(f"{network.name}: RANDOM weights, a control: its maps say nothing about a trained network")
    # The first process compares the images' pixels, the others find the result in the cache.
    has_split = run.resume and run.last_checkpoint.is_file()
    planned = run.world.in_turn(lambda: plan_subjects(subjects, complete, run.folder, stored_splits=has_split))
    return Inputs(complete, network, tuple(planned), start)


def report_subject(log: RunLog, subject: Subject) -> None:
    """Report what the data are, and which images cannot be read: the first on the terminal, all of them in the file."""
    log(subject.describe())
    for k, image in enumerate(subject.skipped):
        (log if k < _REPORTED else log.write)(f"left out: {image.name}: {image.reason}")
    if len(subject.skipped) > _REPORTED:
        log(f"left out: {len(subject.skipped) - _REPORTED:,} more images, listed in log.txt")


def check_feasible(run: RunContext, inputs: Inputs) -> None:
    """Refuse what cannot be trained or resumed, before anything is written."""
    settings, subjects = inputs.settings, inputs.subjects
    check_model(settings, run.device, inputs.network.widths, sum(len(each.subject.vertices) for each in subjects))
    check_cuda_graph(settings.train, backend=settings.model.backend, device=run.device, subjects=len(subjects))
    if run.resume and run.last_checkpoint.is_file():
        at = check_identity(run.last_checkpoint, inputs.identity())
        done = f"{plural(at.epochs, 'epoch')} and {plural(at.batches, 'step')} of the next one"
        run.log(f"resuming after step {at.steps}: {done} are done")


def prepare_tokens(run: RunContext, inputs: Inputs) -> list[SubjectTokens]:
    """Create the run folder and extract the tokens of every subject's images; other processes find them cached."""
    settings, subjects = inputs.settings, inputs.subjects
    has_checkpoint = run.resume and run.last_checkpoint.is_file()

    def extract() -> list[SubjectTokens]:
        grid = (settings.model.grid, settings.model.grid)
        options: dict[str, Any] = {"grid": grid, "device": run.device, "dtype": settings.data.token_dtype}
        lower = "choose a smaller backbone.size or backbone, or use a machine that nothing else is using"
        with explain_out_of_memory("running the backbone", lower):
            return [extract_subject_tokens(inputs.network, each.subject, say=run.log, **options) for each in subjects]

    def create_folder_and_extract() -> list[SubjectTokens]:
        with create_run_folder(run.folder, exist_ok=run.resume):
            # Before the tokens, which may take hours: a run that is stopped meanwhile is resumed with these settings.
            settings.write(run.folder / "config.yaml")
            tokens = extract()
        run.clock.end_phase("tokens")
        run.log.open_file(run.folder / "log.txt")
        for each in subjects:
            if each.folder != run.folder:
                each.folder.mkdir(exist_ok=True)
                each.settings.write(each.folder / "config.yaml")
            if not has_checkpoint:
                each.split.write(each.folder / "split.json")
        return tokens

    tokens = run.world.in_turn(create_folder_and_extract, extract)
    for each in subjects:
        split, of_subject = each.split, f" of {each.name}" if len(subjects) > 1 else ""
        for line in (f"{split.counts()} images" + (f" ({split.name})" if split.name else ""), *split.notes):
            run.log(f"split{of_subject}: {line}")
    return tokens


class Built(NamedTuple):
    """The module to train, its data, and for each subject the section ``start`` of ``run.json``, if there is one."""

    module: EncodingModule
    data: Any
    started: list[dict[str, Any]]


def build_model(run: RunContext, inputs: Inputs, tokens: Sequence[SubjectTokens]) -> Built:
    """The module to train, with the statistics of its training images or the start from another run, and its data."""
    started: list[dict[str, Any]] = []
    settings, subjects, start = inputs.settings, inputs.subjects, inputs.start
    torch.manual_seed(settings.seed)
    with explain_out_of_memory("building the model", "lower model.bottleneck or model.selector_width"):
        models = [
            FactorTopy(
                tokens[0].cache.widths,
                each.subject.coordinates if start is None else place(start, each.subject).coordinates,
                **model_shape(settings.model),
                backend=settings.model.backend,
                precision=choose_precision(settings, run.device),
                resize="area" if start is None else start.model.resize,
            )
            for each in subjects
        ]
    if start is not None:
        for model in models:
            keep_bottlenecks(model, start.model)
    options = {"batch_size": settings.train.batch_size, "seed": settings.seed}
    parts = [
        EncodingData(cache, each.subject.responses, each.split, **options)
        for (cache, _), each in zip(tokens, subjects, strict=True)
    ]
    data: Any = parts[0] if len(parts) == 1 else JointData(parts)
    planned_steps = data.steps * settings.train.epochs
    module = (
        EncodingModule(models[0], settings.train, planned_steps)
        if len(parts) == 1
        else JointModule(models, settings.train, planned_steps)
    )

    def fit_data_statistics() -> dict[str, Any]:
        if start is None:
            training_images = [(cache, each.split.train) for (cache, _), each in zip(tokens, subjects, strict=True)]
            fit_statistics(models[0], training_images, device=run.device)
            if not settings.model.standardise:
                models[0].leave_tokens_raw()
        for model, each in zip(models, subjects, strict=True):
            model.set_response_scale(*response_scale(each))
        if start is not None:
            started.extend(begin_from(start, subjects, module, data, run.device, run.log))
        return module.state_dict()

    state = run.world.once(fit_data_statistics)
    if not run.world.first:
        module.load_state_dict(state)
    return Built(module, data, started)


def fit_model(run: RunContext, inputs: Inputs, module: EncodingModule, data: Any) -> Fitted:
    """Train the module; its weights at the best epoch are in the checkpoint that the result names."""
    if run.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    config, planned_steps = module.config, module.planned_steps
    options: dict[str, Any] = {"device": run.device, "resume": run.resume, "identity": inputs.identity()}
    if config.snapshots:
        options["snapshots"] = [each.folder / SNAPSHOTS for each in inputs.subjects]
    if not run.world.first:
        return fit(module, data, run.folder, **options)
    started = time.monotonic()
    report_epoch = run.log.write if shows_bars() else run.log
    with (
        progress_bar("training", "steps") as advance,
        open_tensorboard(run.folder / "tensorboard", config, planned_steps) as write_board,
    ):

        def on_epoch(row: dict[str, float]) -> None:
            write_board(row)
            advance(row["step"], planned_steps, f"loss {row['train_loss']:.3f}, validation r {row['val_r']:.3f}")
            report_epoch(
                f"epoch {row['epoch']:.0f}/{config.epochs}: loss {row['train_loss']:.4f}, "
                f"validation r {row['val_r']:.4f}, {row['seconds']:.1f} s"
            )

        def on_step(step: int) -> None:
            advance(step, planned_steps)

        fitted = fit(module, data, run.folder, on_epoch=on_epoch, on_step=on_step, say=run.log, **options)
    if fitted.stopped_early:
        run.log(
            f"stopped early, after epoch {fitted.epochs} of {config.epochs}: validation r has not improved for "
            f"{plural(config.patience, 'epoch')}"
        )
    processes = config.devices * config.num_nodes
    where = run.device if processes == 1 else f"{run.device}, {processes} processes"
    work = f"{plural(fitted.epochs, 'epoch')}, {plural(fitted.steps, 'step')}"
    run.log(f"trained {work}, in {time.monotonic() - started:.1f} s on {where}")
    run.clock.end_phase("training")
    return fitted


def score_models(run: RunContext, inputs: Inputs, module: EncodingModule, data: Any, best: Path) -> list[Scores]:
    """Accuracy of each subject's model at the best epoch, on its test images, whose predictions are kept.

    The module keeps the weights of that epoch.
    """
    load_best(module, best)
    module.cpu()
    scores = []
    for (model, part), each in zip(module.parts(data), inputs.subjects, strict=True):
        if model.backend == "triton":
            model.backend = "auto"  # scored on the CPU
        rows = part.split.test
        with open_predictions(each.folder, each.subject, rows, each.subject.vertices) as keep:
            ceiling = each.subject.noise_ceiling_of(rows)
            scored = score(model, part.tokens, part.responses, rows, ceiling, keep=keep)
        scores.append(intervals_of_kept(scored, each.folder, each.subject, each.subject.rois))
    run.clock.end_phase("evaluation")
    return scores


def write_run(
    run: RunContext,
    inputs: Inputs,
    tokens: Sequence[SubjectTokens],
    module: EncodingModule,
    fitted: Fitted,
    scores: Sequence[Scores],
    started: Sequence[dict[str, Any]] = (),
) -> None:
    """Write selectors, scores, parity images and ``run.json`` of every subject, then those of the whole run."""
    subjects, is_joint = inputs.subjects, len(inputs.subjects) > 1
    for k, (model, each) in enumerate(zip(module.models(), subjects, strict=True)):
        facts = work_facts(inputs.settings, run.device, tokens[k], fitted.tokens_on[k], fitted.threads)
        facts["training"]["cpu_seconds"] = fitted.cpu_seconds
        if started:
            facts["start"] = started[k]
        if is_joint:
            run.log(f"{each.name}:")
            write_model(each.folder, model)
            facts["trained_with"] = [other.name for other in subjects if other is not each]
        seen = None if inputs.start is None else read_image_hashes(inputs.start.folder)
        if inputs.start is None or seen is not None:  # otherwise nobody knows what the old run was trained on
            write_image_hashes(each.folder, [(other.subject, other.split) for other in subjects], seen)
        write_parity(each, model, inputs.network, tokens[k].cache)
        write_results(each, model, inputs.network, scores[k], facts=facts, seconds=run.clock.seconds, log=run.log)
    if is_joint:
        write_joint_summary(run.folder, inputs.settings, inputs.network, subjects, run.clock.seconds)
