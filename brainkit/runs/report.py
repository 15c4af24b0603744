"""The report of a run, or of several compared: one HTML file. It reads from top to bottom."""

from __future__ import annotations

import csv
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from brainkit._version import __version__
from brainkit.cortex.vertices import CUSTOM
from brainkit.errors import DataError
from brainkit.evaluation.recovery import CEILING_FOR_RECOVERY, read_truth, recovery_table
from brainkit.evaluation.scores import score_table
from brainkit.maps import report_charts
from brainkit.maps.brain_map import MapSet
from brainkit.page import blocks
from brainkit.page.blocks import Block, Section
from brainkit.page.document import picture, render
from brainkit.runs.baseline_tables import Row, Rows
from brainkit.runs.folder import finished_run, run_folders
from brainkit.runs.map_sets import run_map_set
from brainkit.runs.report_comparison import comparison_sections
from brainkit.runs.report_figures import chart_picture, map_picture
from brainkit.runs.report_vertices import vertex_blocks
from brainkit.runs.summary import work_table
from brainkit.runs.uncertainty import uncertainty_table
from brainkit.runs.view import run_page
from brainkit.utils.files import atomic_write, check_new, read_json, read_text
from brainkit.utils.progress import Say
from brainkit.utils.table import number
from brainkit.utils.text import plural

_CITE = (
    "brainkit: maps vision networks onto the human brain (CITATION.cff in its repository has more).",
    "Yang, Gee & Shi (2023), Brain Decodes Deep Nets, arXiv:2312.01280: the FactorTopy model.",
)


def write_report(
    runs: Sequence[str | os.PathLike[str]] = (),
    out: str | os.PathLike[str] = "report.html",
    *,
    data: str | os.PathLike[str] | None = None,
    cortex: bool = True,
    overwrite: bool = False,
    say: Say = print,
) -> Path:
    """Write the report of a finished run, or of several compared, as one HTML file.

    Parameters
    ----------
    runs : sequence of path-like
        Run folders; by default the newest finished run. Of several, what `brainkit compare` finds is reported.
    out : path-like
        The file; its folder must exist.
    data : path-like, optional
        Where the runs' data are now, if they have moved.
    cortex : bool
        Whether the report has a cortex to turn, which makes the file about 3 MB larger.
    overwrite : bool
        Whether `out` may exist.
    say : callable
        Called with each line of progress.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    UsageError
        If `out` exists.
    DataError
        If a run is not finished, or the folder of `out` is missing.
    MissingDependency
        If jinja2 or matplotlib is not installed.
    """
    file = Path(out)
    check_new(file, overwrite)
    if file.is_dir() or not file.resolve().parent.is_dir():
        raise DataError(f"{file}: expected the name of an HTML file in a folder that exists")
    if len(runs) > 1:
        values = _comparison_values(runs, data, say)
    else:
        values = _run_values(Path(runs[0]) if runs else None, data, cortex, say)
    page = render("report.html.j2", values)
    with atomic_write(file) as temporary:
        temporary.write_text(page, encoding="utf-8")
    say(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    return file


def _run_values(run: Path | None, data: str | os.PathLike[str] | None, cortex: bool, say: Say) -> dict[str, Any]:
    folders = run_folders(run)
    several = len(folders) > 1
    sections: list[Section] = []
    for folder in folders:
        say(f"report: {folder}")
        _, summary = finished_run(folder)
        found = _subject_sections(folder, summary, data, cortex and folder == folders[0])
        start = f"{summary['data']['name']}-" if several else ""
        title = f"{summary['data']['name']}: " if several else ""
        sections += [Section(start + each.id, title + each.title, each.blocks) for each in found]
    _, summary = finished_run(folders[0])
    names = ", ".join(finished_run(folder)[1]["data"]["name"] for folder in folders)
    return {
        "kind": "brainkit report",
        "title": f"{summary['backbone']['name']} on {names}",
        "lead": _lead(summary),
        "note": summary["note"],
        "cards": _cards(summary) if not several and _is_scored(summary) else [],
        "sections": sections,
        "footer": f"Made with brainkit {__version__} from the run {folders[0].resolve().name}.",
    }


def _comparison_values(
    runs: Sequence[str | os.PathLike[str]], data: str | os.PathLike[str] | None, say: Say
) -> dict[str, Any]:
    found = comparison_sections(runs, data, say)
    return {
        "kind": "brainkit report",
        "title": found.title,
        "lead": found.lead,
        "note": found.note,
        "cards": [],
        "sections": found.sections,
        "footer": f"Made with brainkit {__version__}.",
    }


def _subject_sections(
    folder: Path, summary: dict[str, Any], data: str | os.PathLike[str] | None, cortex: bool
) -> list[Section]:
    maps = run_map_set(folder)
    drawn = maps.vertices.space != CUSTOM or maps.volume is not None
    if not drawn:  # there is no surface to draw on
        maps = replace(maps, maps=())
    scored = _is_scored(summary) and (folder / "scores.npz").is_file()
    sections = [
        Section("accuracy", "How accurate is it?", _accuracy(folder, summary, maps) if scored else []),
        Section("maps", "What do vertices read?", _maps(folder, maps, cortex)),
        Section("truth", "Planted truth beside what was found", _truth(folder, summary, maps, data) if scored else []),
        Section("baselines", "Baselines", _baselines(folder)),
        Section("uncertainty", "How sure are the maps?", _uncertainty(folder, maps)),
        Section("vertices", "Best and worst vertices", vertex_blocks(folder, maps, data) if scored else []),
        Section("training", "Training", _training(folder, summary)),
        Section("data", "What was trained on what", [_data_facts(summary), *_configuration(folder)]),
        Section("reproduce", "Reproduce it", _reproduce(folder, summary)),
        Section("cite", "How to cite", _cite(summary)),
    ]
    return [section for section in sections if section.blocks]


def _is_scored(summary: dict[str, Any]) -> bool:
    """Whether there are scores: weights of others, imported without data, have none."""
    return "scores" in summary and summary["scores"]["all"]["r"] is not None


def _lead(summary: dict[str, Any]) -> str:
    kind = "random weights" if summary["backbone"]["pretrained"] is False else "frozen"
    data = summary["data"]
    return (
        f"An encoding model that predicts the responses of {plural(summary['vertices'], 'vertex', 'vertices')} "
        f"({summary['space']}) of {data['name']} to an image, from {len(summary['backbone']['layers'])} layers of "
        f"{summary['backbone']['name']} ({kind}). Every vertex picks its own layer, location, scale and channels."
    )


def _cards(summary: dict[str, Any]) -> list[dict[str, str]]:
    scores = summary["scores"]
    every = scores["all"]
    cards = [{"value": number(every["r"], ".2f"), "label": f"median r on test images{_interval(every, 'r')}"}]
    if every["share"] is not None:
        label = f"of the noise ceiling explained, median{_interval(every, 'share')}"
        cards.append({"value": f"{100 * every['share']:.0f} %", "label": label})
    split = summary["split"]
    stimuli = "" if scores["stimuli"] is None else f" of {plural(scores['stimuli'], 'stimulus', 'stimuli')}"
    cards.append({"value": f"{split['test']:,}", "label": f"test images{stimuli}, kept apart from training"})
    if "train" in split:
        label = f"training images, {split['validation']:,} for validation"
        cards.append({"value": f"{split['train']:,}", "label": label})
    return cards


def _interval(row: dict[str, Any], name: str) -> str:
    found = row.get(f"{name}_interval")
    return "" if not found or found[0] is None else f", 95 % interval {found[0]:.2f} to {found[1]:.2f}"


def _accuracy(folder: Path, summary: dict[str, Any], maps: MapSet) -> list[Block]:
    scores = summary["scores"]
    named = {"all vertices": scores["all"], **{name: row for name, row in scores["rois"].items() if row["vertices"]}}
    points = {
        name: dict(zip(("value", "low", "high"), (row["r"], *(row.get("r_interval") or (None, None))), strict=True))
        for name, row in named.items()
    }
    with np.load(folder / "scores.npz") as file:
        ceiling = file["noise_ceiling"]
    members = {"all vertices": np.arange(len(ceiling)), **maps.rois}
    largest = {
        name: float(np.sqrt(np.nanmedian(ceiling[members[name]]))) for name in named if _known(ceiling, members[name])
    }
    chart = report_charts.accuracy_by_roi(points, largest, _interval_note(scores))
    source = chart_picture(chart)
    caption = "Median correlation of predicted and measured responses over each region's vertices."
    shown = [blocks.figure(source, "Accuracy by region of interest", caption), blocks.table(score_table(scores))]
    return shown + [_map(maps, name) for name in ("accuracy", "explained") if _has(maps, name)]


def _known(ceiling: np.ndarray, members: np.ndarray) -> bool:
    return bool(np.isfinite(ceiling[members]).any())


def _interval_note(scores: dict[str, Any]) -> str:
    if scores["stimuli"] is None or not scores["all"].get("r_interval"):
        return ""
    return f"bars: 95 % intervals over {plural(scores['stimuli'], 'stimulus', 'stimuli')}"


def _maps(folder: Path, maps: MapSet, cortex: bool) -> list[Block]:
    shown = [_map(maps, name) for name in ("layer", "location", "scale") if _has(maps, name)]
    if cortex and maps.vertices.space != CUSTOM:
        shown += [blocks.heading("Turn it"), blocks.page("The cortex, to turn and flatten", run_page(folder))]
    return shown


def _has(maps: MapSet, name: str) -> bool:
    return name in maps.names


def _map(maps: MapSet, name: str) -> Block:
    return blocks.figure(map_picture(maps, maps[name]), f"Map: {maps[name].title}")


def _truth(folder: Path, summary: dict[str, Any], maps: MapSet, data: str | os.PathLike[str] | None) -> list[Block]:
    """Of a simulated subject: the maps that were planted beside those that were found."""
    truth_file = Path(data or summary["data"]["path"] or "") / "truth.npz"
    if not (folder / "recovery.json").is_file() or not truth_file.is_file():
        return []
    recovery = read_json(folder / "recovery.json")
    truth = read_truth(truth_file)
    with np.load(folder / "selectors.npz") as file:
        found = {name: file[name] for name in ("layer_weights", "locations", "scale", "vertices", "layers")}
    with np.load(folder / "scores.npz") as file:
        good = file["noise_ceiling"] > CEILING_FOR_RECOVERY
    order = np.searchsorted(truth["vertices"], found["vertices"])
    steps = np.arange(truth["layer_weights"].shape[1])
    pairs = {}
    if recovery["left_out"] is None:
        depths = (truth["layer_weights"][order] @ steps)[good], (found["layer_weights"] @ steps)[good]
        pairs["depth (layers)"] = (*depths, 0.0, float(steps[-1]))
    for axis, label in enumerate(("location, x", "location, y")):
        pairs[label] = truth["locations"][order, axis][good], found["locations"][good, axis], -1.0, 1.0
    pairs["scale"] = truth["scale"][order][good], found["scale"][good], 0.0, 1.0
    detail = f"{plural(int(good.sum()), 'vertex', 'vertices')} with a noise ceiling above {CEILING_FOR_RECOVERY}"
    shown = [
        blocks.text("This subject is simulated: its responses come from maps that were drawn, so the truth is known."),
        blocks.figure(
            chart_picture(report_charts.recovery(pairs, detail)),
            "Found against planted selectors",
            "Each point is a vertex; on the line, the value that was planted was found.",
        ),
        blocks.table(recovery_table(recovery)),
    ]
    planted = {name: truth[name][order] for name in ("layer_weights", "locations", "scale")}
    return shown + _planted_beside_found(planted, maps, recovery["left_out"] is None)


def _planted_beside_found(planted: Mapping[str, np.ndarray], maps: MapSet, same_layers: bool) -> list[Block]:
    from brainkit.maps import definitions

    shown = []
    names = ["layer"] * same_layers + ["location", "scale"]
    for name in names:
        if not _has(maps, name):
            continue
        found = maps[name]
        if name == "layer":
            truth = definitions.layer(found.coding.names, planted["layer_weights"])  # type: ignore[union-attr]
        elif name == "location":
            truth = definitions.location(planted["locations"])
        else:
            truth = definitions.scale(planted["scale"])
        left, right = ("planted", map_picture(maps, truth, small=True)), ("found", map_picture(maps, found, small=True))
        shown.append(blocks.pair(left, right, f"{found.title.capitalize()}."))
    return shown


def _baselines(folder: Path) -> list[Block]:
    file = folder / "baselines.json"
    if not file.is_file():
        return []
    content = read_json(file)
    rows = Rows(folder, [Row.from_json(each) for each in content["baselines"]], content["provenance"])
    shown = [blocks.table(rows.table())]
    if (chart := folder / "baselines.png").is_file():
        shown.insert(0, blocks.figure(picture(chart.read_bytes(), "png"), "The run and its baselines"))
    return shown


def _uncertainty(folder: Path, maps: MapSet) -> list[Block]:
    file = folder / "uncertainty.json"
    if not file.is_file():
        return []
    shown = [blocks.table(uncertainty_table(read_json(file)))]
    return shown + [_map(maps, name) for name in ("depth-se",) if _has(maps, name)]


def _training(folder: Path, summary: dict[str, Any]) -> list[Block]:
    shown = []
    file = folder / "metrics.csv"
    if file.is_file():
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        if rows and {"epoch", "train_loss", "val_r"} <= set(rows[0]):
            epochs, loss, r = ([float(row[name]) for row in rows] for name in ("epoch", "train_loss", "val_r"))
            chart = report_charts.training(epochs, loss, r, int(np.argmax(r)))
            shown.append(blocks.figure(chart_picture(chart), "Training curves"))
    if "memory" in summary:
        shown.append(blocks.table(work_table(summary)))
    return shown


def _data_facts(summary: dict[str, Any]) -> Block:
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
            ("Vertices", f"{summary['vertices']:,} of {summary['space']}"),
            ("Responses in", summary["units"]),
            ("Left out", ", ".join(f"{count} {reason}" for reason, count in data["excluded"].items() if count)),
            ("Seed", summary["seed"]),
            ("Software", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ]
    )


def _short(digest: str | None) -> str:
    return digest[:16] if digest else "not known"


def _configuration(folder: Path) -> list[Block]:
    if not (folder / "config.yaml").is_file():
        return []
    return [blocks.folded("All settings (config.yaml)", read_text(folder / "config.yaml"))]


def _reproduce(folder: Path, summary: dict[str, Any]) -> list[Block]:
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


def _cite(summary: dict[str, Any]) -> list[Block]:
    texts = [*_CITE, summary["backbone"].get("citation"), *(summary["data"].get("dataset") or {}).get("citation", ())]
    return [blocks.text(each) for each in texts if each]
