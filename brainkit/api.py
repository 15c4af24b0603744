"""Training from Python, and what comes of it: a run, as an object."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.runs import train as workflow
from brainkit.runs.folder import finished_run, load_model
from brainkit.utils.files import read_json

if TYPE_CHECKING:
    from torch import nn

    from brainkit.data.subject import Subject
    from brainkit.export import Exported
    from brainkit.model.factor_topy import FactorTopy
    from brainkit.training.datamodule import EncodingData
    from brainkit.training.module import EncodingModule

Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes
    ----------
    path : Path
        The run folder.
    summary : dict
        What ``run.json`` holds: backbone, data, versions and scores on the test images.
    backbone : Module or None
        The network that it was trained on, where it was given in Python.
    """

    path: Path
    summary: dict[str, Any] = field(repr=False)
    backbone: nn.Module | None = field(default=None, repr=False, compare=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None = None) -> Run:
        """A finished run's folder, by default the newest.

        Raises
        ------
        DataError
            If there is no such run, or it is not finished.
        """
        folder, summary = finished_run(path)
        return cls(folder, summary)

    @property
    def scores(self) -> dict[str, Any]:
        """Medians over all vertices and by ROI, see :func:`brainkit.evaluation.scores.summarise`."""
        scores: dict[str, Any] = self.summary["scores"]
        return scores

    @property
    def subjects(self) -> dict[str, Run]:
        """The runs of the subjects that were trained together, by name; of a run of one, none.

        Where there are some, all but ``path``, ``summary`` and ``scores`` (by subject) is theirs.
        """
        names = self.summary.get("subjects", ())
        return {name: Run(self.path / name, read_json(self.path / name / "run.json"), self.backbone) for name in names}

    @property
    def vertex_scores(self) -> dict[str, np.ndarray]:
        """``r``, ``R2`` and ``noise_ceiling`` of each vertex, (V,); NaN where not known. ``vertices``: their ids."""
        return _arrays(self.path / "scores.npz", ("r", "R2", "noise_ceiling", "vertices"))

    @property
    def selectors(self) -> dict[str, np.ndarray]:
        """``layer_weights`` (V, L), ``locations`` (V, 2), ``scale`` (V,); ``vertices`` and ``layers`` name the axes."""
        return _arrays(self.path / "selectors.npz", ("layer_weights", "locations", "scale", "layers", "vertices"))

    @property
    def maps(self) -> list[Path]:
        """The figures drawn so far."""
        return sorted((self.path / "maps").glob("*.png"))

    @property
    def encoder(self) -> Path | None:
        """The encoder file in the run folder, once it is exported."""
        file = self.path / "encoder.onnx"
        return file if file.is_file() else None

    def model(self) -> FactorTopy:
        """The trained model at its best epoch, on the CPU, in evaluation mode."""
        return load_model(self.path)

    def export(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        backbone: nn.Module | None = None,
        form: str = "onnx",
        target: str = "cpu",
        rois: Sequence[str] = (),
        vertices: str | os.PathLike[str] | np.ndarray | None = None,
        storage: str = "float32",
        ensemble: Sequence[str | os.PathLike[str] | Run] = (),
        say: Say = print,
    ) -> Exported:
        """Write the run as one encoder file, see :func:`brainkit.runs.train.export`.

        Parameters
        ----------
        out : path-like, optional
            The file; by default ``encoder.onnx`` in the run folder, ``ensemble.onnx`` for an ensemble.
        backbone : Module, optional
            The network, where it was made in Python and the run does not hold it: when it was opened again.
        form : {"onnx", "torchscript", "pt2"}
            ONNX, which scoring takes, or a file that loads with torch alone.
        target : {"cpu", "gpu"}
            What the readout's form suits; either runs on both.
        rois, vertices
            Export the vertices of these regions, or these ids, alone.
        storage : {"float32", "float16", "int8"}
        ensemble : sequence of Run or path-like
            Runs of other seeds.
        """
        given = backbone if backbone is not None else self.backbone
        return workflow.export(
            self.path,
            out=out,
            backbone=given,
            form=form,
            target=target,
            rois=rois,
            vertices=vertices,
            storage=storage,
            ensemble=[other.path if isinstance(other, Run) else other for other in ensemble],
            say=say,
        )

    def draw(self, out: str | os.PathLike[str] | None = None, *, say: Say = print) -> list[Path]:
        """Draw its maps, see :func:`brainkit.runs.train.draw_run`."""
        return workflow.draw_run(self.path, out=out, say=say)


def fit(
    backbone: str | nn.Module,
    data: workflow.Data | Sequence[workflow.Data] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    random_weights: bool = False,
    epochs: int | None = None,
    seed: int | None = None,
    devices: int | None = None,
    resume: bool = False,
    config: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    say: Say = print,
) -> Run:
    """Train an encoder from Python; the same as ``brainkit train``.

    Parameters
    ----------
    backbone : str or Module
        A name, what :func:`brainkit.load_backbone` gives, or any module with ``get_tokens(images)``. A module is left
        as it was: its mode, its device, and what of it is trainable.
    data : path-like or Subject, or several of them, optional
        A subject's folder, or what ``brainkit.data.open_subject`` gives; by default as for `train`. Several are trained
        together, with shared bottlenecks: see ``Run.subjects``.
    out, weights, random_weights, epochs, seed, devices, resume, config, overrides, say
        As for :func:`brainkit.runs.train.train`.

    Returns
    -------
    Run
        With ``path``, ``summary``, ``scores``, ``selectors``, ``maps`` and ``export()``.

    Examples
    --------
    >>> run = brainkit.fit("efficientnet_lite0", "algonauts/subj01")  # doctest: +SKIP
    >>> run.scores["all"]["r"]  # doctest: +SKIP
    >>> run.export()  # doctest: +SKIP
    """
    path = workflow.train(
        backbone,
        data=data,
        out=out,
        weights=weights,
        random_weights=random_weights,
        epochs=epochs,
        seed=seed,
        devices=devices,
        resume=resume,
        config=config,
        overrides=overrides,
        say=say,
    )
    return Run(path, read_json(path / "run.json"), None if isinstance(backbone, str) else backbone)


def save_run(
    out: str | os.PathLike[str],
    module: EncodingModule,
    data: EncodingData,
    *,
    backbone: nn.Module,
    subject: str | os.PathLike[str] | Subject,
    checkpoint: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] = print,
) -> Run:
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
    Run
        ``runs/latest`` names it.

    Raises
    ------
    UsageError
        If the folder exists, or module, data and subject do not belong together.
    DataError
        If the checkpoint cannot be read.
    """
    from brainkit.runs import own_trainer

    folder = own_trainer.save_run(out, module, data, backbone=backbone, subject=subject, checkpoint=checkpoint, say=say)
    return dataclasses.replace(Run.open(folder), backbone=backbone)


def _arrays(file: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    if not file.is_file() and (file.parent / "run.json").is_file():
        finished_run(file.parent)  # of several subjects: says so
    with np.load(file) as arrays:
        return {name: arrays[name] for name in names}
