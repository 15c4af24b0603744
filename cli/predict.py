"""``brainkit predict``."""

from __future__ import annotations

import functools
from pathlib import Path

import click

from brainkit.cli._values import split_names


@click.command(
    "predict",
    epilog="""\b
Examples:
  brainkit predict photos/ --out fmri.npy
  brainkit predict cat.jpg dog.jpg --out fmri.npy --encoder dinov2-subj01.onnx --maps figures
  brainkit predict photos/ --out faces.npy --roi FFA-1,FFA-2 --roi OFA --device cpu
  brainkit predict photos/ --out means.csv --roi V1,FFA
  brainkit predict photos/ --out fmri.npy --roi FFA,PPA --top 8
  brainkit predict test/ --out subj01/pred_test.npy --hemispheres
  brainkit predict s3://bucket/photos --out s3://bucket/fmri.zarr --engine ray
  brainkit predict 'photos/**/*.jpg' 'shards-{000..010}.tar' @more.txt --out fmri.npy
  find photos -name '*.png' -print0 | brainkit predict - --out fmri.npy
""",
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGES...")
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    help="Where to write; the suffix is the format: .npy .npz .zarr (one row an image), .csv (ROI means), .func.gii "
    ".mgz (one file a hemisphere), .nii.gz. A .json beside it says what is what. Addresses (s3://...) too.",
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
    "--roi", "rois", multiple=True, callback=split_names, metavar="NAME", help="Only these regions; may be repeated."
)
@click.option(
    "--top",
    type=click.IntRange(1, 100),
    metavar="K",
    help="Also draw the K images that drive each --roi most, and least, as a contact sheet.",
)
@click.option("--spread", is_flag=True, help="Of an ensemble, also write the s.d. over its members: fmri-sd.npy.")
@click.option(
    "--hemispheres", is_flag=True, help="With .npy: lh_FILE and rh_FILE in place of FILE, as Algonauts takes them."
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
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Score in this process, or on the workers of a Ray cluster (brainkit[ray]).",
)
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="With --engine ray: processes that score.")
@click.option("--overwrite", is_flag=True, help="Replace the output where it exists.")
def command(
    images: tuple[str, ...],
    out: str,
    encoder: Path | None,
    maps: Path | None,
    max_maps: int,
    rois: tuple[str, ...],
    top: int | None,
    spread: bool,
    hemispheres: bool,
    device: str,
    batch_size: int | None,
    engine: str,
    workers: int | None,
    overwrite: bool,
) -> None:
    """Predict the fMRI response to images.

    IMAGES are files and folders, patterns in quotes, tar shards, lists (@list.txt, a path a line; - for one on standard
    input) and addresses (s3://, gs://, https://). Rows follow the images in sorted order, lists and shards in their
    own; unreadable images are skipped and reported. What is interrupted goes on when it is called again. Needs neither
    torch nor the training data.
    """
    from brainkit import encoder_file
    from brainkit import predict as scoring
    from brainkit.predict.inputs.finding import counted
    from brainkit.predict.outputs.formats import suffix_of
    from brainkit.runs import latest as runs
    from brainkit.utils.progress import progress_bar
    from brainkit.utils.text import printable

    encoder = encoder or runs.latest_encoder()
    beside = out[: -len(suffix_of(Path(out)))] + ".json"
    if maps is not None:
        if Path(out).suffix != ".npy" or hemispheres or "://" in out:
            raise click.UsageError(f"--maps draws what a whole .npy file holds, got --out {out}")
        from brainkit.maps import draw_predictions as predicted

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
            hemispheres=hemispheres,
            top=top,
            spread=spread,
            engine=engine,
            workers=workers,
            progress=progress,
            say=functools.partial(click.echo, err=True),
        )
    for path, reason in done.skipped[:SHOWN]:
        click.echo(f"skipped {printable(path)}: {printable(reason)}", err=True)
    if len(done.skipped) > SHOWN:
        click.echo(f"skipped {len(done.skipped) - SHOWN} more; {beside} lists them", err=True)
    files = ", ".join(map(str, done.files))
    click.echo(f"{files}: {counted(done.n, 'image')} in {done.seconds:.1f} s; {beside} says what is what")
    for sheet in done.sheets:
        click.echo(f"{sheet}: the images that drive it most")
    if maps is not None:
        drawn = predicted.draw_prediction_file(out, info, maps, images=done.sources, max_maps=max_maps)
        click.echo(f"{maps}: {len(drawn)} of {done.n} images drawn beside their maps")


SHOWN = 10  # unreadable images that are named; the rest is counted
