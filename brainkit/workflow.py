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
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.config import Config
from brainkit.data.subject import Subject
from brainkit.errors import DataError, StoppedTraining, UsageError, require
from brainkit.files import read_json
from brainkit.peak_memory import PeakMemory
from brainkit.run_folder import (
    PhaseClock,
    RunLog,
    encoder_info,
    finished_run,
    load_model,
    read_maps,
    run_folders,
)
from brainkit.run_preparation import chosen_backbone
from brainkit.run_settings import choose_settings, resumed_settings
from brainkit.runs import RUNS, name_latest
from brainkit.training_run import run_training

if TYPE_CHECKING:
    from torch import nn

    from brainkit.backbones import Backbone
    from brainkit.export import Exported
    from brainkit.model import FactorTopy

Say = Callable[[str], None]
Data = str | os.PathLike[str] | Subject

# Rounding of the tokens on disk and of other batches moves a prediction by some thousandths of a vertex's s.d.
SAME_NETWORK = 0.05


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
    from brainkit.final_report import report

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
    from brainkit.distributed import join
    from brainkit.training import choose_device

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


def export(
    run: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    backbone: nn.Module | None = None,
    form: str = "onnx",
    target: str = "cpu",
    rois: Sequence[str] = (),
    vertices: str | os.PathLike[str] | np.ndarray | None = None,
    say: Say = print,
) -> Exported:
    """Write a finished run as one encoder file, checked against torch on the run's validation images.

    Parameters
    ----------
    run : path-like, optional
        A run folder; by default the one that ``runs/latest`` names.
    out : path-like, optional
        The file; by default ``encoder.onnx``, ``.pt`` or ``.pt2`` in the run folder, of some vertices
        ``encoder-subset`` with the same endings.
    backbone : Module, optional
        The network that the run was trained on, where its name and settings do not bring it back: one that was made
        in Python. It is left as it was. By default it is loaded as ``config.yaml`` says.
    form : {"onnx", "torchscript", "pt2"}
        ONNX, which scoring takes, or a file that loads with torch alone.
    target : {"cpu", "gpu"}
        What the readout's form suits; either runs on both.
    rois : sequence of str
        Export the vertices of these regions alone.
    vertices : path-like or array of int, optional
        Export these vertices alone (with those of `rois`): ids in the run's space, as an array, a ``.npy`` file or a
        text file with one id a line.
    say : callable
        Takes lines of progress.

    Returns
    -------
    Exported
        ``path``, ``bytes`` and ``certificate``.
    """
    (exported,) = _export_forms(
        run, (form,), out=out, backbone=backbone, target=target, rois=rois, vertices=vertices, say=say
    )
    return exported


def export_all(
    run: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    forms: Sequence[str] = ("onnx",),
    target: str = "cpu",
    rois: Sequence[str] = (),
    vertices: str | os.PathLike[str] | np.ndarray | None = None,
    say: Say = print,
) -> list[Exported]:
    """Write a finished run as an encoder file in each form; of a run of several subjects, for each, in their folders.

    Parameters
    ----------
    run, out, target, rois, vertices, say
        As for `export`; `out` for one subject and one form alone.
    forms : sequence of str
        Of ``"onnx"``, ``"torchscript"`` and ``"pt2"``.
    """
    for module in ("torch", *(["onnx"] if "onnx" in forms else [])):
        require(module, extra="train", purpose="brainkit export")
    if out is not None and len(forms) > 1:
        raise UsageError(f"out must be left away for {len(forms)} forms; each has a name of its own in the run folder")
    folders = run_folders(run)
    if out is not None and len(folders) > 1:
        places = ", ".join(map(str, folders))
        raise UsageError(f"out must be left away for a run of {len(folders)} subjects, or name one of theirs: {places}")
    return [
        exported
        for folder in folders
        for exported in _export_forms(folder, forms, out=out, target=target, rois=rois, vertices=vertices, say=say)
    ]


SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt", "pt2": ".pt2"}


def _export_forms(
    run: str | os.PathLike[str] | None,
    forms: Sequence[str],
    *,
    out: str | os.PathLike[str] | None,
    target: str,
    rois: Sequence[str],
    vertices: str | os.PathLike[str] | np.ndarray | None,
    say: Say,
    backbone: nn.Module | None = None,
) -> list[Exported]:
    require("torch", extra="train", purpose="brainkit export")
    if "onnx" in forms:
        require("onnx", extra="train", purpose="brainkit export")
    from brainkit.backbones.wrapping import IN_PYTHON, given_back
    from brainkit.export import RUNTIMES, choose_subset, export_onnx, export_torch

    for form in forms:
        if form not in SUFFIXES:
            raise UsageError(f"form must be one of {', '.join(SUFFIXES)}, got {form!r}")
    folder, summary = finished_run(run)
    some = bool(rois) or vertices is not None
    targets = {form: _export_target(folder, out, form, some) for form in dict.fromkeys(forms)}
    if summary["backbone"]["weights_hash"] is None:
        raise DataError(f"{folder}: was imported without its network; import it again, with --backbone NAME")
    if backbone is None and summary["backbone"]["source"] == IN_PYTHON:
        raise DataError(
            f"{folder}: was trained on a network that was made in Python, {summary['backbone']['name']}; export it "
            "there, with brainkit.Run.open(RUN).export(backbone=NETWORK)"
        )
    done = []
    with given_back(backbone):
        model = load_model(folder)
        info = encoder_info(folder, summary, model)
        subset = choose_subset(info, rois=rois, vertices=vertices)
        network = chosen_backbone(Config.read(folder / "config.yaml"), backbone)
        _same_network(folder, summary["backbone"], network)
        images = _same_predictions(folder, model, network)
        count = f"{len(model.weight)} vertices"
        if subset is not None:
            count = f"{len(subset.positions)} of {count}"
        say(f"exporting {folder} with {network.name}, {count}")
        for form, place in targets.items():
            options: dict[str, Any] = {"info": info, "images": images, "target": target, "subset": subset}
            if form == "onnx":
                exported = export_onnx(model, network, place, **options)
            else:
                exported = export_torch(model, network, place, form=form, **options)
            certificate, runtime = exported.certificate, RUNTIMES.get(form, "ONNX Runtime")
            say(
                f"{exported.path}: {exported.bytes / 1e6:.1f} MB; torch against {runtime} on {len(images)} images: "
                f"largest difference {certificate['largest']:.1e} of a vertex's s.d., "
                f"median {certificate['median']:.1e}"
            )
            done.append(exported)
    return done


def _export_target(folder: Path, out: str | os.PathLike[str] | None, form: str, some: bool) -> Path:
    """Where the file goes. Some vertices do not take the place of all."""
    if out is None:
        return folder / f"{'encoder-subset' if some else 'encoder'}{SUFFIXES[form]}"
    target = Path(out)
    others = {suffix for other, suffix in SUFFIXES.items() if other != form}
    if target.suffix in others or (form == "pt2" and target.suffix != SUFFIXES[form]):
        raise UsageError(f"{target}: the {form} form must end in {SUFFIXES[form]}")
    if not target.parent.is_dir():
        raise DataError(f"{target}: its folder {target.parent} does not exist; make it first")
    return target


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
        from brainkit.maps.predicted import draw_encoder_file

        return draw_encoder_file(run, out, say=say)
    from brainkit.maps.static import draw_maps

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
    from brainkit.final_report import report

    with RunLog(say) as log, PeakMemory() as memory:
        log.into(folder / "log.txt")
        clock = PhaseClock(memory)
        finish(folder, log)
        clock.lap("maps")
        for place in run_folders(folder):
            if "imported" not in read_json(place / "run.json"):
                report(place, clock, log)


def _same_network(folder: Path, held: dict[str, Any], network: Backbone) -> None:
    from brainkit.images import Preprocessing

    if network.weights_hash != held["weights_hash"]:
        raise DataError(
            f"{folder}: was trained on other weights of {held['name']} ({held['weights_hash'][:12]}) than those found "
            f"now ({network.weights_hash[:12]}); give back the file it was trained with, or in Python the network"
        )
    shown = Preprocessing.from_json(held["preprocessing"])
    if list(network.layer_names) != held["layers"] or network.preprocessing != shown:
        raise DataError(
            f"{folder}: was trained on other layers or another preprocessing of {held['name']} than its config.yaml "
            "gives now; in Python, give export the network itself"
        )


def _same_predictions(folder: Path, model: FactorTopy, network: Backbone) -> np.ndarray:
    """The run's parity images (n, S, S, 3), once the network found now predicts for them what training saw."""
    from brainkit.export import relative_difference, torch_predictions

    place = folder / "parity.npz"
    if not place.is_file():
        raise DataError(f"{place}: not found; without it the network cannot be checked against the one trained on")
    with np.load(place) as file:
        images, expected = file["images"], file["predictions"]
    differing = float(
        relative_difference(torch_predictions(model, network, images, network.preprocessing), expected).max()
    )
    # With random weights some tokens hardly vary over images, and rounding alone moves what reads them.
    if network.pretrained and differing > SAME_NETWORK:
        raise DataError(
            f"{folder}: {network.name} predicts otherwise now than when the run was trained (by {differing:.2g} of a "
            "vertex's s.d.): its code, or a package it uses, has changed; train anew"
        )
    return np.asarray(images)


def _file_name(backbone: str) -> str:
    """A backbone's name as part of a folder's name."""
    last = backbone.rsplit(":", 1)[-1] if ".py:" in backbone else backbone
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last)
