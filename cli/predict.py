"""``brainkit predict``."""

from __future__ import annotations

import functools
from pathlib import Path

import click


def _split_names(ctx: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for text in given for name in (part.strip() for part in text.split(",")) if name)


@click.command(
    "predict",
    epilog="""\b
Examples:
  brainkit predict photos/ --out fmri.npy
  brainkit predict cat.jpg dog.jpg --out fmri.npy --encoder dinov2-subj01.onnx --maps figures
  brainkit predict photos/ --out faces.npy --roi FFA-1,FFA-2 --roi OFA --device cpu
  brainkit predict 'photos/**/*.jpg' 'shards-{000..010}.tar' @more.txt --out fmri.npy
  find photos -name '*.png' -print0 | brainkit predict - --out fmri.npy
""",
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGES...")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write, for example fmri.npy: float32, one row an image; fmri.json beside it says what is what.",
)
@click.option(
    "--encoder",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Encoder file.  [default: encoder.onnx of the newest run]",
)
@click.option("--maps", type=click.Path(path_type=Path), metavar="DIR", help="Also draw each image beside its map.")
@click.option(
    "--max-maps",
    type=click.IntRange(min=1),
    default=12,
    show_default=True,
    metavar="N",
    help="Draw at most this many images.",
)
@click.option(
    "--roi", "rois", multiple=True, callback=_split_names, metavar="NAME", help="Only these regions; may be repeated."
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Images at once.  [default: by the input's size and the free memory]",
)
@click.option("--overwrite", is_flag=True, help="Replace the output where it exists.")
def command(
    images: tuple[str, ...],
    out: Path,
    encoder: Path | None,
    maps: Path | None,
    max_maps: int,
    rois: tuple[str, ...],
    device: str,
    batch_size: int | None,
    overwrite: bool,
) -> None:
    """Predict the fMRI response to images.

    IMAGES are files and folders, patterns in quotes, tar shards, lists (@list.txt, a path a line; - for one on standard
    input) and addresses (s3://, gs://, https://). Rows follow the images in sorted order, lists and shards in their
    own; unreadable images are skipped and reported. What is interrupted goes on when it is called again. Needs neither
    torch nor the training data.
    """
    from brainkit import encoder_file, runs, scoring
    from brainkit.progress import progress_bar

    encoder = encoder or runs.latest_encoder()
    if maps is not None:
        from brainkit.maps import predicted

        info = encoder_file.read(encoder)
        predicted.check_drawable(maps, info)
    with progress_bar("predicting", "images") as progress:
        done = scoring.predict_to_file(
            images,
            out,
            encoder,
            device=device,
            rois=rois or None,
            batch_size=batch_size,
            overwrite=overwrite,
            progress=progress,
            say=functools.partial(click.echo, err=True),
        )
    for path, reason in done.skipped[:SHOWN]:
        click.echo(f"skipped {path}: {reason}", err=True)
    if len(done.skipped) > SHOWN:
        click.echo(f"skipped {len(done.skipped) - SHOWN} more; {out.with_suffix('.json')} lists them", err=True)
    click.echo(f"{done.path}: {done.n} images in {done.seconds:.1f} s; {out.with_suffix('.json')} says what is what")
    if maps is not None:
        drawn = predicted.draw_prediction_file(out, info, maps, images=done.images, max_maps=max_maps)
        click.echo(f"{maps}: {len(drawn)} of {done.n} images drawn beside their maps")


SHOWN = 10  # unreadable images that are named; the rest is counted
