"""One training run, from the data to the results in the run folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainkit.config import Config
from brainkit.runs.folder import PhaseClock, RunLog, model_shape
from brainkit.runs.prepare import (
    Trainee,
    check_backend,
    check_data,
    chosen_backbone,
    identity,
    made,
    open_subjects,
    response_scale,
    same_split,
    tokens_of,
    trainees,
)
from brainkit.runs.results import write_joint_summary, write_model, write_parity, write_results
from brainkit.utils.progress import progress_bar

if TYPE_CHECKING:
    from torch import nn

    from brainkit.backbones import Backbone
    from brainkit.data.subject import Subject
    from brainkit.features.cache import TokenCache
    from brainkit.training.datamodule import EncodingData
    from brainkit.training.distributed import World
    from brainkit.training.fit import Fitted
    from brainkit.training.module import EncodingModule

Say = Callable[[str], None]


def run_training(
    settings: Config,
    backbone: str | nn.Module,
    folder: Path,
    *,
    resume: bool,
    log: RunLog,
    clock: PhaseClock,
    world: World,
    subjects: Sequence[Subject] = (),
) -> None:
    """Train in `folder`, score the best checkpoint on the test images, and write the results, ``run.json`` last.

    Of several processes that were started from outside, the first one alone writes; the others train with it.

    Parameters
    ----------
    settings : Config
        Of the run, complete but for the data's place.
    backbone : str or Module
        A loaded network, or a name: then the one that `settings` name.
    folder : Path
        The run folder; made here.
    resume : bool
        Go on from the last checkpoint in it.
    log : RunLog
        Takes lines; from here on they are kept in the folder.
    clock : PhaseClock
        Takes the time of each phase.
    world : World
        The processes of the run.
    subjects : sequence of Subject
        The data; by default those that `settings` name. With several, each has a folder of its own within `folder`.
    """
    # cuBLAS reads it once, at its first product, and without it refuses to train deterministically.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    from brainkit.model.factor_topy import FactorTopy
    from brainkit.ops import fastest_backend
    from brainkit.runs.summary import work_facts
    from brainkit.training.callbacks import check_tensorboard
    from brainkit.training.checkpoint import check_identity
    from brainkit.training.cuda_graph import check_cuda_graph
    from brainkit.training.datamodule import EncodingData
    from brainkit.training.fit import choose_device
    from brainkit.training.joint import JointData, JointModule
    from brainkit.training.memory_budget import refuse_too_large, says_what_to_lower
    from brainkit.training.module import EncodingModule
    from brainkit.training.token_statistics import fit_statistics

    device = choose_device(settings.train.device)
    check_tensorboard(settings.train)
    check_data(settings)
    network = chosen_backbone(settings, backbone)
    # The first process makes what is not there yet: a sample subject, the tokens, the run folder.
    opened, settings = world.in_turn(lambda: open_subjects(settings, subjects, log))
    people = trainees(opened, settings, folder)
    for subject in opened:
        log(subject.describe())
    if not network.pretrained:
        log(f"{network.name}: RANDOM weights, a control: its maps say nothing about a trained network")
    precision = check_backend(settings, device)
    check_cuda_graph(settings.train, backend=settings.model.backend, device=device, subjects=len(opened))
    refuse_too_large(
        network.widths,
        sum(len(subject.vertices) for subject in opened),
        bottleneck=settings.model.bottleneck,
        hidden=settings.model.selector_width if settings.model.topography else 0,
        device=device,
    )
    what = identity(people, network)
    last = folder / "checkpoints" / "last.ckpt"
    going_on = resume and last.is_file()
    if going_on:
        at = check_identity(last, what)
        log(f"going on after step {at.steps}: {at.epochs} epochs and {at.batches} steps of the next are done")

    grid = (settings.model.grid, settings.model.grid)

    def find_tokens() -> list[tuple[TokenCache, float | None]]:
        lower = "choose a smaller backbone.size or backbone, or give it a machine of its own"
        with says_what_to_lower("running the backbone", lower):
            return [tokens_of(network, person.subject, grid, device, settings, log) for person in people]

    def prepare() -> list[tuple[TokenCache, float | None]]:
        with made(folder, resume):
            # First, so that a run that is stopped while the network looks at the images is gone on with as it was.
            settings.write(folder / "config.yaml")
            found = find_tokens()
        clock.lap("tokens")
        log.into(folder / "log.txt")
        for person in people:
            if person.folder != folder:
                person.folder.mkdir(exist_ok=True)
                person.settings.write(person.folder / "config.yaml")
            if going_on:
                same_split(person.folder, person.split, person.image_names)
            else:
                person.split.write(person.folder / "split.json")
        return found

    tokens, rates = zip(*world.in_turn(prepare, find_tokens), strict=True)
    for person in people:
        split, whose = person.split, f" of {person.name}" if len(people) > 1 else ""
        counts = f"{len(split.train)} training, {len(split.validation)} validation, {len(split.test)} test images"
        log(f"split{whose}: {counts}")
        for note in split.notes:
            log(f"split{whose}: {note}")

    torch.manual_seed(settings.seed)
    with says_what_to_lower("making the model", "lower model.bottleneck or model.selector_width"):
        models = [
            FactorTopy(
                tokens[0].widths,
                person.subject.coordinates,
                **model_shape(settings.model),
                backend=settings.model.backend,
                precision=precision,
            )
            for person in people
        ]
    size, epochs = settings.train.batch_size, settings.train.epochs
    parts = [
        EncodingData(held, person.subject.responses, person.split, batch_size=size, seed=settings.seed)
        for held, person in zip(tokens, people, strict=True)
    ]
    data: Any = parts[0] if len(parts) == 1 else JointData(parts)
    module = (
        EncodingModule(models[0], settings.train, data.steps * epochs)
        if len(parts) == 1
        else JointModule(models, settings.train, data.steps * epochs)
    )

    def measure() -> dict[str, Any]:
        chosen = [(held, person.split.train) for held, person in zip(tokens, people, strict=True)]
        fit_statistics(models[0], chosen, device=device)
        if not settings.model.standardise:
            models[0].leave_tokens_raw()
        for model, person in zip(models, people, strict=True):
            model.set_response_scale(*response_scale(person.subject, person.split.train))
        return module.state_dict()

    measured = world.once(measure)
    if not world.first:
        module.load_state_dict(measured)
    clock.facts = work_facts(
        device=device,
        backend=fastest_backend(device) if models[0].backend == "auto" else models[0].backend,
        precision=models[0].precision,
        tokens=tokens[0],
        rate=rates[0],
        residency="streamed from the disk",
    )
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    fitted = _fit(module, data, folder, device, resume, log, world, what)
    best = fitted.best
    if "device" in fitted.tokens_on:
        clock.facts["tokens"]["residency"] = f"on {device}"
    clock.lap("training")
    world.once(lambda: _finish(module, parts, people, best, network, list(rates), clock, log))
    if len(people) > 1:
        world.once(lambda: write_joint_summary(folder, settings, network, people, clock))


def _finish(
    module: EncodingModule,
    parts: Sequence[EncodingData],
    people: Sequence[Trainee],
    best: Path,
    network: Backbone,
    rates: Sequence[float | None],
    clock: PhaseClock,
    log: RunLog,
) -> None:
    """Score the best state on the test images of every subject, and write the results."""
    from brainkit.evaluation import scores as evaluation
    from brainkit.training.checkpoint import load_best

    load_best(module, best)
    module.cpu()
    models = module.models()
    scores = []
    for model, part, person in zip(models, parts, people, strict=True):
        if model.backend == "triton":
            model.backend = "auto"
        ceiling = person.subject.noise_ceiling
        scores.append(evaluation.score(model, part.tokens, part.responses, part.split.test, ceiling))
    clock.lap("evaluation")
    for model, part, person, score, rate in zip(models, parts, people, scores, rates, strict=True):
        if len(people) > 1:
            write_model(person.folder, model)
            held = {"images": len(part.tokens), "bytes": part.tokens.nbytes, "images_per_second": rate}  # type: ignore
            clock.facts["tokens"].update(held)
            log(f"{person.name}:")
            clock.facts["trained_with"] = [other.name for other in people if other is not person]
        write_parity(person.folder, model, network, person.subject, part.split, part.tokens)
        write_results(
            person.folder,
            person.settings,
            person.subject,
            network,
            model,
            score,
            person.truth,
            part.split,
            clock,
            log,
        )


def _fit(
    module: EncodingModule,
    data: EncodingData,
    folder: Path,
    device: str,
    resume: bool,
    log: RunLog,
    world: World,
    identity: dict[str, str],
) -> Fitted:
    """Train, showing how far it is."""
    from brainkit.training.callbacks import open_tensorboard
    from brainkit.training.fit import fit

    config, steps = module.config, module.planned_steps
    options: Any = {"device": device, "resume": resume, "identity": identity}
    if not world.first:
        return fit(module, data, folder, **options)
    started = time.monotonic()
    with (
        progress_bar("training", "steps") as advance,
        open_tensorboard(folder / "tensorboard", config, steps) as board,
    ):

        def on_epoch(row: dict[str, float]) -> None:
            board(row)
            advance(row["step"], steps, f"loss {row['train_loss']:.3f}, validation r {row['val_r']:.3f}")
            log.write(
                f"epoch {row['epoch']:.0f}/{config.epochs}: loss {row['train_loss']:.4f}, "
                f"validation r {row['val_r']:.4f}, {row['seconds']:.1f} s"
            )

        fitted = fit(
            module, data, folder, on_epoch=on_epoch, on_step=lambda step: advance(step, steps), say=log, **options
        )
    if fitted.stopped_early:
        log(
            f"stopped early, after epoch {fitted.epochs} of {config.epochs}: validation r no better for "
            f"{config.patience} epochs"
        )
    processes = config.devices * config.num_nodes
    where = device if processes == 1 else f"{device}, {processes} processes"
    log(f"trained {fitted.epochs} epochs, {fitted.steps} steps, in {time.monotonic() - started:.1f} s on {where}")
    return fitted
