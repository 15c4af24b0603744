"""A training run from top to bottom; each stage is a function in `brainkit.runs.stages`."""

from __future__ import annotations

import datetime
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brainkit.config import Config
from brainkit.data.subject import Subject
from brainkit.errors import DataError, StoppedTraining, UsageError, require
from brainkit.runs.draw import draw_if_possible
from brainkit.runs.folder import REPEATS, check_is_new, run_folders
from brainkit.runs.latest import RUNS
from brainkit.runs.log import PhaseClock, RunLog
from brainkit.runs.settings import Data, Overrides, resumed_settings
from brainkit.runs.uncertainty import measure_uncertainty, repeat_settings
from brainkit.utils.progress import Say
from brainkit.utils.system import PeakMemory, surplus_threads

if TYPE_CHECKING:
    from torch import nn

    from brainkit.runs.stages import RunContext


def train(
    backbone: str | nn.Module | None,
    *,
    data: Data | Sequence[Data] | None = None,
    out: str | os.PathLike[str] | None = None,
    skip_unreadable: bool = False,
    weights: str | os.PathLike[str] | None = None,
    random_weights: bool = False,
    epochs: int | None = None,
    seed: int | None = None,
    devices: int | None = None,
    num_nodes: int | None = None,
    threads: int | None = None,
    images: int | None = None,
    start: str | os.PathLike[str] | None = None,
    rois: Sequence[str] = (),
    split: str | os.PathLike[str] | None = None,
    maps: bool | None = None,
    animate: bool | None = None,
    repeats: int = 0,
    resume: bool = False,
    config: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    say: Say | None = None,
) -> Path:
    """Train an encoder on a frozen backbone, score it on held-out images, and draw its maps.

    Parameters
    ----------
    backbone : str, Module or None
        An alias, a timm model or ``file.py:ClassName``; or a network: what :func:`brainkit.load_backbone` returns, or
        any module with ``get_tokens``, see :func:`brainkit.wrap_network`. None: the one that `config` names, or
        the run to resume.
    data : path-like or Subject, or several of them, optional
        A subject's folder, or an opened subject; by default ``$BRAINKIT_DATA``, else the sample subject. Several are
        trained together, with shared bottlenecks, and each has a folder of its own in the run folder.
    out : path-like, optional
        The run folder; by default ``runs/<date>-<backbone>``.
    skip_unreadable : bool
        Leave out images that cannot be read, and list them in ``run.json``; by default they are an error.
    weights : path-like, optional
        A local weights file for the backbone.
    random_weights : bool
        Use seeded random weights.
    epochs, seed : int, optional
        Override the configuration.
    devices, num_nodes : int, optional
        GPUs of each machine (on a CPU: processes), and machines; see the guide, "More than one machine".
    threads : int, optional
        Processor threads of each process; by default one for each core it may use, see
        :func:`brainkit.utils.system.cores`.
    images : int, optional
        Train and validate on so many images, the first by the hash that makes the split; by default on all.
    start : path-like, optional
        A finished run of another subject to start from, whose bottlenecks are kept: see the guide, "A new subject from
        few images". Its backbone, layers and preprocessing are taken, so that `backbone` need not be given.
    rois : sequence of str
        Train, score and export only the vertices of these ROIs (their union); by default all vertices.
    split : str or path-like, optional
        Name of a split of the data, or a JSON file, see :func:`brainkit.data.split_files.find_split`.
    maps : bool, optional
        Whether to draw the maps, by default yes; :func:`brainkit.runs.draw.draw_run` draws them later.
    animate : bool, optional
        Whether to keep what vertices select in the course of training, and to draw an animation of it, by default no.
    repeats : int
        Then train this many more runs, an even number, on halves of the training images, each with its own seed, in
        ``repeats/`` of the run folder: they tell how sure the maps are, see :mod:`brainkit.runs.uncertainty`.
    resume : bool
        Resume the run in `out`, and its repeats.
    config : path-like, optional
        YAML file of settings.
    overrides : sequence of str
        ``section.key=value``; they win over `config`.
    say : callable, optional
        Called with each line of progress; by default lines are printed.

    Returns
    -------
    Path
        The run folder, complete; ``runs/latest`` names it.

    Raises
    ------
    UsageError, DataError, TrainingError, MissingDependency, BrainkitError
        With one line that says what to do.
    """
    for package in ("torch", "pytorch_lightning"):
        require(package, extra="train", purpose="brainkit train")
    from brainkit.backbones.plugin import backbone_name, drawn_seed

    if backbone is None and config is None and start is None:
        if not resume:
            raise UsageError("backbone must be named, directly or in a settings file, got neither")
        if out is None:
            raise UsageError("the run to resume must be named: --out RUN")
    name = backbone if backbone is None or isinstance(backbone, str) else backbone_name(backbone)
    if name is not backbone and (weights is not None or random_weights):
        raise UsageError("weights and random_weights are for a backbone's name; a network brings its own weights")
    if RUNS.exists() and not RUNS.is_dir():
        raise DataError(f"{RUNS}: expected a folder (its file `latest` names the newest run), found a file")
    given = [] if data is None else [data] if isinstance(data, (str, os.PathLike, Subject)) else list(data)
    wanted = Overrides(
        backbone=name,
        data=tuple(given),
        skip_unreadable=skip_unreadable,
        weights=weights,
        random_weights=random_weights or drawn_seed(backbone) is not None,
        weights_seed=drawn_seed(backbone),
        epochs=epochs,
        seed=seed,
        devices=devices,
        num_nodes=num_nodes,
        threads=threads,
        images=images,
        start=start,
        rois=(rois,) if isinstance(rois, str) else tuple(rois),
        split=split,
        maps=maps,
        snapshots=animate,
        config=config,
        assignments=(overrides,) if isinstance(overrides, str) else tuple(overrides),
    )
    settings = _new_settings(wanted)
    folder = Path(out) if out is not None else RUNS / f"{datetime.date.today()}-{_file_name(settings.backbone.name)}"
    if resume:
        if out is None and not folder.is_dir():
            raise UsageError(f"{folder}: no run to resume; name it with --out")
        settings = resumed_settings(folder, wanted, settings)
    if settings.train.start and repeats:
        raise UsageError(
            "repeats must be 0 for a run that starts from another one: all would share that start, so their agreement "
            "would not tell how sure the maps are"
        )
    planned = repeat_settings(settings, repeats) if repeats else []
    _start_or_resume(folder, settings, backbone, given, resume=resume, say=say)
    if planned:
        _train_repeats(folder, planned, backbone, given, maps=settings.train.maps, say=say)
    return folder


def _new_settings(wanted: Overrides) -> Config:
    """The settings of a run that begins: defaults, or those of the run that it starts from, and what is asked for."""
    settings = wanted.apply(Config())
    if not settings.train.start:
        return settings
    from brainkit.runs.start import check_settings, settings_to_start_from

    base = settings_to_start_from(settings.train.start)
    settings = wanted.apply(base)
    check_settings(settings, base)
    return settings


def _train_repeats(
    folder: Path,
    planned: Sequence[Config],
    backbone: str | nn.Module | None,
    data: Sequence[Data],
    *,
    maps: bool,
    say: Say | None,
) -> None:
    """Train the repeats of a finished run that are missing; then measure how sure its maps are, and draw them again."""
    from brainkit.training.distributed import cluster_environment

    environment = cluster_environment()
    is_first = environment is None or environment.global_rank() == 0
    with RunLog(say if is_first else _ignore) as log:
        for k, settings in enumerate(planned):
            place = folder / REPEATS / f"{k:02d}"
            try:
                _start_or_resume(place, settings, backbone, data, resume=place.exists(), say=_ignore)
            except (KeyboardInterrupt, StoppedTraining):
                command = ["brainkit", "train", "--resume", "--repeats", str(len(planned)), "--out", str(folder)]
                log(f"to resume: {shlex.join(command)}")
                raise
            log(f"repeat {k + 1} of {len(planned)}: half {settings.data.half}, seed {settings.seed}: {place}")
        if is_first:
            for each in run_folders(folder):
                log.show(measure_uncertainty(each).table())
                if maps:
                    draw_if_possible(each, log)


def _start_or_resume(
    folder: Path,
    settings: Config,
    backbone: str | nn.Module | None,
    data: Sequence[Data],
    *,
    resume: bool,
    say: Say | None,
) -> None:
    """Start or resume the run in `folder`. Of several processes, the first one writes and reports."""
    # cuBLAS reads it at its first product; without it, deterministic training on a GPU is an error.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    from brainkit.backbones.plugin import preserved_state
    from brainkit.runs.finish import finish_interrupted
    from brainkit.runs.stages import RunContext
    from brainkit.training.distributed import join
    from brainkit.training.fit import choose_device
    from brainkit.training.threads import limit_threads

    world = join(settings.train, lambda: choose_device(settings.train.device))
    with (
        limit_threads(settings.train.threads),
        world.together(),
        RunLog(say if world.first else _ignore) as log,
        PeakMemory() as memory,
        preserved_state(backbone),
    ):
        clock = PhaseClock(memory)
        if resume and (folder / "run.json").is_file():
            world.once(lambda: finish_interrupted(folder, log, clock, maps=settings.train.maps))
            log(f"{folder}: is complete, nothing to resume")
            return
        if not resume:
            world.once(lambda: check_is_new(folder))
        if note := surplus_threads(settings.train.threads):
            log(note)
        try:
            run = RunContext(folder, resume, choose_device(settings.train.device), world, log, clock)
            _run_stages(run, settings, backbone, data)
        except (KeyboardInterrupt, StoppedTraining) as error:
            if folder.is_dir():
                log(str(error) or "stopped by Ctrl-C")
                command = ["brainkit", "train", "--backbone", settings.backbone.name, "--resume", "--out", str(folder)]
                log(f"to resume: {shlex.join(command)}")
            raise
        log(f"done in {clock.total():.0f} s: {folder}")


def _run_stages(run: RunContext, settings: Config, backbone: str | nn.Module | None, data: Sequence[Data]) -> None:
    """The run, stage by stage; every process goes through all stages but the last."""
    from brainkit.runs import stages
    from brainkit.runs.finish import finish_run

    inputs = stages.open_inputs(run, settings, backbone, data)
    stages.check_feasible(run, inputs)
    tokens = stages.prepare_tokens(run, inputs)
    module, batches, started = stages.build_model(run, inputs, tokens)
    fitted = stages.fit_model(run, inputs, module, batches)

    def write() -> None:
        scores = stages.score_models(run, inputs, module, batches, fitted.best)
        stages.write_run(run, inputs, tokens, module, fitted, scores, started)
        finish_run(run.folder, run.log, run.clock, maps=settings.train.maps)

    run.world.once(write)


def _file_name(backbone: str) -> str:
    """A backbone's name as part of a folder's name."""
    last = backbone.rsplit(":", 1)[-1] if ".py:" in backbone else backbone
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last)


def _ignore(line: str) -> None:
    """Processes other than the first report nothing."""
