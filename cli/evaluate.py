"""``brainkit evaluate``."""

from __future__ import annotations

from pathlib import Path

import click

from brainkit.cli._values import threads_option


@click.command(
    "evaluate",
    epilog="""\b
Examples:
  brainkit evaluate
  brainkit evaluate runs/dinov2-subj01
  brainkit evaluate encoder.onnx --data algonauts/subj01
  brainkit evaluate encoder.onnx --data mydata --split iid --split ood --out scores
  brainkit evaluate encoder.onnx --data mydata --split images.json
""",
)
@click.argument("source", required=False, type=click.Path(path_type=Path), metavar="[RUN|ENCODER]")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A subject's folder.  [default: the data of the run]",
)
@click.option(
    "--split",
    "splits",
    multiple=True,
    default=("test",),
    metavar="NAME",
    help="Which images: test, all, a list of the data's splits such as ood, a split's name for its test images, or a "
    "JSON file of images' names; repeat it for several sets and their differences.  [default: test]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the results.  [default: evaluation/ in the run folder, <file>-evaluation/ next to a file]",
)
@click.option(
    "--allow-training-images",
    is_flag=True,
    help="Score on images that the encoder was trained on too; every output then says so.",
)
@click.option(
    "--bootstrap", type=click.IntRange(min=0), default=2000, show_default=True, metavar="N", help="Draws of intervals."
)
@click.option(
    "--permutations", type=click.IntRange(min=0), default=2000, show_default=True, metavar="N", help="Draws of tests."
)
@click.option(
    "--level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    metavar="L",
    help="Of the intervals.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="S", help="Of all draws.")
@click.option("--maps/--no-maps", default=True, help="Whether to draw r, explained and significance.  [default: yes]")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Device of an encoder file.",
)
@threads_option
def command(
    source: Path | None,
    data: Path | None,
    splits: tuple[str, ...],
    out: Path | None,
    allow_training_images: bool,
    bootstrap: int,
    permutations: int,
    level: float,
    seed: int,
    maps: bool,
    device: str,
    threads: int | None,
) -> None:
    """Score a run or an encoder file on measured responses, with intervals and tests over stimuli.

    RUN|ENCODER is a run folder, by default that of the newest run, or an encoder file, which needs no torch. Images
    that it was trained on are refused.
    """
    from brainkit.runs.evaluate import evaluate_on_data

    evaluate_on_data(
        source,
        data,
        split=splits,
        out=out,
        allow_training_images=allow_training_images,
        bootstrap=bootstrap,
        permutations=permutations,
        level=level,
        seed=seed,
        maps=maps,
        device=device,
        threads=threads,
    )
