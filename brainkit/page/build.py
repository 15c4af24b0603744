"""The page as text: its content and its assets in one HTML file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from brainkit._version import __version__
from brainkit.errors import require
from brainkit.maps.brain_map import BrainMap, Categorical, Continuous
from brainkit.maps.colours import colour_map, location_colours
from brainkit.maps.definitions import DIVERGING
from brainkit.maps.paint import FAINTEST, PALE
from brainkit.page.content import PageContent, Photographs
from brainkit.page.geometry import pack_surface
from brainkit.page.pack import Pool

# In this order they make one script.
_SCRIPTS = (
    *("unpack", "matrix", "mesh", "outlines", "brain", "colours", "legend", "scene", "gpu", "renderer", "picking"),
    *("labels", "card", "pointer", "keyboard", "photographs", "link", "controls", "loop", "main"),
)
_SHADERS = (
    "shade.glsl",
    "surface.vert",
    "surface.frag",
    "line.vert",
    "line.frag",
    "id.vert",
    "id.frag",
    "copy.vert",
    "copy.frag",
)
_TABLE = 256  # colours of a colour map
_LOCATIONS = 101  # colours of the image's width


def build(content: PageContent) -> str:
    """The page, as the text of one HTML file. Two equal contents give the same text.

    It opens from disk, makes no request, and needs no library. Names and texts of the content may hold anything.

    Raises
    ------
    MissingDependency
        If matplotlib, whose colour maps are used, is not installed.
    """
    require("matplotlib", extra="maps", purpose="brainkit view")
    pool = Pool()
    data = json.dumps(_data(content, pool), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    style, script = _asset("page.css"), _script()
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": policy,
        "title": html.escape(content.maps.title or "Brain maps"),
        "style": style,
        "stills": "".join(_still(each.caption, each.image) for each in content.stills),
        "shaders": "".join(f'<script type="x-shader" id="{name}">{_asset(name)}</script>\n' for name in _SHADERS),
        "data": data.replace("<", "\\u003c"),  # nothing in it can end the element
        "arrays": pool.text(),
        "script": script,
    }
    page = _asset("page.html")
    pieces = page.split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        filled += [parts[name], rest]
    return "".join(filled)


def _data(content: PageContent, pool: Pool) -> dict[str, Any]:
    maps = content.maps
    tables: dict[str, Any] = {}
    return {
        "version": __version__,
        "title": maps.title,
        "note": maps.note or "",
        "provenance": list(content.provenance),
        "surface": pack_surface(content.surface, pool),
        "vertices": pool.add(content.surface.ids_of(maps.vertices, maps.ids).astype(np.int32), delta=True),
        "rois": [
            {"name": name, "members": pool.add(members, delta=True)}
            for name, members in maps.rois.items()
            if len(members)
        ],
        "maps": [_map(each, pool, tables) for each in maps.maps],
        "opacity": {"chance": PALE, "faintest": FAINTEST},
        "facts": [{"label": each.label, "values": pool.add_numbers(each.values)} for each in content.facts],
        "photographs": _photographs(content.photographs, pool, tables),
        "tables": tables,
    }


def _map(brain_map: BrainMap, pool: Pool, tables: dict[str, Any]) -> dict[str, Any]:
    coding = brain_map.coding
    described: dict[str, Any] = {
        "name": brain_map.name,
        "title": brain_map.title,
        "summary": brain_map.summary,
        "detail": brain_map.detail,
        "empty": brain_map.empty,
        "label": coding.label,
    }
    if isinstance(coding, Continuous):
        described |= {
            "kind": "continuous",
            "values": pool.add_numbers(brain_map.values),
            "low": coding.low,
            "high": coding.high,
            "ends": list(coding.ends or ()),
            "extend": coding.extend,
            "below": _hex(coding.below),
            "table": _table(coding.colours, pool, tables),
        }
    elif isinstance(coding, Categorical):
        described |= {
            "kind": "categorical",
            "values": pool.add(_shares(brain_map.values)),
            "known": pool.add(brain_map.known.astype(np.uint8)),
            "names": list(coding.names),
            "palette": pool.add(_bytes(coding.palette)),
            "strengthLabel": coding.strength_label,
            "strengthName": coding.strength_name or "strength",
        }
    else:
        if "location" not in tables:
            axis = np.linspace(-1, 1, _LOCATIONS)
            table = location_colours(*np.meshgrid(axis, axis))
            tables["location"] = pool.add(_bytes(table.reshape(-1, 3)), delta=True)
        described |= {"kind": "location", "values": pool.add_numbers(brain_map.values), "table": "location"}
    if brain_map.reliable is not None:
        described["reliable"] = pool.add(np.asarray(brain_map.reliable, dtype=np.uint8))
    if brain_map.strength is not None:
        described["strength"] = pool.add(_bytes(np.nan_to_num(brain_map.strength)))
    return described


def _hex(colour: str) -> str:
    from matplotlib.colors import to_hex

    return to_hex(colour) if colour else ""


def _shares(values: np.ndarray) -> np.ndarray:
    """Shares in 1/127 of the largest one of each row. (V, n) uint8."""
    known = np.where(np.isfinite(values), np.maximum(values, 0.0), 0.0)
    return np.rint(127 * known / np.maximum(known.max(axis=1, keepdims=True), 1e-12)).astype(np.uint8)


def _photographs(photographs: Photographs | None, pool: Pool, tables: dict[str, Any]) -> dict[str, Any] | None:
    if photographs is None:
        return None
    responses = np.asarray(photographs.responses, dtype=np.float64)
    known = np.isfinite(responses)
    largest = float(np.abs(responses[known]).max()) if known.any() else 0.0
    step = max(largest, 1e-12) / 127
    steps = np.where(known, np.rint(np.where(known, responses, 0.0) / step), -128)
    return {
        "names": list(photographs.names),
        "thumbnails": [_data_uri(each) for each in photographs.thumbnails],
        "responses": pool.add(steps.astype(np.int8).ravel()),
        "step": step,
        "limit": photographs.limit,
        "units": photographs.units,
        "table": _table(DIVERGING, pool, tables),
    }


def _table(name: str, pool: Pool, tables: dict[str, Any]) -> str:
    if name not in tables:
        tables[name] = pool.add(_bytes(colour_map(name)(np.linspace(0, 1, _TABLE))[:, :3]), delta=True)
    return name


def _bytes(values: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1] as uint8."""
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _still(caption: str, image: bytes) -> str:
    caption = html.escape(caption)
    return f'<figure><img alt="{caption}" src="{_data_uri(image)}"><figcaption>{caption}</figcaption></figure>'


def _data_uri(image: bytes) -> str:
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"


@cache
def _script() -> str:
    """All scripts in one function, so that their names stay within the page."""
    parts = "\n".join(_asset(f"{name}.js") for name in _SCRIPTS)
    return f'"use strict";(() => {{\n{parts}}})();'


@cache
def _asset(name: str) -> str:
    return (resources.files("brainkit.page") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As the content security policy names a script or a style that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
