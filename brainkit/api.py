"""brainkit from Python: train, and use the run that comes out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.runs.draw import draw_run
from brainkit.runs.export import export
from brainkit.runs.folder import finished_run, load_model
from brainkit.runs.settings import Data
from brainkit.runs.train import train
from brainkit.utils.arrays import read_arrays
from brainkit.utils.files import read_json
from brainkit.utils.notebook import DPI, SIZE, card
from brainkit.utils.progress import Say

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

    from brainkit.data.subject import Subject
    from brainkit.export import Exported
    from brainkit.model.factor_topy import FactorTopy
    from brainkit.training.datamodule import EncodingData
    from brainkit.training.module import EncodingModule


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes
    ----------
    path : Path
        The run folder.
    summary : dict
        Its ``run.json``: backbone, data, versions and scores on the test images.
    backbone : Module or None
        The network that it was trained on, if it was given in Python.
    """

    path: Path
    summary: dict[str, Any] = field(repr=False)
    backbone: nn.Module | None = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[Run], tuple[Any, ...]]:
        return type(self), (self.path.absolute(), self.summary, self.backbone)  # for processes elsewhere

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None = None) -> Run:
        """Open a finished run's folder, by default the newest.

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
        """The runs of subjects that were trained together, by name; empty for a run of one subject.

        A run of several has only ``path``, ``summary`` and ``scores`` (by subject) of its own.
        """
        names = self.summary.get("subjects", ())
        return {name: Run(self.path / name, read_json(self.path / name / "run.json"), self.backbone) for name in names}

    @property
    def vertex_scores(self) -> dict[str, np.ndarray]:
        """``r``, ``R2`` and ``noise_ceiling`` of each vertex (V,), NaN if unknown; ``vertices``: their ids."""
        return _read_arrays(self.path / "scores.npz", ("r", "R2", "noise_ceiling", "vertices"))

    @property
    def selectors(self) -> dict[str, np.ndarray]:
        """``layer_weights`` (V, L), ``locations`` (V, 2), ``scale`` (V,); ``vertices`` and ``layers`` name the axes."""
        return _read_arrays(self.path / "selectors.npz", ("layer_weights", "locations", "scale", "layers", "vertices"))

    @property
    def uncertainty(self) -> dict[str, np.ndarray] | None:
        """Standard errors of each vertex: ``depth_se`` (V,), ``location_se`` (V, 2), ``scale_se`` (V,), ``reliable``.

        None until they are measured: ``fit(repeats=8)``, or :func:`brainkit.runs.uncertainty.measure_uncertainty`.
        """
        file = self.path / "uncertainty.npz"
        names = ("depth_se", "location_se", "scale_se", "reliable", "vertices")
        return _read_arrays(file, names) if file.is_file() else None

    @property
    def maps(self) -> list[Path]:
        """The figures in the run folder."""
        return sorted((self.path / "maps").glob("*.png"))

    @property
    def encoder(self) -> Path | None:
        """The encoder file in the run folder; None until it is exported."""
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
        threads: int | None = None,
        say: Say = print,
    ) -> Exported:
        """Write the run as one encoder file.

        Parameters
        ----------
        out : path-like, optional
            The file; by default ``encoder.onnx`` in the run folder, ``ensemble.onnx`` for an ensemble.
        backbone : Module, optional
            The network, if it was made in Python and the run was opened again.
        form : {"onnx", "torchscript", "pt2"}
            ONNX, which ``brainkit.load`` reads, or a file that loads with torch alone.
        target : {"cpu", "gpu"}
            The device that the form of the readout suits; either form runs on both.
        rois, vertices
            Export only the vertices of these ROIs, or these ids.
        storage : {"float32", "float16", "int8"}
        ensemble : sequence of Run or path-like
            Runs of other seeds: the file predicts the mean of all and their spread.
        threads : int, optional
            Processor threads; by default one for each core this process may use.
        say : callable
            Called with each line of progress.

        Returns
        -------
        Exported
            ``path``, ``bytes``, ``certificate`` and ``drift``.
        """
        return export(
            self.path,
            out=out,
            backbone=backbone if backbone is not None else self.backbone,
            form=form,
            target=target,
            rois=rois,
            vertices=vertices,
            storage=storage,
            ensemble=[other.path if isinstance(other, Run) else other for other in ensemble],
            threads=threads,
            say=say,
        )

    def plot(self, name: str = "layer", **options: Any) -> Figure:
        """Draw a map of the run: accuracy, explained, layer, location, scale; depth-se, location-se and scale-se.

        Parameters
        ----------
        name : str
        **options
            Of :func:`brainkit.plot`: view, theme, size, rois, cmap, vmin, vmax, ax.

        Returns
        -------
        matplotlib.figure.Figure
            In a notebook it shows itself.
        """
        import brainkit  # its module imports this one

        return brainkit.plot(name, self, **options)

    def _repr_html_(self) -> str:
        """Key figures and the map of the preferred layer, for notebooks."""
        summary = self.summary
        if "subjects" in summary:
            return card(f"Run {self.path.name} of {len(summary['subjects'])} subjects", {"folder": self.path})
        found = summary.get("scores", {}).get("all", {})
        named = {"median r": "r", "median R²": "R2", "median r² / ceiling": "share"}
        facts = {
            "folder": self.path,
            "data": summary.get("data", {}).get("name"),
            "vertices": f"{found['vertices']:,} of {summary['space']}" if "vertices" in found else "",
            **{name: f"{found[key]:.3f}" for name, key in named.items() if found.get(key) is not None},
            "note": summary.get("note"),
        }
        title = f"Run {self.path.name}: {summary.get('backbone', {}).get('name', '?')}"
        return card(title, facts, lambda: self.plot("layer", size=SIZE, dpi=DPI))

    def draw(self, out: str | os.PathLike[str] | None = None, *, say: Say = print) -> list[Path]:
        """Draw the maps of accuracy, layer, location and scale; by default in ``maps/`` in the run folder.

        Returns
        -------
        list of Path
            The figures.
        """
        return draw_run(self.path, out=out, say=say)


def fit(
    backbone: str | nn.Module | None = None,
    data: Data | Sequence[Data] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    skip_unreadable: bool = False,
    weights: str | os.PathLike[str] | None = None,
    random_weights: bool = False,
    epochs: int | None = None,
    seed: int | None = None,
    devices: int | None = None,
    threads: int | None = None,
    images: int | None = None,
    start: str | os.PathLike[str] | Run | None = None,
    rois: Sequence[str] = (),
    split: str | os.PathLike[str] | None = None,
    maps: bool | None = None,
    repeats: int = 0,
    resume: bool = False,
    config: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    say: Say | None = None,
) -> Run:
    """Train an encoder from Python, like ``brainkit train``.

    Parameters
    ----------
    backbone : str or Module, optional
        Needed unless `start`, `config` or `resume` name it. A name, what :func:`brainkit.load_backbone` returns, or
        any module with ``get_tokens(images)``. A module keeps
        its mode, its device and which of its parameters are trainable.
    data : path-like or Subject, or several of them, optional
        A subject's folder, or what ``brainkit.data.open_subject`` returns; by default ``$BRAINKIT_DATA``, else the
        sample subject. Several are trained together, with shared bottlenecks: see ``Run.subjects``.
    start : Run or path-like, optional
        A finished run of another subject: its bottlenecks are kept, its selectors and readout are where this subject's
        begin, and its backbone, layers and preprocessing are used. For subjects with few images.
    images : int, optional
        Train and validate on so many images, the first by the hash that makes the split; by default on all.
    out, weights, random_weights, epochs, seed, devices, threads, rois, split, maps, repeats
        See :func:`brainkit.runs.train.train`.
    skip_unreadable, resume, config, overrides, say
        See :func:`brainkit.runs.train.train`.

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
    if backbone is None and isinstance(start, Run):
        backbone = start.backbone
    path = train(
        backbone,
        data=data,
        out=out,
        skip_unreadable=skip_unreadable,
        weights=weights,
        random_weights=random_weights,
        epochs=epochs,
        seed=seed,
        devices=devices,
        threads=threads,
        images=images,
        start=start.path if isinstance(start, Run) else start,
        rois=rois,
        split=split,
        maps=maps,
        repeats=repeats,
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
    maps: bool = True,
    say: Say | None = None,
) -> Run:
    """Create a run folder for a module that your own Trainer has fitted: scores on the test images, selectors, maps.

    Parameters
    ----------
    out : path-like
        The run folder; it must not exist.
    module : EncodingModule
        Fitted. It is left unchanged, except for `checkpoint`.
    data : EncodingData
        The data it was fitted on.
    backbone : Module
        The network that the tokens of `data` came from.
    subject : path-like or Subject
        The subject that the responses of `data` came from.
    checkpoint : path-like, optional
        Weights to load into `module` first, such as ``ModelCheckpoint.best_model_path``; by default those it has.
    maps : bool
        Whether to draw the maps; ``run.draw()`` draws them later.
    say : callable, optional
        Called with each line of progress; by default lines are printed.

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

    folder = own_trainer.save_run(
        out, module, data, backbone=backbone, subject=subject, checkpoint=checkpoint, maps=maps, say=say
    )
    return dataclasses.replace(Run.open(folder), backbone=backbone)


def _read_arrays(file: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    if not file.is_file() and (file.parent / "run.json").is_file():
        finished_run(file.parent)  # raises for a run of several subjects
    return read_arrays(file, names)
