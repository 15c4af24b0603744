"""``brainkit predict``."""

from __future__ import annotations

import functools
from pathlib import Path

import click

from brainkit.cli._values import threads_option


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
    help="Output; its suffix chooses the format: .npy .npz .zarr (one row per image), .csv (ROI means), .func.gii "
    ".mgz (one file per hemisphere), .nii.gz. A .json next to it describes the rows and columns. May be a URL (s3://...).",
)
@click.option(
    "--encoder",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Encoder file, or the run folder it is in.  [default: of the newest run, else the only .onnx file here]",
)
@click.option("--maps", type=click.Path(path_type=Path), metavar="DIR", help="Also draw each image next to its map.")
@click.option(
    "--max-maps",
    type=click.IntRange(min=1),
    default=12,
    show_default=True,
    metavar="N",
    help="Draw at most this many images.",
)
@click.option(
    "--roi",
    "rois",
    multiple=True,
    metavar="NAME",
    help="Only these regions, by name, expression (FFA-1+FFA-2-V4) or file; may be repeated.",
)
@click.option(
    "--top",
    type=click.IntRange(1, 100),
    metavar="K",
    help="Also draw the K images that drive each --roi most, and least, as a contact sheet.",
)
@click.option("--spread", is_flag=True, help="For an ensemble, also write the s.d. over its members: fmri-sd.npy.")
@click.option(
    "--hemispheres", is_flag=True, help="For .npy: lh_FILE and rh_FILE instead of FILE, as Algonauts takes them."
)
@click.option(
    "--space",
    type=click.Choice(["fsaverage5", "fsaverage6", "fsaverage", "fsLR"], case_sensitive=False),
    help="Write predictions at the vertices of this space, each that of the nearest one.  [default: the encoder's]",
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
@threads_option
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Predict in this process, or on the workers of a Ray cluster (brainkit[ray]).",
)
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="With --engine ray: worker processes.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
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
    space: str | None,
    device: str,
    batch_size: int | None,
    threads: int | None,
    engine: str,
    workers: int | None,
    overwrite: bool,
) -> None:
    """Predict the fMRI response to images.

    IMAGES are files and folders, patterns in quotes, tar shards, lists (@list.txt, one path per line; - for standard
    input) and URLs (s3://, gs://, https://). Rows are in the order of the images' names as text; a list gives a row per
    line, a shard its own order. Unreadable images are skipped and reported. If interrupted, the same command resumes.
    Needs neither torch nor the training data.
    """
    from brainkit.encoder_file import read
    from brainkit.predict import predict_to_file
    from brainkit.runs import latest
    from brainkit.utils.progress import progress_bar
    from brainkit.utils.text import plural, printable

    say = functools.partial(click.echo, err=True)
    encoder = encoder or latest.default_encoder(say)
    if maps is not None:
        if Path(out).suffix != ".npy" or hemispheres or space or "://" in out:
            raise click.UsageError(f"--maps needs all vertices in one .npy file on this machine, got --out {out}")
        from brainkit.maps.draw_predictions import check_drawable, draw_prediction_file

        info = read(encoder)
        check_drawable(maps, info)
    with progress_bar("predicting", "images") as progress:
        result = predict_to_file(
            images,
            out,
            encoder,
            device=device,
            rois=rois or None,
            batch_size=batch_size,
            threads=threads,
            overwrite=overwrite,
            hemispheres=hemispheres,
            top=top,
            spread=spread,
            space=space,
            engine=engine,
            workers=workers,
            order="sorted",
            progress=progress,
            say=say,
        )
    for path, reason in result.skipped[:SHOWN]:
        click.echo(f"skipped {printable(path)}: {printable(reason)}", err=True)
    if len(result.skipped) > SHOWN:
        click.echo(f"skipped {len(result.skipped) - SHOWN} more; {result.description} lists them", err=True)
    files = ", ".join(map(str, result.files))
    images_in_time = f"{plural(result.n, 'image')} in {result.seconds:.1f} s"
    click.echo(f"{files}: {images_in_time}; {result.description} describes the rows and columns")
    for sheet in result.sheets:
        click.echo(f"{sheet}: the images that drive the ROI most")
    if maps is not None:
        drawn = draw_prediction_file(out, info, maps, images=result.sources, max_maps=max_maps)
        click.echo(f"{maps}: {len(drawn)} of {plural(result.n, 'image')} drawn next to their maps")


SHOWN = 10  # unreadable images that are named; the others are counted
