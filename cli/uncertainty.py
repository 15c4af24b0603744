"""``brainkit uncertainty``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    "uncertainty",
    epilog="""\b
Examples:
  brainkit uncertainty
  brainkit uncertainty runs/dinov2-subj01
  brainkit uncertainty runs/seed0 runs/seed1 runs/seed2
""",
)
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN] [RUN ...]")
@click.option(
    "--max-se",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.1,
    show_default=True,
    metavar="S",
    help="Largest standard error of a reliable vertex, as a share of the selector's range.",
)
def command(runs: tuple[Path, ...], max_se: float) -> None:
    """Measure how sure the maps of a run are, from runs that repeat it.

    The first RUN is the one whose maps are used, by default the newest. The others are its repeats: runs on halves of
    its images, or on the same images with other seeds; by default those that brainkit train --repeats has trained.
    """
    from brainkit.runs.uncertainty import measure_uncertainty

    found = measure_uncertainty(runs[0] if runs else None, runs[1:], max_se=max_se)
    for line in found.table().plain():
        click.echo(line)
    click.echo(f"{found.run}: uncertainty.npz, uncertainty.json; brainkit map draws them")
