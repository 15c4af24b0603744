"""The metadata of a run's encoder file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.cortex.vertices import Vertices
from brainkit.data.dataset import SIMULATED
from brainkit.encoder_file.licence import citation, join_terms, licence_terms
from brainkit.runs.folder import figure_note, read_rois, read_settings, read_uncertainty, read_volume
from brainkit.runs.image_hashes import read_image_hashes

if TYPE_CHECKING:
    from brainkit.encoder_file import EncoderInfo
    from brainkit.model.factor_topy import FactorTopy


def encoder_info(folder: Path, summary: dict[str, Any], model: FactorTopy) -> EncoderInfo:
    """The metadata of the encoder file of a finished run.

    Parameters
    ----------
    folder : Path
        The run folder.
    summary : dict
        Its ``run.json``.
    model : FactorTopy
        Its model.
    """
    from brainkit.backbones.catalog import paper_of
    from brainkit.backbones.plugin import is_own
    from brainkit.export import describe
    from brainkit.images import Preprocessing

    with np.load(folder / "scores.npz") as file:
        scores = {key: file[key] for key in file.files}
    vertices = Vertices(str(scores["space"]), scores["vertices"])
    backbone = summary["backbone"]
    if ".py:" in backbone["name"]:
        backbone = {**backbone, "name": Path(backbone["name"]).name}
    # Runs of versions that did not store the kind can only be told to be simulated by their note.
    kind = summary["data"].get("kind", SIMULATED if summary["note"] else None)
    dataset = summary["data"].get("dataset")
    # Random weights of a user's own network may have a licence; those that brainkit drew have none.
    is_drawn = backbone["pretrained"] is False and not is_own(backbone["name"], backbone["source"])
    if is_drawn:
        backbone = {**backbone, "licence": None}
    # The responses it was fitted to, and those of the runs it started from.
    sources = [{"data": kind, "dataset": dataset}]
    sources += [{"data": each["kind"], "dataset": each["dataset"]} for each in summary.get("start", {}).get("data", ())]
    network = {"backbone": backbone["name"], "licence": backbone["licence"], "drawn": is_drawn}
    each_terms = [licence_terms(**network, **source) for source in sources]
    terms = {part: "; ".join(dict.fromkeys(one[part] for one in each_terms)) for part in each_terms[0]}
    # Runs of versions that did not store it have a network of brainkit's catalogue, or one that could not state it.
    paper = backbone["citation"] if "citation" in backbone else paper_of(backbone["name"])
    references = [citation(backbone=backbone["name"], paper=paper or "", **source) for source in sources]
    info = describe(
        model.folded(),
        vertices=vertices,
        rois=read_rois(folder, len(vertices)),
        preprocessing=Preprocessing.from_json(backbone["preprocessing"]),
        backbone={key: backbone[key] for key in ("name", "weights_hash", "pretrained", "licence", "source")},
        r=scores["r"],
        R2=scores["R2"],
        noise_ceiling=scores["noise_ceiling"],
        units=summary["units"],
        gauge=summary["gauge"],
        note=figure_note(summary),
        licence=join_terms(terms),
        terms=terms,
        citation="\n".join(dict.fromkeys("\n".join(references).splitlines())),
        provenance={
            **{name: summary[name] for name in ("imported", "start") if name in summary},
            "data": {key: summary["data"][key] for key in ("name", "hash", "images", "excluded")},
            "split": summary["split"],
            "seed": summary["seed"],
            "versions": {"brainkit": summary["brainkit"], **summary["versions"]},
            "config": _portable_settings(folder, summary),
            "scores": summary["scores"] if summary["scores"]["images"] else None,
        },
    )
    return dataclasses.replace(
        info,
        volume=read_volume(folder / "volume.npz"),
        uncertainty=read_uncertainty(folder, vertices),
        image_hashes=read_image_hashes(folder),
    )


def _portable_settings(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """The run's settings with bare file names for paths: the encoder file is passed on, the disk is not."""
    settings = read_settings(folder).to_dict()
    if "imported" in summary:
        del settings["train"], settings["seed"]  # nobody knows how the weights were trained
    settings["data"]["path"] = Path(settings["data"]["path"]).name
    if "train" in settings:
        settings["train"]["start"] = Path(settings["train"]["start"]).name
    settings["backbone"]["weights"] = Path(settings["backbone"]["weights"]).name
    if ".py:" in summary["backbone"]["name"]:
        settings["backbone"]["name"] = Path(summary["backbone"]["name"]).name
    return settings
