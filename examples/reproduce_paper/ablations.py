"""Accuracy by region without each selector and without topography: the paper's table of ablations.

    python examples/reproduce_paper/ablations.py --data algonauts/subj01 --networks clip

Each row is trained anew on the same tokens and images. Different from the paper: a selector that is left out has one
neutral value for all vertices (all layers alike; the centre of the image; half local, half global), R2 is the median
over vertices on images that chose nothing, and every number has an interval (in the run's baselines.csv).
"""

from __future__ import annotations

from common import label, parser, report, train

ROWS = {
    "factor-topy": "full model",
    "no-topography": "without topography",
    "no-layer-selector": "without layer selector",
    "no-location-selector": "without location selector",
    "no-scale-selector": "without scale selector",
}
REGIONS = ("V1", "V2", "V3", "V4", "EBA", "FFA", "OFA", "PPA", "OPA", "RSC", "VWFA", "OWFA")


def main(arguments: list[str] | None = None) -> None:
    """Train, leave out one part after the other, and write the table."""
    from brainkit.runs.baselines import compute_baselines

    options = parser(__doc__, ["efficientnet_lite0"]).parse_args(arguments)
    for network in options.networks:
        found = compute_baselines(train(options, network).path, [name for name in ROWS if name != "factor-topy"])
        rows = {row.name: row for row in found.rows if row.name in ROWS}
        known = rows["factor-topy"].evaluation["groups"]
        regions = [name for name in REGIONS if name in known] or [name for name in known if name != "all"]
        cells = [
            [title, *(number(rows[name].summary("R2", region)["median"]) for region in ("all", *regions))]
            for name, title in ROWS.items()
        ]
        path = options.out / f"ablations-{label(network)}.csv"
        report(path, f"{network}: R2 (median over vertices)", ["", "all", *regions], cells)


def number(value: float | None) -> str:
    """Three decimals, or a dash."""
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
