"""Accuracy against the number of training images: the paper's result that about 3,000 images are enough.

    python examples/reproduce_paper/training_images.py --data algonauts/subj01 --networks clip

Different from the paper: images that are not trained on are validation images, so that fewer training images mean more
of these; the test images are the same for all. Runs with fewer images make fewer steps.
"""

from __future__ import annotations

from common import label, parser, report, train

MEASURES = ("r", "R2", "share")


def main(arguments: list[str] | None = None) -> None:
    """Train on more and more images, and write the table."""
    command = parser(__doc__, ["efficientnet_lite0"])
    shares = [0.05, 0.1, 0.2, 0.4, 0.9]
    command.add_argument(
        "--shares", nargs="+", type=float, default=shares, help="of the images that are not test images"
    )
    options = command.parse_args(arguments)
    for network in options.networks:
        rows = []
        for share in sorted(options.shares):
            setting = f"data.validation={round(1 - share, 6):g}"
            run = train(options, network, suffix=f"-{share:g}", overrides=[setting])
            scores = run.scores["all"]
            cells = ["-" if scores[name] is None else f"{scores[name]:.3f}" for name in MEASURES]
            rows.append([f"{run.summary['split']['train']:,}", *cells])
        title = f"{network}: medians over vertices, on {run.scores['images']:,} test images"
        header = ["training images", "r", "R2", "r2/ceiling"]
        report(options.out / f"training-images-{label(network)}.csv", title, header, rows)


if __name__ == "__main__":
    main()
