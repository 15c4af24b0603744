"""``brainkit average``."""

from __future__ import annotations

from pathlib import Path

import click

from brainkit.cli._values import threads_option


@click.command(
    "average",
    epilog="""\b
Examples:
  brainkit average runs/subj01 runs/subj02 runs/subj05 --out average.onnx
  brainkit average runs/subj01 runs/subj02 --fp16 --out small.onnx
""",
)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN RUN [RUN ...]")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Output file, .onnx.")
@click.option(
    "--target",
    type=click.Choice(["cpu", "gpu"]),
    default="cpu",
    show_default=True,
    help="Device that the file is fast on.",
)
@click.option("--fp16", is_flag=True, help="Half the file size: store large constants in half precision.")
@threads_option
def command(runs: tuple[Path, ...], out: Path, target: str, fp16: bool, threads: int | None) -> None:
    """Write an encoder of the average subject: the mean of several subjects' predictions at each vertex.

    Each RUN is a finished run of another subject, of the same network and cortical space. The file predicts for the
    vertices that all of them have, with the spread over subjects. Needs brainkit[train].
    """
    from brainkit.runs.average import average

    average(runs, out, target=target, storage="float16" if fp16 else "float32", threads=threads, say=click.echo)
