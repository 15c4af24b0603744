"""From a finished run to encoder files; each is compared with torch before it is kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.errors import DataError, UsageError, require
from brainkit.runs.ensemble import Member, build_ensemble, check_members
from brainkit.runs.folder import finished_run, read_settings, run_folders
from brainkit.runs.network import load_network
from brainkit.utils.progress import Say
from brainkit.utils.text import format_bytes, plural

if TYPE_CHECKING:
    from torch import nn

    from brainkit.backbones import Backbone
    from brainkit.export import Exported
    from brainkit.model.factor_topy import FactorTopy

SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt", "pt2": ".pt2"}

# Predictions may differ by this much, in s.d. of a vertex: tokens are rounded on disk, and batches have other sizes.
SAME_NETWORK = 0.05


@dataclass(frozen=True)
class ExportRequest:
    """What to write.

    Parameters
    ----------
    forms : sequence of {"onnx", "torchscript", "pt2"}
        ``"onnx"`` is what ``brainkit predict`` reads; the others load with torch alone.
    target : {"cpu", "gpu"}
        The device that the form of the readout suits; either form runs on both.
    rois : sequence of str
        Export only the vertices of these ROIs.
    vertices : path-like or array of int, optional
        Export only these vertices (and those of `rois`): ids in the run's space, as an array, a ``.npy`` file or a
        text file with one id per line.
    storage : {"float32", "float16", "int8"}
        float16: half the file size, computed in float32. int8: the backbone's matrix products in int8, faster on a
        CPU. How much predictions change is measured, reported and stored in the file. ``"onnx"`` only.
    ensemble : sequence of path-like
        More runs, with other seeds: the file predicts the mean of all and their spread. ``"onnx"`` only.
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

    def output_path(self, folder: Path, out: str | os.PathLike[str] | None, form: str) -> Path:
        """The file to write. By default a subset of vertices and an ensemble do not replace the run's own encoder."""
        if out is None:
            name = "ensemble" if self.ensemble else "encoder"
            subset = "-subset" if self.rois or self.vertices is not None else ""
            return folder / f"{name}{subset}{SUFFIXES[form]}"
        target = Path(out)
        other_suffixes = {suffix for other, suffix in SUFFIXES.items() if other != form}
        if target.suffix in other_suffixes or (form == "pt2" and target.suffix != SUFFIXES[form]):
            raise UsageError(f"{target}: the {form} form must end in {SUFFIXES[form]}")
        if not target.parent.is_dir():
            raise DataError(f"{target}: its folder {target.parent} does not exist; create it first")
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
    threads: int | None = None,
    say: Say = print,
) -> Exported:
    """Write a finished run as one encoder file, compared with torch on the run's validation images.

    Parameters
    ----------
    run : path-like, optional
        A run folder; by default the one that ``runs/latest`` names.
    out : path-like, optional
        The file; by default in the run folder ``encoder.onnx``, ``.pt`` or ``.pt2``; ``encoder-subset`` with some of
        the vertices, ``ensemble`` with several runs.
    backbone : Module, optional
        The network that the run was trained on, if it was made in Python; it is left unchanged. By default the network
        is loaded as ``config.yaml`` says.
    form : {"onnx", "torchscript", "pt2"}
    target, rois, vertices, storage, ensemble
        See :class:`ExportRequest`.
    threads : int, optional
        Processor threads; by default one for each core this process may use.
    say : callable
        Called with each line of progress.

    Returns
    -------
    Exported
        ``path``, ``bytes``, ``certificate`` and ``drift``.
    """
    request = ExportRequest((form,), target, rois, vertices, storage, ensemble)
    (exported,) = _write(run, out, request, backbone, threads, say)
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
    threads: int | None = None,
    say: Say = print,
) -> list[Exported]:
    """Write a finished run in several forms; of a run of several subjects, files for each subject, in its folder.

    Parameters
    ----------
    run, threads, say
        See `export`.
    out : path-like, optional
        See `export`; for one subject and one form only.
    forms, target, rois, vertices, storage, ensemble
        See :class:`ExportRequest`; ``ensemble`` for one subject only.
    """
    request = ExportRequest(forms, target, rois, vertices, storage, ensemble)
    _require_packages(request)
    if out is not None and len(request.forms) > 1:
        raise UsageError(
            f"out must not be given for {len(request.forms)} forms; each has its own name in the run folder"
        )
    folders = run_folders(run)
    names = ", ".join(map(str, folders))
    if out is not None and len(folders) > 1:
        raise UsageError(f"out must not be given for a run of {len(folders)} subjects; or name one of them: {names}")
    if request.ensemble and len(folders) > 1:
        raise UsageError(f"an ensemble must be of runs of one subject, got {len(folders)}; name one of them: {names}")
    return [exported for folder in folders for exported in _write(folder, out, request, None, threads, say)]


def _write(
    run: str | os.PathLike[str] | None,
    out: str | os.PathLike[str] | None,
    request: ExportRequest,
    backbone: nn.Module | None,
    threads: int | None,
    say: Say,
) -> list[Exported]:
    _require_packages(request)
    from brainkit.backbones.plugin import preserved_state
    from brainkit.export import check_storage, choose_subset, export_onnx, export_torch
    from brainkit.training.threads import limit_threads

    check_storage(request.storage)
    folder, summary = finished_run(run)
    paths = {form: request.output_path(folder, out, form) for form in dict.fromkeys(request.forms)}
    check_reloadable(folder, summary, backbone)
    members = [Member.open(each) for each in (folder, *request.ensemble)]
    check_members(members)
    first = members[0]
    subset = choose_subset(first.info, rois=request.rois, vertices=request.vertices)
    count = plural(len(first.model.weight), "vertex", "vertices")
    if subset is not None:
        count = f"{len(subset.positions)} of {count}"
    # Before the network is loaded, which may take minutes.
    say(f"exporting {', '.join(str(each.folder) for each in members)} with {summary['backbone']['name']}, {count}")
    with limit_threads(threads or 0), preserved_state(backbone):
        network = load_network(read_settings(folder), backbone)
        check_network(folder, summary["backbone"], network)
        images, *_ = [check_predictions(each.folder, each.model, network) for each in members]
        model, info = build_ensemble(members, network, say) if request.ensemble else (first.model, first.info)
        options: dict[str, Any] = {"info": info, "images": images, "target": request.target, "subset": subset}
        done = []
        for form, path in paths.items():
            if form == "onnx":
                exported = export_onnx(model, network, path, storage=request.storage, **options)
            else:
                exported = export_torch(first.model, network, path, form=form, **options)
            report_export(exported, form, len(images), request.storage, say)
            done.append(exported)
    return done


def _require_packages(request: ExportRequest) -> None:
    for module in ("torch", *(["onnx"] if "onnx" in request.forms else [])):
        require(module, extra="train", purpose="brainkit export")


def check_reloadable(folder: Path, summary: dict[str, Any], backbone: nn.Module | None) -> None:
    """Check that the run's network can be loaded, or is given.

    Raises
    ------
    DataError
        If it was imported without its network, or trained on one that was made in Python.
    """
    from brainkit.backbones.plugin import IN_PYTHON

    if summary["backbone"]["weights_hash"] is None:
        raise DataError(f"{folder}: was imported without its network; import it again, with --backbone NAME")
    if backbone is None and summary["backbone"]["source"] == IN_PYTHON:
        raise DataError(
            f"{folder}: was trained on a network made in Python, {summary['backbone']['name']}; export it from Python, "
            "with brainkit.Run.open(RUN).export(backbone=NETWORK)"
        )


def check_network(folder: Path, trained_on: dict[str, Any], network: Backbone) -> None:
    """Check that a network has the weights, layers and preprocessing that the run was trained on.

    Raises
    ------
    DataError
        If it has not.
    """
    from brainkit.backbones.plugin import is_own
    from brainkit.images import Preprocessing

    name = trained_on["name"]
    if network.weights_hash != trained_on["weights_hash"]:
        advice = "use the weights file it was trained with, or in Python the network"
        if is_own(network.name, network.source):
            advice = "its weights file has changed, or its constructor draws other random numbers in each process"
        raise DataError(
            f"{folder}: was trained on other weights of {name} ({trained_on['weights_hash'][:12]}) than those found "
            f"now ({network.weights_hash[:12]}); {advice}"
        )
    if network.layer_names != tuple(trained_on["layers"]) and set(network.layer_names) == set(trained_on["layers"]):
        raise DataError(
            f"{folder}: {name} returns its layers in another order now ({', '.join(network.layer_names)}) than in "
            f"training ({', '.join(trained_on['layers'])}); get_tokens must return them from shallow to deep, and not "
            "in the order of a set"
        )
    preprocessing = Preprocessing.from_json(trained_on["preprocessing"])
    if list(network.layer_names) != trained_on["layers"] or network.preprocessing != preprocessing:
        raise DataError(
            f"{folder}: was trained on other layers or another preprocessing of {name} than its config.yaml gives now; "
            "in Python, pass the network to export"
        )


def check_predictions(folder: Path, model: FactorTopy, network: Backbone) -> np.ndarray:
    """Check that model and network predict for the run's parity images what they did at the end of training.

    Returns
    -------
    array of shape (n, S, S, 3), uint8
        The parity images.

    Raises
    ------
    DataError
        If they do not, or the run has no parity images.
    """
    from brainkit.export import relative_difference, torch_predictions

    file = folder / "parity.npz"
    if not file.is_file():
        raise DataError(f"{file}: not found; without it the network cannot be compared with the one trained on")
    with np.load(file) as arrays:
        images, expected = arrays["images"], arrays["predictions"]
    predictions = torch_predictions(model, network, images, network.preprocessing)
    differences = relative_difference(predictions, expected)
    # With random weights some tokens hardly vary over images, and rounding alone changes predictions from them.
    is_random = network.pretrained is False
    difference = float(np.median(differences) if is_random else differences.max())
    if difference > SAME_NETWORK:
        raise DataError(
            f"{folder}: {network.name} predicts something else now than when the run was trained (difference "
            f"{difference:.2g} of a vertex's s.d.): its code, or a package it uses, has changed; train again"
        )
    return np.asarray(images)


def report_export(exported: Exported, form: str, images: int, storage: str, say: Say) -> None:
    from brainkit.export import RUNTIMES, drift_text

    certificate = exported.certificate
    say(
        f"{exported.path}: {format_bytes(exported.bytes)}; torch against {RUNTIMES.get(form, 'ONNX Runtime')} on "
        f"{plural(images, 'image')}: largest difference {certificate['largest']:.1e} of a vertex's s.d., median "
        f"{certificate['median']:.1e}"
    )
    if exported.drift is not None:
        say(f"stored as {storage}: {drift_text(exported.drift)}")
    for name in certificate.get("kept_float32", ()):
        say(f"{name} stays float32: its values do not fit in float16")
