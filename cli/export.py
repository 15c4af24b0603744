"""``brainkit export``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    "export",
    epilog="""\b
Examples:
  brainkit export --onnx
  brainkit export runs/dinov2-subj01 --onnx --out dinov2-subj01.onnx
""",
)
@click.argument("run", required=False, type=click.Path(path_type=Path), metavar="[RUN]")
@click.option("--onnx", is_flag=True, default=True, help="One ONNX file with standard operators (the default).")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Encoder file.  [default: encoder.onnx in the run]"
)
def command(run: Path | None, onnx: bool, out: Path | None) -> None:
    """Write a trained run as one encoder file that predicts fMRI anywhere ONNX Runtime runs.

    RUN is a run folder; without it, the newest finished run. The file is checked against the trained model on real
    images before it is kept. Needs brainkit[train].
    """
    from brainkit import workflow

    workflow.export_all(run, out=out, say=click.echo)
