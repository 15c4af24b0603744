"""What a mistyped command or option probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import click

from brainkit.utils.text import nearest_name

# What other programs call it -> what it is called here.
_OTHER_COMMANDS = {
    **dict.fromkeys(("fit", "run", "learn"), "train"),
    **dict.fromkeys(("score", "infer", "encode", "apply"), "predict"),
    **dict.fromkeys(("draw", "plot", "figures"), "map"),
    **dict.fromkeys(("convert", "save"), "export"),
    **dict.fromkeys(("describe", "show", "inspect"), "info"),
    **dict.fromkeys(("version", "v"), "--version"),
    **dict.fromkeys(("help", "h"), "--help"),
    "demo": "sample",
    "check": "verify",
}
_OTHER_OPTIONS = {
    **dict.fromkeys(("network", "model", "net", "arch"), "--backbone"),
    **dict.fromkeys(("subjects", "dataset", "input"), "--data"),
    **dict.fromkeys(("output", "o", "output-dir", "folder", "save", "name"), "--out"),
    **dict.fromkeys(("rois", "region", "regions"), "--roi"),
    **dict.fromkeys(("gpus", "num-gpus", "nproc"), "--devices"),
    **dict.fromkeys(("nodes",), "--num-nodes"),
    **dict.fromkeys(("workers", "num-workers", "cpus", "num-threads", "j"), "--threads"),
    **dict.fromkeys(("untrained", "random"), "--random-weights"),
    "no-map": "--no-maps",
    "continue": "--resume",
}


def command_like(words: Sequence[str], commands: Sequence[str]) -> str:
    """The end of a message about an unknown command, the first of the words that were given."""
    name = words[0].lower()
    if name == "help" and len(words) > 1:
        return f"; did you mean '{words[1]} --help'?"
    other = _OTHER_COMMANDS.get(name)
    return f"; did you mean {other!r}?" if other else nearest_name(name, commands)


def option_like(error: click.NoSuchOption) -> str:
    """A message about an unknown option: names the nearest, or for train the setting that it may be."""
    parameters = error.ctx.command.params if error.ctx else []
    options = {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    name = error.option_name.lstrip("-")
    settings = _settings_like(name) if "--set" in options else []
    keys = [setting.partition(".")[2] for setting in settings]
    as_setting = f"--set KEY=VALUE with {' or '.join(settings)}" if settings else ""
    close = difflib.get_close_matches(
        name, [option[2:] for option in options if option.startswith("--")], n=1, cutoff=0.65
    )
    if name in options:  # an argument
        meant = f"the same without {error.option_name}"
    elif (other := _OTHER_OPTIONS.get(name, "")) in options:
        meant = other
    elif close and name.replace("-", "_") not in keys:
        meant = f"--{close[0]}"
    else:
        meant = as_setting
    return f"no such option {error.option_name!r}" + (f"; did you mean {meant}?" if meant else "")


def _settings_like(name: str) -> list[str]:
    from brainkit.config import settings_like

    return settings_like(name)


class TrainCommand(click.Command):
    """``brainkit train`` has options only; what is given without one is probably the backbone, the data or the run."""

    allow_extra_args = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        super().parse_args(ctx, args)
        if ctx.args:
            raise click.UsageError(f"unexpected {ctx.args[0]!r}{_meaning(ctx.args[0], ctx)}", ctx)
        return ctx.args


def _meaning(word: str, ctx: click.Context) -> str:
    unassigned = [text for text in ctx.params["overrides"] if "=" not in text]
    if unassigned:
        return f"; did you mean --set {unassigned[0]}={word}?"
    if (Path(word) / "config.yaml").is_file():
        return f"; did you mean --out {word}?"
    if Path(word).is_dir():
        return f"; did you mean --data {word}?"
    return "" if ctx.params["backbone"] else f"; did you mean --backbone {word}?"
