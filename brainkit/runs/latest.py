"""``runs/latest``: the text file that names the newest finished run, for commands that are given none."""

from __future__ import annotations

import os
from pathlib import Path

from brainkit.errors import DataError
from brainkit.utils.files import atomic_write, read_json

RUNS = Path("runs")


def latest_run(runs: str | os.PathLike[str] = RUNS) -> Path:
    """Find the newest finished run.

    Parameters
    ----------
    runs : path-like
        Folder with the text file ``latest``, whose only line is a run folder: absolute, or relative to `runs`.

    Returns
    -------
    Path
        The run folder, which exists.

    Raises
    ------
    DataError
        If there is no ``latest``, or it does not name an existing folder.
    """
    pointer = Path(runs) / "latest"
    try:
        name = pointer.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise DataError(
            f"{pointer}: not found, so there is no newest run; run `brainkit train`, or name a run"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{pointer}: expected a text file that names a run, cannot read it ({error})") from None
    if not name or "\n" in name:
        raise DataError(f"{pointer}: expected one line that names a run folder, found {len(name.splitlines())} lines")
    run = Path(runs) / name
    if not run.is_dir():
        raise DataError(f"{pointer}: names the run {name}, but {run} does not exist; train again, or name a run")
    return run


def latest_encoder(runs: str | os.PathLike[str] = RUNS) -> Path:
    """Find the encoder file of the newest finished run.

    Raises
    ------
    DataError
        If there is no newest run (see `latest_run`), it has not been exported, or it is a run of several subjects.
    """
    run = latest_run(runs)
    encoder = run / "encoder.onnx"
    if not encoder.is_file():
        encoders = [run / name / "encoder.onnx" for name in _subject_names(run)]
        if encoders and all(file.is_file() for file in encoders):
            files = ", ".join(map(str, encoders))
            raise DataError(f"{run}: is a run of {len(encoders)} subjects; name one of their encoders: {files}")
        raise DataError(f"{encoder}: not found; export the newest run first: brainkit export --onnx")
    return encoder


def name_latest(run: str | os.PathLike[str], runs: str | os.PathLike[str] = RUNS) -> Path:
    """Write ``runs/latest``: `run` relative to `runs` if it is inside, so that the folder can be moved.

    Returns
    -------
    Path
        The text file.
    """
    folder, target = Path(runs).resolve(), Path(run).resolve()
    name = target.relative_to(folder).as_posix() if target.is_relative_to(folder) else str(target)
    Path(runs).mkdir(parents=True, exist_ok=True)
    pointer = Path(runs) / "latest"
    with atomic_write(pointer) as temporary:
        temporary.write_text(name + "\n", encoding="utf-8")
    return pointer


def _subject_names(run: Path) -> list[str]:
    """The subjects of a run of several; empty for any other."""
    file = run / "run.json"
    summary = read_json(file) if file.is_file() else {}
    return list(summary.get("subjects", ())) if isinstance(summary, dict) else []
