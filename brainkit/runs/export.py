"""From a finished run to encoder files: each form that is asked for, checked against torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.config import Config
from brainkit.errors import DataError, UsageError, require
from brainkit.runs.ensemble import Member, check_alike, together
from brainkit.runs.folder import finished_run, run_folders
from brainkit.runs.prepare import chosen_backbone

if TYPE_CHECKING:
    from torch import nn

    from brainkit.backbones import Backbone
    from brainkit.export import Exported
    from brainkit.model.factor_topy import FactorTopy

Say = Callable[[str], None]

SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt", "pt2": ".pt2"}

# Rounding of the tokens on disk and of other batches moves a prediction by some thousandths of a vertex's s.d.
SAME_NETWORK = 0.05


@dataclass(frozen=True)
class Request:
    """What is to be written.

    Parameters
    ----------
    forms : sequence of str
        Of ``"onnx"``, which scoring takes, and ``"torchscript"`` and ``"pt2"``, which load with torch alone.
    target : {"cpu", "gpu"}
        What the readout's form suits; either runs on both.
    rois : sequence of str
        Export the vertices of these regions alone.
    vertices : path-like or array of int, optional
        Export these vertices alone (with those of `rois`): ids in the run's space, as an array, a ``.npy`` file or a
        text file with one id a line.
    storage : {"float32", "float16", "int8"}
        float16: half the file, computed as float32. int8: the backbone's products in bytes, faster on a CPU. How far
        predictions move is measured on the same images, said, and written into the file. For ``"onnx"`` alone.
    ensemble : sequence of path-like
        More runs, which differ in their seeds: the file predicts the mean of all, and their spread. For ``"onnx"``
        alone.
    """

    forms: Sequence[str] = ("onnx",)
    target: str = "cpu"
    rois: Sequence[str] = ()
    vertices: str | os.PathLike[str] | np.ndarray | None = None
    storage: str = "float32"
    ensemble: Sequence[str | os.PathLike[str]] = ()

    def __post_init__(self) -> None:
        for form in self.forms:
            if form not in SUFFIXES:
                raise UsageError(f"form must be one of {', '.join(SUFFIXES)}, got {form!r}")
        others = [form for form in self.forms if form != "onnx"]
        if others and self.storage != "float32":
            raise UsageError(f"the form must be onnx for storage {self.storage}, got {others[0]}")
        if others and self.ensemble:
            raise UsageError(f"the form must be onnx for an ensemble, got {others[0]}")

    def place(self, folder: Path, out: str | os.PathLike[str] | None, form: str) -> Path:
        """Where a file goes. Some vertices, or the mean of several runs, do not take the place of the run's own."""
        if out is None:
            name = "ensemble" if self.ensemble else "encoder"
            some = "-subset" if self.rois or self.vertices is not None else ""
            return folder / f"{name}{some}{SUFFIXES[form]}"
        target = Path(out)
        others = {suffix for other, suffix in SUFFIXES.items() if other != form}
        if target.suffix in others or (form == "pt2" and target.suffix != SUFFIXES[form]):
            raise UsageError(f"{target}: the {form} form must end in {SUFFIXES[form]}")
        if not target.parent.is_dir():
            raise DataError(f"{target}: its folder {target.parent} does not exist; make it first")
        return target


def export(
    run: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    backbone: nn.Module | None = None,
    form: str = "onnx",
    target: str = "cpu",
    rois: Sequence[str] = (),
    vertices: str | os.PathLike[str] | np.ndarray | None = None,
    storage: str = "float32",
    ensemble: Sequence[str | os.PathLike[str]] = (),
    say: Say = print,
) -> Exported:
    """Write a finished run as one encoder file, checked against torch on the run's validation images.

    Parameters
    ----------
    run : path-like, optional
        A run folder; by default the one that ``runs/latest`` names.
    out : path-like, optional
        The file; by default ``encoder.onnx``, ``.pt`` or ``.pt2`` in the run folder, of some vertices
        ``encoder-subset``, of several runs ``ensemble``, with the same endings.
    backbone : Module, optional
        The network that the run was trained on, where its name and settings do not bring it back: one that was made
        in Python. It is left as it was. By default it is loaded as ``config.yaml`` says.
    form : {"onnx", "torchscript", "pt2"}
    target, rois, vertices, storage, ensemble
        See :class:`Request`.
    say : callable
        Takes lines of progress.

    Returns
    -------
    Exported
        ``path``, ``bytes``, ``certificate`` and ``drift``.
    """
    (exported,) = _write(run, out, Request((form,), target, rois, vertices, storage, ensemble), backbone, say)
    return exported


def export_all(
    run: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    forms: Sequence[str] = ("onnx",),
    target: str = "cpu",
    rois: Sequence[str] = (),
    vertices: str | os.PathLike[str] | np.ndarray | None = None,
    storage: str = "float32",
    ensemble: Sequence[str | os.PathLike[str]] = (),
    say: Say = print,
) -> list[Exported]:
    """Write a finished run as an encoder file in each form; of a run of several subjects, for each, in their folders.

    Parameters
    ----------
    run, out, say
        As for `export`; `out` for one subject and one form alone.
    forms, target, rois, vertices, storage, ensemble
        See :class:`Request`; ``ensemble`` for one subject alone.
    """
    request = Request(forms, target, rois, vertices, storage, ensemble)
    for module in ("torch", *(["onnx"] if "onnx" in request.forms else [])):
        require(module, extra="train", purpose="brainkit export")
    if out is not None and len(request.forms) > 1:
        count = len(request.forms)
        raise UsageError(f"out must be left away for {count} forms; each has a name of its own in the run folder")
    folders = run_folders(run)
    places = ", ".join(map(str, folders))
    if out is not None and len(folders) > 1:
        raise UsageError(f"out must be left away for a run of {len(folders)} subjects, or name one of theirs: {places}")
    if request.ensemble and len(folders) > 1:
        raise UsageError(
            f"an ensemble must be of runs of one subject, got {len(folders)}; name one of theirs: {places}"
        )
    return [exported for folder in folders for exported in _write(folder, out, request, None, say)]


def _write(
    run: str | os.PathLike[str] | None,
    out: str | os.PathLike[str] | None,
    request: Request,
    backbone: nn.Module | None,
    say: Say,
) -> list[Exported]:
    require("torch", extra="train", purpose="brainkit export")
    if "onnx" in request.forms:
        require("onnx", extra="train", purpose="brainkit export")
    from brainkit.backbones.wrapping import IN_PYTHON, given_back
    from brainkit.export import check_storage, choose_subset, export_onnx, export_torch

    check_storage(request.storage)
    folder, summary = finished_run(run)
    places = {form: request.place(folder, out, form) for form in dict.fromkeys(request.forms)}
    if summary["backbone"]["weights_hash"] is None:
        raise DataError(f"{folder}: was imported without its network; import it again, with --backbone NAME")
    if backbone is None and summary["backbone"]["source"] == IN_PYTHON:
        raise DataError(
            f"{folder}: was trained on a network that was made in Python, {summary['backbone']['name']}; export it "
            "there, with brainkit.Run.open(RUN).export(backbone=NETWORK)"
        )
    runs = [Member.open(place) for place in (folder, *request.ensemble)]
    check_alike(runs)
    done = []
    with given_back(backbone):
        network = chosen_backbone(Config.read(folder / "config.yaml"), backbone)
        same_network(folder, summary["backbone"], network)
        images, *_ = [same_predictions(each.folder, each.model, network) for each in runs]
        model, info = together(runs, network, say) if request.ensemble else (runs[0].model, runs[0].info)
        subset = choose_subset(info, rois=request.rois, vertices=request.vertices)
        count = f"{len(runs[0].model.weight)} vertices"
        if subset is not None:
            count = f"{len(subset.positions)} of {count}"
        say(f"exporting {', '.join(str(each.folder) for each in runs)} with {network.name}, {count}")
        for form, place in places.items():
            options: dict[str, Any] = {"info": info, "images": images, "target": request.target, "subset": subset}
            if form == "onnx":
                exported = export_onnx(model, network, place, storage=request.storage, **options)
            else:
                exported = export_torch(runs[0].model, network, place, form=form, **options)
            _say_what_was_written(exported, form, len(images), request.storage, say)
            done.append(exported)
    return done


def _say_what_was_written(exported: Exported, form: str, images: int, storage: str, say: Say) -> None:
    from brainkit.export import RUNTIMES, drift_text

    certificate = exported.certificate
    say(
        f"{exported.path}: {exported.bytes / 1e6:.1f} MB; torch against {RUNTIMES.get(form, 'ONNX Runtime')} on "
        f"{images} images: largest difference {certificate['largest']:.1e} of a vertex's s.d., median "
        f"{certificate['median']:.1e}"
    )
    if exported.drift is not None:
        say(f"stored as {storage}: {drift_text(exported.drift)}")
    for name in certificate.get("kept_float32", ()):
        say(f"{name} stays float32: float16 cannot hold its numbers")


def same_network(folder: Path, held: dict[str, Any], network: Backbone) -> None:
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


def same_predictions(folder: Path, model: FactorTopy, network: Backbone) -> np.ndarray:
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
