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
  brainkit export --fp16 --out small.onnx
  brainkit export runs/seed0 --ensemble runs/seed1 --ensemble runs/seed2 --out mean.onnx
""",
)
@click.argument("run", required=False, type=click.Path(path_type=Path), metavar="[RUN]")
@click.option("--onnx", is_flag=True, default=True, help="One ONNX file with standard operators (the default).")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Encoder file.  [default: encoder.onnx in the run]"
)
@click.option("--fp16", is_flag=True, help="Half the file: large constants are stored in half precision.")
@click.option("--int8", is_flag=True, help="A third of the file, faster on a CPU: the backbone multiplies in bytes.")
@click.option(
    "--ensemble",
    type=click.Path(path_type=Path),
    metavar="RUN",
    multiple=True,
    help="Another run, of another seed: predict the mean of all, and their spread. Repeat it for more.",
)
def command(run: Path | None, onnx: bool, out: Path | None, fp16: bool, int8: bool, ensemble: tuple[Path, ...]) -> None:
    """Write a trained run as one encoder file that predicts fMRI anywhere ONNX Runtime runs.

    RUN is a run folder; without it, the newest finished run. The file is checked against the trained model on real
    images before it is kept. Needs brainkit[train].
    """
    from brainkit import workflow

    if fp16 and int8:
        raise click.UsageError("--fp16 and --int8 exclude each other: a file is stored in one way.")
    storage = "float16" if fp16 else "int8" if int8 else "float32"
    workflow.export_all(run, out=out, storage=storage, ensemble=ensemble, say=click.echo)
