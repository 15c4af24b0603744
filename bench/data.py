"""Preparing a subject of NSD from its released files, and opening it again: ``python -m bench.data --folder DIR``.

A subject is made up in the files of the release: sessions of 750 trials, as on the subject's own surface (HDF5, a chunk
a vertex) or on fsaverage (.mgh, of which the vertices in nsdgeneral are prepared). Preparing it and a plain read of the
same files take turns, both after the operating system has been asked to forget them. The pictures have few pixels:
writing them is not what is measured. 40 sessions of 40,000 vertices take 2.4 GB on the subject's own surface and
40 GB on fsaverage, and what is prepared from them 1.6 GB.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.report import load_average, write_report
from brainkit.cortex.vertices import SPACES
from brainkit.data.readers import open_subject, open_trials
from brainkit.data.trials import Trials, prepare_subject
from brainkit.sample_layouts.nsd_files import write_brick, write_columns, write_mat, write_mgh
from brainkit.utils.files import write_json
from brainkit.utils.system import PeakMemory

TRIALS = 750
IMAGES = 73_000
VERSION = "betas_fithrf_GLMdenoise_RR"
_PIXELS = 16
_STEP = 16 << 20  # bytes of a plain read at a time
GOALS = {"peak_bytes": 4e9, "share": 0.5, "open_seconds": 2.0}


def make_subject(folder: Path, sessions: int, vertices: int, space: str, trials: int = TRIALS) -> None:
    """Write a made-up subject 1, whose responses have a signal in each image."""
    rng = np.random.default_rng(0)
    images = sessions * trials // 3
    order = rng.permutation(np.repeat(np.arange(images), 3))[: sessions * trials]
    ids = np.sort(rng.choice(IMAGES, images, replace=False))
    shared = images // 10
    of_subjects = np.tile(ids, (8, 1))
    design = folder / "nsddata/experiments/nsd/nsd_expdesign.mat"
    write_mat(design, masterordering=order[None] + 1, subjectim=of_subjects + 1, sharedix=ids[None, :shared] + 1)
    pictures = {int(number): rng.integers(1, 255, (_PIXELS, _PIXELS, 3), np.uint8) for number in ids}
    write_brick(folder / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", IMAGES, pictures)
    write_json(folder / "simulated.json", {"note": "made up by bench.data"})
    halves = {"lh": vertices // 2, "rh": vertices - vertices // 2}
    wholes = {side: np.arange(count) for side, count in halves.items()}
    size = SPACES["fsaverage"]
    if space == "fsaverage":
        wholes = {side: np.sort(rng.choice(size, count, replace=False)) for side, count in halves.items()}
        for side, chosen in wholes.items():
            mask = np.zeros(size, np.int32)
            mask[chosen] = 1
            write_mgh(folder / f"nsddata/freesurfer/fsaverage/label/{side}.nsdgeneral.mgz", mask)
    else:
        _write_spheres(folder / "nsddata/freesurfer/subj01/surf", halves, rng)
    betas = folder / "nsddata_betas/ppdata/subj01" / space / VERSION
    for side, chosen in wholes.items():
        signal = rng.standard_normal((images, len(chosen)), np.float32)
        for session in range(sessions):
            shown = order[session * trials : (session + 1) * trials]
            values = signal[shown] + rng.standard_normal((trials, len(chosen)), np.float32)
            name = f"{side}.betas_session{session + 1:02d}"
            if space == "fsaverage":
                whole = np.full((size, trials), 0.5, np.float32)
                whole[chosen] = values.T
                write_mgh(betas / f"{name}.mgh", whole)
            else:
                write_columns(betas / f"{name}.hdf5", np.rint(300 * values).astype(np.int16))


def _write_spheres(folder: Path, halves: dict[str, int], rng: np.random.Generator) -> None:
    from nibabel.freesurfer import write_geometry

    folder.mkdir(parents=True)
    for side, count in halves.items():
        points = rng.standard_normal((count, 3))
        points *= 100 / np.linalg.norm(points, axis=1, keepdims=True)
        write_geometry(folder / f"{side}.sphere.reg", points, np.array([[0, 1, 2]]), create_stamp="made up")


def check(location: str, rois: Sequence[str], folder: Path) -> None:
    """Exit unless some vertices, prepared, are the means over standardised trials."""
    trials = _restricted(location, rois)
    columns = np.arange(0, len(trials.vertices), max(1, len(trials.vertices) // 20))
    sums = np.zeros((len(trials.images), len(columns)))
    for session in trials.sessions:
        values = session.read(columns).astype(np.float64)
        np.add.at(sums, session.images, (values - values.mean(0)) / values.std(0))
    found = np.load(folder / "responses.npy", mmap_mode="r")[:, columns]
    difference = float(np.abs(found - sums / trials.repetitions[:, None]).max())
    if difference > 1e-4:
        raise SystemExit(f"wrong: prepared responses differ by {difference}")


def _restricted(location: str, rois: Sequence[str]) -> Trials:
    trials = open_trials(location)
    return trials.restrict(rois) if rois else trials


def forget(files: Sequence[Path]) -> None:
    """Ask the operating system to keep nothing of these files in memory."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def plain_read(files: Sequence[Path]) -> None:
    """Read files from the first byte to the last."""
    buffer = bytearray(_STEP)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def measure(location: str, rois: Sequence[str], folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds of a plain read, of preparing and of opening, in turns; the peak memory of preparing."""
    files = [file for session in open_trials(location).sessions for file in session.files]
    size = sum(file.stat().st_size for file in files)
    found: list[dict[str, float]] = []
    for turn in range(rounds):
        target = folder / f"prepared-{turn}"
        shutil.rmtree(target, ignore_errors=True)
        forget(files)
        read = _seconds(lambda: plain_read(files))
        forget(files)
        with PeakMemory() as memory:
            prepare = _seconds(lambda to=target: prepare_subject(_restricted(location, rois), to, say=_quiet))
            peak = memory.lap()["resident"] or 0
        check(location, rois, target)
        shutil.rmtree(target)
        found.append({"read_seconds": read, "prepare_seconds": prepare, "peak_bytes": float(peak)})
        _show(f"round {turn + 1} of {rounds}: read {read:.1f} s, prepare {prepare:.1f} s, {peak / 1e9:.2f} GB")
    open_subject(location, rois=rois, say=_quiet)  # prepared in the cache
    opening = [_seconds(lambda: open_subject(location, rois=rois, say=_quiet)) for _ in range(rounds)]
    read, prepare = (statistics.median(each[key] for each in found) for key in ("read_seconds", "prepare_seconds"))
    return {
        "bytes": size,
        "rounds": found,
        "open_rounds": opening,
        "headline": {
            "read_seconds": read,
            "prepare_seconds": prepare,
            "share": read / prepare,
            "peak_bytes": max(each["peak_bytes"] for each in found),
            "open_seconds": statistics.median(opening),
        },
    }


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _quiet(line: str) -> None:
    pass


def _show(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a new folder on the disk that is measured")
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--trials", type=int, default=TRIALS, help="a session")
    parser.add_argument("--vertices", type=int, default=40_000, help="that are prepared")
    parser.add_argument("--space", choices=("nativesurface", "fsaverage"), default="nativesurface")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="data")
    options = parser.parse_args()

    facts = machine.describe(threads=1)
    source = options.folder / "nsd"
    if not source.is_dir():
        _show("making up a subject")
        make_subject(source, options.sessions, options.vertices, options.space, options.trials)
    os.environ["BRAINKIT_CACHE"] = str(options.folder / "cache")
    rois = ("nsdgeneral",) if options.space == "fsaverage" else ()
    measured = measure(f"nsd:{source}?space={options.space}", rois, options.folder, options.rounds)
    sizes = {name: getattr(options, name) for name in ("sessions", "trials", "vertices", "space")}
    report = {"machine": facts | {"load after": load_average()}, "sizes": sizes, "goals": GOALS, **measured}
    write_report(options.name, report, page(report))


def page(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    sizes, facts, found, goals = report["sizes"], report["machine"], report["headline"], report["goals"]
    rate = report["bytes"] / 1e6
    return f"""# Preparing a subject of NSD

{sizes["sessions"]} sessions of {sizes["trials"]} trials, {sizes["vertices"]:,} vertices of {sizes["space"]}, files of
{report["bytes"] / 1e9:.2f} GB; median of {len(report["rounds"])} rounds, files not in memory before each.

| | | goal |
|---|---|---|
| plain read of the files | {found["read_seconds"]:.1f} s ({rate / found["read_seconds"]:.0f} MB/s) | |
| prepare | {found["prepare_seconds"]:.1f} s ({rate / found["prepare_seconds"]:.0f} MB/s) | |
| rate of preparing / rate of the plain read | {found["share"]:.2f} | {goals["share"]} or more |
| peak memory of preparing | {found["peak_bytes"] / 1e9:.2f} GB | {goals["peak_bytes"] / 1e9:.0f} GB |
| open the prepared subject | {found["open_seconds"]:.2f} s | {goals["open_seconds"]:.0f} s |

{facts["processor"]}, {facts["cores"]} cores, NumPy {facts["numpy"]}; load {facts["load before"]} before,
{facts["load after"]} after.
"""


if __name__ == "__main__":
    main()
