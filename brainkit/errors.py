"""The errors that users see. Each message is one line: what is wrong, what was expected, what to do."""

from __future__ import annotations

import importlib
from types import ModuleType


class BrainkitError(Exception):
    """An error that the user can act on; the message is a single line.

    Attributes
    ----------
    exit_code : int
        Of the command line: 1 if the work failed, 2 if the request was wrong.
    """

    exit_code = 1


class UsageError(BrainkitError):
    """A wrong request: an unknown name, a value out of range, options that exclude each other."""

    exit_code = 2


class DataError(BrainkitError):
    """A file or folder with wrong content; the message names it, what was expected and what was found."""


class ImageError(DataError):
    """An image cannot be read.

    Attributes
    ----------
    reason : str
        Why, without the image's name.
    missing : bool
        The file does not exist.
    """

    def __init__(self, message: str, *, reason: str | None = None, missing: bool = False) -> None:
        super().__init__(message)
        self.reason = message if reason is None else reason
        self.missing = missing


class EncoderFileError(BrainkitError):
    """An encoder file that is damaged, unsafe or of an unknown format."""


class TrainingError(BrainkitError):
    """Training failed, or its result is not usable."""


class FailedElsewhere(TrainingError):
    """Another process of the run has failed, which ends this one too and reports why."""


class StoppedTraining(TrainingError):
    """Training was asked to stop; its state is saved, and it can be resumed."""


class MissingDependency(BrainkitError):
    """An optional package is not installed; the message has the pip command that installs it."""


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency.

    Parameters
    ----------
    module : str
        Dotted name to import, for example ``"torch"``.
    extra : str
        The extra of brainkit that installs it, for example ``"train"``.
    purpose : str
        What needs it, the subject of the message, for example ``"brainkit train"``.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    MissingDependency
        If the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != module.split(".")[0]:
            raise
        package = module.split(".")[0]
        raise MissingDependency(
            f"{purpose} needs {package}, which is not installed; install it with: pip install 'brainkit[{extra}]'"
        ) from None
