"""``brainkit info``."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import click


@click.command(
    "info",
    epilog="""\b
Examples:
  brainkit info runs/dinov2-subj01/encoder.onnx
  brainkit info runs/dinov2-subj01
  brainkit info encoder.onnx --json | jq .certificate
""",
)
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE]")
@click.option("--json", "as_object", is_flag=True, help="Print one JSON object, without the arrays.")
def command(file: Path | None, as_object: bool) -> None:
    """Describe an encoder file: what it predicts, for whom, how well; its certificate, licence, what to cite.

    FILE may be the run folder that it is in; by default it is that of the newest run, else the only .onnx file here.
    Reads the metadata only, and checks the digest; nothing in the file is run.
    """
    from brainkit.encoder_file.describe import as_json, describe
    from brainkit.runs import latest

    file = file or latest.default_encoder(functools.partial(click.echo, err=True), "an encoder FILE")
    if as_object:
        click.echo(json.dumps(as_json(file), indent=2, allow_nan=False))
        return
    description = describe(file)
    previous = ""
    for label, text in description.facts:
        click.echo(f"{'' if label == previous else label:<12}{text}")
        previous = label
    click.echo(f"\n{'ROI':<24}{'vertices':>9}{'median r':>10}{'median R2':>11}{'of ceiling':>12}")
    for row in description.accuracy:
        click.echo(
            f"{row.name:<24}{row.vertices:>9,}{_number(row.r, '.3f'):>10}{_number(row.R2, '.3f'):>11}"
            f"{_number(row.explained, '.0f', ' %'):>12}"
        )


def _number(value: float, form: str, unit: str = "") -> str:
    return "-" if value != value else f"{value:{form}}{unit}"
