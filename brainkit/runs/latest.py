"""Which run is meant when none is named: the text file ``runs/latest``."""

from __future__ import annotations

import os
from pathlib import Path

from brainkit.errors import DataError
from brainkit.utils.files import read_json, write_beside

RUNS = Path("runs")


def latest_run(runs: str | os.PathLike[str] = RUNS) -> Path:
    """Find the newest finished run.

    Parameters
    ----------
    runs : path-like
        Folder that holds the text file ``latest``, whose only line is a run folder: absolute, or relative to `runs`.

    Returns
    -------
    Path
        The run folder, which exists.

    Raises
    ------
    DataError
        If there is no ``latest``, or it names nothing, or a folder that is gone.
    """
    pointer = Path(runs) / "latest"
    try:
        named = pointer.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise DataError(
            f"{pointer}: not found, so there is no newest run to use; `brainkit train` makes it, or name a run"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{pointer}: expected a text file that names a run, cannot read it ({error})") from None
    if not named or "\n" in named:
        raise DataError(f"{pointer}: expected one line that names a run folder, found {len(named.splitlines())} lines")
    run = Path(runs) / named
    if not run.is_dir():
        raise DataError(f"{pointer}: names the run {named}, but {run} is not there; train again, or name a run")
    return run


def latest_encoder(runs: str | os.PathLike[str] = RUNS) -> Path:
    """Find the encoder file of the newest finished run.

    Raises
    ------
    DataError
        If there is no newest run (see `latest_run`), or it was not exported yet.
    """
    run = latest_run(runs)
    encoder = run / "encoder.onnx"
    if not encoder.is_file():
        if (subjects := _subjects(run)) and all((run / name / "encoder.onnx").is_file() for name in subjects):
            files = ", ".join(str(run / name / "encoder.onnx") for name in subjects)
            raise DataError(f"{run}: is a run of {len(subjects)} subjects; name one of their encoders: {files}")
        raise DataError(f"{encoder}: not found; the newest run is not exported yet: run `brainkit export --onnx`")
    return encoder


def _subjects(run: Path) -> list[str]:
    """The folders in a run of several subjects; none in any other."""
    file = run / "run.json"
    summary = read_json(file) if file.is_file() else {}
    return list(summary.get("subjects", ())) if isinstance(summary, dict) else []


def name_latest(run: str | os.PathLike[str], runs: str | os.PathLike[str] = RUNS) -> Path:
    """Write ``runs/latest``, naming `run`: relative where it lies inside `runs`, so that the folder may be moved.

    Returns
    -------
    Path
        The text file written.
    """
    folder, target = Path(runs).resolve(), Path(run).resolve()
    named = target.relative_to(folder).as_posix() if target.is_relative_to(folder) else str(target)
    Path(runs).mkdir(parents=True, exist_ok=True)
    pointer = Path(runs) / "latest"
    with write_beside(pointer) as beside:
        beside.write_text(named + "\n", encoding="utf-8")
    return pointer
