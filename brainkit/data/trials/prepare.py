"""Writes a subject's trials as a folder of own data: images, averaged responses, noise ceilings, ROIs, splits."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit._version import __version__
from brainkit.cortex.vertices import CUSTOM
from brainkit.data import dataset
from brainkit.data.folder import PREPARED
from brainkit.data.split_files import FOLDER, safe_name
from brainkit.data.trials.average import Averaged, average, column_blocks
from brainkit.data.trials.trials import Trials
from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.metrics.ceilings import noise_ceiling_from_ncsnr
from brainkit.utils.files import create_folder, read_json, write_json
from brainkit.utils.locks import FileLock
from brainkit.utils.progress import Say, progress_bar
from brainkit.utils.text import format_bytes, plural

_VERSION = 1
_STATE, _VARIANCES = "progress.json", "variances.npy"
_MANY_COLUMNS, _LEAST_AGREEMENT = 100, 0.5  # of our ncsnr with a published one
_SPARE = 1.05  # of the disk space that the responses take, for everything else


def prepare_subject(trials: Trials, folder: str | os.PathLike[str], *, link: bool = False, say: Say = print) -> Path:
    """Standardise and average trials, and write them as a folder that `brainkit.data.Folder` reads.

    Work goes on in ``<folder>.partial``, which becomes the folder at the end. After an interruption, the same call
    resumes it: images and blocks of columns that are done are kept.

    The folder has ``images/``; ``responses.npy`` (n, V), float32, the mean over the trials of each image, rows in text
    order of the images' names; ``repetitions.npy`` (n,), the trials of each image; ``ncsnr.npy`` (V,), the s.d. of the
    signal over that of a single trial's noise; ``noise_ceiling.npy`` (V,), fractions of r squared, for the average
    number of trials; ``vertices.json`` or ``coordinates.npy`` and ``volume.json``; ``rois.json``; ``stimuli.json``;
    ``splits/NAME.json``; ``dataset.json``; and ``prepared.json``, which says what was done to which files.

    Parameters
    ----------
    trials : Trials
    folder : path-like
        Must not exist.
    link : bool
        Link to images that are files, instead of copying them.
    say : callable
        Called with each line of progress.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    UsageError
        If the folder exists.
    DataError
        If a file cannot be read, or the disk is too small.
    """
    target = Path(folder)
    if target.exists():
        raise UsageError(f"{target}: exists already; give a new folder")
    identity = identify(trials)
    working = target.with_name(target.name + ".partial")
    create_folder(target.parent)
    lock = FileLock.take(target.with_name(f".{target.name}.lock"), wait=True)
    try:
        if target.exists():  # another process has just made it
            if _identity(target / PREPARED) != identity:
                raise UsageError(f"{target}: exists already, made from other data; give a new folder")
            return target
        if working.exists() and _identity(working / _STATE) != identity:
            _remove_outdated(working)
        create_folder(working)
        _write(trials, working, identity, link, say)
        os.replace(working, target)
    finally:
        if lock is not None:
            lock.release(remove=True)
    return target


def _identity(file: Path) -> str | None:
    """The identity of the trials that a folder is made from, of the file that states it."""
    value = read_json(file) if file.is_file() else {}
    return value.get("identity") if isinstance(value, dict) else None


def _remove_outdated(working: Path) -> None:
    """Remove an interrupted preparation of other trials; a folder of the user's that has the same name is kept."""
    if any(working.iterdir()) and not any((working / name).is_file() for name in (_STATE, PREPARED)):
        raise UsageError(f"{working}: expected an interrupted preparation, found another folder; rename or move it")
    shutil.rmtree(working)


def identify(trials: Trials) -> str:
    """SHA-256 over what determines the content of the prepared folder; files count by name, size and time of change."""
    read = (*trials.files, *trials.extra_files)
    files = [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in read]
    digest = hashlib.sha256()
    parts: tuple[Any, ...] = (_VERSION, trials.name, trials.layout, files, trials.standardise, trials.units)
    digest.update(json.dumps([*parts, trials.images.names, trials.images.groups]).encode())
    digest.update(json.dumps([trials.vertices.space, trials.dataset.to_json(), trials.kind]).encode())
    digest.update(json.dumps({name: dict(sides) for name, sides in trials.splits.items()}).encode())
    digest.update(json.dumps(list(trials.rois)).encode())
    for array in (*(session.images for session in trials.sessions), trials.vertices.ids, *trials.rois.values()):
        digest.update(np.ascontiguousarray(array, np.int64).tobytes())
    if trials.coordinates is not None:
        digest.update(np.ascontiguousarray(trials.coordinates, np.float32).tobytes())
    for name, values in (trials.stated or {}).items():
        digest.update(name.encode() + np.ascontiguousarray(values, np.float64).tobytes())
    return digest.hexdigest()


def prepared_bytes(trials: Trials) -> int:
    """Bytes of the averaged responses."""
    return 4 * len(trials.images) * len(trials.vertices)


def _write(trials: Trials, folder: Path, identity: str, link: bool, say: Say) -> None:
    responses, images = prepared_bytes(trials), trials.images.estimate_bytes(link=link)
    _check_disk(responses + images, folder)
    sizes = f"responses of {format_bytes(responses)}" + (f", images of about {format_bytes(images)}" if images else "")
    say(f"preparing {trials.describe()}; {sizes}, in {folder.parent}")
    write_json(folder / _STATE, {"identity": identity, **_state(folder)})
    with progress_bar("writing images", "images") as advance:
        trials.images.write(folder / "images", link=link, progress=advance)
    _write_responses(trials, folder)
    _write_tables(trials, folder)
    for file in trials.extra_files:
        shutil.copyfile(file, folder / file.name)
    described = _describe(trials, folder, identity)
    write_json(folder / PREPARED, described)
    for name in (_VARIANCES, _STATE):  # last: an interruption before this resumes
        (folder / name).unlink(missing_ok=True)
    if problem := ncsnr_problem(described):
        say(f"WARNING: {problem}")


def _check_disk(size: int, folder: Path) -> None:
    free, needed = shutil.disk_usage(folder).free, int(size * _SPARE)
    if free < needed and not (folder / "responses.npy").exists():
        raise DataError(
            f"{folder}: expected {format_bytes(needed)} of free disk for the averaged responses and images, found "
            f"{format_bytes(free)}; choose fewer vertices (--roi), or another cache folder ($BRAINKIT_CACHE)"
        )


def _write_responses(trials: Trials, folder: Path) -> None:
    """Averaged responses, ncsnr and ceilings, a block of columns at a time."""
    shape = len(trials.images), len(trials.vertices)
    state = _state(folder)
    responses, variances = folder / "responses.npy", folder / _VARIANCES
    if not state.get("blocks"):
        try:
            np.lib.format.open_memmap(responses, mode="w+", dtype=np.dtype("<f4"), shape=shape).flush()
            # Not sparse: writing to a mapped file on a full disk would end the process.
            np.save(variances, np.zeros((2, shape[1])))
        except OSError as error:
            raise BrainkitError(f"{responses}: cannot be written: {error.strerror or error}") from error
    blocks = column_blocks(trials)
    left = [block for block in blocks if [block.start, block.stop] not in state.get("blocks", [])]
    with progress_bar("averaging trials", "columns") as advance:
        for done in average(trials, left):
            _write_block(done, responses, variances, shape)
            state.setdefault("blocks", []).append([done.columns.start, done.columns.stop])
            state["usable"] = state.get("usable", 0) + int(np.isfinite(done.responses).all(axis=0).sum())
            write_json(folder / _STATE, state)
            advance(sum(stop - start for start, stop in state["blocks"]), shape[1])
    if not state["usable"]:
        raise DataError(
            f"{trials.root}: expected columns that were measured in every session, found none of {shape[1]:,}; look "
            "for a session without responses, or with the same response in all trials"
        )
    signal, noise = np.load(variances)
    with np.errstate(invalid="ignore", divide="ignore"):
        ncsnr = np.sqrt(np.maximum(signal, 0.0) / noise)
    arrays: dict[str, npt.NDArray[Any]] = dict(trials.stated or {})
    if trials.stated is None:
        arrays["repetitions"] = trials.repetitions.astype(np.int32)
        if np.isfinite(ncsnr).any():
            arrays["ncsnr"] = ncsnr.astype(np.float32)
            arrays["noise_ceiling"] = noise_ceiling_from_ncsnr(ncsnr, _counts(trials)).values.astype("<f4")
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)


def _write_block(block: Averaged, responses: Path, variances: Path, shape: tuple[int, int]) -> None:
    """Write into the files' places without mapping them: mapped pages count as memory."""
    start, offset = block.columns.start, _data_offset(responses)
    try:
        with responses.open("r+b", buffering=0) as file:
            if block.responses.shape[1] == shape[1]:
                file.seek(offset)
                block.responses.tofile(file)
            else:
                for row, values in enumerate(block.responses):
                    file.seek(offset + 4 * (row * shape[1] + start))
                    file.write(values.tobytes())
            os.fsync(file.fileno())
    except OSError as error:
        raise BrainkitError(f"{responses}: cannot be written: {error.strerror or error}") from error
    mapped = np.load(variances, mmap_mode="r+")
    mapped[:, block.columns] = block.signal, block.noise
    mapped.flush()


def _data_offset(path: Path) -> int:
    return int(np.load(path, mmap_mode="r").offset)


def _write_tables(trials: Trials, folder: Path) -> None:
    if trials.vertices.space != CUSTOM:
        write_json(folder / "vertices.json", {"space": trials.vertices.space, "ids": trials.vertices.ids.tolist()})
    if trials.coordinates is not None:
        np.save(folder / "coordinates.npy", np.asarray(trials.coordinates, np.float32))
    if trials.volume is not None:
        affine = trials.volume.affine.tolist()
        write_json(folder / "volume.json", {"shape": list(trials.volume.shape), "affine": affine})
    write_json(folder / "rois.json", {name: np.asarray(columns).tolist() for name, columns in trials.rois.items()})
    groups = dict(zip(trials.images.names, trials.images.groups, strict=True))
    write_json(folder / "stimuli.json", {name: group for name, group in groups.items() if group is not None})
    write_json(folder / dataset.FILE, {**trials.dataset.to_json(), "image_order": "text"})
    create_folder(folder / FOLDER)
    for name, sides in trials.splits.items():
        write_json(folder / FOLDER / f"{safe_name(name)}.json", {side: list(images) for side, images in sides.items()})


def _describe(trials: Trials, folder: Path, identity: str) -> dict[str, Any]:
    repetitions = np.bincount(trials.repetitions)
    value = {
        "schema": _VERSION,
        "brainkit": __version__,
        "identity": identity,
        "subject": trials.name,
        "layout": trials.layout,
        "source": trials.root.name,
        "kind": trials.kind,
        "units": trials.units,
        "note": trials.note,
        "notes": list(trials.notes),
        "sessions": {session.name: len(session.images) for session in trials.sessions},
        "files": {file.name: file.stat().st_size for file in trials.files},
        "trials": trials.n_trials,
        "images": len(trials.images),
        "images_by_repetitions": {str(times): int(count) for times, count in enumerate(repetitions) if count},
        "columns": len(trials.vertices),
        "standardised": {"within": "session", "ddof": 0} if trials.standardise else None,
        "noise_ceiling": _ceiling_method(trials),
        "responses_sha256": _sha256(folder / "responses.npy"),
    }
    if trials.ncsnr is not None and (folder / "ncsnr.npy").exists():
        value["published_ncsnr"] = _agreement(np.load(folder / "ncsnr.npy"), trials.ncsnr)
    return value


def ncsnr_problem(described: Mapping[str, Any]) -> str:
    """Whether our estimate of the noise contradicts the data set's own, from ``prepared.json``; empty: it does not."""
    found = described.get("published_ncsnr", {})
    if found.get("columns", 0) < _MANY_COLUMNS or found["r"] >= _LEAST_AGREEMENT:
        return ""
    return (
        f"our signal-to-noise ratios (ncsnr) hardly agree with those of the data set (r {found['r']:.2f}): files of "
        "several versions of the responses may be mixed, or images and trials do not belong together"
    )


def _ceiling_method(trials: Trials) -> str:
    if trials.stated is not None:
        return "as the data state it" if "noise_ceiling" in trials.stated else "none"
    return "nsd, pooled over images" if trials.standardise else "anova, one-way"


def _agreement(own: npt.NDArray[Any], published: npt.NDArray[Any]) -> dict[str, Any]:
    """Correlation and median difference of the data set's own ncsnr and ours."""
    both = np.isfinite(own) & np.isfinite(published)
    if both.sum() < 2:
        return {"columns": int(both.sum())}
    return {
        "columns": int(both.sum()),
        "r": round(float(np.corrcoef(own[both], published[both])[0, 1]), 4),
        "median_difference": round(float(np.median(own[both] - published[both])), 5),
    }


def _counts(trials: Trials) -> dict[int, int]:
    return {times: int(count) for times, count in enumerate(np.bincount(trials.repetitions)) if count}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(folder: Path) -> dict[str, Any]:
    path = folder / _STATE
    value = read_json(path) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def missing_sessions(found: Sequence[int], expected: int, allow: bool, where: str, hint: str = "") -> tuple[str, ...]:
    """Note on sessions that are not there, or an error where that is not allowed.

    Parameters
    ----------
    found : sequence of int
        Numbers of the sessions that are there, from 1.
    expected : int
        How many there should be.
    allow : bool
    where : str
        For messages.
    hint : str
        What is known of the missing ones, for the end of the message and the note.

    Raises
    ------
    DataError
        Names the sessions.
    """
    missing = sorted(set(range(1, expected + 1)) - set(found))
    if not missing:
        return ()
    listed = ", ".join(map(str, missing))
    if not allow:
        raise DataError(
            f"{where}: expected {plural(expected, 'session')}, found {len(found)}, without session {listed}; download "
            f"the rest, or use the sessions that are there: --allow-missing-sessions{hint and '; '}{hint}"
        )
    return (f"without session {listed} of {expected}{hint and '; '}{hint}",)
