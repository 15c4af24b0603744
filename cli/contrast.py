"""``brainkit contrast``."""

from __future__ import annotations

from pathlib import Path

import click

from brainkit.cli._values import split_names


@click.command(
    "contrast",
    epilog="""\b
Examples:
  brainkit contrast faces/ places/ --out contrast.npz
  brainkit contrast faces/ places/ --out contrast.csv --roi FFA,PPA --encoder dinov2-subj01.onnx
  brainkit contrast faces/ places/ --out contrast.npz --maps figures --max-q 0.05
""",
)
@click.argument("a")
@click.argument("b")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write: .npz, or .csv with a row a vertex. A .json beside it says what is what.",
)
@click.option(
    "--encoder",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Encoder file.  [default: encoder.onnx of the newest run]",
)
@click.option(
    "--maps", type=click.Path(path_type=Path), metavar="DIR", help="Also draw the effect size on the flatmap."
)
@click.option(
    "--max-q",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="Q",
    help="Draw only vertices whose false discovery rate is under Q.  [default: all]",
)
@click.option(
    "--roi",
    "rois",
    multiple=True,
    callback=split_names,
    metavar="NAME",
    help="Only these regions, also for the false discovery rate; may be repeated.",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), metavar="N", help="Images at once.  [default: by the input's size]"
)
@click.option("--overwrite", is_flag=True, help="Replace the output where it exists.")
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
    overwrite: bool,
) -> None:
    """Compare the responses predicted to two sets of images, A against B, at each vertex.

    A and B are folders of images, or whatever else predict takes. Effect size is Hedges' g (Cohen's d of the pooled
    s.d., corrected for small samples); t is Welch's, p two-sided, q the false discovery rate after Benjamini and
    Hochberg. They are over images for one deterministic model, not over subjects.
    """
    from brainkit import encoder_file
    from brainkit.insilico import contrast as contrasts
    from brainkit.runs import latest as runs
    from brainkit.utils.progress import progress_bar
    from brainkit.utils.text import printable

    if max_q is not None and maps is None:
        raise click.UsageError("--max-q is for the figure; say where it goes with --maps")
    encoder = encoder or runs.latest_encoder()
    contrasts.check_contrast_output(out, overwrite)
    if maps is not None:
        from brainkit.maps import draw_predictions as predicted

        predicted.check_drawable(maps, encoder_file.read(encoder))
    with progress_bar("predicting", "images") as progress:
        found = contrasts.contrast(
            a, b, encoder, rois=rois or None, device=device, batch_size=batch_size, progress=progress
        )
    beside = contrasts.write_contrast(found, out, overwrite=overwrite)
    for images in (found.a, found.b):
        for path, reason in images.skipped[:SHOWN]:
            click.echo(f"skipped {printable(path)}: {printable(reason)}", err=True)
        if len(images.skipped) > SHOWN:
            click.echo(f"skipped {len(images.skipped) - SHOWN} more; {beside} lists them", err=True)
    click.echo("\n".join(contrasts.table_lines(found)))
    click.echo(f"{out}: {found.a.name} ({len(found.a.images)} images) against {found.b.name} ({len(found.b.images)})")
    click.echo(f"p and q are over images for this one model, not over subjects; {beside} says what is what")
    if maps is not None:
        click.echo(f"{contrasts.draw_contrast(found, maps, max_q=max_q)}: the effect size")


SHOWN = 10  # unreadable images of a set that are named; the rest is counted
