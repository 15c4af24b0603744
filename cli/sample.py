"""``brainkit sample``."""

from __future__ import annotations

from pathlib import Path

import click

from brainkit.sample_layouts import WRITERS


@click.command(
    "sample",
    epilog="""\b
Examples:
  brainkit sample sample-subject
  brainkit sample small --images 300 --test-images 80 --vertices 600 --seed 1
  brainkit sample other-truth --backbone efficientnet_lite2
  brainkit sample nsd-sample --layout nsd
""",
)
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--layout",
    type=click.Choice(list(WRITERS)),
    default="algonauts",
    show_default=True,
    help="The data set in whose layout the files are written.",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="S", help="The same seed gives the same bytes.")
@click.option(
    "--images", type=int, metavar="N", help="Training images.  [default: 900, fewer in layouts whose trials are large]"
)
@click.option("--test-images", type=int, metavar="N", help="Test images.  [default: 240 for every 900 training images]")
@click.option(
    "--vertices", type=int, default=2400, show_default=True, metavar="N", help="Vertices of both hemispheres together."
)
@click.option(
    "--backbone",
    default="efficientnet_lite0",
    show_default=True,
    metavar="NAME",
    help="Network that the responses are computed from.",
)
def command(
    directory: Path,
    layout: str,
    seed: int,
    images: int | None,
    test_images: int | None,
    vertices: int,
    backbone: str,
) -> None:
    """Create the sample subject: simulated responses to real photographs, and the selectors that generated them.

    The folder has the layout of an Algonauts 2023 subject, or of the data set that --layout names, and states that it
    is simulated. Nothing is downloaded.
    Needs brainkit[train].
    """
    from brainkit.sample import make_sample

    make_sample(
        directory,
        seed=seed,
        images=images,
        test_images=test_images,
        vertices=vertices,
        backbone=backbone,
        layout=layout,
        say=click.echo,
    )
