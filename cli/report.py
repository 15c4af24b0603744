"""``brainkit report``."""

from __future__ import annotations

import functools
from pathlib import Path

import click


@click.command(
    "report",
    epilog="""\b
Examples:
  brainkit report
  brainkit report runs/dinov2 --out dinov2.html
  brainkit report runs/voxels --surface $SUBJECTS_DIR/subj01
  brainkit report runs/dinov2 runs/clip --out comparison.html
""",
)
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN]...")
@click.option(
    "--out",
    default="report.html",
    show_default=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The HTML file.",
)
@click.option("--overwrite", is_flag=True, help="Write over a file that exists.")
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="DIR", help="Where the data are now, if they have moved."
)
@click.option(
    "--surface",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The subject's own surface, of FreeSurfer or GIFTI files; voxels are projected on it.",
)
@click.option("--cortex/--no-cortex", default=True, show_default=True, help="Include a cortex to turn (about 2 MB).")
def command(
    runs: tuple[Path, ...], out: Path, overwrite: bool, data: Path | None, surface: Path | None, cortex: bool
) -> None:
    """Write a report of a run, or of several compared, as one HTML file to send.

    RUN is a run folder, by default the newest finished run. The report has the accuracy by ROI with intervals, the
    maps, the best and worst vertices with their images, training curves, settings, and how to reproduce and cite it.
    Of several runs, it has what `brainkit compare` finds. Needs brainkit[maps].
    """
    from brainkit.runs.report import write_report

    options = {"data": data, "surface": surface, "cortex": cortex, "overwrite": overwrite}
    write_report(runs, out, **options, say=functools.partial(click.echo, err=True))
