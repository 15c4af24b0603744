"""Sections of a report without maps: baselines, training, data, settings, how to reproduce and how to cite."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.maps import report_charts
from brainkit.page import blocks
from brainkit.page.blocks import Block
from brainkit.runs.baseline_tables import Row, Rows
from brainkit.runs.report_figures import figure_source
from brainkit.runs.summary import work_table
from brainkit.utils.data_uri import data_uri
from brainkit.utils.files import read_json, read_text
from brainkit.utils.text import plural

_CITE = (
    "brainkit: maps vision networks onto the human brain (CITATION.cff in its repository has more).",
    "Yang, Gee & Shi (2023), Brain Decodes Deep Nets, arXiv:2312.01280: the FactorTopy model.",
)


def baseline_blocks(folder: Path) -> list[Block]:
    """What `brainkit baselines` found, if it was run."""
    file = folder / "baselines.json"
    if not file.is_file():
        return []
    content = read_json(file)
    rows = Rows(folder, [Row.from_json(each) for each in content["baselines"]], content["provenance"])
    shown = [blocks.table(rows.table())]
    if (chart := folder / "baselines.png").is_file():
        shown.insert(0, blocks.figure(data_uri(chart.read_bytes()), "The run and its baselines"))
    return shown


def training_blocks(folder: Path, summary: dict[str, Any]) -> list[Block]:
    """Curves, and seconds and memory."""
    shown = []
    file = folder / "metrics.csv"
    if file.is_file():
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        if rows and {"epoch", "train_loss", "val_r"} <= set(rows[0]):
            epochs, loss, r = ([float(row[name]) for row in rows] for name in ("epoch", "train_loss", "val_r"))
            chart = report_charts.training(epochs, loss, r, int(np.argmax(r)))
            shown.append(blocks.figure(figure_source(chart), "Training curves"))
    if "memory" in summary:
        shown.append(blocks.table(work_table(summary)))
    return shown


def data_facts(folder: Path, summary: dict[str, Any]) -> Block:
    """Network, weights, data, split, versions."""
    backbone, data, versions = (summary[name] for name in ("backbone", "data", "versions"))
    dataset, split, seen = data.get("dataset") or {}, summary["split"] or {}, backbone["preprocessing"]
    sides = ", ".join(f"{split[side]:,} {side}" for side in ("train", "validation", "test") if side in split)
    return blocks.facts(
        [
            ("Network", backbone["name"]),
            ("Weights", f"{backbone['source'] or 'given'}, SHA-256 {_short(backbone['weights_hash'])}"),
            ("Licence of the weights", backbone["licence"]),
            ("Layers", ", ".join(backbone["layers"])),
            ("Images as seen", f"{seen['size']} pixels, {seen['fit']}" if seen else None),
            ("Subject", f"{data['name']} ({data['kind'] or 'not known'})"),
            ("Data set", dataset.get("name")),
            ("Licence of the data", dataset.get("licence")),
            ("Data", f"{data['images']:,} images, hash {_short(data['hash'])}" if data["images"] else None),
            ("Noise ceilings", data.get("noise_ceiling")),
            ("Images of the split", sides),
            ("Vertices", columns_in_words(folder, summary)),
            ("Responses in", summary["units"]),
            ("Left out", ", ".join(f"{count} {reason}" for reason, count in data["excluded"].items() if count)),
            ("Seed", summary["seed"]),
            ("Software", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ]
    )


def columns_in_words(folder: Path, summary: dict[str, Any]) -> str:
    """How many vertices, and where they are."""
    if (folder / "volume.npz").is_file():
        return plural(summary["vertices"], "voxel")
    return f"{plural(summary['vertices'], 'vertex', 'vertices')} of {summary['space']}"


def _short(digest: str | None) -> str:
    return digest[:16] if digest else "not known"


def configuration_blocks(folder: Path) -> list[Block]:
    """The settings, folded."""
    if not (folder / "config.yaml").is_file():
        return []
    return [blocks.folded("All settings (config.yaml)", read_text(folder / "config.yaml"))]


def reproduce_blocks(folder: Path, summary: dict[str, Any]) -> list[Block]:
    """Commands and hashes."""
    if "imported" in summary:
        return [
            blocks.facts([("Imported from", summary["imported"]["file"]), ("SHA-256", summary["imported"]["sha256"])])
        ]
    run = shlex.quote(folder.name)
    data = shlex.quote(Path(summary["data"]["path"]).name)
    commands = [
        f"brainkit train --config {run}/config.yaml --data {data} --out {run}-again",
        f"brainkit export {run} --onnx --out encoder.onnx",
        "brainkit predict images/ --encoder encoder.onnx --out fmri.npy",
    ]
    hashes = [("Data", summary["data"]["hash"]), ("Weights of the network", summary["backbone"]["weights_hash"])]
    words = (
        "With the same data, weights, settings and seed, training gives this run again. Data and weights are the same"
    )
    return [
        blocks.code("\n".join(commands)),
        blocks.text(f"{words} if run.json has the same hashes:"),
        blocks.facts(hashes),
    ]


def cite_blocks(summary: dict[str, Any]) -> list[Block]:
    """References of brainkit, the network and the data."""
    texts = [*_CITE, summary["backbone"].get("citation"), *(summary["data"].get("dataset") or {}).get("citation", ())]
    return [blocks.text(each) for each in texts if each]
