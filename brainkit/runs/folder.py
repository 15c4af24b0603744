"""What lies in a run folder, and how the later stages read it."""

from __future__ import annotations

import dataclasses
import datetime
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from brainkit.config import Config, ModelConfig
from brainkit.cortex.surface import RoiTable, Vertices
from brainkit.cortex.volume import Volume
from brainkit.encoder_file.licence import SIMULATED, citation, join_terms, licence_terms
from brainkit.errors import DataError, UsageError
from brainkit.runs.latest import latest_run
from brainkit.utils.files import read_json, write_beside
from brainkit.utils.locks import FileLock
from brainkit.utils.system import Peak, PeakMemory

if TYPE_CHECKING:
    from brainkit.encoder_file import EncoderInfo
    from brainkit.model.factor_topy import FactorTopy


def finished_run(run: str | os.PathLike[str] | None) -> tuple[Path, dict[str, Any]]:
    """The folder of a finished run, by default the newest, and its ``run.json``.

    Raises
    ------
    DataError
        If there is no such run, it is not finished, or it is of several subjects.
    """
    folder, summary = _finished(run)
    if "subjects" in summary:
        places = ", ".join(str(folder / name) for name in summary["subjects"])
        raise DataError(f"{folder}: is a run of {len(summary['subjects'])} subjects; name one of theirs: {places}")
    return folder, summary


def run_folders(run: str | os.PathLike[str] | None) -> list[Path]:
    """The folder of a finished run; of a run of several subjects, the folders of theirs.

    Raises
    ------
    DataError
        If there is no such run, or it is not finished.
    """
    folder, summary = _finished(run)
    return [folder / name for name in summary["subjects"]] if "subjects" in summary else [folder]


def _finished(run: str | os.PathLike[str] | None) -> tuple[Path, dict[str, Any]]:
    folder = Path(run) if run is not None else latest_run()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such run folder")
    if not (folder / "run.json").is_file():
        raise DataError(
            f"{folder}: is not a finished run (no run.json); go on with it by brainkit train --resume --out {folder}"
        )
    return folder, read_json(folder / "run.json")


def load_model(run: str | os.PathLike[str]) -> FactorTopy:
    """The model of a finished run at its best checkpoint, on the CPU, in evaluation mode.

    Parameters
    ----------
    run : path-like
        A run folder.

    Raises
    ------
    DataError
        If the run is not finished, or its checkpoint is gone or damaged.
    """
    from brainkit.model.checkpoint import read_checkpoint
    from brainkit.model.factor_topy import FactorTopy

    folder, summary = finished_run(run)
    place = folder / "checkpoints" / "best.ckpt"
    if not place.is_file():
        raise DataError(f"{place}: not found; without it {folder} has no model")
    state = read_checkpoint(place)["state_dict"]
    state = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    settings = Config.read(folder / "config.yaml").model
    model = FactorTopy(
        summary["backbone"]["widths"],
        state["coordinates"],
        **(model_shape(settings) | {"gauge": summary["gauge"]}),
        # What a run was trained with on a GPU need not be here; all backends predict the same.
        backend="auto" if settings.backend == "triton" else settings.backend,
        resize="bilinear" if "imported" in summary else "area",
    )
    model.load_state_dict(state)
    return model.eval()


def model_shape(settings: ModelConfig) -> dict[str, Any]:
    """What decides a model's parameters and what they mean, as arguments of ``FactorTopy``."""
    return {
        "bottleneck": settings.bottleneck,
        "grid": (settings.grid, settings.grid),
        "selector_width": settings.selector_width,
        "topography": settings.topography,
        "gauge": settings.gauge,
    }


def write_selectors(folder: Path, model: FactorTopy, vertices: Vertices) -> None:
    """Write ``selectors.npz``: what each vertex reads, in the model's gauge."""
    folded = model.folded()
    with write_beside(folder / "selectors.npz") as beside:
        np.savez(
            beside,
            layer_weights=folded.layer_weights.astype(np.float32),
            locations=folded.locations.astype(np.float32),
            scale=folded.scale.astype(np.float32),
            vertices=vertices.ids,
            space=np.array(vertices.space),
            layers=np.array(model.layers),
            gauge=np.array(model.gauge),
        )


def read_maps(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """All that the figures of a run need, as keywords of :func:`brainkit.maps.draw.draw_maps`."""
    with np.load(folder / "selectors.npz") as file:
        selectors = {key: file[key] for key in file.files}
    with np.load(folder / "scores.npz") as file:
        scores = {key: file[key] for key in ("r", "R2", "noise_ceiling")}
    # What is not known anywhere is not drawn: the data brought no ceilings, or the weights were imported without data.
    scores = {name: values if np.isfinite(values).any() else None for name, values in scores.items()}
    vertices = Vertices(str(selectors["space"]), selectors["vertices"])
    return {
        "vertices": vertices,
        "rois": RoiTable.from_json(read_json(folder / "rois.json"), len(vertices)),
        "layers": tuple(selectors["layers"].tolist()),
        "layer_weights": selectors["layer_weights"],
        "locations": selectors["locations"],
        "scale": selectors["scale"],
        "note": _shown_note(summary),
        **scores,
    }


def encoder_info(folder: Path, summary: dict[str, Any], model: FactorTopy) -> EncoderInfo:
    """What the encoder file of a run will say of itself."""
    from brainkit.export import describe
    from brainkit.images import Preprocessing

    with np.load(folder / "scores.npz") as file:
        scores = {key: file[key] for key in file.files}
    vertices = Vertices(str(scores["space"]), scores["vertices"])
    backbone = summary["backbone"]
    settings = Config.read(folder / "config.yaml").to_dict()
    if "imported" in summary:
        del settings["train"], settings["seed"]  # it was trained elsewhere, in ways that nobody told
    # The file travels; where its maker's disk keeps things does not.
    settings["data"]["path"] = Path(settings["data"]["path"]).name
    settings["backbone"]["weights"] = Path(settings["backbone"]["weights"]).name
    if ".py:" in backbone["name"]:
        backbone = {**backbone, "name": Path(backbone["name"]).name}
        settings["backbone"]["name"] = backbone["name"]
    # Runs from before the kind was kept tell by their note alone.
    kind = summary["data"].get("kind", SIMULATED if summary["note"] else None)
    terms = licence_terms(
        backbone=backbone["name"], licence=backbone["licence"], pretrained=backbone["pretrained"], data=kind
    )
    described = describe(
        model.folded(),
        vertices=vertices,
        rois=RoiTable.from_json(read_json(folder / "rois.json"), len(vertices)),
        preprocessing=Preprocessing.from_json(backbone["preprocessing"]),
        backbone={key: backbone[key] for key in ("name", "weights_hash", "pretrained", "licence", "source")},
        r=scores["r"],
        R2=scores["R2"],
        noise_ceiling=scores["noise_ceiling"],
        units=summary["units"],
        gauge=summary["gauge"],
        note=_shown_note(summary),
        licence=join_terms(terms),
        terms=terms,
        citation=citation(backbone=backbone["name"], data=kind),
        provenance={
            **({"imported": summary["imported"]} if "imported" in summary else {}),
            "data": {key: summary["data"][key] for key in ("name", "hash", "images", "excluded")},
            "split": summary["split"],
            "seed": summary["seed"],
            "versions": {"brainkit": summary["brainkit"], **summary["versions"]},
            "config": settings,
            "scores": summary["scores"] if summary["scores"]["images"] else None,
        },
    )
    return dataclasses.replace(described, volume=_read_volume(folder / "volume.npz"))


def write_volume(path: Path, volume: Volume) -> None:
    """Write which voxels the vertices are."""
    with write_beside(path) as beside:
        np.savez(beside, shape=np.array(volume.shape), affine=volume.affine, voxels=volume.voxels)


def _read_volume(path: Path) -> Volume | None:
    if not path.is_file():
        return None
    with np.load(path) as file:
        return Volume(tuple(file["shape"].tolist()), file["affine"], file["voxels"])


def _shown_note(summary: dict[str, Any]) -> str | None:
    """What every figure must say: a simulated subject, a network that was never trained, gains that nobody fixed."""
    untrained = None if summary["backbone"]["pretrained"] else "network with RANDOM weights"
    gauge = "gauge: published" if summary["gauge"] == "published" else None
    return "; ".join(part for part in (summary["note"], untrained, gauge) if part) or None


class RunLog:
    """Says lines, and keeps them in the run's ``log.txt`` as soon as there is a run folder.

    Parameters
    ----------
    say : callable
        Takes a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._early: list[str] = []
        self._file: IO[str] | None = None
        self._lock: FileLock | None = None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            if error is not None:
                self.write(f"stopped: {type(error).__name__}: {error}")
            self._file.close()
        if self._lock is not None:
            self._lock.release()

    def __call__(self, line: str) -> None:
        """Say a line and keep it."""
        self.say(line)
        self.write(line)

    def show(self, plain: Sequence[str], styled: str | None) -> None:
        """Keep a block of lines, and say it: as `styled` where that is given."""
        for line in plain if styled is None else [styled]:
            self.say(line)
        for line in plain:
            self.write(line)

    def into(self, path: Path) -> None:
        """From now on keep lines in this file; those said before come first.

        Raises
        ------
        UsageError
            If another process keeps its own there: two would train in one folder, and spoil it for each other.
        """
        self._lock = FileLock.take(path)
        if self._lock is None:
            raise UsageError(f"{path.parent}: another process is at work in it; wait for it, or name another --out")
        self._file = path.open("a", encoding="utf-8")
        for line in self._early:
            self.write(line)
        self._early.clear()

    def write(self, line: str) -> None:
        """Keep a line without saying it."""
        if self._file is None:
            self._early.append(line)
            return
        stamp = datetime.datetime.now().isoformat(sep=" ", timespec="seconds")
        self._file.write(f"{stamp}  {line}\n")
        self._file.flush()


class PhaseClock:
    """Seconds and peak memory of each phase of a run, and what else is worth noting of how it went.

    Parameters
    ----------
    watch : PeakMemory, optional
        Looks at the memory; without it none is noted.

    Attributes
    ----------
    laps : dict of str to float
        Seconds of each phase.
    memory : dict of str to dict
        Bytes, as :meth:`brainkit.utils.system.PeakMemory.lap` gives them.
    facts : dict
        Sections for ``run.json``.
    """

    def __init__(self, watch: PeakMemory | None = None) -> None:
        self._started = self._last = time.monotonic()
        self._watch = watch
        self.laps: dict[str, float] = {}
        self.memory: dict[str, Peak] = {}
        self.facts: dict[str, Any] = {}

    def lap(self, phase: str) -> None:
        """End a phase here."""
        now = time.monotonic()
        self.laps[phase] = round(now - self._last, 2)
        self._last = now
        if self._watch is not None:
            self.memory[phase] = self._watch.lap()

    def total(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started
