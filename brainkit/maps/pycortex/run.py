"""Maps by pycortex: figures, the viewer, a dataset. Each is one run of ``worker.py`` in a process of its own."""

from __future__ import annotations

import configparser
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.cortex.cortical_surface import average_surface
from brainkit.cortex.vertices import CUSTOM, SPACES
from brainkit.errors import BrainkitError, MissingDependency, UsageError
from brainkit.maps.brain_map import BrainMap, Categorical, Continuous, MapSet
from brainkit.maps.colours import colour_map, location_table
from brainkit.maps.paint import FAINTEST, PALE, colours_of
from brainkit.maps.pycortex.single_file import single_file
from brainkit.maps.pycortex.subject import write_subject
from brainkit.utils.file_names import file_stem
from brainkit.utils.files import atomic_write, cache_folder, create_folder
from brainkit.utils.text import first_line


@dataclass(frozen=True)
class Pycortex:
    """How pycortex is used.

    Parameters
    ----------
    filestore : path-like, optional
        pycortex's folder of subjects. By default one in brainkit's cache folder. If it has no subject named after the
        space, one is written; if it has, it is drawn on.
    subject : str, optional
        The name that datasets have as their subject; by default that of the space.
    """

    filestore: str | os.PathLike[str] | None = None
    subject: str | None = None


HEIGHT = 1024  # pixels of a flatmap
# The data are mostly of the visual cortex, so the viewer opens on the back of the brain.
_FROM_THE_BACK = """<script>
addEventListener("load", () => window.viewer && viewer.loaded.done(() => {
  viewer.ui.set("camera.azimuth", 180); viewer.ui.set("camera.altitude", 75);
}));
</script>"""
_WORKER = Path(__file__).with_name("worker.py")


def write_quickflat(
    folder: str | os.PathLike[str], maps: MapSet, *, filestore: str | os.PathLike[str] | None = None
) -> list[Path]:
    """Draw each map with pycortex's quickflat, with outlines and names of the regions; Inkscape is not needed.

    Parameters
    ----------
    folder : path-like
        Of the figures, ``NAME.png``; created if it does not exist.
    maps : MapSet
        Of vertices of an fsaverage space.
    filestore : path-like, optional
        pycortex's folder of subjects. By default one in brainkit's cache folder. If it has no subject named after the
        space, one is written; if it has, it is drawn on.

    Returns
    -------
    list of Path

    Raises
    ------
    UsageError
        If the vertices are custom.
    DataError
        If the filestore has a subject of that name with other vertices.
    MissingDependency
        If pycortex or nilearn is not installed.
    BrainkitError
        If pycortex fails.
    """
    check_pycortex(maps)
    figures = {brain_map.name: create_folder(folder) / f"{file_stem(brain_map.name)}.png" for brain_map in maps.maps}
    with tempfile.TemporaryDirectory() as place:
        drawn = {str(Path(place) / path.name): number for number, path in enumerate(figures.values())}
        _run(Path(place), maps, filestore, figures=drawn)
        for path in figures.values():
            with atomic_write(path) as temporary:
                temporary.write_bytes((Path(place) / path.name).read_bytes())
    return list(figures.values())


def write_viewer(
    path: str | os.PathLike[str], maps: MapSet, *, filestore: str | os.PathLike[str] | None = None
) -> Path:
    """Write pycortex's WebGL viewer as one HTML file, which opens from disk with no server and no network.

    Vertices whose number may be chance are left out. Parameters, errors: as `write_quickflat`.
    """
    check_pycortex(maps)
    with atomic_write(path) as temporary, tempfile.TemporaryDirectory() as place:
        _run(Path(place), maps, filestore, viewer=str(Path(place) / "viewer"), only_reliable=True)
        temporary.write_text(single_file(Path(place) / "viewer") + _FROM_THE_BACK, encoding="utf-8")
    return Path(path)


def write_dataset(
    path: str | os.PathLike[str],
    maps: MapSet,
    *,
    subject: str | None = None,
    filestore: str | os.PathLike[str] | None = None,
) -> Path:
    """Write the maps as an ``.hdf`` file that ``cortex.load`` reads.

    Parameters
    ----------
    subject : str, optional
        The reader's own subject, of the same vertices; by default the one named after the space.

    Other parameters, errors: as `write_quickflat`.
    """
    check_pycortex(maps)
    with atomic_write(path) as temporary, tempfile.TemporaryDirectory() as place:
        _run(Path(place), maps, filestore, dataset=str(temporary.absolute()), dataset_subject=subject)
    return Path(path)


def check_pycortex(maps: MapSet) -> None:
    """Refuse what cannot be drawn with pycortex, before anything is written."""
    if maps.vertices.space == CUSTOM:
        raise UsageError("pycortex: needs vertices of an fsaverage space, got custom ones, which have no surface")
    if importlib.util.find_spec("cortex") is None:
        raise MissingDependency(
            "drawing with pycortex needs pycortex, which is not installed; install it with: "
            "pip install 'brainkit[pycortex]'"
        )


def _run(
    place: Path,
    maps: MapSet,
    filestore: str | os.PathLike[str] | None,
    *,
    figures: dict[str, int] | None = None,
    viewer: str = "",
    dataset: str = "",
    dataset_subject: str | None = None,
    only_reliable: bool = False,
) -> None:
    """Run the worker on a job in the folder `place`."""
    store, subject = _open_filestore(maps.vertices.space, filestore, place)
    (place / "colormaps").mkdir()
    arrays: dict[str, np.ndarray] = {}
    facts = [_facts(number, each, maps, arrays, only_reliable) for number, each in enumerate(maps.maps)]
    for name in {each["colours"] for each in facts if "colours" in each} | {"RdBu_r"}:  # pycortex's default
        _write_colour_map(place / "colormaps" / f"{name}.png", colour_map(name)(np.arange(256)))
    rois = {name: members for name, members in maps.rois.items() if len(members)}
    arrays |= {f"roi{number}": maps.vertices.ids[members] for number, members in enumerate(rois.values())}
    job = {
        "subject": subject,
        "title": maps.title,
        "height": HEIGHT,
        "maps": facts,
        "rois": list(rois),
        "figures": figures or {},
        "viewer": viewer,
        "dataset": dataset,
        "dataset_subject": dataset_subject or subject,
    }
    (place / "job.json").write_text(json.dumps(job), encoding="utf-8")
    np.savez(place / "arrays.npz", **arrays)  # type: ignore[arg-type]
    environment = _environment(place, store)
    done = subprocess.run(
        [sys.executable, str(_WORKER), str(place)], env=environment, cwd=place, capture_output=True, text=True
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise BrainkitError(f"pycortex failed: {first_line(lines[-1])}")


def _open_filestore(space: str, filestore: str | os.PathLike[str] | None, place: Path) -> tuple[Path, str]:
    """The filestore and the subject in it; where the cache folder cannot be written, a temporary one."""
    surface = average_surface(space)
    chosen = cache_folder() / "pycortex" if filestore is None else Path(filestore)
    try:
        return chosen.absolute(), write_subject(chosen, surface)
    except OSError as error:
        if filestore is not None:
            raise BrainkitError(f"{chosen}: cannot be written: {error.strerror}; name another filestore") from None
    return place / "filestore", write_subject(place / "filestore", surface)


def _environment(place: Path, filestore: Path) -> dict[str, str]:
    """The environment of a process in which pycortex reads our configuration and writes none of the user's."""
    config = configparser.ConfigParser()
    config["basic"] = {"filestore": str(filestore).replace("%", "%%")}
    config["webgl"] = {"colormaps": str(place / "colormaps").replace("%", "%%")}
    (place / "pycortex").mkdir()
    with (place / "pycortex" / "options.cfg").open("w", encoding="utf-8") as file:
        config.write(file)
    found = dict.fromkeys(("XDG_CONFIG_HOME", "APPDATA"), str(place))
    if sys.platform == "darwin":
        (place / "Library").mkdir()
        (place / "Library" / "Application Support").symlink_to(place)
        found["HOME"] = str(place)
    packages = os.pathsep.join(path for path in sys.path if path)  # without the working folder: it may hold a cortex/
    return os.environ | found | {"MPLBACKEND": "Agg", "PYTHONPATH": packages}


def _facts(
    number: int, brain_map: BrainMap, maps: MapSet, arrays: dict[str, np.ndarray], only_reliable: bool
) -> dict[str, Any]:
    """What the worker needs to know of a map; its arrays, over the whole surface, go into `arrays`."""
    colours = np.rint(255 * _vertex_colours(brain_map)).astype(np.uint8)
    arrays[f"colours{number}"] = _on_surface(colours, maps, 0)
    hides = only_reliable and brain_map.reliable is not None and isinstance(brain_map.coding, Continuous)
    detail = "vertices that may be chance are not shown" if hides else brain_map.detail
    detail = "; ".join(part for part in (brain_map.summary, detail, maps.note) if part)
    heading = f"{maps.title}: {brain_map.title}" if maps.title else brain_map.title
    facts: dict[str, Any] = {"name": file_stem(brain_map.name), "title": brain_map.title, "detail": detail}
    facts["heading"] = heading
    coding = brain_map.coding
    if isinstance(coding, Continuous):
        shown = brain_map.known & brain_map.reliable if hides else brain_map.known
        arrays[f"values{number}"] = _on_surface(
            np.where(shown, brain_map.values, np.nan).astype(np.float32), maps, np.nan
        )
        arrays[f"key{number}"] = colour_map(coding.colours)(np.arange(256))
        more = {name: getattr(coding, name) for name in ("colours", "low", "high", "label", "extend", "below")}
        return facts | {"kind": "numbers"} | more
    if isinstance(coding, Categorical):
        palette = np.asarray(coding.palette, np.float64).tolist()
        return facts | {"kind": "classes", "classes": list(zip(coding.names, palette, strict=True))}
    arrays[f"key{number}"] = location_table()
    return facts | {"kind": "location"}


def _vertex_colours(brain_map: BrainMap) -> np.ndarray:
    """sRGB and opacity of each vertex, in [0, 1]; unknown ones are transparent. (V, 4)."""
    known = brain_map.known
    values = np.where(known if brain_map.values.ndim == 1 else known[:, None], brain_map.values, 0.0)
    opacity = known.astype(np.float64)
    if brain_map.reliable is not None:
        opacity = np.where(brain_map.reliable, opacity, PALE * opacity)
    if brain_map.strength is not None:
        opacity *= FAINTEST + (1 - FAINTEST) * np.clip(np.nan_to_num(brain_map.strength), 0, 1)
    return np.column_stack([colours_of(brain_map, values.reshape(len(values), -1)), opacity])


def _on_surface(values: np.ndarray, maps: MapSet, fill: float) -> np.ndarray:
    whole = np.full((2 * SPACES[maps.vertices.space], *values.shape[1:]), fill, values.dtype)
    whole[maps.vertices.ids] = values
    return whole


def _write_colour_map(path: Path, colours: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(np.rint(255 * colours).astype(np.uint8)[None]).save(path)
