"""The JSON next to an output, which describes its rows and columns."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from brainkit.predict.inputs.image_list import ImageList
from brainkit.predict.outputs.formats import format_of
from brainkit.predict.outputs.rows import Layout
from brainkit.utils.text import as_text


def write_description(
    path: Path,
    out: Path,
    layout: Layout,
    images: ImageList,
    rows: int,
    *,
    encoder: Mapping[str, Any],
    more: Mapping[str, Any],
) -> None:
    """Write the JSON; the images are written as they are read from their list.

    Parameters
    ----------
    path : Path
        The JSON.
    out : Path
        The output it describes.
    layout : Layout
    images : ImageList
        With the images that were skipped.
    rows : int
    encoder : mapping
        Which encoder file predicted, and on which device.
    more : mapping
        Other keys: contact sheets, the file of the spread.
    """
    chosen = format_of(out)
    files = [
        {
            "file": part.path(out).name,
            "hemisphere": part.hemisphere,
            "columns": part.columns.indices(len(layout.ids))[:2],
        }
        for part in layout.parts
    ]
    split_option = layout.by_hemisphere and not chosen.surface
    description: dict[str, Any] = {
        "file": [part["file"] for part in files] if layout.by_hemisphere else out.name,
        "format": "float32 (images, vertices of the hemisphere)" if split_option else chosen.content,
        "shape": [rows, len(layout.regions) if chosen.means else len(layout.ids)],
        "dtype": "float32",
        "rows": "images, in this order",
        "images": (as_text(name) for name in images.readable()),
        "skipped": ({"path": as_text(name), "reason": reason} for name, reason in images.skipped()),
        "notes": ({"path": as_text(name), "note": as_text(note)} for name, note in images.notes()),
        **layout.to_json(),
        "encoder": encoder,
        "note": layout.info.note,
    }
    if layout.by_hemisphere:
        description["hemispheres"] = files
    if chosen.means:
        description["columns"] = ["image", *layout.regions]
    if layout.regions:
        description["rois"] = {name: index.tolist() for name, index in layout.regions.items()}
    with path.open("w", encoding="utf-8") as file:
        write_streaming(file, description | dict(more))
        file.flush()
        os.fsync(file.fileno())


def write_streaming(file: TextIO, value: dict[str, Any]) -> None:
    """Write an object as indented JSON; if a value is an iterator, its items as they come."""
    for number, (key, each) in enumerate(value.items()):
        file.write(f"{',' if number else '{'}\n  {json.dumps(key)}: ")
        if not isinstance(each, Iterator):
            file.write(_indented(each, "  "))
            continue
        start = "["
        for item in each:
            file.write(f"{start}\n    {_line(item)}")
            start = ","
        file.write("[]" if start == "[" else "\n  ]")
    file.write("\n}\n")


def _indented(value: Any, by: str) -> str:
    """JSON with a line per key, and per item of a list; a list of numbers (or of lists) is one line."""
    inner = f"\n{by}  "
    if isinstance(value, Mapping) and value:
        lines = [f"{inner}{_line(key)}: {_indented(each, by + '  ')}" for key, each in value.items()]
        return f"{{{','.join(lines)}\n{by}}}"
    if isinstance(value, list) and value and isinstance(value[0], str | Mapping):
        return f"[{','.join(inner + _line(each) for each in value)}\n{by}]"
    return _line(value)


def _line(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)
