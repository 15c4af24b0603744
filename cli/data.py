"""``brainkit data``."""

from __future__ import annotations

import functools
from pathlib import Path

import click

from brainkit.cli._values import locations, part_options

roi_option = click.option(
    "--roi",
    "rois",
    multiple=True,
    metavar="NAME",
    help="Only the vertices of this ROI, expression or file; can be repeated.",
)


class DataGroup(click.Group):
    """``brainkit data DIR`` is ``brainkit data show DIR``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(
    "data",
    cls=DataGroup,
    invoke_without_command=True,
    epilog="""\b
Examples:
  brainkit data algonauts/subj01
  brainkit data my-data --out my-data.html
  brainkit data prepare my-trials --out my-data
""",
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Describe a subject's data and find what is wrong with them, or prepare them from single trials.

    `brainkit data DIR` is short for `brainkit data show DIR`.
    """
    if ctx.invoked_subcommand is None:
        raise click.UsageError("give the data: brainkit data DIR; or a command: list, prepare, remove", ctx=ctx)


@command.command(
    "show",
    epilog="""\b
Examples:
  brainkit data algonauts/subj01
  brainkit data algonauts/subj01 --backbone dinov2 --out subj01.html
""",
)
@click.argument("path", type=click.Path(path_type=Path), metavar="DIR")
@part_options
@roi_option
@click.option(
    "--backbone",
    metavar="NAME",
    help="Network whose training is estimated.  [default: efficientnet_lite0]",
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Also write a page with example images and maps."
)
@click.option("--overwrite", is_flag=True, help="Write over a file that exists.")
def show(
    path: Path,
    subjects: tuple[str, ...],
    betas: str | None,
    space: str | None,
    allow_missing_sessions: bool,
    rois: tuple[str, ...],
    backbone: str | None,
    out: Path | None,
    overwrite: bool,
) -> None:
    """Describe a subject's data: images, trials, vertices, ROIs, noise ceilings, split, what training takes, problems.

    All images are decoded once. Data of trials that are not prepared are described without reading a response. The
    memory and time that training takes are estimated from a few steps on random numbers.
    """
    from brainkit.runs.data_report import inspect_data, write_data_page

    say = functools.partial(click.echo, err=True)
    for location in locations((path,), subjects, betas, space, allow_missing_sessions):
        report = inspect_data(location, rois=rois, backbone=backbone, say=say)
        found = report.inspection
        click.echo(found.title)
        for name, text in found.facts:
            click.echo(f"  {name:<16}{text}")
        for table in found.tables:
            click.echo("\n".join(table.plain()))
        click.echo("problems" if found.problems else "no problems found")
        for problem in found.problems:
            click.echo(f"  - {problem}")
        if out is not None:
            say(f"wrote {write_data_page(report, out, overwrite=overwrite)}")


@command.command(
    "prepare",
    epilog="""\b
Examples:
  brainkit data prepare my-trials --out my-data
  brainkit data prepare my-trials --roi V1,FFA --out my-data
""",
)
@click.argument("path", type=click.Path(path_type=Path), metavar="SRC")
@part_options
@roi_option
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The new folder; must not exist."
)
def prepare(
    path: Path,
    subjects: tuple[str, ...],
    betas: str | None,
    space: str | None,
    allow_missing_sessions: bool,
    rois: tuple[str, ...],
    out: Path,
) -> None:
    """Standardise and average single trials, and write them as a folder of own data that any tool reads.

    The folder has the images, the averaged responses, noise ceilings from the repetitions, ROIs and splits. An
    interrupted preparation is resumed by the same command.
    """
    from brainkit.runs.data_report import prepare_data

    say = functools.partial(click.echo, err=True)
    found = locations((path,), subjects, betas, space, allow_missing_sessions)
    if len(found) > 1:
        raise click.UsageError("give one --subject: each has a folder of its own")
    click.echo(f"wrote {prepare_data(found[0], out, rois=rois, say=say)}")


@command.command(
    "list",
    epilog="""\b
Examples:
  brainkit data list
  brainkit data list --check
""",
)
@click.option("--check", is_flag=True, help="Compare the responses with their checksums. Exit code 1 if some differ.")
@click.pass_context
def list_(ctx: click.Context, check: bool) -> None:
    """List the prepared subjects in $BRAINKIT_CACHE/prepared, the newest first."""
    from brainkit.data.trials.cached import check_cached, list_prepared
    from brainkit.utils.text import format_bytes, plural

    subjects, damaged = list_prepared(), False
    for each in subjects:
        what = f"{each.images:,} images x {each.columns:,}, {each.layout}" if each.layout else "interrupted"
        problem = check_cached(each) if check and each.layout else ""
        damaged = damaged or bool(problem)
        click.echo(f"{each.name}  {format_bytes(each.nbytes)}  {what}{problem and f': {problem}'}")
    click.echo(f"{plural(len(subjects), 'prepared subject')}, {format_bytes(sum(each.nbytes for each in subjects))}")
    if damaged:
        ctx.exit(1)


@command.command(
    "remove",
    epilog="""\b
Examples:
  brainkit data remove subj01-3f9a
  brainkit data remove --all
""",
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="All prepared subjects.")
def remove(names: tuple[str, ...], everything: bool) -> None:
    """Remove prepared subjects from the cache; they are prepared again when needed. Not while a run uses them."""
    from brainkit.data.trials.cached import find_cached, list_prepared, remove_cached
    from brainkit.utils.text import format_bytes

    if bool(names) == everything:
        raise click.UsageError("give what to remove: either NAME..., or --all")
    for each in find_cached(names) if names else list_prepared():
        remove_cached(each)
        click.echo(f"{each.name}: removed, {format_bytes(each.nbytes)} freed")
