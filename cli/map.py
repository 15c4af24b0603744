"""``brainkit map``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    "map",
    epilog="""\b
Examples:
  brainkit map
  brainkit map runs/dinov2-subj01 --out figures
  brainkit map encoder.onnx --out figures
""",
)
@click.argument("run", required=False, type=click.Path(path_type=Path), metavar="[RUN]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the figures.  [default: maps/ in the run folder, <file>-maps/ next to an encoder file]",
)
def command(run: Path | None, out: Path | None) -> None:
    """Draw accuracy, explained share, preferred layer, location and scale on the flattened cortex.

    RUN is a run folder or an encoder file, by default the newest finished run, else the only .onnx file here. Needs
    brainkit[maps].
    """
    from brainkit.runs.draw import draw_all

    draw_all(run, out=out, say=click.echo)
