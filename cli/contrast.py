"""``brainkit contrast``."""

from __future__ import annotations

import functools
from pathlib import Path

import click

from brainkit.cli._values import threads_option


@click.command(
    "contrast",
    epilog="""\b
Examples:
  brainkit contrast faces/ places/ --out contrast.npz
  brainkit contrast faces/ places/ --out contrast.csv --roi FFA,PPA --encoder dinov2-subj01.onnx
  brainkit contrast faces/ places/ --out contrast.npz --maps figures --max-q 0.01
""",
)
@click.argument("a")
@click.argument("b")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Output file: .npz, or .csv with one row per vertex. A .json next to it describes it.",
)
@click.option(
    "--encoder",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Encoder file, or the run folder it is in.  [default: of the newest run, else the only .onnx file here]",
)
@click.option(
    "--maps", type=click.Path(path_type=Path), metavar="DIR", help="Also draw the effect size on the flatmap."
)
@click.option(
    "--max-q",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="Q",
    help="With --maps: vertices with a false discovery rate of Q or more are pale.  [default: 0.05]",
)
@click.option(
    "--roi",
    "rois",
    multiple=True,
    metavar="NAME",
    help="Only these ROIs, by name, expression or file, also for the false discovery rate; may be repeated.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Device to predict on.",
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), metavar="N", help="Images per batch.  [default: by input size]"
)
@threads_option
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
def command(
    a: str,
    b: str,
    out: Path,
    encoder: Path | None,
    maps: Path | None,
    max_q: float | None,
    rois: tuple[str, ...],
    device: str,
    batch_size: int | None,
    threads: int | None,
    overwrite: bool,
) -> None:
    """Compare the responses predicted to two sets of images, A and B, at each vertex.

    A and B are folders of images, or anything else that predict accepts. The effect size is Hedges' g (Cohen's d with
    the pooled s.d., corrected for small samples); t is Welch's, p two-sided, q the false discovery rate after Benjamini
    and Hochberg. p and q are over images for one deterministic model, not over subjects.
    """
    from brainkit.encoder_file import read
    from brainkit.insilico.contrast import contrast
    from brainkit.insilico.contrast_output import (
        check_contrast_output,
        draw_contrast,
        passing,
        table_lines,
        write_contrast,
    )
    from brainkit.runs import latest
    from brainkit.utils.progress import progress_bar
    from brainkit.utils.text import plural, printable

    if max_q is not None and maps is None:
        raise click.UsageError("--max-q needs --maps: it is for the figure")
    encoder = encoder or latest.default_encoder(functools.partial(click.echo, err=True))
    check_contrast_output(out, overwrite)
    if maps is not None:
        from brainkit.maps.draw_predictions import check_drawable

        check_drawable(maps, read(encoder))
    with progress_bar("predicting", "images") as progress:
        result = contrast(
            a,
            b,
            encoder,
            rois=rois or None,
            device=device,
            batch_size=batch_size,
            threads=threads,
            progress=progress,
            say=functools.partial(click.echo, err=True),
        )
    json_path = write_contrast(result, out, overwrite=overwrite)
    for images in (result.a, result.b):
        for path, reason in images.skipped[:SHOWN]:
            click.echo(f"skipped {printable(path)}: {printable(reason)}", err=True)
        if len(images.skipped) > SHOWN:
            click.echo(f"skipped {len(images.skipped) - SHOWN} more; {json_path} lists them", err=True)
    click.echo("\n".join(table_lines(result)))
    first, second = (f"{images.name} ({plural(len(images.images), 'image')})" for images in (result.a, result.b))
    click.echo(f"{out}: {first} vs {second}; {passing(result)}")
    click.echo(f"p and q are over images for one model, not over subjects; {json_path} describes the arrays")
    if maps is not None:
        click.echo(f"{draw_contrast(result, maps, max_q=max_q)}: effect size")


SHOWN = 10  # unreadable images of a set that are named; the others are counted
