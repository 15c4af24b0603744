"""``brainkit train``."""

from __future__ import annotations

from pathlib import Path

import click

from brainkit.cli._suggest import TrainCommand
from brainkit.cli._values import locations, part_options


@click.command(
    "train",
    cls=TrainCommand,
    epilog="""\b
Examples:
  brainkit train --backbone efficientnet_lite0
  brainkit train --backbone dinov2 --data algonauts/subj01 --out runs/dinov2-subj01
  brainkit train --backbone net.py:MyBackbone --epochs 10 --set train.batch_size=64
  brainkit train --backbone dinov2 --data algonauts/subj01 --devices 4
  brainkit train --backbone dinov2 --data algonauts/subj01 --data algonauts/subj02
  brainkit train --backbone dinov2 --data algonauts/subj01 --roi V1,FFA --no-maps
  brainkit train --backbone dinov2 --data algonauts/subj01 --repeats 8
  brainkit train --from runs/dinov2-subj01 --data new/subject --images 300
  brainkit train --config examples/published.yaml
""",
)
@click.option(
    "--backbone",
    metavar="NAME",
    help="Network to map: an alias (efficientnet_lite0, dinov2, clip, ...), a timm model, or file.py:ClassName. "
    "Required unless --config names one, --from or --resume.",
)
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Subject folder (Algonauts 2023 layout or your own). Repeat it to train several subjects together.  "
    "[default: $BRAINKIT_DATA, else the sample subject]",
)
@part_options
@click.option(
    "--skip-unreadable", is_flag=True, help="Leave out images that cannot be read; by default they are an error."
)
@click.option(
    "--from",
    "start",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Start from another subject's finished run: keep its bottlenecks, and fit selectors and readout to the new "
    "subject. For few images.",
)
@click.option(
    "--images",
    type=click.IntRange(min=2),
    metavar="N",
    help="Train and validate on N images in all, the first by the split's hash.  [default: all]",
)
@click.option(
    "--weights", type=click.Path(path_type=Path), metavar="FILE", help="Load the backbone's weights from a local file."
)
@click.option("--random-weights", is_flag=True, help="Use an untrained network, as a control.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="RUN", help="Run folder.  [default: runs/<date>-<backbone>]"
)
@click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="Passes over the training images.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="S",
    help="Random seed for split, initial weights and shuffling.  [default: 0]",
)
@click.option(
    "--devices",
    type=click.IntRange(min=1),
    metavar="N",
    help="GPUs per machine; on a CPU, processes.  [default: 1]",
)
@click.option(
    "--num-nodes",
    type=click.IntRange(min=1),
    metavar="M",
    help="Machines; for more than one, start brainkit on each with torchrun or srun.  [default: 1]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processor threads of each process.  [default: one for each core it may use]",
)
@click.option(
    "--roi",
    "rois",
    multiple=True,
    metavar="NAME",
    help="Train, score and export only the vertices of this ROI, expression (FFA-1+FFA-2-V4) or file; can be repeated.",
)
@click.option(
    "--split",
    metavar="NAME",
    help="Split of the data (nsd-shared1000, laion:tau, ...), a JSON file of lists of images, or hashed.  [default: "
    "splits.json of the data, else hashed]",
)
@click.option("--maps/--no-maps", default=None, help="Draw the maps at the end, or leave it to brainkit map.")
@click.option(
    "--animate", is_flag=True, default=None, help="Keep snapshots of the maps, and draw how they came about as a GIF."
)
@click.option(
    "--repeats",
    type=click.IntRange(min=2),
    metavar="K",
    help="Also train K runs (an even number) on halves of the images, to measure how sure the maps are.",
)
@click.option("--resume", is_flag=True, help="Resume an interrupted run (give the same --out).")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="YAML file of settings.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one setting, for example train.batch_size=64; can be repeated, and wins over --config.",
)
def command(
    backbone: str | None,
    data: tuple[Path, ...],
    subjects: tuple[str, ...],
    betas: str | None,
    space: str | None,
    allow_missing_sessions: bool,
    skip_unreadable: bool,
    start: Path | None,
    images: int | None,
    weights: Path | None,
    random_weights: bool,
    out: Path | None,
    epochs: int | None,
    seed: int | None,
    devices: int | None,
    num_nodes: int | None,
    threads: int | None,
    rois: tuple[str, ...],
    split: str | None,
    maps: bool | None,
    animate: bool | None,
    repeats: int | None,
    resume: bool,
    config: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Train a brain encoder on a frozen backbone's features and write a run folder.

    The run folder has the checkpoints, the scores on held-out images, what each vertex selects (layer, location in the
    image, scale) and the maps of these. Needs brainkit[train].
    """
    if backbone is None and config is None and start is None and not resume:
        raise click.UsageError(
            "give the network: --backbone NAME, for example efficientnet_lite0, which needs no download (or a --config "
            "that names one)"
        )
    if weights is not None and random_weights:
        raise click.UsageError("--weights and --random-weights exclude each other: give one of them")

    from brainkit.runs.train import train

    train(
        backbone,
        data=locations(data, subjects, betas, space, allow_missing_sessions) or None,
        skip_unreadable=skip_unreadable,
        start=start,
        images=images,
        out=out,
        weights=weights,
        random_weights=random_weights,
        epochs=epochs,
        seed=seed,
        devices=devices,
        num_nodes=num_nodes,
        threads=threads,
        rois=rois,
        split=split,
        maps=maps,
        animate=animate,
        repeats=repeats or 0,
        resume=resume,
        config=config,
        overrides=overrides,
    )
