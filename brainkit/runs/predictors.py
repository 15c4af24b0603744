"""What can be evaluated on data: an encoder file, or a finished run."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.cortex.volume import Volume
from brainkit.data import open_subject
from brainkit.data.split import Split
from brainkit.data.stimuli import short_hashes
from brainkit.data.subject import Subject
from brainkit.encoder_file import locate
from brainkit.errors import require
from brainkit.images import content_hash
from brainkit.predict.encoder import load
from brainkit.runs.folder import figure_note, finished_run, load_model, read_rois, read_settings, read_volume
from brainkit.runs.image_hashes import read_image_hashes, split_hashes
from brainkit.runs.predictions import FILE, open_predictions, read_predictions
from brainkit.runs.provenance import package_versions
from brainkit.runs.run_data import open_run_data
from brainkit.utils.progress import Say, progress_bar

_CHUNK = 256  # images between two steps of the progress bar


class Predictor(Protocol):
    """Predicts responses to a subject's images.

    Attributes
    ----------
    path : Path
        The encoder file or the run folder.
    vertices : Vertices
        The V vertices that it predicts.
    rois : RoiTable
        Of them.
    volume : Volume or None
        Which voxels they are, if they are voxels.
    title, note : str or None
        Of figures.
    trained_on : dict
        ``name`` and ``hash`` of the data of its training, as far as they are known.
    split_name : str
        Of the lists of images that it was trained and tested by; "" if there were none, or it is not known.
    """

    path: Path
    vertices: Vertices
    rois: RoiTable
    volume: Volume | None
    title: str
    note: str | None
    trained_on: dict[str, Any]
    split_name: str

    def open_data(self, data: str | os.PathLike[str] | None = None) -> Subject | None:
        """A subject, by default the data that it was trained on; None if it does not say where they are."""

    def split_hashes(self, subject: Subject) -> dict[str, np.ndarray] | None:
        """Short hashes of the images on each side of its split, and in its further test sets if they are known.

        None if they are not known.
        """

    def predict(self, subject: Subject, rows: np.ndarray) -> np.ndarray:
        """Predictions (n, V), float32, for a subject's images at these rows."""

    def facts(self) -> dict[str, Any]:
        """The sections ``encoder``, ``seeds`` and ``versions`` of the provenance of the latest predictions."""


def _name_of_split(facts: object) -> str:
    name = facts.get("name", "") if isinstance(facts, dict) else ""
    return name if isinstance(name, str) else ""


class EncoderPredictor:
    """Predicts with an encoder file; torch is not needed.

    Parameters
    ----------
    path : path-like
    device, threads
        See :func:`brainkit.load`.
    """

    def __init__(self, path: str | os.PathLike[str], device: str = "auto", threads: int | None = None) -> None:
        self.path = locate(path)
        self.encoder = load(self.path, device, threads=threads)
        info = self.encoder.info
        self.vertices, self.rois, self.volume = info.vertices, info.rois, info.volume
        self.title, self.note = str(info.backbone.get("name", self.path.stem)), info.note
        trained_on = info.provenance.get("data")
        self.trained_on = trained_on if isinstance(trained_on, dict) else {}
        self.split_name = _name_of_split(info.provenance.get("split"))

    def open_data(self, data: str | os.PathLike[str] | None = None) -> Subject | None:
        return None if data is None else open_subject(data)

    def split_hashes(self, subject: Subject) -> dict[str, np.ndarray] | None:
        return self.encoder.info.image_hashes

    def predict(self, subject: Subject, rows: np.ndarray) -> np.ndarray:
        predictions = np.empty((len(rows), len(self.vertices)), np.float32)
        with progress_bar("predicting", "images") as advance:
            for start in range(0, len(rows), _CHUNK):
                chunk = rows[start : start + _CHUNK]
                predictions[start : start + len(chunk)] = self.encoder.predict([subject.images[row] for row in chunk])
                advance(start + len(chunk), len(rows))
        return predictions

    def facts(self) -> dict[str, Any]:
        import onnxruntime

        trained = self.encoder.info.provenance
        split = trained.get("split")
        return {
            "encoder": {"file": self.path.name, "sha256": self.encoder.info.digest},
            "seeds": {"training": trained.get("seed"), "split": split.get("seed") if isinstance(split, dict) else None},
            "versions": {"onnxruntime": onnxruntime.__version__},  # its package has several names
        }


class RunPredictor:
    """Predicts with the model of a finished run, or takes the predictions that the run has kept.

    Parameters
    ----------
    run : path-like, optional
        The run folder; by default the newest.
    say : callable
        Called with each line of progress.
    """

    def __init__(self, run: str | os.PathLike[str] | None, say: Say) -> None:
        self.path, self.summary = finished_run(run)
        self.say = say
        with np.load(self.path / "scores.npz") as scores:
            self.vertices = Vertices(str(scores["space"]), scores["vertices"])
        self.rois, self.volume = read_rois(self.path, len(self.vertices)), read_volume(self.path / "volume.npz")
        self.title, self.note = self.summary["backbone"]["name"], figure_note(self.summary)
        self.trained_on = self.summary["data"]
        self.split_name = _name_of_split(self.summary["split"])
        self.used = "computed"

    def open_data(self, data: str | os.PathLike[str] | None = None) -> Subject | None:
        if data is None:
            return open_run_data(self.path, self.summary)
        subject = open_subject(data)
        if self.summary["data"].get("skipped"):  # as it was trained: without the images that cannot be read
            subject = subject.skip_unreadable()
        return subject

    def split_hashes(self, subject: Subject) -> dict[str, np.ndarray] | None:
        """Of a run that has not stored them: from its split, if the subject is the one it was trained on."""
        stored, split = read_image_hashes(self.path), self._split(subject)
        if stored is None and split is not None and "trained_with" not in self.summary:
            stored = split_hashes([(subject, split)])
        if stored is None or split is None or not split.sets:
            return stored
        own = short_hashes(subject.pixel_hashes)
        return {**{name: own[rows] for name, rows in split.sets.items()}, **stored}

    def predict(self, subject: Subject, rows: np.ndarray) -> np.ndarray:
        """Kept predictions where the run has them for all the images; a run's test predictions are kept."""
        split = self._split(subject)
        is_test = split is not None and np.array_equal(split.test, rows)
        if not (self.path / FILE).is_file():
            predictions = self._compute(subject, rows)
            if not is_test:
                return predictions
            with open_predictions(self.path, subject, rows, self.vertices) as keep:
                keep(predictions)
        kept = read_predictions(self.path)
        position = {pixels: k for k, pixels in enumerate(kept.pixels.tolist())}
        wanted = subject.take(rows).pixel_hashes
        if not position.keys() >= set(wanted):
            return self._compute(subject, rows)
        self.used = "kept"
        return np.asarray(kept.predictions[[position[pixels] for pixels in wanted]])

    def facts(self) -> dict[str, Any]:
        split = self.summary["split"] or {}
        checkpoint = content_hash(self.path / "checkpoints" / "best.ckpt")
        return {
            "encoder": {"run": self.path.resolve().name, "sha256": checkpoint, "predictions": self.used},
            "seeds": {"training": self.summary["seed"], "split": split.get("seed")},
            "versions": package_versions("torch", "timm"),
        }

    def _split(self, subject: Subject) -> Split | None:
        """The run's split, if this is the subject that was split."""
        file, trained_on = self.path / "split.json", self.summary["data"]["hash"]
        if not file.is_file() or subject.data_hash != trained_on:
            return None
        return Split.read(file, names=[path.name for path in subject.images])

    def _compute(self, subject: Subject, rows: np.ndarray) -> np.ndarray:
        for package in ("torch", "timm"):
            require(package, extra="train", purpose="predicting with a run")
        from brainkit.evaluation.model_scores import predict_rows
        from brainkit.runs.network import extract_subject_tokens
        from brainkit.training.fit import choose_device

        self.used = "computed"
        model, network = self._model
        settings = read_settings(self.path).data
        tokens = extract_subject_tokens(
            network,
            subject.take(rows),
            grid=model.grid,
            device=choose_device("auto"),
            dtype=settings.token_dtype,
            say=self.say,
        )
        return np.concatenate([part for _, part in predict_rows(model, tokens.cache, np.arange(len(rows)))])

    @functools.cached_property
    def _model(self) -> tuple[Any, Any]:
        """The model, and the network it was trained on."""
        from brainkit.runs.export import check_network, check_predictions, check_reloadable
        from brainkit.runs.network import load_network

        check_reloadable(self.path, self.summary, None)
        model = load_model(self.path)
        network = load_network(read_settings(self.path))
        check_network(self.path, self.summary["backbone"], network)
        check_predictions(self.path, model, network)
        return model, network
