"""Layer, location and scale of networks on the brain: the paper's figures of networks with different ways of training.

    python examples/reproduce_paper/maps.py --data algonauts/subj01 --networks clip dinov2 sam mae mocov3 imagenet

One folder of maps for each network. Different from the paper: vertices that the encoder predicts no better than chance
are pale, and with --repeats also those that would select something else with other images. README.md says what differs
in all scripts.
"""

from __future__ import annotations

from common import label, parser, train


def main(arguments: list[str] | None = None) -> None:
    """Train each network and draw its maps."""
    command = parser(__doc__, ["efficientnet_lite0", "random:efficientnet_lite0"])
    command.add_argument("--repeats", type=int, default=0, help="runs on halves of the images, for standard errors")
    options = command.parse_args(arguments)
    for network in options.networks:
        run = train(options, network, repeats=options.repeats)
        run.draw(options.out / f"maps-{label(network)}")


if __name__ == "__main__":
    main()
