"""The end of a run whose results are written: ``runs/latest``, maps, and the final report."""

from __future__ import annotations

import shlex
from pathlib import Path

from brainkit.runs.animate import animate_run
from brainkit.runs.draw import draw_if_possible
from brainkit.runs.folder import SNAPSHOTS, is_repeat, run_folders
from brainkit.runs.latest import name_latest
from brainkit.runs.log import PhaseClock, RunLog
from brainkit.runs.summary import report
from brainkit.utils.files import read_json


def finish_run(folder: Path, log: RunLog, clock: PhaseClock, *, maps: bool = True) -> None:
    """Name the run as the newest, draw its maps if wanted and possible, and report scores, time and memory."""
    if not is_repeat(folder):
        name_latest(folder)
    folders = run_folders(folder)
    if maps:
        for each in folders:
            draw_if_possible(each, log)
            if (each / SNAPSHOTS).is_dir() and (each / "maps").is_dir():
                animate_run([each], say=log)
        clock.end_phase("maps")
    else:
        log(f"no maps drawn, as asked; to draw them: brainkit map {shlex.quote(str(folder))}")
    for each in folders:
        if each != folder:
            log(f"{each.name}:")
        if not _is_imported(each):
            report(each, clock, log)


def finish_interrupted(folder: Path, log: RunLog, clock: PhaseClock, *, maps: bool = True) -> None:
    """Finish a run that has its results but was stopped before `finish_run` had done all that is wanted."""
    if not all(((each / "maps").is_dir() or not maps) and _is_reported(each) for each in run_folders(folder)):
        log.open_file(folder / "log.txt")
        finish_run(folder, log, clock, maps=maps)


def _is_imported(folder: Path) -> bool:
    return "imported" in read_json(folder / "run.json")


def _is_reported(folder: Path) -> bool:
    return "memory" in read_json(folder / "run.json") or _is_imported(folder)
