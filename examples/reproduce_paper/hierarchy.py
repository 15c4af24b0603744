"""Does the depth of networks follow the order of the visual areas? The paper's measure of alignment with the brain.

    python examples/reproduce_paper/hierarchy.py --data algonauts/subj01 --networks clip dinov2 sam mae mocov3 imagenet

Other comparisons of the paper are other networks: sizes (--networks vit_small_patch14_dinov2.lvd142m
vit_base_patch14_dinov2.lvd142m vit_large_patch14_dinov2.lvd142m), or before and after fine-tuning (--networks clip
clip=tuned.pth). The line of preferred depth (0 first layer, 1 last) on the order V1, V2, V3, V4, higher has a slope,
an intercept and an r2. Different from the paper: with --repeats they have intervals over images and seeds, and p is
against maps that are as smooth (spin test), since neighbouring vertices are no independent evidence.
"""

from __future__ import annotations

from common import label, parser, report, train

LINES = ("slope", "intercept", "r2")


def main(arguments: list[str] | None = None) -> None:
    """Train each network, compare all, and write the table."""
    from brainkit.runs.compare import Settings, compare
    from brainkit.runs.compare_output import to_json, write_comparison

    command = parser(__doc__, ["efficientnet_lite0", "random:efficientnet_lite0"])
    command.add_argument("--repeats", type=int, default=0, help="runs on halves of the images, for intervals")
    command.add_argument("--order", help="the areas from early to late, as brainkit compare takes them")
    command.add_argument("--draws", type=int, default=2000, help="resamples, exchanges and rotations")
    options = command.parse_args(arguments)
    if len(options.networks) < 2:
        command.error("name at least two networks to compare")
    runs = []
    for network in options.networks:
        run = train(options, network, repeats=options.repeats)
        runs += [f"{label(network)}={folder}" for folder in (run.path, *sorted((run.path / "repeats").glob("*")))]
    settings = Settings(options.draws, options.draws, options.draws, order=options.order, leaderboard=True)
    result = compare(runs, settings=settings)
    folder = options.out / "hierarchy"
    write_comparison(result, folder)
    rows = []
    for name, model in to_json(result)["models"].items():
        hierarchy = model["hierarchy"] or {}
        rows.append([name, *(with_interval(hierarchy.get(line, {})) for line in LINES)])
    report(folder / "hierarchy.csv", "preferred depth against the order of areas", ["network", *LINES], rows)


def with_interval(line: dict) -> str:
    """A value, its interval, and its p."""
    if line.get("value") is None:
        return "-"
    parts = [f"{line['value']:.3f}"]
    if line.get("low") is not None:
        parts.append(f"[{line['low']:.3f}, {line['high']:.3f}]")
    if line.get("p") is not None:
        parts.append(f"p {line['p']:.3f}")
    return " ".join(parts)


if __name__ == "__main__":
    main()
