"""The licence of an encoder file, in three parts, and what to cite: texts that are stored in the file.

An encoder combines three works: the graph, written by brainkit; the backbone's weights; and the readout, fitted to
responses. Each part keeps its own terms, and nothing is guessed: terms that nobody has stated are "not stated".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from brainkit.data.dataset import ALGONAUTS_PAPER, NSD, NSD_PAPER, OWN, SIMULATED

BRAINKIT = "Apache-2.0"
PARTS = ("brainkit", "backbone", "data")
# Marks in the texts by which `is_stated` and `is_non_commercial` recognise them again.
_SILENT = "not stated"
_FORBIDDING = "NON-COMMERCIAL"
NOT_STATED = f"{_SILENT}: ask its authors"

# What names of licences have that forbid commercial use.
_NON_COMMERCIAL = re.compile(
    r"(?<![a-z])nc(?![a-z])|non[- ]?commercial|apple-amlr|seer-license|(research|academic)[- ](use[- ])?only|"
    r"not for commercial|commercial use (is )?(prohibited|forbidden|not allowed)",
    re.IGNORECASE,
)
_PLAIN = {
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "cc0": "CC0-1.0",
    "cc0-1.0": "CC0-1.0",
}

_DATA = {
    NSD: (
        "Natural Scenes Dataset: its data use agreement allows research and education "
        f"only ({_FORBIDDING}), and the data must not be passed on; https://naturalscenesdataset.org"
    ),
    SIMULATED: "simulated responses: nobody was measured, so no terms of a data set",
    OWN: f"{_SILENT}: ask those who measured the responses",
}

_MODEL = "Yang, Gee & Shi (2023), Brain Decodes Deep Nets, arXiv:2312.01280"


def licence_terms(
    *,
    backbone: str,
    licence: str | None,
    drawn: bool = False,
    data: str | None = None,
    dataset: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """The licence terms of an encoder file: of brainkit, the backbone's weights, and the data it was fitted to.

    Parameters
    ----------
    backbone : str
        Its name.
    licence : str or None
        Of its weights, as its authors name it; None or "unknown" if nobody has stated it.
    drawn : bool
        The weights are random numbers that brainkit has drawn; these have no licence.
    data : {"nsd", "simulated", "own"} or None
        As in :class:`brainkit.data.subject.Subject`; None if unknown.
    dataset : mapping, optional
        ``name`` and ``licence`` of the data, as their authors state them; these come before what `data` implies.

    Returns
    -------
    dict of str to str
        ``brainkit``, ``backbone``, ``data``.
    """
    name = PurePath(backbone).name
    of_backbone = "random weights, drawn by brainkit: none" if drawn else describe_licence(licence)
    return {"brainkit": BRAINKIT, "backbone": f"{name}: {of_backbone}", "data": _data_terms(data, dataset or {})}


def _data_terms(kind: str | None, dataset: Mapping[str, Any]) -> str:
    name, licence = dataset.get("name"), dataset.get("licence")
    terms = describe_licence(licence) if licence else _DATA.get(kind or OWN, _DATA[OWN])
    return f"{name}: {terms}" if name and not terms.startswith(name) else terms


def describe_licence(licence: str | None) -> str:
    """A licence in words that say what it forbids."""
    name = (licence or "").strip()
    low = re.sub(r"[\s_]+", "-", name.lower())
    if low in ("", "unknown", "none", "other"):
        return NOT_STATED
    if _NON_COMMERCIAL.search(low):
        return f"{_PLAIN.get(low, name)}, {_FORBIDDING} use only"
    if low in _PLAIN:
        return _PLAIN[low]
    return f"{name}: terms of its own, to be read before the file is used or passed on"


def is_non_commercial(terms: str) -> bool:
    """Whether the terms of a part forbid commercial use."""
    return _FORBIDDING in terms or _NON_COMMERCIAL.search(terms) is not None


def is_stated(terms: str) -> bool:
    """Whether the terms of a part are known."""
    return _SILENT not in terms


def citation(
    *, backbone: str, paper: str = "", data: str | None = None, dataset: Mapping[str, Any] | None = None
) -> str:
    """What to cite when using an encoder file, one reference per line.

    Parameters
    ----------
    backbone, data
        As for `licence_terms`.
    paper : str
        The backbone's.
    dataset : mapping, optional
        ``citation``: the data's references.
    """
    lines = ["brainkit: see CITATION.cff in its repository", _MODEL]
    lines += [paper or f"the authors of {PurePath(backbone).name}"]
    stated = (dataset or {}).get("citation", ())
    if data == NSD and NSD_PAPER not in stated:
        lines += [NSD_PAPER, ALGONAUTS_PAPER]
    lines += stated
    return "\n".join(lines)


def join_terms(terms: Mapping[str, str]) -> str:
    """The three parts as the single text ``licence``, for readers that know only that key."""
    return f"brainkit: {terms['brainkit']}. Backbone {terms['backbone']}. Responses: {terms['data']}."
