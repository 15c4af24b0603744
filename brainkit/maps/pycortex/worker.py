"""What runs pycortex, as a process of its own: ``python worker.py FOLDER``.

Importing pycortex writes a configuration, reads that of the user, prints, and changes matplotlib. So brainkit never
imports it: this script does, with a configuration made for it, and imports nothing of brainkit. The folder holds
``job.json`` and ``arrays.npz``; see ``run.py``, which writes them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_FEWEST = 8  # points of an outline: smaller ones are single vertices
_INK, _FAINT = "#1b1f24", "#57606a"
_HEAD, _FOOT = 0.7, 1.5  # inches above and below the flatmap
_SVG = "{http://www.w3.org/2000/svg}"
_INKSCAPE = "{http://www.inkscape.org/namespaces/inkscape}"


def main(folder: Path) -> None:
    """Do what a job asks for."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    with np.load(folder / "arrays.npz") as file:
        arrays = {name: file[name] for name in file.files}
    for path, number in job["figures"].items():
        _draw(Path(path), job, arrays, number)
    if job["viewer"]:
        _write_viewer(Path(job["viewer"]), folder, job, arrays)
    if job["dataset"]:
        _write_dataset(Path(job["dataset"]), job, arrays)


def _draw(path: Path, job: Mapping[str, Any], arrays: Mapping[str, np.ndarray], number: int) -> None:
    """A quickflat figure. Outlines, names and the legend are drawn by matplotlib, so Inkscape is not needed."""
    import cortex
    from matplotlib import pyplot as plt

    facts = job["maps"][number]
    figure = cortex.quickflat.make_figure(
        _coloured(arrays[f"colours{number}"], job["subject"]),
        height=job["height"],
        with_rois=False,
        with_labels=False,
        with_colorbar=False,
        with_curvature=True,
        curvature_brightness=0.72,
        curvature_contrast=0.22,
        curvature_threshold=True,
    )
    axes = figure.axes[0]
    points, faces = _flat(job["subject"])
    for _, lines in _outlines(points, faces, job["rois"], arrays):
        for line in lines:
            axes.plot(*line.T, color="black", linewidth=2.2, alpha=0.55)
            axes.plot(*line.T, color="white", linewidth=1.1)
    for name, lines in _outlines(points, faces, job["rois"], arrays):
        longest = max(lines, key=len)
        style = {"color": "white", "fontsize": 13, "ha": "center", "va": "center", "parse_math": False}
        text = axes.text(*longest.mean(axis=0), name, **style)
        text.set_path_effects(_halo())
    width, height = figure.get_size_inches()
    whole = height + _FOOT + _HEAD
    figure.set_size_inches(width, whole)
    axes.set_position((0, _FOOT / whole, 1, height / whole))
    _legend(figure, facts, arrays.get(f"key{number}"))
    style = {"ha": "center", "va": "center", "parse_math": False}
    figure.text(0.5, 1 - _HEAD / 2 / whole, facts["heading"], fontsize=19, weight="bold", color=_INK, **style)
    figure.text(0.5, 0.2 / whole, facts["detail"], fontsize=12, color=_FAINT, **style)
    mark = {"Software": "brainkit"}  # as brainkit/utils/own_figures.py reads it
    figure.savefig(path, dpi=100, facecolor="white", metadata=mark)
    plt.close(figure)


def _legend(figure: Any, facts: Mapping[str, Any], key: Any) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.patches import Patch

    inch = 1 / figure.get_size_inches()[1]
    if facts["kind"] == "classes":
        patches = [Patch(color=colour, label=name) for name, colour in facts["classes"]]
        place = {"loc": "center", "bbox_to_anchor": (0.5, 0.8 * inch)}
        figure.legend(
            handles=patches, ncols=min(len(patches), 10), frameon=False, fontsize=13, labelcolor=_INK, **place
        )
    elif facts["kind"] == "location":
        axes = figure.add_axes((0.475, 0.4 * inch, 0.05, 0.95 * inch))
        axes.imshow(key)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_ylabel("image", fontsize=12, color=_INK)
    else:
        axes = figure.add_axes((0.38, 0.98 * inch, 0.24, 0.18 * inch))
        colours = ListedColormap(np.asarray(key)).with_extremes(under=facts["below"] or key[0])
        scale = ScalarMappable(Normalize(facts["low"], facts["high"]), colours)
        bar = figure.colorbar(scale, cax=axes, orientation="horizontal", extend=facts["extend"])
        bar.set_label(facts["label"], fontsize=13, color=_INK)
        axes.tick_params(labelsize=12, color=_FAINT, labelcolor=_INK)


def _write_viewer(out: Path, folder: Path, job: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """pycortex's WebGL viewer, as a folder of files."""
    import cortex

    views = {facts["title"]: _view(number, job, arrays) for number, facts in enumerate(job["maps"])}
    overlay = _write_overlay(folder / "overlays.svg", job, arrays)
    cortex.webgl.make_static(
        str(out),
        cortex.Dataset(**views),
        title=job["title"],
        overlay_file=str(overlay),
        overlays_available=("rois",),
        overlays_visible=("rois",),
        recache=True,  # else the outlines would be those of another run
    )


def _write_dataset(path: Path, job: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """All maps as an ``.hdf`` file that ``cortex.load`` reads."""
    import cortex
    import h5py

    views = {facts["name"]: _view(number, job, arrays) for number, facts in enumerate(job["maps"])}
    cortex.Dataset(**views).save(str(path))
    with h5py.File(path, "r+") as file:
        for node in file["data"].values():
            node.attrs["subject"] = job["dataset_subject"]


def _view(number: int, job: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    """A map as pycortex has it: numbers with a colour map, or colours."""
    import cortex

    facts = job["maps"][number]
    if facts["kind"] != "numbers":
        return _coloured(arrays[f"colours{number}"], job["subject"], facts["detail"])
    limits = {"vmin": facts["low"], "vmax": facts["high"], "cmap": facts["colours"]}
    return cortex.Vertex(arrays[f"values{number}"], job["subject"], description=facts["detail"], **limits)


def _coloured(colours: np.ndarray, subject: str, description: str = "") -> Any:
    import cortex

    return cortex.VertexRGB(*colours[:, :3].T, subject, alpha=colours[:, 3], description=description)


def _flat(subject: str) -> tuple[np.ndarray, np.ndarray]:
    """The flatmap in quickflat's coordinates: points (n, 2) and faces."""
    import cortex

    points, faces = cortex.db.get_surf(subject, "flat", merge=True, nudge=True)
    return points[:, :2].astype(np.float64), faces


def _outlines(
    points: np.ndarray, faces: np.ndarray, rois: list[str], arrays: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Names of regions, and the lines around their vertices on the flatmap: (points, 2) each."""
    from matplotlib.figure import Figure
    from matplotlib.tri import Triangulation

    mesh = Triangulation(points[:, 0], points[:, 1], faces)
    axes = Figure().add_subplot()
    for number, name in enumerate(rois):
        inside = np.zeros(len(points))
        inside[arrays[f"roi{number}"]] = 1
        lines = [line for line in axes.tricontour(mesh, inside, levels=[0.5]).allsegs[0] if len(line) >= _FEWEST]
        if lines:
            yield name, lines


def _write_overlay(path: Path, job: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Path:
    """The outlines as the SVG that the viewer reads; the subject's own overlays stay as they are."""
    import cortex
    from cortex.svgoverlay import make_svg
    from lxml import etree

    points, faces = cortex.db.get_surf(job["subject"], "flat", merge=True, nudge=True)
    root = etree.fromstring(make_svg(points, faces).encode(), etree.XMLParser(huge_tree=True))
    flat = points[:, :2] - points[:, :2].min(axis=0)
    flat *= 1024 / flat[:, 1].max()
    flat[:, 1] = 1024 - flat[:, 1]
    (shapes,) = (group for group in root.iter(f"{_SVG}g") if group.get("id") == "rois_shapes")
    for child in list(shapes):
        shapes.remove(child)
    for number, (name, lines) in enumerate(_outlines(flat, faces, job["rois"], arrays)):
        group = etree.SubElement(shapes, f"{_SVG}g", id=f"roi_{number}", style="display:inline;")
        group.set(f"{_INKSCAPE}label", name)
        group.set(f"{_INKSCAPE}groupmode", "layer")
        for line in lines:
            data = "M " + " L ".join(f"{x:.2f},{y:.2f}" for x, y in line)
            etree.SubElement(group, f"{_SVG}path", d=data, style="fill:none;stroke:#ffffff;stroke-width:2")
    path.write_bytes(etree.tostring(root, xml_declaration=True, encoding="utf-8"))
    return path


def _halo() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.5, foreground="black", alpha=0.6)]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
