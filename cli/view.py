"""``brainkit view``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    "view",
    epilog="""\b
Examples:
  brainkit view
  brainkit view runs/dinov2-subj01 --out dinov2.html
  brainkit view encoder.onnx --images photos/ --overwrite
  brainkit view fmri.npy --out predicted.html
  brainkit view lh.thickness.mgz rh.thickness.mgz
""",
)
@click.argument("sources", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN or FILE ...]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("cortex.html"),
    show_default=True,
    metavar="FILE",
    help="The page.",
)
@click.option("--overwrite", is_flag=True, help="Write over a file that exists.")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Photographs to step through, each with the response predicted to it.",
)
@click.option(
    "--surface",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Your own surface, of FreeSurfer or GIFTI files; voxels are projected on it.",
)
@click.option(
    "--like",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="The run or encoder file whose vertices a file's values are, and whose ROIs are outlined.",
)
@click.option("--pycortex", is_flag=True, help="Write pycortex's viewer instead; needs brainkit[pycortex].")
@click.option(
    "--filestore",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="pycortex's folder of subjects.  [default: one of brainkit's own]",
)
def command(
    sources: tuple[Path, ...],
    out: Path,
    overwrite: bool,
    images: Path | None,
    surface: Path | None,
    like: Path | None,
    pycortex: bool,
    filestore: Path | None,
) -> None:
    """Write the maps as one HTML file: a cortex to turn, inflate and flatten, whose vertices answer a click.

    Of a run, an evaluation's folder or an encoder file, by default the newest finished run, else the only .onnx file
    here; or of files with a value for each vertex, such as the output of brainkit predict. The page opens from disk and
    asks for nothing else, so it can be sent. Needs brainkit[maps].
    """
    from brainkit.runs.view import view

    if filestore is not None and not pycortex:
        raise click.UsageError("--filestore is for --pycortex")
    options = {"images": images, "like": like, "surface": surface, "pycortex": pycortex, "filestore": filestore}
    view(sources, out=out, overwrite=overwrite, **options, say=click.echo)
