"""``brainkit info``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    "info",
    epilog="""\b
Example:
  brainkit info runs/dinov2-subj01/encoder.onnx
""",
)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
def command(file: Path) -> None:
    """Say what an encoder file holds: backbone, what it predicts, accuracy by region, certificate, licence.

    Reads the file's metadata only, and checks its digest; nothing in it is run.
    """
    from brainkit.description import describe

    description = describe(file)
    for what, text in description.facts:
        click.echo(f"{what:<12}{text}")
    click.echo(f"\n{'region':<24}{'vertices':>9}{'median r':>10}{'median R2':>11}{'of ceiling':>12}")
    for row in description.accuracy:
        click.echo(
            f"{row.name:<24}{row.vertices:>9,}{_number(row.r, '.3f'):>10}{_number(row.R2, '.3f'):>11}"
            f"{_number(row.explained, '.0f', ' %'):>12}"
        )


def _number(value: float, form: str, unit: str = "") -> str:
    return "-" if value != value else f"{value:{form}}{unit}"
