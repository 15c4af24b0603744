"""``brainkit verify``."""

from __future__ import annotations

import functools
from pathlib import Path

import click

from brainkit.cli._values import threads_option


@click.command(
    "verify",
    epilog="""\b
Examples:
  brainkit verify encoder.onnx
  brainkit verify encoder.onnx --run runs/dinov2-subj01
  brainkit verify encoder.onnx --run runs/dinov2-subj01 --images photos/
""",
)
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE]")
@click.option(
    "--run",
    "runs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="The run folder it was made from; repeat it for an ensemble. Needs brainkit[train].",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Photographs to compare on.  [default: the run's validation images]",
)
@threads_option
def command(file: Path | None, runs: tuple[Path, ...], images: Path | None, threads: int | None) -> None:
    """Check an encoder file against the run it was made from, or by itself.

    FILE may be the run folder that it is in; by default it is that of the newest run, else the only .onnx file here.
    With --run, the file must predict what model and backbone predict in torch, as when it was exported. Without it,
    digest, graph and signature are checked, and that single images give what batches give; this needs no torch. Exits
    with 1 if the differences are larger than allowed.
    """
    from brainkit.errors import BrainkitError
    from brainkit.runs import latest
    from brainkit.runs.verify import verify

    file = file or latest.default_encoder(functools.partial(click.echo, err=True), "an encoder FILE")
    found = verify(file, runs, images, threads=threads)
    for name, text in found.facts:
        click.echo(f"{name:<12}{text}")
    if not found.holds:
        where, difference, allowed = "", found.largest, found.allowed
        if difference <= allowed:
            where, difference, allowed = " at the median", found.median, found.allowed_median
        raise BrainkitError(
            f"{file}: differs by {difference:.1e} of a vertex's s.d.{where}, at most {allowed:.1e} is allowed"
        )
    click.echo(f"{'verdict':<12}good")
