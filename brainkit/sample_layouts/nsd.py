"""The simulated subject as a subject of the Natural Scenes Dataset, in the files of its release.

The subject is the fourth, who has three quarters of the planned sessions, so that images have unequal repetitions.
Its own surface is fsaverage5, from which every vertex of fsaverage takes the nearest one's responses, as in NSD.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.cortex.vertices import CUSTOM, SPACES
from brainkit.sample_layouts.nsd_anatomy import nearest_native, write_labels, write_surfaces, write_transforms
from brainkit.sample_layouts.nsd_experiment import (
    Experiment,
    plan,
    plan_synthetic,
    write_experiment,
    write_synthetic,
)
from brainkit.sample_layouts.nsd_files import write_columns, write_mgh, write_nifti, write_volume_columns
from brainkit.sample_layouts.simulated import STREAMS, Simulated, write_notes, write_truth
from brainkit.sample_layouts.voxels import place_in_volume, reorder

SUBJECT = 4
VERSION = "betas_fithrf_GLMdenoise_RR"
SYNTHETIC_VERSION = f"nsdsynthetic{VERSION}"
SCALE = 300  # of percent signal change in int16
VOXELS = {"func1pt8mm": 1.8, "func1mm": 1.0}  # mm
HEMISPHERES = {"lh": "left", "rh": "right"}
# Sets of regions -> the names of their labels, from 1.
ROIS = {
    "nsdgeneral": ("nsdgeneral",),
    "streams": STREAMS,
    "prf-visualrois": ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4"),
    "floc-places": ("OPA", "PPA", "RSC"),
}
_MOST_BYTES = 300 << 20  # of the responses on fsaverage: with more trials, a sample goes without

Float = npt.NDArray[np.float32]
Labels = dict[str, npt.NDArray[np.int32]]


def write_nsd(subject: Simulated, folder: Path) -> None:
    """Write the data set's folder with one subject: responses in four spaces, and NSD-synthetic in two."""
    experiment, synthetic = plan(subject, SUBJECT), plan_synthetic(subject)
    write_experiment(subject, experiment, folder, SUBJECT)
    write_synthetic(subject, synthetic, folder, SUBJECT)
    spaces = ["nativesurface", *VOXELS]
    _write_native(subject, experiment, synthetic, folder)
    if 4 * 2 * SPACES["fsaverage"] * experiment.n_measured <= _MOST_BYTES:
        _write_fsaverage(subject, experiment, folder)
        spaces.insert(0, "fsaverage")
    for space in VOXELS:
        _write_volume(subject, experiment, synthetic, folder, space)
    write_notes(subject, folder, spaces=spaces)


def percent(trials: Float) -> Float:
    """Percent signal change of z-scored trials: any plausible mean and s.d."""
    return (1.0 + 1.5 * trials).astype(np.float32)


def scaled(values: Float) -> npt.NDArray[np.int16]:
    """As the release stores percent signal change in int16; not measured is 0."""
    return np.rint(np.nan_to_num(values) * SCALE).astype(np.int16)


def regions(subject: Simulated) -> Labels:
    """Labels of each vertex in the sets of `ROIS`, from 1, or 0: (V,) each.

    Half of the parietal stream is RSC, which nsdgeneral lacks; the early stream is cut into visual areas by height.
    """
    parietal = np.flatnonzero(subject.streams == STREAMS.index("parietal") + 1)
    early = np.flatnonzero(subject.streams == 1)
    early = early[np.argsort(subject.coordinates[early, 2], kind="stable")]
    labels = {name: np.zeros(len(subject.streams), np.int32) for name in ROIS}
    labels["streams"] = subject.streams
    labels["floc-places"][parietal[::2]] = ROIS["floc-places"].index("RSC") + 1
    labels["nsdgeneral"][labels["floc-places"] == 0] = 1
    labels["prf-visualrois"][early] = 1 + np.arange(len(early)) * len(ROIS["prf-visualrois"]) // max(1, len(early))
    return labels


def published_ncsnr(experiment: Experiment, trials: Float) -> Float:
    """NSD's own estimate, from the images with three trials: (V,)."""
    sessions = [session.measured(percent(trials)).astype(np.float64) for session in experiment.sessions]
    values = np.concatenate([(session - session.mean(0)) / session.std(0) for session in sessions])
    rows = np.concatenate([session.rows for session in experiment.sessions])
    thrice = np.flatnonzero(np.bincount(rows) == 3)
    if not len(thrice):
        return np.zeros(trials.shape[2], np.float32)
    noise = np.mean([values[rows == row].var(0, ddof=1) for row in thrice], axis=0)
    return np.sqrt(np.maximum(1 - noise, 0) / noise).astype(np.float32)


def in_fsaverage(subject: Simulated) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """The vertices of fsaverage that are measured: the column of each, and its id over both hemispheres."""
    column = np.full(2 * SPACES[subject.vertices.space], -1)
    column[subject.vertices.ids] = np.arange(len(subject.vertices))
    native = [nearest_native(side) + k * SPACES[subject.vertices.space] for k, side in enumerate(HEMISPHERES.values())]
    nearest = column[np.concatenate(native)]
    ids = np.flatnonzero(nearest >= 0)
    return nearest[ids], ids


def in_volume(subject: Simulated, space: str) -> tuple[Simulated, npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """The subject in the order of its voxels, the first axis being the fastest; the voxels; their affine."""
    marked = dataclasses.replace(subject, truth={**subject.truth, "_left": _on_left(subject)})
    placed, voxels, affine = place_in_volume(marked, VOXELS[space])
    order = np.lexsort(voxels.T)
    return reorder(placed, order, CUSTOM, np.arange(len(order))), voxels[order], affine


def _on_left(subject: Simulated) -> npt.NDArray[np.bool_]:
    return np.arange(len(subject.vertices)) < subject.vertices.n_left


def _betas(folder: Path, space: str, version: str = VERSION) -> Path:
    path = folder / "nsddata_betas" / "ppdata" / f"subj{SUBJECT:02d}" / space / version
    path.mkdir(parents=True)
    return path


def _write_space_truth(subject: Simulated, folder: Path, space: str) -> None:
    path = folder / "truth" / space
    path.mkdir(parents=True)
    write_truth(subject, path)


def _write_native(subject: Simulated, experiment: Experiment, synthetic: Experiment, folder: Path) -> None:
    betas, of_synthetic = (_betas(folder, "nativesurface", version) for version in (VERSION, SYNTHETIC_VERSION))
    native, size = folder / "nsddata" / "freesurfer" / f"subj{SUBJECT:02d}", SPACES[subject.vertices.space]
    ncsnr, labels = published_ncsnr(experiment, subject.trials), regions(subject)
    left = _on_left(subject)
    for short, side in HEMISPHERES.items():
        columns = np.flatnonzero(left if short == "lh" else ~left)
        local = subject.vertices.ids[columns] - (0 if short == "lh" else size)
        values = percent(subject.trials[:, :, columns])
        for plan_, where in ((experiment, betas), (synthetic, of_synthetic)):
            for session in plan_.sessions:
                whole = np.zeros((len(session.rows), size), np.int16)
                whole[:, local] = scaled(session.measured(values))
                write_columns(where / f"{short}.betas_{session.name}.hdf5", whole)
        write_mgh(betas / f"{short}.ncsnr.mgh", _spread(ncsnr[columns], local, size))
        write_surfaces(native / "surf", short, side, subject.vertices.space)
        for name, of_all in labels.items():
            write_labels(native / "label", short, name, _spread(of_all[columns], local, size), ROIS[name])
    write_transforms(folder / "nsddata" / "ppdata" / f"subj{SUBJECT:02d}" / "transforms", HEMISPHERES)
    # Custom vertices are numbered; those that were not simulated are constant.
    ids = subject.vertices.ids
    _write_space_truth(reorder(subject, np.arange(len(ids)), CUSTOM, np.arange(len(ids))), folder, "nativesurface")


def _write_fsaverage(subject: Simulated, experiment: Experiment, folder: Path) -> None:
    betas, size = _betas(folder, "fsaverage"), SPACES["fsaverage"]
    nearest, ids = in_fsaverage(subject)
    ncsnr, labels = published_ncsnr(experiment, subject.trials), regions(subject)
    shared = folder / "nsddata" / "freesurfer" / "fsaverage" / "label"
    for short in HEMISPHERES:
        here = (ids < size) == (short == "lh")
        local, columns = ids[here] % size, nearest[here]
        for session in experiment.sessions:
            whole = np.full((len(session.rows), size), np.nan, np.float32)
            whole[:, local] = session.measured(percent(subject.trials))[:, columns]
            write_mgh(betas / f"{short}.betas_{session.name}.mgh", whole.T)
        write_mgh(betas / f"{short}.ncsnr.mgh", _spread(ncsnr[columns], local, size))
        for name in ("nsdgeneral", "streams"):  # drawn on fsaverage; the others are the subject's own
            write_labels(shared, short, name, _spread(labels[name][columns], local, size), ROIS[name])
    truth = _at(subject.truth, nearest, len(subject.vertices)) | {"space": np.array("fsaverage"), "vertices": ids}
    _write_space_truth(dataclasses.replace(subject, truth=truth), folder, "fsaverage")


def _write_volume(subject: Simulated, experiment: Experiment, synthetic: Experiment, folder: Path, space: str) -> None:
    """Responses by voxel: at 1.8 mm in HDF5, at 1 mm in NIfTI, of which the release has both."""
    placed, voxels, affine = in_volume(subject, space)
    shape = tuple((voxels.max(0) + 3).tolist())
    truth = dict(placed.truth)
    left = truth.pop("_left")
    data = folder / "nsddata" / "ppdata" / f"subj{SUBJECT:02d}" / space

    def volume(values: npt.NDArray[Any], outside: float = 0) -> npt.NDArray[Any]:
        whole = np.full((*values.shape[:-1], *shape), outside, values.dtype)
        whole[(..., *voxels.T)] = values
        return whole

    betas = _betas(folder, space)
    of_synthetic = _betas(folder, space, SYNTHETIC_VERSION)
    for plan_, where in ((experiment, betas), (synthetic, of_synthetic)):
        for session in plan_.sessions:
            trials = volume(scaled(session.measured(percent(placed.trials))))  # (trials, X, Y, Z)
            if space == "func1pt8mm":
                write_volume_columns(where / f"betas_{session.name}.hdf5", trials)
            else:
                write_nifti(where / f"betas_{session.name}.nii.gz", np.moveaxis(trials, 0, -1), affine)
    write_nifti(betas / "ncsnr.nii.gz", volume(published_ncsnr(experiment, placed.trials)), affine)
    inside = volume(np.ones(len(voxels), np.int16))
    write_nifti(data / "brainmask.nii.gz", inside, affine)
    write_nifti(data / "mean.nii.gz", 1000 * inside, affine)
    for session in (*experiment.sessions, *synthetic.sessions):
        write_nifti(data / f"valid_{session.name}.nii.gz", inside, affine)
    for name, labels in regions(placed).items():
        # -1: not this hemisphere's cortex.
        whole = volume(labels.astype(np.int16), -1)
        write_nifti(data / "roi" / f"{name}.nii.gz", whole, affine)
        for short, here in (("lh", left), ("rh", ~left)):
            one = volume(np.where(here, labels, -1).astype(np.int16), -1)
            write_nifti(data / "roi" / f"{short}.{name}.nii.gz", one, affine)
    _write_space_truth(dataclasses.replace(placed, truth=truth), folder, space)


def _spread(values: npt.NDArray[Any], local: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Values of some vertices on a whole hemisphere, 0 elsewhere."""
    whole = np.zeros(size, values.dtype)
    whole[local] = values
    return whole


def _at(truth: Mapping[str, Any], columns: npt.NDArray[np.intp], count: int) -> dict[str, Any]:
    of_vertices = {name for name, array in truth.items() if np.ndim(array) and len(array) == count} - {"layers"}
    return {name: array[columns] if name in of_vertices else array for name, array in truth.items()}
