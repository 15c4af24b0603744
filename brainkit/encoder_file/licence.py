"""The licence of an encoder file, in three parts, and what to cite: texts that are stored in the file.

An encoder combines three works: the graph, written by brainkit; the backbone's weights; and the readout, fitted to
responses. Each part keeps its own terms, and nothing is guessed: terms that nobody has stated are "not stated".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath

BRAINKIT = "Apache-2.0"
PARTS = ("brainkit", "backbone", "data")
# Marks in the texts by which `is_stated` and `is_non_commercial` recognise them again.
_SILENT = "not stated"
_FORBIDDING = "NON-COMMERCIAL"
NOT_STATED = f"{_SILENT}: ask its authors"

# Parts of licence names that forbid commercial use.
_NON_COMMERCIAL = ("-nc", "noncommercial", "non-commercial", "apple-amlr", "seer-license", "research-only")
_PLAIN = {
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
}

NSD = "nsd"
SIMULATED = "simulated"
OWN = "own"
_DATA = {
    NSD: (
        "Natural Scenes Dataset, as Algonauts 2023 gives it: its data use agreement allows research and education "
        f"alone ({_FORBIDDING}), and the data must not be passed on; https://naturalscenesdataset.org"
    ),
    SIMULATED: "simulated responses: nobody was measured, so no terms of a data set",
    OWN: f"{_SILENT}: ask those who measured the responses",
}

_MODEL = "Yang, Gee & Shi (2023), Brain Decodes Deep Nets, arXiv:2312.01280"
_NSD_PAPERS = (
    "Allen et al. (2022), A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence, "
    "Nature Neuroscience 25, 116-126, doi:10.1038/s41593-021-00962-x",
    "Gifford et al. (2023), The Algonauts Project 2023 Challenge: How the Human Brain Makes Sense of Natural Scenes, "
    "arXiv:2301.03198",
)


def licence_terms(
    *, backbone: str, licence: str | None, pretrained: bool = True, data: str | None = None
) -> dict[str, str]:
    """The licence terms of an encoder file: of brainkit, the backbone's weights, and the data it was fitted to.

    Parameters
    ----------
    backbone : str
        Its name.
    licence : str or None
        Of its weights, as its authors name it; None or "unknown" if nobody has stated it.
    pretrained : bool
        Random weights have no licence.
    data : {"nsd", "simulated", "own"} or None
        As `data_kind` returns it; None if unknown.

    Returns
    -------
    dict of str to str
        ``brainkit``, ``backbone``, ``data``.
    """
    name = PurePath(backbone).name
    of_backbone = describe_licence(licence) if pretrained else "random weights, drawn by brainkit: none"
    return {"brainkit": BRAINKIT, "backbone": f"{name}: {of_backbone}", "data": _DATA.get(data or OWN, _DATA[OWN])}


def describe_licence(licence: str | None) -> str:
    """A licence in words that say what it forbids."""
    name = (licence or "").strip()
    low = name.lower()
    if low in ("", "unknown", "none", "other"):
        return NOT_STATED
    if any(mark in low for mark in _NON_COMMERCIAL):
        return f"{_PLAIN.get(low, name)}, {_FORBIDDING} use alone"
    if low in _PLAIN:
        return _PLAIN[low]
    return f"{name}: terms of its own, to be read before the file is used or passed on"


def is_non_commercial(terms: str) -> bool:
    """Whether the terms of a part forbid commercial use."""
    return _FORBIDDING in terms or any(mark in terms.lower() for mark in _NON_COMMERCIAL)


def is_stated(terms: str) -> bool:
    """Whether the terms of a part are known."""
    return _SILENT not in terms


def data_kind(image_names: Iterable[str], note: str | None) -> str:
    """What the responses are: ``simulated`` by their note, ``nsd`` by the names of the images, else ``own``."""
    if note:
        return SIMULATED
    return NSD if any(re.search(r"(?:^|[_-])nsd-?\d", name) for name in image_names) else OWN


def citation(*, backbone: str, paper: str = "", data: str | None = None) -> str:
    """What to cite when using an encoder file, one reference per line; `paper` is the backbone's."""
    lines = ["brainkit: see CITATION.cff in its repository", _MODEL]
    lines += [paper or f"the authors of {PurePath(backbone).name}"]
    if data == NSD:
        lines += _NSD_PAPERS
    return "\n".join(lines)


def join_terms(terms: Mapping[str, str]) -> str:
    """The three parts as the single text ``licence``, for readers that know only that key."""
    return f"brainkit: {terms['brainkit']}. Backbone {terms['backbone']}. Responses: {terms['data']}."
