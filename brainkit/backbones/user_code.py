"""Errors in a network's own code: in one line that names the network and the line of code."""

from __future__ import annotations

import contextlib
import inspect
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from brainkit.errors import BrainkitError
from brainkit.utils.text import one_line, with_type


@contextlib.contextmanager
def reported(doing: str, file: str | None = None, advice: str = "") -> Iterator[None]:
    """Turn any error of the block into one line: what failed, the error, and where.

    Parameters
    ----------
    doing : str
        The network and what failed, for example ``"net.py:Net: get_tokens failed"``.
    file : str, optional
        The file of the network's code; the innermost line in it is named. By default the innermost line of all.
    advice : str
        The end of the message.

    Raises
    ------
    BrainkitError
        In place of the error. Out of memory, interruptions and brainkit's own errors pass as they are.
    """
    try:
        yield
    except (BrainkitError, MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and type(error) is not SystemExit:
            raise  # a signal that ends the program
        if isinstance(error, ModuleNotFoundError) and error.name:
            advice = f"; install {error.name}, or put its folder on PYTHONPATH"
        raise BrainkitError(f"{doing}: {_message(error)}{_place(error, file)}{advice}") from error


def file_of(network: object) -> str | None:
    """The file of a network's ``get_tokens``, as tracebacks name it."""
    method = getattr(network, "get_tokens", None)
    code = getattr(inspect.unwrap(method) if callable(method) else None, "__code__", None)
    return None if code is None else str(code.co_filename)


def _message(error: BaseException) -> str:
    line = with_type(error)
    # Some errors have a heading for their first line, such as those of load_state_dict.
    return f"{type(error).__name__}: {one_line(error)}" if line.endswith(":") else line


def _place(error: BaseException, file: str | None) -> str:
    """`` (net.py:12)``: the innermost line of the file, else of all Python code but brainkit's and the importer's."""
    if isinstance(error, SyntaxError):
        return ""  # its message has the line
    here = Path(__file__).parents[1].as_posix()
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file]
    others = [frame for frame in frames if not Path(frame.filename).as_posix().startswith((here, "<frozen"))]
    found = own or others
    return f" ({Path(found[-1].filename).name}:{found[-1].lineno})" if found else ""
