"""``brainkit compare``."""

from __future__ import annotations

import functools
from pathlib import Path

import click


@click.command(
    "compare",
    epilog="""\b
Examples:
  brainkit compare runs/dinov2 runs/clip
  brainkit compare runs/dinov2 runs/clip runs/dinov2/baselines/ridge-all --out dinov2-clip
  brainkit compare dino=runs/dino-1 dino=runs/dino-2 clip=runs/clip-1 clip=runs/clip-2
  brainkit compare --leaderboard runs/* --order V1,V2,V3,V4,FFA+PPA+EBA
""",
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--out",
    default="comparison",
    show_default=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the results.",
)
@click.option("--overwrite", is_flag=True, help="Write into a folder that has results already.")
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the data are now, if they have moved; repeat it for several subjects.",
)
@click.option("--leaderboard", is_flag=True, help="Rank all runs, and compare each with the best only.")
@click.option(
    "--order",
    metavar="AREAS",
    help="Areas from early to late for the hierarchy: 'rois', 'streams', or names with commas; + joins several to one "
    "area.  [default: rois (V1, V2, V3, V4, higher), else streams (early, mid, high)]",
)
@click.option("--bootstrap", default=2000, show_default=True, type=click.IntRange(min=100), help="Number of resamples.")
@click.option(
    "--permutations", default=2000, show_default=True, type=click.IntRange(min=19), help="Number of exchanges."
)
@click.option(
    "--rotations", default=1000, show_default=True, type=click.IntRange(min=19), help="Rotations of the spin test."
)
@click.option(
    "--level",
    default=0.95,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Of the intervals.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of all random draws.")
def command(
    runs: tuple[str, ...],
    out: Path,
    overwrite: bool,
    data: tuple[Path, ...],
    leaderboard: bool,
    order: str | None,
    bootstrap: int,
    permutations: int,
    rotations: int,
    level: float,
    seed: int,
) -> None:
    """Compare finished runs on the test images that they share.

    RUN is a run folder, or RUN/baselines/NAME. Runs given as NAME=RUN with the same NAME are one model: on several
    subjects, or with several seeds or halves of the images.

    Writes, for each pair of models, differences in accuracy by vertex and ROI with intervals and p; for each model the
    slope of preferred depth along the visual areas; and the mean layer weights by ROI.
    """
    from brainkit.runs.compare import Settings, compare
    from brainkit.runs.compare_output import check_output, write_comparison
    from brainkit.runs.compare_tables import tables

    folder = check_output(out, overwrite)
    result = compare(
        runs,
        data=data,
        settings=Settings(bootstrap, permutations, rotations, level, seed, order, leaderboard),
        say=functools.partial(click.echo, err=True),
    )
    for table in tables(result):
        click.echo("\n".join(table.plain()))
    files = write_comparison(result, folder)
    click.echo(f"{out}: {', '.join(path.relative_to(folder).as_posix() for path in files)}")
