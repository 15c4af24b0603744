"""What the scripts of this folder share: options, and training each network once."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import brainkit
from brainkit.utils.table import Table

PUBLISHED = Path(__file__).resolve().parents[1] / "published.yaml"


def parser(doc: str | None, networks: Sequence[str]) -> argparse.ArgumentParser:
    """The options of all scripts; `networks` are the default ones, which need no download."""
    options = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    options.add_argument("--data", help="the subject's folder; by default the simulated sample subject")
    options.add_argument("--networks", nargs="+", default=list(networks), help="NAME, NAME=WEIGHTS.pth or random:NAME")
    options.add_argument("--out", type=Path, default=Path("paper"), help="folder of runs and results")
    options.add_argument("--epochs", type=int, help="of each training, by default brainkit's")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of brainkit train")
    options.add_argument("--published", action="store_true", help="train with the published settings")
    return options


def train(
    options: argparse.Namespace, network: str, *, suffix: str = "", overrides: Sequence[str] = (), repeats: int = 0
) -> brainkit.Run:
    """The run of a network, trained unless it is finished already."""
    name, _, weights = network.removeprefix("random:").partition("=")
    folder = options.out / (label(network) + suffix)
    options.out.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"config": PUBLISHED} if options.published else {}
    return brainkit.fit(
        name,
        options.data,
        out=folder,
        weights=weights or None,
        random_weights=network.startswith("random:"),
        epochs=options.epochs,
        overrides=[*options.set, *overrides],
        repeats=repeats,
        maps=False,
        resume=folder.is_dir(),
        **settings,
    )


def label(network: str) -> str:
    """A network's name in tables, and of its folder."""
    name, _, weights = network.partition("=")
    return "-".join([name.replace("random:", "random-").replace("/", "-"), *([Path(weights).stem] if weights else [])])


def report(path: Path, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, and write it as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    print("\n".join(Table(title, tuple(header), tuple(tuple(row) for row in rows)).plain()))
    print(f"written to {path}")
