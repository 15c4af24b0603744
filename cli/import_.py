"""``brainkit import``."""

from __future__ import annotations

from pathlib import Path

import click

from brainkit.cli._values import split_names


@click.command(
    "import",
    epilog="""\b
Examples:
  brainkit import subj01.pth --coordinates coords.npy --backbone clip
  brainkit import subj01.pth --coordinates coords.npy --backbone dinov2 --data algonauts/subj01
  brainkit import early.pth --coordinates coords.npy --backbone mae --layers block3,block6
""",
)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option(
    "--coordinates",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Coordinates that the model was trained with: (V, 3) in mm, .npy or a saved tensor.  "
    "[default: those of --data, or fsaverage's sphere at --vertices]",
)
@click.option(
    "--backbone",
    metavar="NAME",
    help="Network that the model reads, as for train; without it there are maps, and no predictions.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The subject's folder: vertices, ROIs, noise ceilings, and test scores where it has test responses.",
)
@click.option(
    "--vertices",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="vertices.json, as own data have it.  [default: found by the coordinates, if they lie on fsaverage's sphere]",
)
@click.option(
    "--layers",
    multiple=True,
    callback=split_names,
    metavar="NAMES",
    help="The backbone's layers that the model's are, in its order.  [default: by their names or depth]",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Photographs that export compares torch and the encoder file on.  [default: the data's, else packaged ones]",
)
@click.option(
    "--weights", type=click.Path(path_type=Path), metavar="FILE", help="The backbone's weights, from a local file."
)
@click.option("--random-weights", is_flag=True, help="Do not load the backbone's weights: for tests.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="RUN", help="Run folder.  [default: runs/<date>-<file>]"
)
def command(
    file: Path,
    coordinates: Path | None,
    backbone: str | None,
    data: Path | None,
    vertices: Path | None,
    layers: tuple[str, ...],
    images: Path | None,
    weights: Path | None,
    random_weights: bool,
    out: Path | None,
) -> None:
    """Make a run folder from weights of the published implementation (Brain Decodes Deep Nets).

    FILE is a bare state dict. The run can be exported, mapped and predicted with as if it had been trained here; what
    nobody knows about it, such as test scores without data, stays empty. Its gains are free, so its layers and scales
    do not compare: every figure says so. Needs brainkit[train].
    """
    if weights is not None and random_weights:
        raise click.UsageError("--weights and --random-weights exclude each other: give one of them")

    from brainkit.runs import import_published as importing

    importing.import_published(
        file,
        coordinates=coordinates,
        backbone=backbone,
        data=data,
        vertices=vertices,
        layers=layers,
        images=images,
        weights=weights,
        random_weights=random_weights,
        out=out,
        say=click.echo,
    )
