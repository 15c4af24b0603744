"""The run folder: creating it, finding finished runs, and reading and writing the arrays in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.config import Config, ModelConfig
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.cortex.volume import Volume
from brainkit.encoder_file.file import run_names
from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.metrics.uncertainty import MapUncertainty
from brainkit.runs.latest import latest_run
from brainkit.utils.arrays import read_arrays
from brainkit.utils.files import atomic_write, read_json

if TYPE_CHECKING:
    from brainkit.model.factor_topy import FactorTopy


REPEATS = "repeats"  # the folder in a run folder that holds its repeats
SNAPSHOTS = "snapshots"  # the folder in a run folder with what vertices selected in the course of training


def check_is_new(folder: Path) -> None:
    """Refuse to train in a folder that exists.

    Raises
    ------
    UsageError
    """
    if folder.exists():
        raise _exists(folder)


@contextlib.contextmanager
def create_run_folder(folder: Path, *, exist_ok: bool) -> Iterator[None]:
    """Create the run folder; if the work inside the block fails, remove it again, with its settings.

    Raises
    ------
    UsageError
        If it exists and must not.
    BrainkitError
        If it cannot be created.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:  # another process created it meanwhile
        raise _exists(folder) from None
    except OSError as error:
        raise BrainkitError(f"{folder}: the run folder cannot be created: {error.strerror}") from None
    try:
        yield
    except Exception:
        if is_new:
            with contextlib.suppress(OSError):
                (folder / "config.yaml").unlink(missing_ok=True)
                folder.rmdir()
        raise


def finished_run(run: str | os.PathLike[str] | None) -> tuple[Path, dict[str, Any]]:
    """The folder of a finished run of one subject, by default the newest, and its ``run.json``.

    Raises
    ------
    DataError
        If there is no such run, it is not finished, or it is a run of several subjects.
    """
    folder, summary = _read_summary(run)
    if "subjects" in summary:
        folders = ", ".join(str(folder / name) for name in summary["subjects"])
        raise DataError(f"{folder}: is a run of {len(summary['subjects'])} subjects; name one of them: {folders}")
    return folder, summary


def run_folders(run: str | os.PathLike[str] | None) -> list[Path]:
    """The folder of a finished run; of a run of several subjects, the subjects' folders in it.

    Raises
    ------
    DataError
        If there is no such run, or it is not finished.
    """
    folder, summary = _read_summary(run)
    return [folder / name for name in summary["subjects"]] if "subjects" in summary else [folder]


def repeat_folders(run: Path) -> list[Path]:
    """The folders of a run's repeats, which tell how sure its maps are; for one subject of several, its folders."""
    inside = ""
    if not (run / REPEATS).is_dir() and (run.parent / REPEATS).is_dir():  # a subject of a run of several
        run, inside = run.parent, run.name
    return [path.parent / inside for path in sorted((run / REPEATS).glob("*/run.json"))]


def is_repeat(folder: Path) -> bool:
    """Whether a run is a repeat of the run that its folder is in."""
    place = folder.absolute().parent
    return place.name == REPEATS and (place.parent / "run.json").is_file()


def read_settings(folder: Path) -> Config:
    """A run's ``config.yaml``; what an older version did not know yet has the value that it stood for."""
    return Config.read(folder / "config.yaml", missing={"model": {"offsets": []}, "train": {"refit": False}})


def load_model(run: str | os.PathLike[str]) -> FactorTopy:
    """The model of a finished run at its best epoch, on the CPU, in evaluation mode.

    Parameters
    ----------
    run : path-like
        A run folder.

    Raises
    ------
    DataError
        If the run is not finished, or its checkpoint is missing or damaged.
    """
    from brainkit.model.checkpoint import read_checkpoint
    from brainkit.model.factor_topy import FactorTopy

    folder, summary = finished_run(run)
    checkpoint = folder / "checkpoints" / "best.ckpt"
    if not checkpoint.is_file():
        raise DataError(f"{checkpoint}: not found; without it {folder} has no model")
    state = read_checkpoint(checkpoint)["state_dict"]
    state = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    settings = read_settings(folder).model
    model = FactorTopy(
        summary["backbone"]["widths"],
        state["coordinates"],
        **(model_shape(settings) | {"gauge": summary["gauge"]}),
        # The machine need not have the GPU of the training; all backends predict the same.
        backend="auto" if settings.backend == "triton" else settings.backend,
        resize=summary.get("start", {}).get("resize") or ("bilinear" if "imported" in summary else "area"),
    )
    model.load_state_dict(state)
    return model.eval()


def model_shape(settings: ModelConfig) -> dict[str, Any]:
    """The settings that decide a model's parameters and their meaning, as arguments of ``FactorTopy``."""
    return {
        "bottleneck": settings.bottleneck,
        "grid": (settings.grid, settings.grid),
        "selector_width": settings.selector_width,
        "topography": settings.topography,
        "offsets": settings.offsets,
        "fixed": settings.fixed,
        "gauge": settings.gauge,
    }


def figure_note(summary: dict[str, Any]) -> str | None:
    """What every figure must state: a simulated subject, a network with random or unknown weights, free gains."""
    notes = {True: None, False: "network with RANDOM weights", None: "not stated whether the network is trained"}
    untrained = notes[summary["backbone"]["pretrained"]]
    gauge = "gauge: published" if summary["gauge"] == "published" else None
    return "; ".join(part for part in (summary["note"], untrained, gauge) if part) or None


def read_rois(folder: Path, n_vertices: int) -> RoiTable:
    """Read ``rois.json``."""
    return RoiTable.from_json(read_json(folder / "rois.json"), n_vertices)


def write_selectors(folder: Path, model: FactorTopy, vertices: Vertices) -> None:
    """Write ``selectors.npz``: what each vertex reads, in the model's gauge."""
    folded = model.folded()
    with atomic_write(folder / "selectors.npz") as temporary:
        np.savez(
            temporary,
            layer_weights=folded.layer_weights.astype(np.float32),
            locations=folded.locations.astype(np.float32),
            scale=folded.scale.astype(np.float32),
            vertices=vertices.ids,
            space=np.array(vertices.space),
            layers=np.array(model.layers),
            gauge=np.array(model.gauge),
        )


def read_uncertainty(folder: Path, vertices: Vertices) -> MapUncertainty | None:
    """Read ``uncertainty.npz``, see :mod:`brainkit.runs.uncertainty`; None if there is none.

    Raises
    ------
    DataError
        If it is of other vertices.
    """
    path = folder / "uncertainty.npz"
    if not path.is_file():
        return None
    file = read_arrays(path, ("vertices", "depth_se", "location_se", "scale_se", "basis", "runs", "max_se"))
    if not np.array_equal(file["vertices"], vertices.ids):
        raise DataError(f"{path}: expected the run's {len(vertices)} vertices, found others; measure it again")
    depth, location, scale = (file[name] for name in ("depth_se", "location_se", "scale_se"))
    return MapUncertainty(depth, location, scale, str(file["basis"]), int(file["runs"]), float(file["max_se"]))


def write_volume(path: Path, volume: Volume) -> None:
    """Write ``volume.npz``: which voxels the vertices are."""
    with atomic_write(path) as temporary:
        np.savez(temporary, shape=np.array(volume.shape), affine=volume.affine, voxels=volume.voxels)


def read_volume(path: Path) -> Volume | None:
    """Read ``volume.npz``; None if there is none."""
    if not path.is_file():
        return None
    file = read_arrays(path, ("shape", "affine", "voxels"))
    return Volume(tuple(file["shape"].tolist()), file["affine"], file["voxels"])


def _read_summary(run: str | os.PathLike[str] | None) -> tuple[Path, dict[str, Any]]:
    folder = Path(run) if run is not None else latest_run()
    if folder.is_file():
        advice = f"; its folder is {folder.parent}" if (folder.parent / "config.yaml").is_file() else ""
        raise DataError(f"{folder}: expected a run folder, found a file{advice}")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such run folder")
    if not (folder / "run.json").is_file():
        if not (folder / "config.yaml").is_file():
            runs = run_names(folder)
            held = f"; it holds the runs {runs}: name one" if runs else ""
            raise DataError(f"{folder}: is not a run (no config.yaml){held}")
        raise DataError(
            f"{folder}: is not a finished run (no run.json); resume it with brainkit train --resume --out {folder}"
        )
    return folder, read_json(folder / "run.json")


def _exists(folder: Path) -> UsageError:
    if (folder / "run.json").is_file():
        return UsageError(f"{folder}: exists already, a finished run; name another --out")
    if (folder / "config.yaml").is_file():
        return UsageError(f"{folder}: exists already, an unfinished run; give --resume too, or name another --out")
    return UsageError(f"{folder}: exists already, and is not a run; name another --out")
