"""Defaults of commands: the newest finished run, which ``runs/latest`` names, and its encoder file."""

from __future__ import annotations

import os
from pathlib import Path

from brainkit.encoder_file.file import locate, onnx_files
from brainkit.errors import DataError, EncoderFileError
from brainkit.utils.files import atomic_write
from brainkit.utils.progress import Say

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


def has_latest(runs: str | os.PathLike[str] = RUNS) -> bool:
    """Whether a finished run was ever named here."""
    return (Path(runs) / "latest").exists()


def default_encoder(say: Say, option: str = "--encoder FILE") -> Path:
    """The encoder of a command that is given none.

    Parameters
    ----------
    say : callable
        Called with a line that names it, unless it is that of the newest run.
    option : str
        How to give one, for the error.

    Returns
    -------
    Path
        Of the newest run; where there is none, the only ``.onnx`` file in the working folder.

    Raises
    ------
    DataError, EncoderFileError
        If there is neither, or more than one file; if there is a newest run (see `latest_run`), but no encoder in it.
    """
    if has_latest():
        run = latest_run()
        try:
            return locate(run)
        except EncoderFileError as error:
            raise EncoderFileError(f"{error}; it is the newest run (runs/latest), {option} names another") from None
    found = onnx_files(Path())
    if len(found) == 1:
        say(f"encoder: {found[0]}, the only encoder file in this folder")
        return found[0]
    if found:
        names = ", ".join(map(str, found[:10])) + (", ..." if len(found) > 10 else "")
        raise DataError(f"there is no run (runs/latest) here, but {len(found)} encoder files ({names}); give {option}")
    raise DataError(f"there is neither a run (runs/latest) nor an encoder file (.onnx) here; give {option}")


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
