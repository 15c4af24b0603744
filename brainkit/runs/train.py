"""What one command strings together: train -> evaluate -> maps, export, and the same from Python."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import importlib.util
import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brainkit.config import Config
from brainkit.data.subject import Subject
from brainkit.errors import DataError, StoppedTraining, UsageError, require
from brainkit.runs.export import export as export
from brainkit.runs.export import export_all as export_all
from brainkit.runs.folder import (
    PhaseClock,
    RunLog,
    finished_run,
    read_maps,
    run_folders,
)
from brainkit.runs.latest import RUNS, name_latest
from brainkit.runs.settings import choose_settings, resumed_settings
from brainkit.runs.stages import run_training
from brainkit.utils.files import read_json
from brainkit.utils.system import PeakMemory

if TYPE_CHECKING:
    from torch import nn


Say = Callable[[str], None]
Data = str | os.PathLike[str] | Subject


def train(
    backbone: str | nn.Module | None,
    *,
    data: Data | Sequence[Data] | None = None,
    out: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    random_weights: bool = False,
    epochs: int | None = None,
    seed: int | None = None,
    devices: int | None = None,
    num_nodes: int | None = None,
    resume: bool = False,
    config: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    say: Say = print,
) -> Path:
    """Train an encoder on a frozen backbone, score it on held-out images, and draw its maps.

    Parameters
    ----------
    backbone : str, Module or None
        An alias, a timm model, ``file.py:ClassName``; or a network: what :func:`brainkit.load_backbone` gives, or any
        module with ``get_tokens``, as :func:`brainkit.backbones.wrap_network` describes it; None: the
        one that `config` names.
    data : path-like or Subject, or several of them, optional
        A subject's folder, or an opened subject; else ``$BRAINKIT_DATA``, else the sample subject, and a line says so.
        Several are trained together, with shared bottlenecks, and each has a run folder of its own within the run's.
    out : path-like, optional
        The run folder, taken literally; by default ``runs/<date>-<backbone>``.
    weights : path-like, optional
        The backbone's weights from a local file.
    random_weights : bool
        Take seeded random weights.
    epochs, seed : int, optional
        Override the configuration.
    devices, num_nodes : int, optional
        GPUs of each machine (on a CPU: processes), and machines; see the guide, "More than one machine".
    resume : bool
        Go on with the run in `out`.
    config : path-like, optional
        YAML file of settings.
    overrides : sequence of str
        ``section.key=value``; they win over `config`.
    say : callable
        Takes lines of progress.

    Returns
    -------
    Path
        The run folder, complete; ``runs/latest`` names it.

    Raises
    ------
    UsageError, DataError, TrainingError, MissingDependency, BrainkitError
        Each with one line that says what to do.
    """
    require("torch", extra="train", purpose="brainkit train")
    require("pytorch_lightning", extra="train", purpose="brainkit train")
    if backbone is None and config is None:
        raise UsageError("backbone must be named, by itself or in a file of settings, got neither")
    from brainkit.backbones.wrapping import given_back, name_of
    from brainkit.runs.summary import report

    if backbone is not None and not isinstance(backbone, str) and (weights is not None or random_weights):
        raise UsageError("weights and random_weights are for a backbone's name; a network brings its own")
    name = backbone if backbone is None or isinstance(backbone, str) else name_of(backbone)
    named = [] if data is None else [data] if isinstance(data, (str, os.PathLike, Subject)) else list(data)
    if RUNS.exists() and not RUNS.is_dir():
        raise DataError(f"{RUNS}: expected a folder (its file `latest` names the newest run), found a file")
    given = functools.partial(
        choose_settings,
        name=name,
        data=[each.root if isinstance(each, Subject) else each for each in named] or None,
        weights=weights,
        random_weights=random_weights,
        epochs=epochs,
        seed=seed,
        devices=devices,
        num_nodes=num_nodes,
        config=config,
        overrides=overrides,
    )
    settings = given(Config())
    network = settings.backbone.name
    folder = Path(out) if out is not None else RUNS / f"{datetime.date.today().isoformat()}-{_file_name(network)}"
    if resume:
        settings = resumed_settings(folder, out, settings, given)
    from brainkit.training.distributed import join
    from brainkit.training.fit import choose_device

    world = join(settings.train, lambda: choose_device(settings.train.device))
    if not world.first:
        say = _silent
    with world.together():
        if resume and (folder / "run.json").is_file():
            if any(_unfinished(place) for place in run_folders(folder)):
                world.once(lambda: _finish_stopped(folder, say))
            say(f"{folder}: is complete, nothing to resume")
            return folder
        if not resume:
            world.once(lambda: _refuse(folder))

        with RunLog(say) as log, PeakMemory() as memory, given_back(backbone):
            clock = PhaseClock(memory)
            try:
                run_training(
                    settings,
                    network if backbone is None else backbone,
                    folder,
                    resume=resume,
                    log=log,
                    clock=clock,
                    world=world,
                    subjects=_opened(named),
                )

                def end() -> None:
                    finish(folder, log)
                    clock.lap("maps")
                    for place in run_folders(folder):
                        if place != folder:
                            log(f"{place.name}:")
                        report(place, clock, log)

                world.once(end)
                log(f"done in {clock.total():.0f} s: {folder}")
            except (KeyboardInterrupt, StoppedTraining) as error:
                if folder.is_dir():
                    log(str(error) or "stopped by Ctrl-C")
                    command = ["brainkit", "train", "--backbone", network, "--resume", "--out", str(folder)]
                    log(f"to go on: {shlex.join(command)}")
                raise
    return folder


def _opened(data: Sequence[Data]) -> list[Subject]:
    """The subjects, where one was given as such: else they are opened by their places."""
    if not any(isinstance(each, Subject) for each in data):
        return []
    from brainkit.data import open_subject

    return [each if isinstance(each, Subject) else open_subject(each) for each in data]


def _silent(line: str) -> None:
    """What processes beside the first one say."""


def _refuse(folder: Path) -> None:
    if folder.exists():
        raise UsageError(f"{folder}: exists already; go on with it by --resume, or name another --out")


def draw_all(
    run: str | os.PathLike[str] | None = None, *, out: str | os.PathLike[str] | None = None, say: Say = print
) -> list[Path]:
    """Draw the maps of a finished run; of a run of several subjects, those of each, in `out` in folders of its own.

    Parameters
    ----------
    run, out, say
        As for `draw_run`.
    """
    folders = run_folders(run)
    if len(folders) == 1:
        return draw_run(folders[0], out=out, say=say)
    if out is not None:
        Path(out).mkdir(exist_ok=True)
    places = [None if out is None else Path(out) / folder.name for folder in folders]
    return [
        figure for folder, place in zip(folders, places, strict=True) for figure in draw_run(folder, out=place, say=say)
    ]


def draw_run(
    run: str | os.PathLike[str] | None = None, *, out: str | os.PathLike[str] | None = None, say: Say = print
) -> list[Path]:
    """Draw the maps of a finished run: accuracy, explained share, layer, location, scale.

    Parameters
    ----------
    run : path-like, optional
        A run folder or an encoder file; by default the run that ``runs/latest`` names.
    out : path-like, optional
        Folder for the figures; by default ``maps/`` in the run, or beside the encoder file.
    say : callable
        Takes lines of progress.

    Returns
    -------
    list of Path
        The figures.
    """
    if run is not None and Path(run).is_file():
        from brainkit.maps.draw_predictions import draw_encoder_file

        return draw_encoder_file(run, out, say=say)
    from brainkit.maps.draw import draw_maps

    folder, summary = finished_run(run)
    place = Path(out) if out is not None else folder / "maps"
    if not place.parent.is_dir():
        raise DataError(f"{place}: its folder {place.parent} does not exist; make it first")
    place.mkdir(exist_ok=True)
    layer_note = "published gauge: depth is not fixed by the data" if summary["gauge"] == "published" else None
    figures = draw_maps(place, title=summary["backbone"]["name"], layer_note=layer_note, **read_maps(folder, summary))
    say(f"{place}: {', '.join(figure.name for figure in figures)}")
    return figures


def finish(folder: Path, say: Say) -> None:
    """Name the run as the newest, and draw its maps where that is possible."""
    name_latest(folder)
    for place in run_folders(folder):
        _draw_if_possible(place, say)


def _draw_if_possible(folder: Path, say: Say) -> None:
    if importlib.util.find_spec("matplotlib") is None or importlib.util.find_spec("nilearn") is None:
        say("no maps drawn: they need pip install 'brainkit[maps]', then brainkit map")
    elif read_json(folder / "run.json")["space"] == "custom":
        say("no maps drawn: the vertices lie on no surface that brainkit knows")
    else:
        draw_run(folder, say=say)


def _unfinished(folder: Path) -> bool:
    """Whether a run with all its results was stopped before its maps were drawn and its tables said."""
    summary = read_json(folder / "run.json")
    return not (folder / "maps").is_dir() or not ("memory" in summary or "imported" in summary)


def _finish_stopped(folder: Path, say: Say) -> None:
    from brainkit.runs.summary import report

    with RunLog(say) as log, PeakMemory() as memory:
        log.into(folder / "log.txt")
        clock = PhaseClock(memory)
        finish(folder, log)
        clock.lap("maps")
        for place in run_folders(folder):
            if "imported" not in read_json(place / "run.json"):
                report(place, clock, log)


def _file_name(backbone: str) -> str:
    """A backbone's name as part of a folder's name."""
    last = backbone.rsplit(":", 1)[-1] if ".py:" in backbone else backbone
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last)
