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
    "[default: those of --data, else of fsaverage's sphere at --vertices]",
)
@click.option(
    "--backbone",
    metavar="NAME",
    help="Network that the model reads, as for train; without it maps can be drawn, but nothing predicted.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Subject folder, for vertices, ROIs, noise ceilings, and scores if it has official test images.",
)
@click.option(
    "--vertices",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A vertices.json, as in own data.  [default: looked up by the coordinates on fsaverage's sphere]",
)
@click.option(
    "--layers",
    multiple=True,
    callback=split_names,
    metavar="NAMES",
    help="Layers of the backbone that the model reads, in the model's order.  [default: by name or depth]",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Photographs on which export compares torch and the encoder file.  [default: those of --data, else of "
    "installed packages]",
)
@click.option(
    "--weights", type=click.Path(path_type=Path), metavar="FILE", help="Load the backbone's weights from a local file."
)
@click.option("--random-weights", is_flag=True, help="Use an untrained network: for tests.")
@click.option("--maps/--no-maps", default=True, help="Draw the maps, or leave it to brainkit map.")
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
    maps: bool,
    out: Path | None,
) -> None:
    """Create a run from weights of the published implementation (Brain Decodes Deep Nets).

    FILE is a state dict. The run can be exported, mapped and used to predict like any other; what is unknown, such as
    test scores without data, stays empty. Its gains are free, so layers and scales cannot be compared: every figure
    says so. Needs brainkit[train].
    """
    if weights is not None and random_weights:
        raise click.UsageError("--weights and --random-weights exclude each other: give one of them")

    from brainkit.runs.import_published import import_published

    import_published(
        file,
        coordinates=coordinates,
        backbone=backbone,
        data=data,
        vertices=vertices,
        layers=layers,
        images=images,
        weights=weights,
        random_weights=random_weights,
        maps=maps,
        out=out,
    )
