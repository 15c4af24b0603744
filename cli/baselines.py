"""``brainkit baselines``."""

from __future__ import annotations

from pathlib import Path

import click

from brainkit.cli._values import split_names, threads_option


@click.command(
    "baselines",
    epilog="""\b
Examples:
  brainkit baselines
  brainkit baselines runs/dinov2-subj01 --only banded,no-topography
  brainkit baselines runs/dinov2-subj01 --only ridge-layers --data /new/place/subj01
""",
)
@click.argument("run", required=False, type=click.Path(path_type=Path), metavar="[RUN]")
@click.option(
    "--only",
    multiple=True,
    callback=split_names,
    metavar="NAME",
    help="Only these, and what they need; repeat it, or separate names by commas.  [default: all]",
)
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="DIR", help="Where the run's data are now, if they have moved."
)
@threads_option
def command(run: Path | None, only: tuple[str, ...], data: Path | None, threads: int | None) -> None:
    """Compare a run with other encoding models of the same data.

    RUN is a finished run, by default the newest. All models get its tokens, split and noise ceilings. Without a
    network: mean, pixels, gabor. Ridge regressions: ridge-layers (of each layer; ridge-layer-1 is the first),
    best-layer, ridge-global, ridge-all, banded, pca-ols, stacked. FactorTopy without one of its parts: no-topography,
    no-layer-selector, no-location-selector, no-scale-selector, random-network, shuffled-images.

    What is computed already is kept: an interrupted command goes on with the next model. Writes baselines.json, .csv
    and .png into RUN, and the predictions of each model into RUN/baselines/NAME. With banded, agreement.json, .npz and
    .png compare the depth of every vertex with banded ridge's.
    """
    from brainkit.runs.baselines import compute_baselines
    from brainkit.runs.log import RunLog

    with RunLog() as log:
        found = compute_baselines(run, only, data=data, threads=threads, say=log)
        log.show(*filter(None, (found.table(), found.agreement)))
        log(f"{found.folder}: baselines.json, baselines.csv, baselines.png")
